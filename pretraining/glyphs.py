"""Draw every word's emoji from openly licensed SVG sets; one .npz of 128-pixel RGBA pictures.

Run `npm install` in this folder first (the sets and their licences: README.md).
"""

import io
import json
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from pretraining.vocabulary import CODE_POINTS

SETS = ("noto", "fluent-emoji-flat")
SIZE_PIXELS = 128


def render_all(icons: Path, out: Path) -> None:
    """Write `{word}/{set}` -> (H, W, 4) uint8, cropped to the ink; the longer side is 128 pixels."""
    pictures = {}
    for name in SETS:
        folder = icons / "@iconify-json" / name
        drawings = json.loads((folder / "icons.json").read_text())
        icon_of = {
            code.lower().replace("-fe0f", "").lstrip("0"): icon
            for code, icon in json.loads((folder / "chars.json").read_text()).items()
        }
        for word, code_point in CODE_POINTS.items():
            pictures[f"{word}/{name}"] = _cropped(_render(_svg(drawings, icon_of[code_point])))
    np.savez(out, **pictures)


def _svg(drawings: dict, icon: str) -> str:
    icon = drawings.get("aliases", {}).get(icon, {}).get("parent", icon)
    drawing = drawings["icons"][icon]
    width = drawing.get("width", drawings.get("width", 16))
    height = drawing.get("height", drawings.get("height", 16))
    box = f"{drawing.get('left', 0)} {drawing.get('top', 0)} {width} {height}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="{box}" width="{2 * SIZE_PIXELS}" height="{2 * SIZE_PIXELS}">{drawing["body"]}</svg>'
    )


def _render(svg: str) -> Image.Image:
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _cropped(image: Image.Image) -> np.ndarray:
    image = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())
    scale = SIZE_PIXELS / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))
