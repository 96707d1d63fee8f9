"""Text that is safe to show: all of it escaped, what is invisible made visible, one script allowed
by its hash.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rediffuse.terminal.output import printable

HERE = Path(__file__).parent
LONGEST = 240


def shown(text: str) -> str:
    """Control characters, terminal colours, text that turns direction, half characters, accents
    piled up: by their escapes.
    """
    return printable(text, newlines=True, most=None)


def short(text: object, longest: int = LONGEST) -> str:
    """Returns a text cut at so many letters, with an ellipsis."""
    whole = str(text)
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def number(value: object) -> str:
    """Three digits that count; a dash for what is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    digits = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:#.3g}"
    return digits.replace("-", "−")


def signed(value: object) -> str:
    """Returns what `number` does, with a plus sign where it is positive."""
    return ("+" if isinstance(value, int | float) and value > 0 else "") + number(value)


def fixed(value: float, places: int, sign: str = "-") -> str:
    """Returns a number with so many decimal places and a true minus sign."""
    return f"{value:{sign},.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def duration(seconds: float) -> str:
    """Returns seconds as words such as 3 min 10 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rendered(
    template: str, *, scripts: Sequence[str] = (), live: bool = False, **contents: Any
) -> str:
    """A page of a template; `scripts` are files beside it, and nothing else in the page can run.

    live: it may ask the server it came from.
    """
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in scripts)
    page = ENVIRONMENT.get_template(template)
    return page.render(policy=policy(script, live=live), script=Markup(script), **contents)


def policy(script: str, *, live: bool = False) -> str:
    """The page's Content-Security-Policy."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    rules += [f"script-src 'sha256-{digest}'"] if script else []
    return "; ".join(rules + (["connect-src 'self'"] if live else []))


def _finalized(value: Any) -> Any:
    """What an expression gives, before it is escaped; markup made by a template is left alone."""
    return value if isinstance(value, Markup) else shown(str(value))


ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(HERE),
    autoescape=True,
    finalize=_finalized,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters.update(
    number=number, signed=signed, fixed=fixed, short=short, duration=duration
)
