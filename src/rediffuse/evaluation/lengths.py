"""Prompts that are longer than what the model's text encoder reads: it ignores the rest, so that
two of them may be one.
"""

import warnings
from collections.abc import Sequence

from rediffuse.errors import quoted
from rediffuse.types import Denoiser, ListsPrompts, Prompt, PromptSet, ReadsTokens

MOST_ASKED = 20_000
"""Texts that may be too long by their bytes; of each its tokens are counted."""
NUM_SHOWN = 3


def known_texts(prompts: PromptSet, drawn: Sequence[Prompt]) -> Sequence[str]:
    """All texts of a set that lists them, or those that were drawn; each once."""
    return list(
        dict.fromkeys(
            prompt.text
            for prompt in (prompts.prompts if isinstance(prompts, ListsPrompts) else drawn)
        )
    )


def warning(denoiser: Denoiser, texts: Sequence[str]) -> str:
    """How many of the texts are cut, and the first of them; empty where none is."""
    if not isinstance(denoiser, ReadsTokens):
        return ""
    most = denoiser.max_tokens
    # a token is a byte at least, but for two
    suspects = [text for text in texts if len(text.encode()) + 2 > most][:MOST_ASKED]
    lengths = {text: denoiser.num_tokens(text) for text in suspects}
    cut = {text: length for text, length in lengths.items() if length > most}
    if not cut:
        return ""
    shown = ", ".join(
        f"{quoted(text, 60)} ({length})" for text, length in list(cut.items())[:NUM_SHOWN]
    )
    more = ", …" if len(cut) > NUM_SHOWN else ""
    least = "at least " if len(suspects) == MOST_ASKED else ""
    return (
        f"{least}{len(cut)} of {len(texts)} prompts have more than the {most} tokens that the text"
        f" encoder reads; it ignores the rest: {shown}{more}. Shorten them, or go on as they are."
    )


def warn(denoiser: Denoiser, texts: Sequence[str]) -> None:
    """A warning, where there is one."""
    if said := warning(denoiser, texts):
        warnings.warn(said, stacklevel=3)
