"""Messages about values that do not validate."""

from pydantic import ValidationError

from rediffuse.errors import ConfigError, quoted


def problems(error: ValidationError, prefix: str = "") -> str:
    """One line for each thing wrong: the key, what is the matter, and what stood there; a
    ConfigError says it itself.
    """
    lines: dict[str, list[str]] = {}
    for each in error.errors():
        if isinstance(said := each.get("ctx", {}).get("error"), ConfigError):
            lines[str(said)] = []
            continue
        place = [str(part)[:100] for part in each["loc"] if not _is_of_a_union(part)]
        key = ".".join([prefix, *place] if prefix else place)
        found = f" (got {quoted(each['input'])})" if each["type"] != "missing" else ""
        lines.setdefault(f"{key}: {{}}{found}", []).append(
            each["msg"].removeprefix("Value error, ")
        )
    return "\n".join(
        line.replace("{}", ", or ".join(messages), 1) for line, messages in lines.items()
    )


def _is_of_a_union(part: int | str) -> bool:
    """Whether a part of an error's place names not a key but one of the types that a key allows."""
    return part in ("bool", "int", "float", "str") or (
        isinstance(part, str) and (part.startswith("literal[") or part == "constrained-int")
    )
