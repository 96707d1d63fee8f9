"""Draw every word's emoji from one of two openly licensed SVG sets; one .npz of 128-pixel RGBA pictures.

Run `npm install` in this folder first (the sets and their licences: README.md).
"""

import io
import json
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from pretraining.vocabulary import CODE_POINTS, FLAT

SETS = ("noto", "fluent-emoji-flat")
SIZE_PIXELS = 128


def render_all(icons: Path, out: Path) -> None:
    """Write `{word}` -> (H, W, 4) uint8, cropped to the ink; the longer side is 128 pixels."""
    sets = [_Set(icons / "@iconify-json" / name) for name in SETS]
    pictures = {
        word: _cropped(_render(sets[word in FLAT].svg(code))) for word, code in CODE_POINTS.items()
    }
    whole = out.with_suffix(".new.npz")
    np.savez(whole, **pictures)
    whole.replace(out)


class _Set:
    def __init__(self, folder: Path) -> None:
        self.drawings = json.loads((folder / "icons.json").read_text())
        names = json.loads((folder / "chars.json").read_text())
        self.icon_of = {
            code.lower().replace("-fe0f", "").lstrip("0"): icon for code, icon in names.items()
        }

    def svg(self, code_point: str) -> str:
        icon = self.icon_of[code_point]
        icon = self.drawings.get("aliases", {}).get(icon, {}).get("parent", icon)
        drawing = self.drawings["icons"][icon]
        width = drawing.get("width", self.drawings.get("width", 16))
        height = drawing.get("height", self.drawings.get("height", 16))
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
