"""What a recorded network amounts to: weights, work, saved and passing bytes of a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rediffuse.costs.tape import Op, Tape, Value
from rediffuse.costs.work import Work


@dataclass(frozen=True)
class Counts:
    """A network's parameters, and what one row of a pass costs.

    Attributes:
        parameters: All weights, without those of an adapter.
        trained: The weights that are trained.
        forward: The work of a forward pass.
        backward: The work of a backward pass, without recomputed activations.
        passing_bytes: The most bytes of results that are alive at a time in a forward pass without
            gradients.
        saved_bytes: What a forward pass saves for the backward pass.
        checkpointed_bytes: The most that is saved at a time under gradient checkpointing.
        recomputed: The work that gradient checkpointing does again.
    """

    parameters: int
    trained: int
    forward: Work
    backward: Work
    passing_bytes: int
    saved_bytes: int
    checkpointed_bytes: int
    recomputed: Work


def counted(tape: Tape) -> Counts:
    """Returns the counts of what was recorded."""
    inside = [op for op in tape.ops if op.segment is not None]
    return Counts(
        parameters=sum(op.parameters for op in tape.ops),
        trained=sum(op.trained for op in tape.ops),
        forward=total(op.forward for op in tape.ops),
        backward=total(op.backward for op in tape.ops),
        passing_bytes=passing_bytes(tape.ops),
        saved_bytes=size(value for op in tape.ops for value in op.saved),
        checkpointed_bytes=_checkpointed_bytes(tape.ops),
        recomputed=total(op.forward for op in inside if op.made.learns),
    )


def total(work: Iterable[Work]) -> Work:
    """Returns the sum."""
    return sum(work, Work())


def size(values: Iterable[Value]) -> int:
    """Returns the bytes of distinct storages; the largest view of each counts."""
    sizes: dict[int, int] = {}
    for value in values:
        sizes[value.storage] = max(value.bytes, sizes.get(value.storage, 0))
    return sum(sizes.values())


def saved_by_block(tape: Tape, depth: int = 2) -> dict[str, int]:
    """Returns the bytes that each block saves, by the first parts of its layers' names.

    Operations without weights belong to the layer before them. A storage counts where it is saved
    first.
    """
    found: dict[str, int] = {}
    seen: set[int] = set()
    block = ""
    for op in tape.ops:
        block = ".".join(op.name.split(".")[:depth]) if op.name else block
        new = [value for value in op.saved if value.storage not in seen]
        seen.update(value.storage for value in new)
        found[block] = found.get(block, 0) + size(new)
    return found


def passing_bytes(ops: Sequence[Op]) -> int:
    """Returns the most bytes that are alive at a time, if each result lives until its last use."""
    last = {storage: number for number, op in enumerate(ops) for storage in op.reads}
    alive: dict[int, int] = {}
    most = 0
    for number, op in enumerate(ops):
        alive[op.made.storage] = op.made.bytes
        most = max(most, sum(alive.values()))
        for storage in (*op.reads, op.made.storage):
            if last.get(storage, 0) <= number:
                alive.pop(storage, None)
    return most


def _checkpointed_bytes(ops: Sequence[Op]) -> int:
    """Of all that is saved outside of checkpointed blocks, their inputs, and the largest block."""
    made_in = {op.made.storage: op.segment for op in ops}
    made = {op.made.storage: op.made for op in ops}
    outside = [value for op in ops if op.segment is None for value in op.saved]
    blocks: dict[int, list[Value]] = {}
    for op in ops:
        if op.segment is not None:
            blocks.setdefault(op.segment, []).extend(op.saved)
            outside += [
                made[storage]
                for storage in op.reads
                if storage in made and made_in[storage] != op.segment
            ]
    kept = {value.storage for value in outside}
    largest = max(
        (size(v for v in block if v.storage not in kept) for block in blocks.values()), default=0
    )
    return size(outside) + largest
