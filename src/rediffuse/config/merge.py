"""A configuration laid over another one, key by key."""

from collections.abc import Mapping
from typing import Any

from rediffuse.config import rewards


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with another over it, key by key, nested mappings too. A component
    whose name changes keeps none of the other's options. All rewards then stand in `rewards`.
    """
    merged = deep(_without_rewards(under), _without_rewards(over))
    entries = rewards.layered({}, under, deep)
    entries = rewards.layered({"rewards": entries}, over, deep)
    return {**merged, "rewards": entries} if entries or "rewards" in over else merged


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
