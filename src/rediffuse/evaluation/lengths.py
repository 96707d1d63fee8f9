"""Warnings about prompts that are longer than the model's text encoder reads.

It ignores the rest, so that different prompts may be equal to the model.
"""

import warnings
from collections.abc import Sequence

from rediffuse.errors import quoted
from rediffuse.types import Denoiser, ListsPrompts, Prompt, PromptSet, ReadsTokens

MOST_ASKED = 20_000
"""The most texts whose tokens are counted, among those with enough bytes to be too long."""
NUM_SHOWN = 3
"""How many of the long prompts a warning shows."""


def known_texts(prompts: PromptSet, drawn: Sequence[Prompt]) -> Sequence[str]:
    """Returns the distinct texts of a finite prompt set; of any other those that were drawn."""
    return list(
        dict.fromkeys(
            prompt.text
            for prompt in (prompts.prompts if isinstance(prompts, ListsPrompts) else drawn)
        )
    )


def warning(denoiser: Denoiser, texts: Sequence[str]) -> str:
    """Returns a warning with the number of truncated texts and the first ones; empty if there are
    none.
    """
    if not isinstance(denoiser, ReadsTokens):
        return ""
    most = denoiser.max_tokens
    # each token has at least one byte, except for the start and the end token
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
        f"{least}{len(cut)} of {len(texts)} prompts have more than the {most} tokens that the"
        f" text encoder reads; it ignores the rest: {shown}{more}. Shorten them if the rest"
        " matters."
    )


def warn(denoiser: Denoiser, texts: Sequence[str]) -> None:
    """Issues the warning if there is one."""
    if said := warning(denoiser, texts):
        warnings.warn(said, stacklevel=3)
