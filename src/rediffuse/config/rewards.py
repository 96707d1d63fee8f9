"""The rewards in a run's configuration, and how the run uses each of them.

A run has one list, `rewards`. There are two short forms: `reward` is the reward that is trained on,
and `evaluation.held_out` lists those of weight 0.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from rediffuse.errors import ConfigError, quoted

Entry = dict[str, Any]
"""An entry of `rewards`: the name and the options of a reward, and the keys of `Use`."""
Merge = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]


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
    if not _only_evaluates(entry):
        return f"rewards.{number}"
    return f"evaluation.held_out.{sum(map(_only_evaluates, entries[:number]))}"


def term_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns a name of each entry for logs: without the file of a user's reward, with the kind of
    copy if there is one, and with a number from the second of equal names on.

    Names are unique among the rewards that score an epoch's samples, and among those that score
    evaluations; a reward and a held-out one may share a name.
    """
    held_out = [_only_evaluates(entry) for entry in entries]
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


def _only_evaluates(entry: Mapping[str, Any]) -> bool:
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


def layered(under: Mapping[str, Any], over: Mapping[str, Any], merge: Merge) -> list[Entry]:
    """Returns the entries of a configuration that another one changes.

    A list replaces the list. The short form `reward` replaces the trained rewards, or sets options
    of the only one. The short form `evaluation.held_out` replaces the entries of weight 0 that
    score nothing but evaluations.

    Args:
        under: The configuration to change, with its rewards in `rewards`, or without any.
        over: The changes, with rewards in any form.
        merge: Merges two mappings from a key to an entry, for changes of a single reward.

    Raises:
        ConfigError: If `over` has both `rewards` and a short form, or its rewards are invalid.
    """
    evaluation = over.get("evaluation")
    held_out = evaluation.get("held_out") if isinstance(evaluation, Mapping) else None
    entries = [dict(entry) for entry in under.get("rewards", ())]
    if "rewards" in over:
        if "reward" in over or held_out:
            raise ConfigError(
                "rewards: lists all rewards of the run, so reward and evaluation.held_out cannot"
                " be given as well. Put them into the list, held-out rewards with weight: 0."
            )
        given = over["rewards"]
        by_number = isinstance(given, Mapping) and given and "name" not in given
        entries = _changed(entries, given, merge) if by_number else listed(given, "rewards")
        if not trained(entries):
            raise ConfigError(
                "rewards: none is trained on. Give at least one a weight other than 0, as in"
                " [{name: aesthetic, weight: 2}, {name: redness}]."
            )
        return entries
    if "reward" in over:
        entries = _with_reward(entries, over["reward"], merge)
    if held_out is not None:
        kept = [entry for entry in entries if not _only_evaluates(entry)]
        entries = [*kept, *_of_weight_zero(held_out)]
    return entries


def listed(given: Any, place: str) -> list[Entry]:
    """Returns entries from a name, an entry, or a list of names and entries. Raises ConfigError
    under the key `place` for anything else.
    """
    several = [given] if isinstance(given, str | Mapping) else given
    if not isinstance(several, list | tuple):
        raise ConfigError(
            f"{place}: must be a list such as [{{name: aesthetic, weight: 2}}, {{name: redness}}],"
            f" not {quoted(given)}."
        )
    entries = []
    for number, each in enumerate(several):
        if not isinstance(each, str | Mapping):
            raise ConfigError(
                f"{place}.{number}: must be a name or {{name: …, option: …}}, not {quoted(each)}."
            )
        entries.append({"name": each} if isinstance(each, str) else dict(each))
    return entries


def read_entries(config: Mapping[str, Any]) -> list[Entry]:
    """Returns the entries of a run's config.yaml, from any form; none if they are invalid."""
    try:
        entries = layered({}, config, lambda under, over: {**under, **over})
        for entry in entries:
            use_of(entry)
    except ConfigError:
        return []
    return entries


def _of_weight_zero(held_out: Any) -> list[Entry]:
    entries = listed(held_out, "evaluation.held_out")
    for number, entry in enumerate(entries):
        if entry.get("weight", 0) != 0:
            raise ConfigError(
                f"evaluation.held_out.{number}.weight: {quoted(entry['weight'])} given, but a"
                " reward that is held out has weight 0. List it in rewards to train on it."
            )
    return [{**entry, "weight": 0} for entry in entries]


def _with_reward(entries: list[Entry], given: Any, merge: Merge) -> list[Entry]:
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        raise ConfigError(f"reward: must hold keys and values, not {quoted(given)}.")
    places = [number for number, entry in enumerate(entries) if is_trained(entry)]
    if len(places) > 1 and "name" not in given:
        option = next(iter(given), "name")
        raise ConfigError(
            f"reward.{option}: {len(places)} rewards are trained on. Say which one is meant:"
            f" rewards.{places[0]}.{option}, or another number."
        )
    others = [entry for entry in entries if not is_trained(entry)]
    before = entries[places[0]] if len(places) == 1 else {}
    return [merge({"it": before}, {"it": given})["it"], *others]


def _changed(entries: list[Entry], given: Mapping[str, Any], merge: Merge) -> list[Entry]:
    """Applies changes of single entries by their numbers: `rewards: {1: {weight: 0.5}}`, which is
    also what `--rewards.1.weight 0.5` becomes.
    """
    changed = [dict(entry) for entry in entries]
    for key, options in given.items():
        number = (
            int(key) if str(key).isdecimal() and len(str(key)) < LONGEST_NUMBER else len(entries)
        )
        if number >= len(changed):
            known = ", ".join(
                f"{place} ({entry.get('name')})" for place, entry in enumerate(changed)
            )
            said = str(key)[:100]
            raise ConfigError(f"rewards.{said}: no such reward; there are {known or 'none'}.")
        if not isinstance(options, Mapping):
            raise ConfigError(f"rewards.{key}: must hold keys and values, not {quoted(options)}.")
        # another name drops the options of the reward, not how it is used
        use = {k: v for k, v in changed[number].items() if k in OF_THE_USE}
        changed[number] = {**use, **merge({"it": changed[number]}, {"it": options})["it"]}
    return changed
