"""The rewards in a run's configuration, and how the run uses each of them.

A run has one list, `rewards`. There are two short forms: `reward` is the reward that is trained on,
and `evaluation.held_out` lists those of weight 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from rediffuse.errors import ConfigError, quoted

Entry = dict[str, Any]
"""An entry of `rewards`: the name and the options of a reward, and the keys of `Use`."""


@dataclass(frozen=True)
class Use:
    """How a run uses one of its rewards.

    Attributes:
        weight: Its factor in the sum that is trained on; may be negative. Rewards of weight 0 are
            never trained on: they score the fixed images of each evaluation.
        share: The share of an epoch's samples that it scores, in [0, 1]; None: all, or none if its
            weight is 0. A hash of the sample decides whether it is in the share.
        copy: Score a modified copy of each image instead: "recompressed" as a JPEG file of quality
            60, or "cropped" to the central 90 % of each side. For rewards of weight 0 only.
    """

    weight: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    copy: Literal["recompressed", "cropped"] | None = None

    def spelt(self) -> Entry:
        """Returns the use as keys of an entry; `share` and `copy` are left out where they say
        nothing.
        """
        known = {key: value for key, value in asdict(self).items() if value is not None}
        return {"weight": self.weight} if self.is_trained else known

    @property
    def is_trained(self) -> bool:
        """Whether the policy is trained on the reward."""
        return self.weight != 0

    @property
    def scored_share(self) -> float:
        """The share of an epoch's samples that the reward scores, in [0, 1]."""
        return float(self.is_trained) if self.share is None else self.share

    @property
    def is_held_out(self) -> bool:
        """Whether the reward scores the fixed images of evaluations."""
        return not self.is_trained and self.copy is None


RESERVED = ("mean", "std", "queries")
"""Columns `reward_…` of metrics.jsonl that are not a reward's."""
LONGEST_NUMBER = 6
OF_THE_USE = tuple(field.name for field in fields(Use))
"""The keys of an entry that are not options of its reward."""
_USE = TypeAdapter(Use)


def use_of(entry: Mapping[str, Any], place: str = "rewards") -> Use:
    """Reads how an entry is used. Raises ConfigError under the key `place` for an invalid use."""
    try:
        use: Use = _USE.validate_python({k: v for k, v in entry.items() if k in OF_THE_USE})
    except ValidationError as error:
        first = error.errors()[0]
        key = first["loc"][0] if first["loc"] else ""
        raise ConfigError(
            f"{place}.{key}: {first['msg']} (got {quoted(first['input'])})"
        ) from error
    if use.is_trained and (use.scored_share < 1 or use.copy):
        key = "copy" if use.copy else "share"
        raise ConfigError(
            f"{place}.{key}: {entry.get('name')} is trained on (its weight is {use.weight:g}), so"
            f" it scores every sample as it is. Give it weight: 0, or leave {key} out."
        )
    if use.copy and not use.scored_share:
        raise ConfigError(
            f"{place}.copy: the reward scores copies of a share of each epoch's samples. Give"
            " that share, such as share: 0.25."
        )
    return use


def component_of(entry: Mapping[str, Any]) -> Entry:
    """Returns the name and the options of an entry's reward, without the keys of `Use`."""
    return {key: value for key, value in entry.items() if key not in OF_THE_USE}


def is_trained(entry: Mapping[str, Any]) -> bool:
    """Whether an entry is trained on. So is one whose weight is not a number, which `use_of`
    refuses.
    """
    try:
        return float(entry.get("weight", 1.0)) != 0
    except (TypeError, ValueError, OverflowError):
        return True


def trained(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the entries that are trained on."""
    return [entry for entry in entries if is_trained(entry)]


def key_of(entries: Sequence[Mapping[str, Any]], number: int) -> str:
    """Returns the key under which an entry is reported, by its short form if it has one:
    `reward`, `evaluation.held_out.0`, or `rewards.1`.
    """
    entry = entries[number]
    if is_trained(entry):
        return "reward" if len(trained(entries)) == 1 else f"rewards.{number}"
    if not only_evaluates(entry):
        return f"rewards.{number}"
    return f"evaluation.held_out.{sum(map(only_evaluates, entries[:number]))}"


def term_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a name of each entry for logs: without the file of a user's reward, with the kind of
    copy if there is one, and with a number from the second of equal names on.

    Names are unique among the rewards that score an epoch's samples, and among those that score
    evaluations; a reward and a held-out one may share a name.
    """
    held_out = [only_evaluates(entry) for entry in entries]
    taken = dict.fromkeys(RESERVED, 1)
    names = [
        "" if alone else free(_bare_name(entry), taken)
        for entry, alone in zip(entries, held_out, strict=True)
    ]
    watched = [
        name
        for name, entry, alone in zip(names, entries, held_out, strict=True)
        if not alone and not is_trained(entry)
    ]
    taken = dict.fromkeys(watched, 1)
    return [
        name or free(_bare_name(entry), taken) for name, entry in zip(names, entries, strict=True)
    ]


def _bare_name(entry: Mapping[str, Any]) -> str:
    name = str(entry.get("name") or "").rpartition(":")[2]
    return f"{name}_{entry['copy']}" if entry.get("copy") else name


def only_evaluates(entry: Mapping[str, Any]) -> bool:
    """Whether an entry scores nothing but evaluations."""
    return not (is_trained(entry) or entry.get("share") or entry.get("copy"))


def free(name: str, taken: dict[str, int]) -> str:
    """Returns the name, or with the first number from 2 on that no other has, and takes it.

    Args:
        taken: How many times each name was asked for; the result is added.
    """
    found = name
    while found in taken:
        taken[name] = taken.get(name, 1) + 1
        found = f"{name}_{taken[name]}"
    taken[found] = 1
    return found


def title(entries: Iterable[Mapping[str, Any]]) -> str:
    """Returns the trained rewards as a formula: `vqa + 0.5 text_penalty`."""
    said = ""
    for entry in trained(entries):
        weight, name = entry.get("weight", 1.0), str(entry.get("name"))
        number = use_of(entry).weight if isinstance(weight, int | float | str) else 1.0
        factor = "" if abs(number) == 1 else f"{abs(number):g} "
        joint = (" - " if number < 0 else " + ") if said else ("-" if number < 0 else "")
        said += f"{joint}{factor}{name}"
    return said
