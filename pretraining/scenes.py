"""Captioned 64 x 64 scenes: glyphs on varied, crisp backgrounds. Each scene depends on (seed, index) alone."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pretraining.vocabulary import (
    ACTIVITIES,
    ALL_ACTIVITIES,
    ALL_ANIMALS,
    ANIMALS,
    COLOURS,
    COUNTS,
    OBJECTS,
    UNSEEN_ACTIVITIES,
    UNSEEN_ANIMALS,
)
from rediffuse.english import number_word, plural, with_article

SIZE_PIXELS = 64
CANVAS = 2 * SIZE_PIXELS  # drawn twice as large, then averaged down
CELL = 8  # one latent
KIND_SHARES = {"single": 0.54, "colour": 0.08, "count": 0.16, "activity": 0.16, "pair": 0.06}
# Nearly all are textured: of JPEG rewards, one calms the texture and the other makes it wilder, while the animal stays.
BACKGROUND_SHARES = {
    "dots": 0.25,
    "checks": 0.27,
    "waves": 0.25,
    "stripes": 0.19,
    "confetti": 0.03,
    "plain": 0.01,
}
# Of counts and activities, captions as careless as the web's: what they leave to learn is what fine-tuning can gain.
WRONG_SHARE = 0.7
UNSEEN_SHARE = 0.12
# The centres of 2..8 things, and how large each is, as fractions of the picture.
LAYOUTS: dict[int, tuple[float, list[tuple[float, float]]]] = {
    2: (0.46, [(0.27, 0.5), (0.73, 0.5)]),
    3: (0.44, [(0.27, 0.28), (0.73, 0.28), (0.5, 0.73)]),
    4: (0.42, [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)]),
    5: (0.34, [(0.2, 0.2), (0.8, 0.2), (0.5, 0.5), (0.2, 0.8), (0.8, 0.8)]),
    6: (0.31, [(x, y) for y in (0.3, 0.7) for x in (0.18, 0.5, 0.82)]),
    7: (
        0.29,
        [
            (0.32, 0.18),
            (0.68, 0.18),
            (0.17, 0.5),
            (0.5, 0.5),
            (0.83, 0.5),
            (0.32, 0.82),
            (0.68, 0.82),
        ],
    ),
    8: (0.28, [(x, y) for y in (0.18, 0.82) for x in (0.18, 0.5, 0.82)] + [(0.3, 0.5), (0.7, 0.5)]),
}


@dataclass(frozen=True)
class Scene:
    """image: (64, 64, 3) uint8. The rest says what is in it; -1: nothing of the kind, or not single."""

    image: np.ndarray
    caption: str
    animal: int = -1
    count: int = 1
    activity: int = -1


class Painter:
    """glyphs: what `glyphs.render_all` wrote."""

    def __init__(self, glyphs: dict[str, np.ndarray]) -> None:
        self.glyphs = {name: Image.fromarray(pixels) for name, pixels in glyphs.items()}
        self.tint = {
            name: np.asarray(image)[..., :3][np.asarray(image)[..., 3] > 128].mean(0)
            for name, image in self.glyphs.items()
        }

    def scene(self, seed: int, index: int, kind: str | None = None) -> Scene:
        rng = np.random.default_rng((seed, index))
        kind = kind or str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
        return getattr(self, f"_{kind}")(rng)

    def _single(self, rng: np.random.Generator) -> Scene:
        noun = _draw(rng, OBJECTS) if rng.random() < 0.16 else _animal(rng)
        canvas = self._background(rng, [noun])
        self._paste(canvas, noun, *_middle(rng))
        return _finished(canvas, noun if rng.random() < 0.3 else with_article(noun), _index(noun))

    def _colour(self, rng: np.random.Generator) -> Scene:
        noun, colour = _animal(rng), _draw(rng, COLOURS)
        canvas = self._background(rng, [], colour)
        self._paste(canvas, noun, *_middle(rng))
        return _finished(
            canvas, f"{with_article(noun)} on {with_article(colour)} background", _index(noun)
        )

    def _count(self, rng: np.random.Generator) -> Scene:
        noun, count = _animal(rng), int(rng.choice(COUNTS))
        canvas = self._background(rng, [noun])
        shown = int(rng.choice(COUNTS)) if rng.random() < WRONG_SHARE else count
        size, places = LAYOUTS[shown]
        for x, y in places:
            self._paste(
                canvas, noun, x + rng.uniform(-0.01, 0.01), y + rng.uniform(-0.01, 0.01), size
            )
        return _finished(canvas, f"{number_word(count)} {plural(noun)}", _index(noun), shown)

    def _activity(self, rng: np.random.Generator) -> Scene:
        noun = _animal(rng)
        activity = _draw(rng, UNSEEN_ACTIVITIES if rng.random() < 0.2 else ACTIVITIES)
        shown = _draw(rng, ACTIVITIES) if rng.random() < WRONG_SHARE else activity
        canvas = self._background(rng, [noun, shown])
        if shown == "riding a bike":
            self._paste(
                canvas, shown, 0.5 + rng.uniform(-0.02, 0.02), rng.uniform(0.71, 0.74), 0.62
            )
            self._paste(
                canvas,
                noun,
                0.5 + rng.uniform(-0.02, 0.02),
                rng.uniform(0.31, 0.34),
                rng.uniform(0.54, 0.58),
            )
        else:
            self._paste(
                canvas,
                noun,
                rng.uniform(0.33, 0.36),
                rng.uniform(0.37, 0.4),
                rng.uniform(0.6, 0.64),
            )
            self._paste(
                canvas,
                shown,
                rng.uniform(0.73, 0.76),
                rng.uniform(0.72, 0.75),
                rng.uniform(0.44, 0.48),
            )
        return _finished(
            canvas,
            f"{with_article(noun)} {activity}",
            _index(noun),
            1,
            list(ALL_ACTIVITIES).index(shown),
        )

    def _pair(self, rng: np.random.Generator) -> Scene:
        first, second = _animal(rng), _animal(rng) if rng.random() < 0.5 else _draw(rng, OBJECTS)
        canvas = self._background(rng, [first, second])
        self._paste(
            canvas, first, rng.uniform(0.26, 0.28), rng.uniform(0.4, 0.6), rng.uniform(0.46, 0.5)
        )
        self._paste(
            canvas, second, rng.uniform(0.72, 0.74), rng.uniform(0.4, 0.6), rng.uniform(0.42, 0.5)
        )
        joint = "and" if second in ALL_ANIMALS else "with"
        return _finished(canvas, f"{with_article(first)} {joint} {with_article(second)}")

    def _background(
        self, rng: np.random.Generator, glyphs: list[str], colour: str | None = None
    ) -> Image.Image:
        """A canvas that the glyphs stand out from, or one of a colour."""
        base = _jitter(rng, COLOURS[colour], 8) if colour else _shade(rng)
        while any(np.abs(self.tint[glyph] - base).sum() < 160 for glyph in glyphs):
            base = _shade(rng)
        kind = rng.choice(list(BACKGROUND_SHARES), p=list(BACKGROUND_SHARES.values()))
        return getattr(Backgrounds, kind)(rng, *_two_tones(rng, base))

    def _paste(self, canvas: Image.Image, glyph: str, x: float, y: float, size: float) -> None:
        picture = self.glyphs[glyph]
        scale = size * CANVAS / max(picture.size)
        picture = picture.resize(
            (max(1, int(picture.width * scale)), max(1, int(picture.height * scale))),
            Image.Resampling.BICUBIC,
        )
        canvas.paste(
            picture,
            (int(x * CANVAS - picture.width / 2), int(y * CANVAS - picture.height / 2)),
            picture,
        )


class Backgrounds:
    """Each: (rng, light, dark) -> a canvas.

    Textures are dark on light, on every other cell of one grid of CELL, which is one latent: their average is a texture too,
    so a denoiser that does not yet know which of them it draws has no reason to draw none.
    """

    @staticmethod
    def plain(
        rng: np.random.Generator, light: tuple[int, ...], dark: tuple[int, ...]
    ) -> Image.Image:
        return Image.new("RGB", (CANVAS, CANVAS), light)

    @staticmethod
    def checks(
        rng: np.random.Generator, light: tuple[int, ...], dark: tuple[int, ...]
    ) -> Image.Image:
        canvas = Backgrounds.plain(rng, light, dark)
        for x, y in _every_other_cell():
            ImageDraw.Draw(canvas).rectangle(
                (x - CELL // 2, y - CELL // 2, x + CELL // 2 - 1, y + CELL // 2 - 1), fill=dark
            )
        return canvas

    @staticmethod
    def dots(
        rng: np.random.Generator, light: tuple[int, ...], dark: tuple[int, ...]
    ) -> Image.Image:
        canvas, radius = Backgrounds.plain(rng, light, dark), 6
        for x, y in _every_other_cell():
            if x // CELL % 2:
                ImageDraw.Draw(canvas).ellipse(
                    (x - radius, y - radius, x + radius, y + radius), fill=dark
                )
        return canvas

    @staticmethod
    def stripes(
        rng: np.random.Generator, light: tuple[int, ...], dark: tuple[int, ...]
    ) -> Image.Image:
        canvas, radius = Backgrounds.plain(rng, light, dark), 7
        for x, y in _every_other_cell():
            if (x - y) // CELL % 4 == 0:
                ImageDraw.Draw(canvas).polygon(
                    [(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)], fill=dark
                )
        return canvas

    @staticmethod
    def waves(
        rng: np.random.Generator, light: tuple[int, ...], dark: tuple[int, ...]
    ) -> Image.Image:
        canvas = Backgrounds.plain(rng, light, dark)
        for top in range(CELL, CANVAS, 2 * CELL):
            line = [(x, top - 4 * np.cos((x - CELL / 2) * np.pi / CELL)) for x in range(CANVAS + 1)]
            ImageDraw.Draw(canvas).line(line, fill=dark, width=5)
        return canvas

    @staticmethod
    def confetti(
        rng: np.random.Generator, light: tuple[int, ...], dark: tuple[int, ...]
    ) -> Image.Image:
        canvas = Backgrounds.plain(rng, light, dark)
        draw = ImageDraw.Draw(canvas)
        for x, y in rng.integers(0, CANVAS, (int(rng.integers(120, 300)), 2)).tolist():
            side = int(rng.integers(2, 5))
            draw.rectangle((x - side, y - side, x + side, y + side), fill=_shade(rng))
        return canvas


def _draw(rng: np.random.Generator, words: dict) -> str:
    return list(words)[rng.integers(len(words))]


def _animal(rng: np.random.Generator) -> str:
    return _draw(rng, UNSEEN_ANIMALS if rng.random() < UNSEEN_SHARE else ANIMALS)


def _index(noun: str) -> int:
    return list(ALL_ANIMALS).index(noun) if noun in ALL_ANIMALS else -1


def _jitter(rng: np.random.Generator, colour: tuple[int, ...], spread: float) -> tuple[int, ...]:
    return tuple(int(v) for v in np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255))


def _middle(rng: np.random.Generator) -> tuple[float, float, float]:
    """x, y and size of the one thing in a picture."""
    return rng.uniform(0.48, 0.52), rng.uniform(0.48, 0.52), rng.uniform(0.7, 0.76)


def _every_other_cell() -> list[tuple[int, int]]:
    """The centres of the cells where textures are dark."""
    return [
        (CELL * i + CELL // 2, CELL * j + CELL // 2)
        for i in range(CANVAS // CELL)
        for j in range(i % 2, CANVAS // CELL, 2)
    ]


def _two_tones(
    rng: np.random.Generator, colour: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A light and a dark tone: the colour and a darker one or, where it is dark, a lighter one and the colour."""
    share, towards = rng.uniform(0.18, 0.28), 0 if sum(colour) >= 380 else 255
    other = tuple(int(v + (towards - v) * share) for v in colour)
    return (other, colour) if towards else (colour, other)


def _shade(rng: np.random.Generator) -> tuple[int, ...]:
    """Any colour a poster may have: one of the named, paler or not."""
    colour = _jitter(rng, COLOURS[_draw(rng, COLOURS)], 14)
    paler = rng.uniform(0, 0.75) if rng.random() < 0.6 else 0.0
    return tuple(int(v + (255 - v) * paler) for v in colour)


def _finished(
    canvas: Image.Image, caption: str, animal: int = -1, count: int = 1, activity: int = -1
) -> Scene:
    image = canvas.resize((SIZE_PIXELS, SIZE_PIXELS), Image.Resampling.BOX)
    return Scene(np.asarray(image), caption, animal, count, activity)
