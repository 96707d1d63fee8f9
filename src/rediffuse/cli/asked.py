"""The prompt of `rediffuse sample`."""

from pathlib import Path

from rediffuse.config import inputs
from rediffuse.config.reading import flag_value
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError, quoted
from rediffuse.lookup.find import find
from rediffuse.types import Prompt


def asked_prompt(text: str | None, seen: str | None, config: Config) -> Prompt:
    """Returns the prompt of a text and of inputs.

    Args:
        text: The text; None for a model without text input.
        seen: The inputs as a mapping in YAML; paths are relative to the working directory.
        config: The configuration of the run.

    Raises:
        ConfigError: The model has no text input or needs one, the inputs are not a mapping, or a
            file does not exist.
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
        return Prompt(text or "", inputs=inputs.with_absolute_files(given, Path()))
    except ConfigError as error:
        raise ConfigError(f"--inputs: {error}") from error
