"""Measures `text_penalty`: how often it detects text in images with and without text, and how often
it recognises the words.

python benchmarks/ocr.py                   the tables of docs/hacking.md, in six minutes on one core
python benchmarks/ocr.py --pictures 40     the same, in one

The images with text contain ten texts, most of them misspelt, in four fonts, on plain backgrounds
and across pictures. They are also passed through the autoencoder of the embedded model, which
limits what this model could write. The images without text are samples of the embedded model, and
circles, boxes, arcs and zigzags. Larger images are either drawn at that size or enlarged from 64
pixels.
"""

import argparse
import random
from collections.abc import Callable, Iterable

import numpy as np
import torch
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, ImageOps

from rediffuse.images import pictures, tensor
from rediffuse.lookup.build import build
from rediffuse.policy import DiffusionPolicy
from rediffuse.rewards import _ocr
from rediffuse.rewards._ocr import Reader, text_of
from rediffuse.rewards._spelling import names_any
from rediffuse.rollout import Draws, denoise
from rediffuse.types import Denoiser, Prompt

WRITINGS = {
    "six turtles": "six turtles",
    "sixx tutttles": "six turtles",
    "6 turtels": "six turtles",
    "fourr\nwollves": "four wolves",
    "TWO FROGS": "two frogs",
    "8": "eight ants",
    "seven": "seven birds",
    "3\ncatts": "three cats",
    "riding bikke": "a lion riding a bike",
    "chess": "a bear playing chess",
}
"""What is written, and for which prompt."""
FONTS = [
    ("DejaVu Sans", "normal"),
    ("DejaVu Sans", "bold"),
    ("DejaVu Serif", "normal"),
    ("DejaVu Sans Mono", "bold"),
]
FLOORS = (0.4, 0.6, 0.8)
SETS = ("animals", "counting", "animals_activities")

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Drawn = list[tuple[Image.Image, str]]
"""Pictures, each with the prompt that it is for."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=200, help="of each row")
    number = parser.parse_args().pictures
    torch.set_num_threads(1)
    denoiser, reader = build("model", {"name": "emoji"}).load("cpu", 0), Reader.load()
    bare = sampled(denoiser, number)
    print(
        f"{number} pictures a row: % in which text is seen, at min_confidence"
        f" {', '.join(map(str, FLOORS))};"
    )
    print("% in which a word of the prompt is, and % in which one of another picture's is, at 0.6")
    for size in (64, 256, 512):
        print()
        larger = [
            (picture.resize((size, size), Image.Resampling.BICUBIC), "") for picture, _ in bare
        ]
        plain = written(
            number, lambda dice, size=size: Image.new("RGB", (size, size), colour(dice)), edge=False
        )
        across = written(
            number, lambda dice, larger=larger: dice.choice(larger)[0].copy(), edge=True
        )
        tell(f"{size} px, text on a plain ground", reader, plain)
        tell(f"{size} px, text across pictures", reader, across)
        if size == 64:
            tell("64 px, text on a plain ground, decoded", reader, decoded(denoiser, plain))
            tell("64 px, text across pictures, decoded", reader, decoded(denoiser, across))
            small = across
        tell(f"{size} px, no text: the model's pictures", reader, larger)
        tell(
            f"{size} px, no text: shapes",
            reader,
            [(shapes(random.Random(i), size), "") for i in range(number)],
        )
    for pixels, border in ((64, 0), (96, 0), (128, 0), (192, 0), (256, 0), (160, 8)):
        _ocr.SMALLEST_PIXELS = pixels
        how = f"64 px{' with a grey border of 8' if border else ''}, enlarged to {pixels}"
        print()
        tell(f"{how}: text across pictures", reader, bordered(small, border))
        tell(f"{how}: no text", reader, bordered(bare, border))


def tell(title: str, reader: Reader, drawn: Drawn) -> None:
    lines = [reader.lines(picture) for picture, _ in drawn]
    seen = [share(text_of(each, floor) != "" for each in lines) for floor in FLOORS]
    prompts = [prompt for _, prompt in drawn]
    named = [
        share(
            names_any(text_of(each, 0.6), [prompt])
            for each, prompt in zip(lines, those, strict=True)
        )
        for those in (prompts, prompts[4:] + prompts[:4])
    ]
    print(f"{title:64}{''.join(f'{each:7.1f}' for each in [*seen, *named])}", flush=True)


def share(told: Iterable[bool]) -> float:
    return 100 * float(np.mean(list(told)))


def sampled(denoiser: Denoiser, number: int) -> Drawn:
    """What the embedded model draws before any training, of prompts with which it can be
    trained.
    """
    policy = DiffusionPolicy(
        denoiser,
        build("sampler", {"name": "ddim", "num_steps": 8, "spacing": "trailing"}).bind(
            denoiser.schedule
        ),
    )
    each = -(-number // len(SETS))
    sets = [
        build("prompts", {"name": name, "balanced": True}).draw(
            each, torch.Generator().manual_seed(0)
        )
        for name in SETS
    ]
    prompts: list[Prompt] = [prompt for prompts in zip(*sets, strict=True) for prompt in prompts][
        :number
    ]
    drawn: Drawn = []
    with torch.no_grad():
        for i in range(0, number, 20):
            some = prompts[i : i + 20]
            latents = denoise(policy, Draws(range(i, i + len(some)), some, (0, "ocr"))).latents
            drawn += [(picture, "") for picture in pictures(denoiser.decode(latents))]
    return drawn


def written(number: int, ground: Callable[[random.Random], Image.Image], *, edge: bool) -> Drawn:
    """edge: whether letters have one of the other colour, as captions do."""
    dice = random.Random(0)
    texts = [list(WRITINGS.items())[i % len(WRITINGS)] for i in range(number)]
    return [(write(ground(dice), text, dice, edge), prompt) for text, prompt in texts]


def write(picture: Image.Image, text: str, dice: random.Random, edge: bool) -> Image.Image:
    """Anywhere, as wide as 70 to 95 % of the picture, or as high as 60."""
    draw, size = ImageDraw.Draw(picture), picture.width
    family, weight = dice.choice(FONTS)
    path = font_manager.findfont(font_manager.FontProperties(family=family, weight=weight))
    width = dice.uniform(0.7, 0.95) * size
    fonts = (ImageFont.truetype(path, points) for points in np.arange(size, 4, -0.5))
    font, box = next(
        (f, b)
        for f in fonts
        if (b := draw.multiline_textbbox((0, 0), text, f))[2] < width and b[3] < 0.6 * size
    )
    place = (dice.uniform(0, size - box[2]), dice.uniform(0, size - box[3]))
    bright = np.asarray(picture.convert("L")).mean() > 127
    inks = [BLACK, WHITE] if bright or (edge and dice.random() < 0.5) else [WHITE, BLACK]
    stroke = max(1, size // 64) if edge else 0
    draw.multiline_text(
        place, text, inks[0], font, align="center", stroke_width=stroke, stroke_fill=inks[1]
    )
    return picture


def decoded(denoiser: Denoiser, drawn: Drawn) -> Drawn:
    """As they come back from the model's latents: what it could draw at best."""
    with torch.no_grad():
        images = [
            denoiser.decode(denoiser.encode_samples(tensor(picture)[None])[0])
            for picture, _ in drawn
        ]
    return [
        (picture, prompt)
        for image, (_, prompt) in zip(images, drawn, strict=True)
        for picture in pictures(image)
    ]


def bordered(drawn: Drawn, pixels: int) -> Drawn:
    return [(ImageOps.expand(picture, pixels, "grey"), prompt) for picture, prompt in drawn]


def shapes(dice: random.Random, size: int) -> Image.Image:
    picture = Image.new("RGB", (size, size), colour(dice))
    draw = ImageDraw.Draw(picture)
    for _ in range(dice.randrange(3, 25)):
        x, y = dice.uniform(0, size), dice.uniform(0, size)
        right, down = x + dice.uniform(0.03, 0.4) * size, y + dice.uniform(0.03, 0.4) * size
        ink, thick = colour(dice), max(1, size // 45)
        match dice.randrange(4):
            case 0:
                draw.ellipse((x, y, right, down), ink)
            case 1:
                draw.rectangle((x, y, right, down), outline=ink, width=thick)
            case 2:
                draw.line((x, y, right, down, (x + right) / 2, y), ink, thick)
            case _:
                draw.arc(
                    (x, y, right, down), dice.uniform(0, 180), dice.uniform(180, 360), ink, thick
                )
    return picture


def colour(dice: random.Random) -> tuple[int, int, int]:
    return (dice.randrange(256), dice.randrange(256), dice.randrange(256))


if __name__ == "__main__":
    main()
