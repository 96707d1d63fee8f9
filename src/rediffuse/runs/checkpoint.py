"""Checkpoints in safetensors and JSON with a manifest of hashes, written atomically; no pickle."""

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rediffuse.errors import CheckpointError, ConfigError, NonFiniteError
from rediffuse.faults import first_not_finite
from rediffuse.runs import files

MANIFEST = "MANIFEST.json"
BEST = "best.json"
"""The file that names the best checkpoint, which is never pruned."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after a number of epochs.

    Attributes:
        epoch: The number of completed epochs.
        weights: The trained weights and their moving average, by name.
        optimizer: The optimizer's state, by "moment/name".
        state: The algorithm's state and the loss scale, as JSON-compatible values.
    """

    epoch: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: Mapping[str, Any]

    @property
    def num_bytes(self) -> int:
        """The size of all tensors in bytes."""
        return sum(
            value.nbytes for tensors in (self.weights, self.optimizer) for value in tensors.values()
        )

    def copied(self) -> "Checkpoint":
        """Returns a copy whose tensors are on the host and unaffected by further training."""
        weights, optimizer = (
            {name: value.detach().cpu().clone() for name, value in each.items()}
            for each in (self.weights, self.optimizer)
        )
        return Checkpoint(self.epoch, weights, optimizer, self.state)


def save(
    folder: Path, checkpoint: Checkpoint, keep: int, lasting: Callable[[int], bool] | None = None
) -> None:
    """Writes a checkpoint atomically, then prunes older ones.

    Args:
        folder: The folder of all checkpoints.
        checkpoint: The state to save.
        keep: How many of the newest checkpoints are kept; 0: all.
        lasting: Whether the checkpoint of a number of epochs is kept in addition; the best one
            always is.

    Raises:
        NonFiniteError: A tensor is not finite; nothing is written.
    """
    if named := first_not_finite({**checkpoint.weights, **checkpoint.optimizer}):
        raise NonFiniteError(
            f"The state after {checkpoint.epoch} epochs is not saved: {named} is not finite."
        )
    target = folder / f"epoch-{checkpoint.epoch:05d}"
    staged = folder / f".staged-{checkpoint.epoch:05d}"
    files.sweep_alone(folder)
    files.make_folder(folder)
    staged.mkdir()
    for name, tensors in (("weights", checkpoint.weights), ("optimizer", checkpoint.optimizer)):
        try:
            save_file(_contiguous(tensors), staged / f"{name}.safetensors")
        except SafetensorError as error:  # such as for a full disk
            raise OSError(f"Cannot write {staged / name}.safetensors: {error}") from error
    (staged / "state.json").write_text(json.dumps({"epoch": checkpoint.epoch, **checkpoint.state}))
    digests = {path.name: files.digest(path) for path in sorted(staged.iterdir())}
    (staged / MANIFEST).write_text(json.dumps(digests, indent=2))
    for path in (*staged.iterdir(), staged):
        files.sync(path)
    if target.exists():  # damaged: the run was resumed from an earlier one
        os.rename(target, folder / f"damaged-{time.time_ns()}")
    os.rename(staged, target)
    files.sync(folder)
    best = best_epoch(folder)
    for old in _newest_first(folder)[keep:] if keep else ():
        if _epoch(old) != best and not (lasting and lasting(_epoch(old))):
            shutil.rmtree(old)


def best_epoch(folder: Path) -> int | None:
    """Returns the number of epochs of the best checkpoint; None if there is none."""
    try:
        return int(json.loads((folder / BEST).read_text())["epoch"])
    # missing or incomplete; the next evaluation writes it again
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):
        return None


def call_best(folder: Path, epoch: int | None) -> None:
    """Marks a checkpoint as best, atomically; None removes the mark."""
    if epoch is None:
        files.remove(folder / BEST)
        return
    files.write_json(folder / BEST, {"epoch": epoch})


def epochs(folder: Path) -> list[int]:
    """Returns the numbers of epochs of all checkpoints, newest first."""
    return [_epoch(path) for path in _newest_first(folder)]


def load(folder: Path, name: str = "newest") -> Checkpoint:
    """Loads a checkpoint.

    Args:
        folder: The folder of all checkpoints.
        name: "newest", "best", or the number of completed epochs, as in "8" or "epoch-00008".

    Raises:
        ConfigError: There is no checkpoint of that name.
        CheckpointError: The checkpoint is damaged.
    """
    if name == "newest":
        return load_newest(folder)
    number = str(best_epoch(folder)) if name == "best" else name.removeprefix("epoch-")
    if not number.isdecimal() or int(number) not in epochs(folder):
        known = ", ".join(
            [
                "newest",
                *(["best"] if best_epoch(folder) in epochs(folder) else []),
                *map(str, epochs(folder)),
            ]
        )
        raise ConfigError(f"--checkpoint: no {name!r} in {folder}; there are {known}.")
    path = folder / f"epoch-{int(number):05d}"
    verify(path)
    return _read(path)


def load_newest(folder: Path) -> Checkpoint:
    """Loads the newest intact checkpoint, with a warning for each damaged one. Raises
    CheckpointError if there is none.
    """
    damage = []
    for path in _newest_first(folder):
        try:
            verify(path)
            return _read(path)
        except CheckpointError as error:
            warnings.warn(f"{error} Falling back to the previous checkpoint.", stacklevel=2)
            damage.append(str(error))
    raise CheckpointError(" ".join(damage) or f"{folder} holds no checkpoint.")


@torch.no_grad()
def put_back(weights: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Copies weights into the targets of the same names. Raises ConfigError if a name or a shape
    differs.
    """
    for name in dict.fromkeys([*targets, *weights]):
        saved, here = (
            tuple(tensors[name].shape) if name in tensors else "missing"
            for tensors in (weights, targets)
        )
        if saved != here:
            raise ConfigError(
                f"The checkpoint does not fit the model: {name} is {saved} there, but {here} in"
                " this model. Was config.yaml changed (model.lora_rank, lora_targets, train;"
                " ema_decay)? Undo it, or start a new run."
            )
    for name, target in targets.items():
        target.copy_(weights[name])


def set_aside_newer(folder: Path, epoch: int) -> None:
    """Renames the checkpoints after `epoch`, which are damaged or unusable, so that they can still
    be inspected.
    """
    for path in _newest_first(folder):
        if _epoch(path) > epoch:
            os.rename(path, folder / f"damaged-{path.name}-{time.time_ns()}")
    if (best_epoch(folder) or 0) > epoch:
        call_best(folder, None)


def verify(path: Path) -> None:
    """Raises CheckpointError unless every file matches its hash in the manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        wrong = [name for name, digest in manifest.items() if files.digest(path / name) != digest]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint {path} is damaged: {error}.") from error
    expected = {"weights.safetensors", "optimizer.safetensors", "state.json"}
    if wrong or set(manifest) != expected:
        raise CheckpointError(
            f"The checkpoint {path} is damaged: {', '.join(wrong) or 'its manifest is incomplete'}."
        )


def optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Returns the optimizer's tensors by "moment/name", for every parameter that has been
    updated.
    """
    return {
        f"{moment}/{name}": value
        for name, parameter in parameters.items()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    state: Mapping[str, Tensor],
) -> None:
    """Restores the result of `optimizer_state`, on the devices of the parameters."""
    for key, value in state.items():
        moment, name = key.split("/", 1)
        parameter = parameters[name]
        # AdamW keeps its step count on the host and its moments beside the parameter.
        optimizer.state[parameter][moment] = (
            value if value.ndim == 0 else value.to(parameter.device)
        )


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text())
    weights = load_file(path / "weights.safetensors")
    optimizer = load_file(path / "optimizer.safetensors")
    if named := first_not_finite({**weights, **optimizer}):
        raise CheckpointError(
            f"The checkpoint {path} holds numbers that are not finite, first in {named}."
        )
    return Checkpoint(state.pop("epoch"), weights, optimizer, state)


def _epoch(path: Path) -> int:
    return int(path.name.removeprefix("epoch-"))


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*"), reverse=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
