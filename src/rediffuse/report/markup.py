"""HTML rendering: all text is escaped, invisible characters are shown, and only one script,
identified by its hash, may run.
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
"""The default length at which `short` cuts a text."""


def shown(text: str) -> str:
    """Escapes control characters, terminal sequences, bidirectional controls, lone surrogates and
    stacked accents.
    """
    return printable(text, newlines=True, most=None)


def short(text: object, longest: int = LONGEST) -> str:
    """Cuts a text to `longest` characters, with an ellipsis."""
    whole = str(text)
    return whole if len(whole) <= longest else whole[: longest - 1] + "…"


def number(value: float | None) -> str:
    """Formats a number with three significant digits; anything but a finite number becomes a
    dash.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    digits = f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:#.3g}"
    return digits.replace("-", "−")


def signed(value: float | None) -> str:
    """Formats a number as `number` does, with a plus sign if it is positive."""
    return ("+" if isinstance(value, int | float) and value > 0 else "") + number(value)


def fixed(value: float, places: int, sign: str = "-") -> str:
    """Formats a number with `places` decimal places and a typographic minus sign."""
    return f"{value:{sign},.{places}f}".replace("-", "−") if math.isfinite(value) else "–"


def duration(seconds: float) -> str:
    """Formats a duration in seconds, as in "3 min 10 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def rendered(
    template: str, *, scripts: Sequence[str] = (), live: bool = False, **contents: Any
) -> str:
    """Renders a template as a page.

    Args:
        template: The template's file.
        scripts: JavaScript files beside it. No other script can run in the page.
        live: Whether the page may send requests to its own server.
        contents: The template's variables.
    """
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in scripts)
    page = ENVIRONMENT.get_template(template)
    return page.render(policy=policy(script, live=live), script=Markup(script), **contents)


def policy(script: str, *, live: bool = False) -> str:
    """Returns the page's Content-Security-Policy."""
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
    """Converts the result of a template expression before it is escaped, except for markup."""
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
