"""Samples that are not finite: where this began, how it is reported, and remedies."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

Place = Literal["text encoder", "network", "latents", "log-probability", "decoder", "encoder"]
Check = tuple[Place, str, Tensor]
"""A place, a text on when ("in fp16 at step 3 of 50"), and the largest magnitude of each sample
there, shape (N,).
"""
NOTE = "broken_sample"
"""The name of the journal's note that holds a sample's fault; also the name of its status."""
OF_THE_POLICY: frozenset[str] = frozenset({"network", "latents", "log-probability"})
"""Places that training affects; the others are frozen."""


def magnitude(x: Tensor) -> Tensor:
    """Returns the largest magnitude in each row of x (N, …): shape (N,), NaN or infinite if an
    element is.
    """
    return x.detach().abs().reshape(len(x), -1).amax(1)


def traced(checks: Sequence[Check]) -> list[str]:
    """Finds the first check that was not finite for each sample.

    Args:
        checks: At least one, in the order of computation.

    Returns:
        For each sample a fault, such as "decoder: NaN in fp16"; empty if all its checks are finite.
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
    """Returns the name of the first tensor with an element that is not finite; None if there is
    none.
    """
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)


def place_of(fault: str) -> str:
    """Returns the place in a fault, such as "decoder"."""
    return fault.partition(":")[0]


def metric(place: str) -> str:
    """Returns the name of the metric that counts the samples with a fault at that place."""
    return "broken_" + place.replace(" ", "_").replace("-", "_")


def told(faults: Iterable[str]) -> str:
    """Returns a sentence on the most frequent fault and one on a remedy.

    Args:
        faults: At least one, none of them empty.
    """
    fault, count = Counter(faults).most_common(1)[0]
    place, _, what = fault.partition(": ")
    precision = next((each for each in ("fp16", "bf16", "fp32") if f"in {each}" in what), "")
    return f"The {place} gave {what} ({count} sample{'s' * (count > 1)}). {cure(place, precision)}"


def count_of_broken(broken: int, of: int) -> str:
    """Returns a sentence on how many evaluation images are not finite."""
    return f"{broken} of {of} images {'is' if broken == 1 else 'are'} not finite and crossed out."


def cure(place: str, precision: str) -> str:
    """Returns a sentence on a remedy.

    Args:
        place: Where the sample stopped being finite.
        precision: The value of `model.precision`; empty if unknown.
    """
    if place == "log-probability":
        return (
            "A step that adds hardly any noise has no usable likelihood: set"
            " sampler.num_quiet_steps to 1."
        )
    if precision == "fp16":
        return "Set model.precision to bf16 or fp32."
    weights = (
        f"check the weights of the {'model' if place in OF_THE_POLICY else place} for numbers"
        " that are not finite"
    )
    wider = "set model.precision to fp32" if precision == "bf16" else weights
    if place in OF_THE_POLICY:
        return f"Lower the learning rate if this began with training; if it did not, {wider}."
    return f"{wider[0].upper()}{wider[1:]}."
