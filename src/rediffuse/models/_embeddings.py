"""Text embeddings, each encoded once and remembered on the host within a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from threading import Lock

from torch import Tensor

MOST_BYTES = 256 * 2**20
"""Of remembered embeddings: in bf16, 2,200 texts of Stable Diffusion, or 64 of 512 tokens and 4,096
numbers each, as T5-XXL gives them.
"""


class Embeddings:
    """The embeddings of texts; the least recently used ones are forgotten first. Threads may share
    it: no text is encoded by two of them.

    Attributes:
        num_bytes: The size of the remembered embeddings.
    """

    def __init__(
        self, encode: Callable[[Sequence[str]], Iterable[Tensor]], most_bytes: int = MOST_BYTES
    ) -> None:
        """Remembers nothing yet.

        Args:
            encode: Gives the embedding of each text on the host, in order. It is called by one
                thread at a time.
            most_bytes: The largest size of all remembered embeddings.
        """
        self.num_bytes = 0
        self._encode, self._most_bytes, self._lock = encode, most_bytes, Lock()
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def of(self, texts: Sequence[str]) -> list[Tensor]:
        """Returns the embedding of each text, on the host; unknown ones are encoded together."""
        with self._lock:
            found = {text: self._known[text] for text in texts if text in self._known}
            for text in found:
                self._known.move_to_end(text)
            missing = self._missing(texts)
            fresh = zip(missing, self._encode(missing), strict=True) if missing else ()
            for text, embedding in fresh:
                found[text] = embedding
                self._remember(text, embedding)
        return [found[text] for text in texts]

    def prepare(self, texts: Sequence[str]) -> None:
        """Encodes unknown texts together, in order, as long as the embeddings fit."""
        with self._lock:
            missing = self._missing(texts)
            fresh = zip(missing, self._encode(missing), strict=True) if missing else ()
            for text, embedding in fresh:
                if self.num_bytes + embedding.nbytes > self._most_bytes:
                    return
                self._remember(text, embedding)

    def _missing(self, texts: Sequence[str]) -> list[str]:
        return [text for text in dict.fromkeys(texts) if text not in self._known]

    def _remember(self, text: str, embedding: Tensor) -> None:
        self._known[text] = embedding
        self.num_bytes += embedding.nbytes
        while self.num_bytes > self._most_bytes:
            self.num_bytes -= self._known.popitem(last=False)[1].nbytes
