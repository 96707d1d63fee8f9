"""What `rediffuse sample` is asked to make a sample from."""

from pathlib import Path

from rediffuse.config import inputs
from rediffuse.config.reading import flag_value
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError, quoted
from rediffuse.lookup.find import find
from rediffuse.types import Prompt


def asked_prompt(text: str | None, seen: str | None, config: Config) -> Prompt:
    """The prompt of a text and of inputs, where the model of a run takes such.

    Args:
        text: none of a model that takes no text.
        seen: a mapping in YAML; its files are looked for in the working directory.
        config: of the run.

    Raises:
        ConfigError: Where the model takes no such thing, or a file is not there.
    """
    takes_text = getattr(find("model", config.model["name"]), "takes_text", True)
    if takes_text and text is None:
        raise ConfigError('--prompt: this model takes a text: --prompt "a fox"')
    if text and not takes_text:
        raise ConfigError("--prompt: this model takes no text. Leave it out.")
    given = {} if seen is None else flag_value(seen, "--inputs")
    if not isinstance(given, dict):
        raise ConfigError(f'--inputs: {quoted(given)} is not a mapping such as "{{label: 3}}".')
    try:
        return Prompt(text or "", inputs=inputs.located(given, Path()))
    except ConfigError as error:
        raise ConfigError(f"--inputs: {error}") from error
