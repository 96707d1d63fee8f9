"""The aesthetic quality of an image on a scale from 1 to 10, predicted by LAION's model of human
ratings.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from rediffuse.config.schema import HubId, Text
from rediffuse.deferred import torch
from rediffuse.errors import ConfigError
from rediffuse.hub import snapshots as hub
from rediffuse.images import truncated
from rediffuse.rewards._clip import Clip, ClipReward
from rediffuse.rewards._loading import LoadedWithFeatures, make_absolute
from rediffuse.types import Prompt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Aesthetic"]

WIDTHS = (768, 1024, 128, 64, 16, 1)
NAMES = [f"layers.{number}.{kind}" for number in (0, 2, 4, 6, 7) for kind in ("weight", "bias")]
SHAPES = [
    shape for inputs, outputs in pairwise(WIDTHS) for shape in ((outputs, inputs), (outputs,))
]
FILE = "aesthetic-model.pth"
PUBLISHED = "fdb85b42a8c89470b0107b27c9efb726a87ea22eb81679c8d8ed17dc79ebd94f"
"""The SHA-256 of the ten tensors of sac+logos+ava1-l14-linearMSE, as fp32 and one after another."""


@dataclass(frozen=True)
class Aesthetic(ClipReward):
    """DDPO's aesthetic reward (Black et al. 2023, sec. 5.2): five linear layers on the normalised
    image features of CLIP ViT-L/14.

    Attributes:
        predictor: A Hub id of a repository with aesthetic-model.pth, or a .pth or .safetensors
            file. No code in it is executed.
        sha256: The SHA-256 that the predictor's tensors must have, so that scores are comparable;
            None: any.
        truncate: Whether pixels are truncated to 8 bits before CLIP, as in the authors' TPU code.
    """

    predictor: HubId = "trl-lib/ddpo-aesthetic-predictor"
    sha256: Text | None = PUBLISHED
    truncate: bool = False

    @property
    def differentiable(self) -> bool:
        """Whether values are differentiable with respect to the images; truncation is not."""
        return not self.truncate

    def __post_init__(self) -> None:
        super().__post_init__()
        make_absolute(self, "predictor")

    def load(self, device: str) -> LoadedWithFeatures[Rater]:
        place = Path(self.predictor)  # read before CLIP: it is small, so that errors appear early
        weights = predictor(place, self.sha256) if place.is_file() else self._of_the_hub()
        clip = Clip.load(self.clip, self.revision, device)
        rater = Rater(clip, [each.to(device) for each in weights])
        return LoadedWithFeatures(rater, self.rate, self.pinned(clip))

    def _of_the_hub(self) -> list[Tensor]:
        """Returns the weights from the Hub's file of torch.save, which is converted to safetensors
        once.
        """
        snapshot = hub.snapshot("reward.predictor", self.predictor, None, [FILE])
        converted = hub.made_of(snapshot) / "predictor.safetensors"
        if converted.is_file():
            return predictor(converted, self.sha256)
        weights = predictor(snapshot / FILE, self.sha256)
        from safetensors.torch import save_file

        staged = converted.with_suffix(f".{os.getpid()}")
        save_file(dict(zip(NAMES, weights, strict=True)), staged)
        os.replace(staged, converted)
        return weights

    def rate(self, rater: Rater, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Returns the ratings (B,) of images (B, 3, H, W) in [0, 1]; the prompts are not used."""
        shown = truncated(images) if self.truncate else images
        return rater.rated(rater.clip.image_features(shown))


@dataclass(frozen=True)
class Rater:
    """CLIP with the predictor on its image features.

    Attributes:
        clip: The CLIP model.
        weights: Weight and bias of each layer of the predictor, in turn.
    """

    clip: Clip
    weights: Sequence[Tensor]

    def features(self, images: Tensor) -> Tensor:
        """Returns CLIP's features (B, D), on the CPU, of images (B, 3, H, W) in [0, 1]."""
        return self.clip.features(images)

    def rated(self, features: Tensor) -> Tensor:
        """Returns the ratings (B,) of image features (B, 768) of norm 1."""
        for weight, bias in zip(self.weights[::2], self.weights[1::2], strict=True):
            features = torch.nn.functional.linear(features, weight, bias)
        return features.squeeze(-1)


def predictor(path: Path, sha256: str | None) -> list[Tensor]:
    """Reads the predictor's weights.

    Args:
        path: A .safetensors file or, with any other suffix, a file of torch.save.
        sha256: The SHA-256 that the tensors must have; None: any.

    Returns:
        Weight and bias of each layer, in turn.

    Raises:
        ConfigError: If the file does not contain the tensors, or contains others.
    """
    try:
        tensors = _of_safetensors(path) if path.suffix == ".safetensors" else _of_zip(path)
    except (
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise ConfigError(
            f"reward.predictor: {path} does not hold the predictor's ten tensors: {error}"
        ) from error
    found = hashlib.sha256(b"".join(each.numpy().tobytes() for each in tensors)).hexdigest()
    if sha256 not in (None, found):
        raise ConfigError(
            f"reward.predictor: the weights in {path} are not the requested ones: their SHA-256"
            f" is {found}, not {sha256}. If you trust them, add --reward.sha256 {found}"
        )
    return tensors


def _of_safetensors(path: Path) -> list[Tensor]:
    from safetensors.torch import load_file

    tensors = load_file(path)
    return [tensors[name].float().reshape(shape) for name, shape in zip(NAMES, SHAPES, strict=True)]


def _of_zip(path: Path) -> list[Tensor]:
    """Reads the archive of torch.save without its pickle; storages are numbered in the order of the
    layers.
    """
    with zipfile.ZipFile(path) as archive:
        files = {name.partition("/")[2]: name for name in archive.namelist()}
        raw = [bytearray(archive.read(files[f"data/{number}"])) for number in range(len(SHAPES))]
    return [
        torch.frombuffer(each, dtype=torch.float32).reshape(shape)
        for each, shape in zip(raw, SHAPES, strict=True)
    ]
