"""Samples that are not finite: where each of them stopped being so, in words that a journal holds,
and what helps.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Place = Literal["text encoder", "network", "latents", "log-probability", "decoder", "encoder"]
Check = tuple[Place, str, Tensor]
"""A place, words on when ("in fp16 at step 3 of 50"), and of each sample, (N,), the largest
magnitude found there.
"""
NOTE = "broken_sample"
"""Under which a sample's fault stands in the journal; the name of its status."""
OF_THE_POLICY: frozenset[str] = frozenset({"network", "latents", "log-probability"})
"""Places that training changes; the others are frozen."""


def magnitude(x: Tensor) -> Tensor:
    """x (N, …) -> (N,): the largest magnitude of each row's entries; NaN where one is NaN, infinite
    where one is infinite.
    """
    return x.detach().abs().reshape(len(x), -1).amax(1)


def traced(checks: Sequence[Check]) -> list[str]:
    """checks: in the order in which they were made -> of each sample, the first that was not
    finite, as in "decoder: NaN in fp16"; empty where all were.
    """
    found = torch.stack([values.float() for _, _, values in checks]).cpu()
    broken = ~found.isfinite()
    if not broken.any():
        return [""] * found.shape[1]
    firsts = zip(broken.any(0).tolist(), broken.int().argmax(0).tolist(), strict=True)
    return [
        _said(checks[check], found[check, row].isnan().item()) if bad else ""
        for row, (bad, check) in enumerate(firsts)
    ]


def _said(check: Check, is_nan: bool | float) -> str:
    place, when, _ = check
    return f"{place}: {'NaN' if is_nan else 'infinite'} {when}".rstrip()


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first that is not finite in all its entries."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)


def place_of(fault: str) -> str:
    """Returns the place that a fault names, such as "decoder"."""
    return fault.partition(":")[0]


def metric(place: str) -> str:
    """The name of the count of samples that broke there, among an epoch's metrics."""
    return "broken_" + place.replace(" ", "_").replace("-", "_")


def told(faults: Iterable[str]) -> str:
    """A sentence with the cause that is named most often, and one on what helps. faults: at least
    one, none empty.
    """
    fault, count = Counter(faults).most_common(1)[0]
    place, _, what = fault.partition(": ")
    precision = next((each for each in ("fp16", "bf16", "fp32") if f"in {each}" in what), "")
    return f"The {place} gave {what} ({count} sample{'s' * (count > 1)}). {cure(place, precision)}"


def count_of_broken(broken: int, of: int) -> str:
    """Returns a sentence on how many of the fixed pictures are not finite."""
    return f"{broken} of {of} pictures {'is' if broken == 1 else 'are'} not finite and crossed out."


def cure(place: str, precision: str) -> str:
    """What helps. precision: of the model's networks, as `model.precision` has it; empty where it
    is not known.
    """
    if place == "log-probability":
        return (
            "A step that draws hardly anything has no usable likelihood: set"
            " sampler.num_quiet_steps to 1."
        )
    if precision == "fp16":
        return "Set model.precision to bf16 or fp32."
    weights = (
        f"look for numbers in the weights of the {'model' if place in OF_THE_POLICY else place}"
        " that are not finite"
    )
    wider = "set model.precision to fp32" if precision == "bf16" else weights
    if place in OF_THE_POLICY:
        return f"Lower the learning rate if this began with training; if it did not, {wider}."
    return f"{wider[0].upper()}{wider[1:]}."
