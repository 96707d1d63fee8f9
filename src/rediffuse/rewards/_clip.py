"""CLIP, for the rewards that are computed from its image and text features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rediffuse.config.schema import HubId, Text
from rediffuse.deferred import torch
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.images import pixels
from rediffuse.rewards._loading import (
    LoadedWithFeatures,
    commit_of,
    folder_of,
    make_absolute,
    reading,
)
from rediffuse.types import Judgement, Prompt

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPModel


@dataclass(frozen=True)
class Clip:
    """A loaded CLIP model with its image processor and its tokenizer.

    Attributes:
        model: The model, in fp32.
        processor: A CLIPImageProcessorPil.
        tokenizer: A CLIPTokenizer.
    """

    model: CLIPModel
    processor: Any
    tokenizer: Any

    @classmethod
    def load(cls, place: str, revision: str | None, device: str) -> Clip:
        """Loads the model from a folder or the Hub. Raises ConfigError if that fails."""
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = folder_of("reward.clip", place, revision, ["merges.txt"])
        with reading("reward.clip", folder):
            model, info = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            refuse_incomplete("reward.clip", folder, model, info)
            processor = CLIPImageProcessorPil.from_pretrained(folder)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        return cls(model.to(device).eval().requires_grad_(False), processor, tokenizer)

    def image_features(self, images: Tensor) -> Tensor:
        """Returns projected features (B, D) of norm 1 of images (B, 3, H, W) in [0, 1].

        Images are rounded to 8 bits and preprocessed by CLIP's own processor. If gradients with
        respect to them are required, they are preprocessed in torch instead, without rounding.
        """
        differentiated = torch.is_grad_enabled() and images.requires_grad
        with torch.set_grad_enabled(differentiated):
            values = self._prepared(images) if differentiated else self._processed(images)
            features = self.model.get_image_features(values.to(self.model.device)).pooler_output
            return torch.nn.functional.normalize(features, dim=-1)

    def features(self, images: Tensor) -> Tensor:
        """Returns features (B, D) of norm 1, on the CPU, of images (B, 3, H, W) in [0, 1]."""
        return self.image_features(images).cpu()

    def text_features(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns projected features (B, D) of norm 1 of the prompts' texts, which are truncated to
        what the text encoder reads.
        """
        texts = [prompt.text for prompt in prompts]
        longest = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(
            texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        with torch.no_grad():
            features = self.model.get_text_features(**words.to(self.model.device)).pooler_output
        return torch.nn.functional.normalize(features, dim=-1)

    def _processed(self, images: Tensor) -> Tensor:
        processed = self.processor(images=list(pixels(images)), return_tensors="pt")
        values: Tensor = processed["pixel_values"]
        return values

    def _prepared(self, images: Tensor) -> Tensor:
        """Resizes the shorter side, crops the centre and normalises, as the processor does."""
        height, width = images.shape[-2:]
        edge, shorter = self.processor.size["shortest_edge"], min(height, width)
        size = (edge * height // shorter, edge * width // shorter)
        resized = torch.nn.functional.interpolate(
            images, size, mode="bicubic", antialias=True
        ).clamp(0, 1)
        crop = self.processor.crop_size
        top, left = (size[0] - crop["height"]) // 2, (size[1] - crop["width"]) // 2
        middle = resized[..., top : top + crop["height"], left : left + crop["width"]]
        mean, std = (
            torch.tensor(each, device=images.device).view(3, 1, 1)
            for each in (self.processor.image_mean, self.processor.image_std)
        )
        return (middle - mean) / std


@dataclass(frozen=True)
class ClipReward:
    """The options of rewards that are computed from CLIP's features.

    Attributes:
        clip: A Hub id, or a folder with the model, its image processor and its tokenizer.
        revision: A commit, tag or branch of the Hub; None: the newest.
    """

    clip: HubId = "openai/clip-vit-large-patch14"
    revision: Text | None = None
    judges = "image"

    @property
    def differentiable(self) -> bool:
        """Whether values are differentiable with respect to the images."""
        return True

    def __post_init__(self) -> None:
        make_absolute(self, "clip")

    def load(self, device: str) -> LoadedWithFeatures[Any]:
        """Raises ConfigError if the model cannot be loaded."""
        clip = Clip.load(self.clip, self.revision, device)
        return LoadedWithFeatures(clip, self.scores, self.pinned(clip))

    def pinned(self, clip: Clip) -> dict[str, str]:
        """Returns the commit of a model of the Hub, as the option `revision`; else nothing."""
        return commit_of(self.clip, "revision", clip.model)

    def scores(self, clip: Clip, images: Tensor, prompts: Sequence[Prompt]) -> Tensor | Judgement:
        """Scores images (B, 3, H, W) in [0, 1]; implemented by each reward."""
        raise NotImplementedError
