"""One prompt a line from a text file of your own."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from rediffuse.errors import ConfigError
from rediffuse.prompts._draw import chosen
from rediffuse.types import Prompt

__all__ = ["TextFile"]


@dataclass(frozen=True)
class TextFile:
    """path: UTF-8, read once; blank lines are skipped."""

    path: Path
    balanced: bool = False
    texts: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise ConfigError(f"prompts.path: cannot read {self.path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"prompts.path: {self.path} is not UTF-8 text (byte {error.start}).") from error
        object.__setattr__(self, "texts", tuple(line.strip() for line in lines if line.strip()))
        if not self.texts:
            raise ConfigError(f"prompts.path: {self.path} holds no prompt; write one a line.")

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return chosen([Prompt(text) for text in self.texts], n, generator, balanced=self.balanced)
