import numpy as np
import pytest

from pretraining import scenes
from pretraining.scenes import (
    BACKGROUND_SHARES,
    KIND_SHARES,
    SIZE_PIXELS,
    WRONG_SHARE,
    Painter,
    number_word,
)
from pretraining.vocabulary import ALL_ACTIVITIES, ALL_ANIMALS, ANIMALS, CODE_POINTS
from rediffuse.prompts._animals import NAMES


@pytest.fixture(scope="module")
def painter() -> Painter:
    """Grey squares for glyphs, each opaque."""
    square = np.full((8, 8, 4), 128, np.uint8)
    square[..., 3] = 255
    return Painter(dict.fromkeys(CODE_POINTS, square))


@pytest.mark.parametrize("kind", KIND_SHARES)
def test_a_scene_depends_on_its_seed_and_number_alone(painter: Painter, kind: str) -> None:
    first, again, other = (
        painter.scene(3, 7, kind),
        painter.scene(3, 7, kind),
        painter.scene(3, 8, kind),
    )
    assert first.image.shape == (SIZE_PIXELS, SIZE_PIXELS, 3) and first.image.dtype == np.uint8
    assert first.caption == again.caption and (first.image == again.image).all()
    assert (first.image != other.image).any()


@pytest.mark.parametrize("background", BACKGROUND_SHARES)
def test_every_background_is_drawn(
    painter: Painter, background: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "BACKGROUND_SHARES", {background: 1.0})
    image = painter.scene(0, 0, "single").image
    around = np.concatenate([image[:8], image[-8:]])  # above and below the animal
    colours = len(np.unique(around.reshape(-1, 3), axis=0))
    assert colours == 1 if background == "plain" else colours > 1


def test_labels_say_what_is_shown_and_captions_are_careless_as_often_as_stated(
    painter: Painter,
) -> None:
    herds = [painter.scene(0, i, "count") for i in range(2000)]
    said = np.mean([scene.caption.startswith(number_word(scene.count)) for scene in herds])
    # of the careless, one in seven is right by chance
    assert said == pytest.approx(1 - WRONG_SHARE * 6 / 7, abs=0.04)
    doing = [painter.scene(0, i, "activity") for i in range(2000)]
    said = np.mean(
        [scene.caption.endswith(list(ALL_ACTIVITIES)[scene.activity]) for scene in doing]
    )
    assert said == pytest.approx(1 - WRONG_SHARE * (1 - 0.8 / 3), abs=0.04)


def test_the_animals_are_those_of_the_prompts() -> None:
    assert tuple(ANIMALS) == NAMES


def test_a_single_animal_is_named_by_its_label(painter: Painter) -> None:
    for i in range(50):
        scene = painter.scene(0, i, "single")
        if scene.animal >= 0:
            assert scene.caption.endswith(list(ALL_ANIMALS)[scene.animal])
