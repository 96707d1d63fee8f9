"""One prompt a line from a text file of your own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rediffuse.errors import ConfigError
from rediffuse.prompts._draw import chosen
from rediffuse.types import Prompt

__all__ = ["TextFile"]


@dataclass(frozen=True)
class TextFile:
    """path: UTF-8; blank lines are skipped."""

    path: Path
    balanced: bool = False

    def __post_init__(self) -> None:
        if not self._texts():
            raise ConfigError(f"prompts.path: {self.path} holds no prompt; write one a line.")

    def draw(self, n: int, generator: torch.Generator) -> Sequence[Prompt]:
        return chosen([Prompt(text) for text in self._texts()], n, generator, balanced=self.balanced)

    def _texts(self) -> list[str]:
        try:
            lines = self.path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise ConfigError(f"prompts.path: cannot read {self.path}: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"prompts.path: {self.path} is not UTF-8 text (byte {error.start}).") from error
        return [line.strip() for line in lines if line.strip()]
