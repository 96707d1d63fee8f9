"""Prompts of your own: a .txt file with one a line, or a .jsonl file with more that the reward may
see.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from rediffuse.config.inputs import with_absolute_files
from rediffuse.config.problems import problems
from rediffuse.config.reading import MOST_PROMPT_BYTES, file_bytes, uncollected
from rediffuse.config.schema import FilePath
from rediffuse.errors import ConfigError
from rediffuse.prompts._draw import pick
from rediffuse.types import Prompt

if TYPE_CHECKING:
    import torch

__all__ = ["TextFile"]

MOST_LETTERS = 1_000_000
"""Of a line; a text encoder reads a few hundred."""


class PromptLine(BaseModel):
    """Of a .jsonl file; what else stands in it becomes the prompt's metadata.

    Attributes:
        inputs: what the model sees besides the text.
        prompt: may be empty where there are inputs.
    """

    model_config = ConfigDict(extra="allow", strict=True, str_strip_whitespace=True)
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    prompt: str
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0

    @field_validator("prompt")
    @classmethod
    def _refuse_nothing(cls, prompt: str, known: ValidationInfo) -> str:
        if not prompt and not known.data.get("inputs"):
            raise ValueError("must have at least 1 character, unless there are inputs")
        return prompt


@dataclass(frozen=True)
class TextFile:
    """path: UTF-8, read once; blank lines are skipped. A line of a .jsonl file: {"prompt": "a cat",
    "weight": 2, …}; "inputs": {"label": 207} is for models that see more than a text, all other
    keys only for the reward. An input {"file": "photo.png"} is a file, beside the file of prompts.

    In other files lines that begin with # are comments if the first line does; otherwise they are
    prompts like all others.

    balanced: every prompt equally often in an epoch, instead of independent draws, as likely as the
    weights.
    """

    path: FilePath
    balanced: bool = False
    prompts: tuple[Prompt, ...] = field(init=False, repr=False)
    weights: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kind = self.path.suffix.lower()
        if kind not in ("", ".txt", ".jsonl") and self.path.is_file():
            raise ConfigError(
                f"prompts.path: {self.path} is a {kind} file; it takes .txt, one prompt a line, or"
                " .jsonl."
            )
        with uncollected():
            found = list((_json_lines if kind == ".jsonl" else _plain_lines)(self.path))
        if not found:
            raise ConfigError(f"prompts.path: {self.path} holds no prompt; write one a line.")
        object.__setattr__(self, "prompts", tuple(prompt for prompt, _ in found))
        object.__setattr__(self, "weights", tuple(weight for _, weight in found))
        if not any(self.weights):
            raise ConfigError(
                f"prompts.path: every weight in {self.path} is 0, so there is nothing to draw."
            )

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        if self.balanced:
            return pick(
                [p for p, w in zip(self.prompts, self.weights, strict=True) if w],
                n,
                generator,
                balanced=True,
            )
        return pick(self.prompts, n, generator, weights=self.weights)


def _plain_lines(path: Path) -> Iterator[tuple[Prompt, float]]:
    comments = False
    for number, line in _lines(path):
        comments |= number == 1 and line.startswith("#")
        if not (comments and line.startswith("#")):
            yield Prompt(line), 1.0


def _json_lines(path: Path) -> Iterator[tuple[Prompt, float]]:
    for number, text in _lines(path):
        try:
            line = PromptLine.model_validate(json.loads(text))
            if line.model_extra:
                json.dumps(line.model_extra, ensure_ascii=False).encode()
            inputs = with_absolute_files(line.inputs, path.parent)
        except ValidationError as error:
            raise ConfigError(
                f"prompts.path: line {number} of {path}: {problems(error)}"
            ) from error
        except ConfigError as error:
            raise ConfigError(f"prompts.path: line {number} of {path}: {error}") from error
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"prompts.path: line {number} of {path} holds half of a surrogate pair."
            ) from error
        except (ValueError, RecursionError) as error:
            said = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise ConfigError(
                f"prompts.path: line {number} of {path} is not JSON: {said}: {_short(text)}"
            ) from error
        yield Prompt(line.prompt, dict(line.model_extra or {}), inputs), line.weight


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, from 1; text) of each line that is not blank."""
    try:
        content = file_bytes(path, MOST_PROMPT_BYTES)
    except ConfigError as error:
        raise ConfigError(f"prompts.path: {error}") from error
    except OSError as error:
        raise ConfigError(f"prompts.path: cannot read {path}: {error.strerror}.") from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"prompts.path: line {number} of {path} is not UTF-8 text (byte {error.start})."
            ) from error
        if len(text) > MOST_LETTERS:
            raise ConfigError(
                f"prompts.path: line {number} of {path} has {len(text):,} characters, too many"
                " for a prompt."
            )
        if "\0" in text:
            raise ConfigError(
                f"prompts.path: line {number} of {path} holds a zero byte; it is not a text file."
            )
        if text:
            yield number, text


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
