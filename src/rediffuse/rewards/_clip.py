"""CLIP, as the rewards that look at pictures and words use it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rediffuse.config.schema import HubId, Text
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.images import pixels
from rediffuse.rewards._loading import folder_of, make_absolute, pin, reading
from rediffuse.types import Prompt

if TYPE_CHECKING:
    from transformers import CLIPModel


@dataclass(frozen=True)
class ClipReward:
    """clip: an id of the Hub, or a folder with the model, its image processor and its tokenizer.

    revision: a commit hash, a tag or a branch of the Hub; None: the newest.
    """

    clip: HubId = "openai/clip-vit-large-patch14"
    revision: Text | None = None
    _loaded: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    judges = "image"

    def __post_init__(self) -> None:
        make_absolute(self, "clip")

    def prepare(self, device: str) -> None:
        """Raises ConfigError for a model that cannot be had."""
        from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

        folder = folder_of("reward.clip", self.clip, self.revision, ["merges.txt"])
        with reading("reward.clip", folder):
            model, info = CLIPModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
            )
            refuse_incomplete("reward.clip", folder, model, info)
            processor = CLIPImageProcessorPil.from_pretrained(folder)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        pin(self, "clip", "revision", model)
        self._loaded.update(
            model=model.to(device).eval().requires_grad_(False),
            processor=processor,
            tokenizer=tokenizer,
        )

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1], rounded to 8 bits -> (B, D), projected, of norm 1."""
        values = self._part("processor")(images=list(pixels(images)), return_tensors="pt")[
            "pixel_values"
        ]
        return F.normalize(
            self._model.get_image_features(values.to(self._model.device)).pooler_output, dim=-1
        )

    def features(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1] -> (B, D), of norm 1, on the host."""
        return self.image_features(images).cpu()

    @torch.no_grad()
    def text_features(self, prompts: Sequence[Prompt]) -> Tensor:
        """(B, D), projected, of norm 1; what is longer than the text encoder reads is cut off."""
        texts = [prompt.text for prompt in prompts]
        longest = self._model.config.text_config.max_position_embeddings
        words = self._part("tokenizer")(
            texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        return F.normalize(
            self._model.get_text_features(**words.to(self._model.device)).pooler_output, dim=-1
        )

    @property
    def _model(self) -> "CLIPModel":
        model: CLIPModel = self._part("model")
        return model

    def _part(self, name: str) -> Any:
        if not self._loaded:
            self.prepare("cpu")
        return self._loaded[name]
