from types import SimpleNamespace

import pytest
import tiny

from rediffuse.learning import precision
from rediffuse.lookup.build import build

IS = {"name": "ddpo_is", "advantage": "batch", "clip_range": 1e-4}


def warned(updates=2, dtype="bf16", **algorithm):
    config = tiny.config(updates_per_epoch=updates, algorithm=IS | algorithm)
    denoiser = SimpleNamespace(precision=dtype)
    return precision.warning(config, build("algorithm", config.algorithm), denoiser)


def test_later_updates_in_bf16_are_warned_of():
    said = warned()
    assert "in bf16" in said and "first of 2 updates" in said and "1e-05 is tolerable" in said
    assert "first of 3 updates" in warned(updates=1, inner_epochs=3)


@pytest.mark.parametrize(
    "over", [{"updates": 1}, {"dtype": "fp32"}, {"dtype": "fp16"}, {"clip_range": 1e-3}]
)
def test_what_is_exact_enough_is_not(over):
    assert not warned(**over)


def test_a_model_without_a_known_precision_is_not():
    config = tiny.config(algorithm=IS)
    assert not precision.warning(config, build("algorithm", config.algorithm), object())
