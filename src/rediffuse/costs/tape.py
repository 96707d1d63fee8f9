"""A record of the operations of a network, made from shapes alone: what each computes, what it
saves for the backward pass, and how long its results live.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from math import prod

from rediffuse.costs.work import Work

FULL = 4
"""Bytes of a number in fp32."""


@dataclass(frozen=True)
class Learns:
    """What of a network is trained.

    Attributes:
        rank: Of the LoRA adapter; None: all weights are trained.
        targets: The names of the adapted layers, or the ends of their names.
    """

    rank: int | None = None
    targets: Collection[str] = ()

    def adapts(self, name: str) -> bool:
        """Whether the layer of that name has an adapter; names are compared as peft does."""
        return self.rank is not None and any(
            name == target or name.endswith(f".{target}") for target in self.targets
        )


@dataclass(frozen=True)
class Value:
    """A tensor of one row, without its numbers.

    Attributes:
        shape: Without the dimension of the batch.
        storage: The number of the memory that it lies in; views share it.
        learns: Whether gradients flow to it.
        width: Bytes of a number.
    """

    shape: tuple[int, ...]
    storage: int
    learns: bool
    width: int

    @property
    def bytes(self) -> int:
        """Of one row."""
        return prod(self.shape) * self.width

    def view(self, *shape: int) -> "Value":
        """Returns the same numbers in another shape."""
        return Value(shape, self.storage, self.learns, self.width)


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: The layer's name in the network; empty for operations without weights.
        reads: The storages that it reads.
        made: What it returns.
        forward: Its work for one row.
        backward: That of its backward pass.
        saved: What it saves for the backward pass.
        parameters: The number of its frozen weights, or of all weights if all are trained.
        trained: The number of its trained weights.
        segment: Number of the checkpointed block that it belongs to; None: it belongs to none.
    """

    name: str
    reads: tuple[int, ...]
    made: Value
    forward: Work
    backward: Work
    saved: tuple[Value, ...]
    parameters: int
    trained: int
    segment: int | None


@dataclass
class Tape:
    """Records operations. Its methods are the layers that networks are made of.

    Attributes:
        learns: What is trained; None: nothing, no gradients flow.
        width: Bytes of a number of the network's precision. In half precision norms return fp32,
            as torch.autocast has it on GPUs.
        ops: What was recorded.
    """

    learns: Learns | None = None
    width: int = FULL
    ops: list[Op] = field(default_factory=list)
    _storages: Iterator[int] = field(default_factory=count)
    _segments: Iterator[int] = field(default_factory=count)
    _segment: int | None = None

    @contextmanager
    def checkpointed(self) -> Iterator[None]:
        """What is recorded inside is computed again in the backward pass, under checkpointing."""
        outer, self._segment = self._segment, next(self._segments)
        try:
            yield
        finally:
            self._segment = outer

    def input(self, *shape: int, width: int | None = None) -> Value:
        """Returns a value that is given."""
        return Value(shape, next(self._storages), False, width or self.width)

    def conv(self, name: str, x: Value, out: int, kernel: int = 3, stride: int = 1) -> Value:
        """A convolution with bias and padding."""
        channels, high, wide = x.shape
        shape = (out, -(-high // stride), -(-wide // stride))
        weights = kernel * kernel * channels * out
        made = self._weighted(name, x, shape, weights, out, shape[1] * shape[2], always_saves=True)
        if self.learns and self.learns.adapts(name):
            rank = self.learns.rank or 0
            made = self._adapted(
                name, x, made, (rank, *shape[1:]), (kernel**2 * channels * rank, rank * out)
            )
        return made

    def linear(self, name: str, x: Value, out: int, *, bias: bool = True) -> Value:
        """A matrix product over the last dimension, with bias."""
        *places, channels = x.shape
        made = self._weighted(
            name, x, (*places, out), channels * out, out * bias, prod(places), always_saves=False
        )
        if self.learns and self.learns.adapts(name):
            rank = self.learns.rank or 0
            made = self._adapted(name, x, made, (*places, rank), (channels * rank, rank * out))
        return made

    def norm(self, name: str, x: Value, channels: int) -> Value:
        """A group or layer norm."""
        x = self._as(x, FULL)
        return self._op(name, [x], x.shape, saved=[x], weights=2 * channels, moves=2, width=FULL)

    def activation(self, x: Value) -> Value:
        """SiLU, GELU and the like, by element."""
        return self._op("", [x], x.shape, saved=[x], moves=2, width=x.width)

    def add(self, *values: Value, calls: int = 1) -> Value:
        """A sum, or a product with a number, of the shape of the first."""
        width = max(value.width for value in values)
        return self._op(
            "", values, values[0].shape, moves=1 + len(values), width=width, calls=calls
        )

    def gate(self, x: Value) -> Value:
        """GEGLU: one half of the last dimension times the GELU of the other."""
        *places, channels = x.shape
        half = (*places, channels // 2)
        opened = self._op("", [x], half, saved=[x], moves=2, width=x.width, calls=2)
        return self._op("", [x, opened], half, saved=[x, opened], moves=3, width=x.width)

    def joined(self, x: Value, y: Value) -> Value:
        """A concatenation of channels."""
        shape = (x.shape[0] + y.shape[0], *x.shape[1:])
        return self._op("", [x, y], shape, moves=2, width=max(x.width, y.width))

    def upsampled(self, x: Value) -> Value:
        """Twice as high and wide."""
        channels, high, wide = x.shape
        return self._op("", [x], (channels, 2 * high, 2 * wide), moves=1.25, width=x.width)

    def copied(self, x: Value, *shape: int) -> Value:
        """The same numbers, or some of them, at another place of the memory."""
        return self._op("", [x], shape or x.shape, moves=2, width=x.width)

    def attention(self, query: Value, key: Value, value: Value, heads: int) -> Value:
        """Scaled dot-product attention by a fused kernel, which saves no attention weights."""
        (queries, channels), (keys, _) = query.shape, key.shape
        scores = heads * queries * keys
        flops = 4 * queries * keys * channels
        made = self._made(query.shape, [query, key, value], self.width)
        sums = Value((heads, queries), next(self._storages), made.learns, FULL)
        saved = (query, key, value, made, sums) if made.learns else ()
        forward, backward = Work(flops, scores, 0, 2), Work(2 * flops, 2 * scores, 0, 2)
        reads = (query.storage, key.storage, value.storage)
        self._record("", reads, made, forward, backward if made.learns else Work(), saved)
        return made

    def embedding(self, name: str, numbers: int, shape: tuple[int, ...]) -> Value:
        """Rows of a table of so many numbers."""
        learns = self.learns is not None and self.learns.rank is None
        made = Value(shape, next(self._storages), learns, self.width)
        self._record(name, (), made, Work(calls=1), Work(), (), numbers, numbers * learns)
        return made

    def _weighted(
        self,
        name: str,
        x: Value,
        shape: tuple[int, ...],
        weights: int,
        biases: int,
        places: int,
        *,
        always_saves: bool,
    ) -> Value:
        """always_saves: whether the input is saved even if the weights are frozen."""
        x = self._as(x, self.width)
        whole = self.learns is not None and self.learns.rank is None
        made = self._made(shape, [x], self.width, learns=whole)
        saved = (x,) if made.learns and (always_saves or whole) else ()
        flops = 2.0 * weights * places
        backward = Work(flops * (x.learns + whole), 0, 0, 1 + whole) if made.learns else Work()
        self._record(
            name,
            (x.storage,),
            made,
            Work(flops, calls=1),
            backward,
            saved,
            weights + biases,
            (weights + biases) * whole,
        )
        return made

    def _adapted(
        self, name: str, x: Value, made: Value, low: tuple[int, ...], weights: tuple[int, int]
    ) -> Value:
        """Adds the adapter's output, of two matrices, to that of the layer."""
        down, up = weights
        inner = self._of_adapter(f"{name}.lora_A", self._as(x, self.width), low, down)
        outer = self._of_adapter(f"{name}.lora_B", inner, made.shape, up)
        return self.add(made, outer, calls=2)

    def _of_adapter(self, name: str, x: Value, shape: tuple[int, ...], weights: int) -> Value:
        places = prod(shape[1:]) if len(shape) == 3 else prod(shape[:-1])
        made = self._made(shape, [x], self.width, learns=True)
        flops = 2.0 * weights * places
        backward = Work(flops * (1 + x.learns), 0, 0, 2)
        self._record(name, (x.storage,), made, Work(flops, calls=2), backward, (x,), 0, weights)
        return made

    def _op(
        self,
        name: str,
        values: Collection[Value],
        shape: tuple[int, ...],
        *,
        saved: Collection[Value] = (),
        weights: int = 0,
        moves: float,
        width: int,
        calls: int = 1,
    ) -> Value:
        """moves: how often the size of the result is read or written."""
        whole = bool(weights) and self.learns is not None and self.learns.rank is None
        made = self._made(shape, values, width, learns=whole)
        work = Work(0, 0, moves * made.bytes, calls)
        self._record(
            name,
            tuple(value.storage for value in values),
            made,
            work,
            work.times(1.5) if made.learns else Work(),
            tuple(saved) if made.learns else (),
            weights,
            weights * whole,
        )
        return made

    def _as(self, x: Value, width: int) -> Value:
        """Converts a value to another precision."""
        if x.width == width:
            return x
        return self._op("", [x], x.shape, moves=2, width=width)

    def _made(
        self, shape: tuple[int, ...], values: Collection[Value], width: int, *, learns: bool = False
    ) -> Value:
        flows = self.learns is not None and (learns or any(value.learns for value in values))
        return Value(shape, next(self._storages), flows, width)

    def _record(
        self,
        name: str,
        reads: tuple[int, ...],
        made: Value,
        forward: Work,
        backward: Work,
        saved: tuple[Value, ...],
        parameters: int = 0,
        trained: int = 0,
    ) -> None:
        self.ops.append(
            Op(name, reads, made, forward, backward, saved, parameters, trained, self._segment)
        )
