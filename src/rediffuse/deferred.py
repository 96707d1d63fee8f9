"""torch, imported at its first use.

Modules that are imported to check a configuration import torch from here, so that checking and
planning a run do not wait for it: `import torch` takes longer than both.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["torch"]


class Deferred(ModuleType):
    """A module that is imported when one of its attributes is first read."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


if not TYPE_CHECKING:
    torch = Deferred("torch")
