"""A configuration laid over another one, key by key."""

from collections.abc import Mapping
from typing import Any

from rediffuse.config.rewards import (
    LONGEST_NUMBER,
    OF_THE_USE,
    Entry,
    is_trained,
    only_evaluates,
    trained,
    use_of,
)
from rediffuse.errors import ConfigError, quoted


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with another over it, key by key, nested mappings too. A component
    whose name changes keeps none of the other's options. All rewards then stand in `rewards`.
    """
    merged = deep(_without_rewards(under), _without_rewards(over))
    if "with_algorithm" in over:
        merged["with_algorithm"] = _specials(under.get("with_algorithm"), over["with_algorithm"])
    entries = _layered({}, under)
    entries = _layered({"rewards": entries}, over)
    if trained(entries):
        return {**merged, "rewards": entries}
    evaluation = merged.get("evaluation", {})
    if entries and isinstance(evaluation, Mapping):  # the trained reward is still to come
        merged["evaluation"] = {**evaluation, "held_out": entries}
    return merged


def _specials(under: Any, over: Any) -> Any:
    """Settings for single algorithms over others. What one says of rewards in another form than the
    other replaces it.
    """
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    merged = dict(under)
    for name, special in over.items():
        below = merged.get(name)
        if isinstance(special, Mapping) and isinstance(below, Mapping):
            said = {"reward", "rewards"} & special.keys()
            kept = {k: v for k, v in below.items() if not said or k not in ("reward", "rewards")}
            same = {k: below[k] for k in said if k in below and k == "reward"}
            merged[name] = deep({**kept, **same}, special)
        else:
            merged[name] = special
    return merged


def _without_rewards(raw: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in raw.items() if key not in ("reward", "rewards")}
    if isinstance(evaluation := raw.get("evaluation"), Mapping) and "held_out" in evaluation:
        plain["evaluation"] = {k: v for k, v in evaluation.items() if k != "held_out"}
    return plain


def deep(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a mapping with another over it, as `merge` does, rewards aside."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            other = "name" in value and value["name"] != below.get("name")
            merged[key] = dict(value) if other else deep(below, value)
        else:
            merged[key] = value
    return merged


def _layered(under: Mapping[str, Any], over: Mapping[str, Any]) -> list[Entry]:
    """Returns the entries of a configuration that another one changes.

    A list replaces the list. The short form `reward` replaces the trained rewards, or sets options
    of the only one. The short form `evaluation.held_out` replaces the entries of weight 0 that
    score nothing but evaluations.

    Args:
        under: The configuration to change, with its rewards in `rewards`, or without any.
        over: The changes, with rewards in any form.

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
        entries = _changed(entries, given) if by_number else listed(given, "rewards")
        if not trained(entries):
            raise ConfigError(
                "rewards: none is trained on. Give at least one a weight other than 0, as in"
                " [{name: aesthetic, weight: 2}, {name: redness}]."
            )
        return entries
    if "reward" in over:
        entries = _with_reward(entries, over["reward"])
    if held_out is not None:
        kept = [entry for entry in entries if not only_evaluates(entry)]
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
        entries = _layered({}, config)
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


def _with_reward(entries: list[Entry], given: Any) -> list[Entry]:
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
    return [deep({"it": before}, {"it": given})["it"], *others]


def _changed(entries: list[Entry], given: Mapping[str, Any]) -> list[Entry]:
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
        changed[number] = {**use, **deep({"it": changed[number]}, {"it": options})["it"]}
    return changed
