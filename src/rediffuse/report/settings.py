"""The options of a run that compared runs share, and those in which methods may differ."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rediffuse.config.declared import KEYS, declared_options, result_options
from rediffuse.config.rewards import trained, use_of
from rediffuse.config.schema import Config

TASK = ("rewards", "prompts", "sampler", "model")
"""Keys that make up a task."""
MUTE = {"seed", "epochs", "micro_batch_size", "rows", "one_pass", "stall_seconds"}
"""Options that do not distinguish methods."""


def task(config: Config) -> dict[str, Any]:
    """Returns the options that compared runs must have in common, by dotted key."""
    flat = _flat(_compared(config))
    return {key: value for key, value in flat.items() if key.split(".")[0] in TASK}


def settings(config: Config) -> dict[str, Any]:
    """Returns the options that may distinguish methods, by dotted key."""
    own = ("evaluation", "logging", "scoring")
    return {
        key: value
        for key, value in _flat(_compared(config, methods=True)).items()
        if key.split(".")[0] not in {*MUTE, *own}
    }


def _compared(config: Config, *, methods: bool = False) -> dict[str, Any]:
    """Returns the configuration without what does not change a result: how servers are reached,
    and rewards that are not trained on. Options that are younger than the run have their defaults.

    Args:
        config: The configuration of a run.
        methods: Whether to include the options in which methods may differ.
    """
    found = asdict(config)
    for key in KEYS.keys() - {"reward"}:
        known = declared_options(KEYS[key], str(found[key].get("name")))
        found[key] = {
            option: value
            for option, value in _complete(key, found[key]).items()
            if methods or option not in known or not known[option].is_of_a_method
        }
    found["rewards"] = {
        str(number): {**_complete("reward", entry), **use_of(entry).spelt()}
        for number, entry in enumerate(trained(config.rewards))
    }
    return found


def _complete(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    known = declared_options(KEYS[key], str(options.get("name")))
    defaults = {
        name: list(each.default) if isinstance(each.default, tuple) else each.default
        for name, each in known.items()
    }
    return result_options(key, {**defaults, **options})


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat
