"""Passes that do not fit are halved and done again, and the run goes on with what fits."""

from dataclasses import dataclass

import pytest
import tiny
import torch
from tiny import Toy, ToyDenoiser

from rediffuse.config.schema import from_yaml
from rediffuse.errors import RunError
from rediffuse.processes.memory import RowLimit, even_parts
from rediffuse.start import resume, train


def test_parts_are_as_few_and_as_even_as_can_be():
    parts = even_parts(torch.arange(10), 4)
    assert [len(part) for part in parts] == [4, 3, 3]
    assert torch.cat(parts).tolist() == list(range(10))
    assert even_parts(torch.arange(0), 4) == []
    assert [len(part) for part in even_parts(torch.arange(3), 8)] == [3]


def fitting(most, seen):
    def work(rows):
        seen.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        return rows

    return work


def test_a_part_that_does_not_fit_is_halved_and_done_again():
    limit, seen = RowLimit("training", 8), []
    done = torch.cat(list(limit.over(fitting(3, seen), torch.arange(11))))
    assert done.tolist() == list(range(11))  # each once, in order
    assert limit.rows == 3 and seen == [6, 3, 3, 3, 2]
    seen.clear()
    list(limit.over(fitting(3, seen), torch.arange(11)))
    assert max(seen) == 3  # what did not fit is not tried again


def test_a_single_row_that_does_not_fit_says_what_to_do():
    with pytest.raises(RunError, match=r"one row of decoding.*20 GiB.*gradient-checkpointing"):
        list(RowLimit("decoding", 4).over(fitting(0, []), torch.arange(4)))


def test_other_errors_are_not_caught():
    def broken(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(RowLimit("sampling", 4).over(broken, torch.arange(4)))


FIT = {"sampling": 2, "decoding": 1, "training": 3}


@dataclass(frozen=True)
class Cramped(Toy):
    """A toy on a device with memory for few rows, if `cramped`."""

    cramped: bool = False

    def load(self, device, seed):
        return CrampedDenoiser(self, seed)


class CrampedDenoiser(ToyDenoiser):
    def __init__(self, options, seed):
        super().__init__(options.width, seed)
        self.cramped = options.cramped

    def predict(self, x, *given):
        self.allocate(x, "training" if torch.is_grad_enabled() else "sampling")
        return super().predict(x, *given)

    def decode(self, latents, prompts=()):
        self.allocate(latents, "decoding")
        return super().decode(latents, prompts)

    def allocate(self, rows, passes):
        if self.cramped and len(rows) > FIT[passes]:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_run_goes_on_with_the_rows_that_fit(tmp_path):
    """Its numbers are those of a run with these rows from the start, and resume begins with them."""

    def trained(name, rows, cramped):
        model = {"name": f"{__file__}:Cramped", "cramped": cramped}
        config = tiny.config(rows=rows, model=model, evaluation={"every": 0, "kl": False})
        train(config, tmp_path / name)
        return tiny.numbers(tmp_path / name)

    large = {"sampling": 4, "decoding": 4, "training": 12}
    assert trained("run", large, True) == trained("usual", FIT, False)
    kept = from_yaml(tmp_path / "run" / "config.yaml").rows
    assert (kept.sampling, kept.decoding, kept.training) == (2, 1, 3)
    for name in ("run", "usual"):
        resume(tmp_path / name, epochs=3)
    assert tiny.numbers(tmp_path / "run") == tiny.numbers(tmp_path / "usual")
