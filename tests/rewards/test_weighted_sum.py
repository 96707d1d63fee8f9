"""Several rewards as one."""

import json
import math

import pytest
import tiny
import torch

from rediffuse import resume, train
from rediffuse.errors import ConfigError
from rediffuse.lookup.build import build
from rediffuse.rewards.jpeg_compressibility import JpegCompressibility
from rediffuse.rewards.redness import Redness
from rediffuse.rewards.weighted_sum import Term, WeightedSum
from rediffuse.scoring.judging import judged
from rediffuse.types import Judgement, Prompt

pytestmark = pytest.mark.usefixtures("without_charts")

TERMS = [
    {"name": "redness", "weight": 2.0},
    {"name": "jpeg_compressibility", "quality": 50, "weight": -1},
]
IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(
    0.2, 1, 6
).view(6, 1, 1, 1)
PROMPTS = [Prompt("a cat")] * 6


def combined(parts, **options):
    reward = build("reward", {"name": "weighted_sum", "rewards": TERMS, **options})
    return reward.combined(
        {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}
    )


def test_the_sum_by_hand():
    """Means 2 and 30, deviations 1 and 10: (2 z1 - z2)."""
    parts = {"redness": [1.0, 3.0, 1.0, 3.0], "jpeg_compressibility": [20.0, 40.0, 40.0, 20.0]}
    torch.testing.assert_close(
        combined(parts),
        torch.tensor([-1.0, 1.0, -3.0, 3.0], dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )
    plain = combined(parts, normalize=False)
    assert plain.tolist() == [-18.0, -34.0, -38.0, -14.0]
    clipped = combined(parts, clip_at=0.5)
    assert clipped.tolist() == [-0.5, 0.5, -1.5, 1.5]


def test_what_one_part_does_not_know_the_sum_does_not():
    """And the others are measured without it."""
    parts = {"redness": [1.0, math.nan, 3.0], "jpeg_compressibility": [5.0, 5.0, 5.0]}
    got = combined(parts)
    assert got.isfinite().tolist() == [True, False, True]
    torch.testing.assert_close(
        got[[0, 2]], torch.tensor([-2.0, 2.0], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_what_became_of_a_term_becomes_of_the_sum(tmp_path):
    """The worst of both, but what timed out is asked again; a value beside a status that is not ok is nobody's."""
    (tmp_path / "mine.py").write_text(
        "from rediffuse.types import Judgement\nimport torch\n"
        "def one(i, p):\n    return Judgement(torch.zeros(4), statuses=['failed', 'failed', 'ok', 'ok'])\n"
        "def two(i, p):\n    return Judgement(torch.zeros(4), statuses=['ok', 'timeout', 'unparseable', 'ok'])\n"
    )
    terms = [{"name": f"{tmp_path / 'mine.py'}:one"}, {"name": f"{tmp_path / 'mine.py'}:two"}]
    got = judged(
        build("reward", {"name": "weighted_sum", "rewards": terms}), IMAGES[:4], PROMPTS[:4]
    )
    assert got.statuses == ["failed", "timeout", "unparseable", "ok"]
    assert got.values.isfinite().tolist() == [False, False, False, True]
    assert got.parts["one"].isfinite().tolist() == [False, False, True, True]


def test_what_is_infinite_is_not_clipped_to_a_number():
    got = combined(
        {"redness": [1.0, math.inf, 3.0, -math.inf], "jpeg_compressibility": [1.0, 2.0, 3.0, 4.0]}
    )
    assert got.isfinite().tolist() == [True, False, True, False]


def test_no_name_is_lost():
    same = {"name": "redness"}
    reward = build(
        "reward",
        {"name": "weighted_sum", "rewards": [same, same, {"name": f"{tiny.FILE}:redness_2"}]},
    )
    assert list(reward.terms) == ["redness", "redness_2", "redness_2_2"]


def test_its_parts_are_the_rewards_by_themselves():
    judgement = build("reward", {"name": "weighted_sum", "rewards": TERMS})(IMAGES, PROMPTS)
    torch.testing.assert_close(judgement.parts["redness"], Redness()(IMAGES, PROMPTS).double())
    torch.testing.assert_close(
        judgement.parts["jpeg_compressibility"], JpegCompressibility(50)(IMAGES, PROMPTS).double()
    )


def test_a_run_learns_from_the_sum_and_goes_on_to_the_same_numbers(tmp_path):
    """One file of anyone's among them, and the same reward twice."""
    (tmp_path / "mine.py").write_text(
        "def blue(images, prompts):\n    return [float(i[2].mean()) for i in images]\n"
    )
    terms = [*TERMS, {"name": f"{tmp_path / 'mine.py'}:blue"}, {"name": "redness"}]
    config = tiny.config(reward={"name": "weighted_sum", "rewards": terms}, epochs=3)
    train(config, tmp_path / "straight")
    train(
        tiny.config(reward={"name": "weighted_sum", "rewards": terms}, epochs=2), tmp_path / "run"
    )
    resume(tmp_path / "run", epochs=3)
    assert tiny.numbers(tmp_path / "run") == tiny.numbers(tmp_path / "straight")
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert set(rows[0]["parts"]) == {"redness", "jpeg_compressibility", "blue", "redness_2"}
    assert abs(sum(row["reward"] for row in rows[:8])) < 1e-5
    assert all(row["parts"]["redness"] == row["parts"]["redness_2"] for row in rows)
    metrics = tiny.numbers(tmp_path / "run")
    assert metrics[0]["reward_redness"] != metrics[0]["reward_blue"]


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ([], "name at least one"),
        ([{"name": "redness", "weight": 0}], "name at least one"),
        ("redness", "must be a list like"),
        (["redness"], "must be a list like"),
        ([{"name": "rednes"}], "no 'rednes' among rewards.*Did you mean 'redness'"),
        ([{"name": "redness", "qualiti": 3}], "reward.qualiti: 'redness' has no such option"),
        ([{"name": "redness", "weight": "much"}], "reward.rewards.0.weight: "),
        ([{"name": "weighted_sum", "rewards": [{"name": "redness"}]}], "a sum within a sum"),
        ([{"weight": 1}], "no '' among rewards"),
    ],
)
def test_terms_that_cannot_be(rewards, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        train(tiny.config(reward={"name": "weighted_sum", "rewards": rewards}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_term_is_made_of_is_told_under_its_name():
    def bright(images, prompts):
        return Judgement(images.mean((1, 2, 3)), {"red": images[:, 0].mean((1, 2))})

    terms = [Term("bright", bright), Term("redness", build("reward", {"name": "redness"}), 2.0)]
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    summed = WeightedSum(tuple(terms))
    judgement = summed(images, [Prompt("a cat")] * 4)
    assert set(judgement.parts) == {"bright", "redness", "bright_red"}
    torch.testing.assert_close(
        judgement.parts["bright_red"], images[:, 0].mean((1, 2)), check_dtype=False
    )
    without = {name: judgement.parts[name] for name in ("bright", "redness")}
    torch.testing.assert_close(summed.combined(judgement.parts), summed.combined(without))
