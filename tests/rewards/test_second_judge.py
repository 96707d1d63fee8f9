"""A second judge is asked about a share of the samples, and whatever becomes of it, the first's reward stays as it was."""

import json

import pytest
import tiny
import torch

from rediffuse import resume, train
from rediffuse.errors import ConfigError, RewardError
from rediffuse.lookup.build import build
from rediffuse.rewards.second_judge import cropped, free, recompressed, rows_to_ask
from rediffuse.scoring.judging import judged
from rediffuse.types import Judgement, NeedsLoading, Prompt

pytestmark = pytest.mark.usefixtures("without_charts")

IMAGES = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
PROMPTS = [Prompt("a cat")] * 40
MINE = """
import time, torch
from dataclasses import dataclass, field
from rediffuse.errors import RewardError
from rediffuse.types import Judgement

def whole(i, p):
    statuses = ["unparseable" if x % 5 == 0 else "ok" for x in range(len(p))]
    return Judgement(i.mean((1, 2, 3)), {"own": i[:, 0].mean((1, 2))}, {"said": ["x"] * len(p)}, statuses)
def taken(i, p):
    return Judgement(i.mean((1, 2, 3)), {"second_opinion": torch.ones(len(p))}, {"second_opinion_error": ["mine"] * len(p)})
def raises(i, p):
    raise KeyError("no")
def refuses(i, p):
    raise RewardError("the server is away", "timeout", passing=True)
def leaves(i, p):
    raise SystemExit(3)
def shape(i, p):
    return torch.zeros(len(p) + 1)
def nan(i, p):
    return torch.full((len(p),), float("nan"))
def infinite(i, p):
    return torch.full((len(p),), float("inf"))
def unsaid(i, p):
    return Judgement(torch.zeros(len(p)), statuses=["unparseable"] * len(p))
def waits(i, p):
    time.sleep(1)
    return torch.zeros(len(p))
def scribbles(i, p):
    i.zero_()
    return i.mean((1, 2, 3))
@dataclass(frozen=True)
class Loads:
    loaded: list = field(default_factory=list)
    def prepare(self, device):
        self.loaded.append(device)
    def __call__(self, i, p):
        return torch.zeros(len(p))
"""
FAILING = ["raises", "refuses", "leaves", "shape"]
UNSAYING = ["nan", "infinite", "unsaid"]


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def second(first, *others, **options):
    return build(
        "reward",
        {
            "name": "second_judge",
            "rewards": [{"name": str(each)} for each in (first, *others)],
            **options,
        },
    )


def untouched(got, first):
    """But for the part and the note that are the second's."""
    parts = {name: values for name, values in got.parts.items() if name != "second_opinion"}
    notes = {name: texts for name, texts in got.notes.items() if name != "second_opinion_error"}
    same = [
        parts.keys() == first.parts.keys(),
        notes == first.notes,
        got.statuses == first.statuses,
    ]
    same += [
        torch.equal(got.values, first.values),
        *(torch.equal(parts[name], first.parts[name]) for name in parts),
    ]
    return all(same)


def test_the_first_is_the_reward_and_the_second_a_part(mine):
    got = judged(second(f"{mine}:whole", "redness"), IMAGES, PROMPTS)
    first = judged(build("reward", {"name": f"{mine}:whole"}), IMAGES, PROMPTS)
    assert untouched(got, first)
    known = got.parts["second_opinion"].isfinite()
    torch.testing.assert_close(
        got.parts["second_opinion"][known],
        judged(build("reward", {"name": "redness"}), IMAGES, PROMPTS).values[known],
    )
    assert 2 < known.sum() < 20 and "second_opinion_error" not in got.notes
    assert all(first.statuses[i] == "ok" for i in known.nonzero().flatten().tolist())
    # the control
    assert not untouched(judged(second("redness", f"{mine}:whole"), IMAGES, PROMPTS), first)


@pytest.mark.parametrize("name", [*FAILING, *UNSAYING])
def test_a_second_judge_that_fails_harms_nobody(name, mine):
    got = judged(second(f"{mine}:whole", f"{mine}:{name}"), IMAGES, PROMPTS)
    assert untouched(got, judged(build("reward", {"name": f"{mine}:whole"}), IMAGES, PROMPTS))
    assert got.parts["second_opinion"].isnan().all()
    errors = got.notes.get("second_opinion_error", [])
    assert [bool(error) for error in errors] == (
        [i in asked() for i in range(40)] if name in FAILING else []
    )


def asked():
    return [i for i in rows_to_ask(IMAGES, 0.25) if i % 5]


@pytest.mark.parametrize("name", ["raises", "refuses"])
def test_a_first_judge_that_fails_fails_as_it_would_alone(name, mine):
    """The control: failures do matter where they are the first's."""
    with pytest.raises(RewardError) as alone:
        judged(build("reward", {"name": f"{mine}:{name}"}), IMAGES, PROMPTS)
    with pytest.raises(RewardError) as together:
        judged(second(f"{mine}:{name}", "redness"), IMAGES, PROMPTS)
    assert (str(together.value), together.value.status, together.value.passing) == (
        str(alone.value), alone.value.status, alone.value.passing
    )  # fmt: skip


def test_a_second_judge_that_hangs_is_left_behind_and_not_asked_while_it_does(mine):
    reward = second("redness", f"{mine}:waits", share=1.0, deadline_seconds=0.2)
    first, next_one = judged(reward, IMAGES, PROMPTS), judged(reward, IMAGES, PROMPTS)
    assert "took more than 0.2 seconds" in first.notes["second_opinion_error"][0]
    assert "still busy" in next_one.notes["second_opinion_error"][0]
    assert first.statuses == next_one.statuses == ["ok"] * 40
    reward._running["call"].result()
    patient = judged(
        second("redness", f"{mine}:waits", share=1.0, deadline_seconds=5), IMAGES[:1], PROMPTS[:1]
    )
    assert patient.parts["second_opinion"].tolist() == [0.0]  # the control


def test_what_the_second_does_to_its_pictures_is_its_own(mine):
    got = judged(second(f"{mine}:scribbles", "redness", share=1.0), IMAGES, PROMPTS)
    torch.testing.assert_close(
        got.parts["second_opinion"],
        judged(build("reward", {"name": "redness"}), IMAGES, PROMPTS).values,
    )


def test_a_picture_is_chosen_for_itself():
    """Whoever else is in the batch, whenever; and about as many as the share says."""
    images = torch.rand(2000, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    rows = rows_to_ask(images, 0.25)
    assert abs(len(rows) - 500) < 80
    assert rows_to_ask(images.flip(0), 0.25) == [1999 - i for i in reversed(rows)]
    assert [i for i in range(50) if rows_to_ask(images[i : i + 1], 0.25)] == [
        i for i in rows if i < 50
    ]
    assert set(rows) < set(rows_to_ask(images, 0.5)) and rows_to_ask(images, 1.0) == list(
        range(2000)
    )


def test_a_part_of_the_same_name_is_not_lost(mine):
    got = judged(second(f"{mine}:taken", "redness", share=1.0), IMAGES, PROMPTS)
    assert (got.parts["second_opinion"] == 1).all() and got.parts["second_opinion_2"].std() > 0
    assert free("a", {"a": 0, "a_2": 0, "a_4": 0}) == "a_3"
    got = judged(second(f"{mine}:taken", f"{mine}:raises", share=1.0), IMAGES, PROMPTS)
    assert got.notes["second_opinion_error"] == ["mine"] * 40


@pytest.mark.parametrize("copy", ["recompressed", "cropped"])
def test_one_reward_is_asked_about_a_copy_as_well(copy):
    reward = build(
        "reward",
        {"name": "second_judge", "rewards": [{"name": "redness"}], "copy": copy, "share": 1.0},
    )
    got, alone = (
        judged(reward, IMAGES, PROMPTS),
        judged(build("reward", {"name": "redness"}), IMAGES, PROMPTS),
    )
    assert untouched(got, alone)
    assert not torch.equal(got.parts["second_opinion"], alone.values)
    assert (got.parts["second_opinion"] - alone.values).abs().max() < 0.2


def test_a_recompressed_copy_is_nearly_the_picture_and_never_a_file_that_jpeg_keeps():
    smooth = torch.linspace(0, 1, 32).expand(2, 3, 32, 32)
    assert (recompressed(smooth) - smooth).abs().max() < 0.05
    noise = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert (recompressed(noise) - noise).abs().mean() > 0.1
    assert recompressed(noise).shape == noise.shape


def test_a_cropped_copy_has_lost_its_rim():
    image = torch.zeros(1, 3, 40, 60)
    image[..., :2, :] = image[..., -2:, :] = image[..., :3] = image[..., -3:] = 1
    assert cropped(image).shape == image.shape and cropped(image).max() == 0
    image[..., 2, :] = 1  # the control
    assert cropped(image).max() > 0


def test_both_are_loaded(mine):
    reward = second(f"{mine}:Loads", f"{mine}:Loads")
    assert isinstance(reward, NeedsLoading)
    reward.prepare("cpu")
    assert [term.reward.loaded for term in reward.rewards] == [["cpu"], ["cpu"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "two, as in"),
        ({"rewards": [{"name": "redness"}]}, "or one, and copy: recompressed or cropped"),
        ({"rewards": [{"name": "redness"}] * 2, "copy": "cropped"}, "or one, and copy"),
        ({"rewards": [{"name": "redness"}] * 3}, "two, as in"),
        (
            {"rewards": [{"name": "redness"}, {"name": "redness", "weight": 2}]},
            r"rewards\.1\.weight: nothing is added here",
        ),
        (
            {
                "rewards": [
                    {"name": "weighted_sum", "rewards": [{"name": "redness"}]},
                    {"name": "redness"},
                ]
            },
            r"rewards\.0: weighted_sum needs a whole epoch",
        ),
        ({"rewards": [{"name": "redness"}], "copy": "smaller"}, r"reward\.copy: "),
        ({"rewards": [{"name": "redness"}] * 2, "share": 0}, r"reward\.share: "),
        ({"rewards": [{"name": "redness"}, {"name": "rednes"}]}, "Did you mean 'redness'"),
    ],
)
def test_judges_that_cannot_be(options, said):
    with pytest.raises(ConfigError, match=said):
        build("reward", {"name": "second_judge", **options})


def test_a_run_learns_from_the_first_alone_and_goes_on_to_the_same_numbers(tmp_path):
    """And its metrics say what the second saw; the control is the run without it."""
    reward = {
        "name": "second_judge",
        "rewards": [{"name": "redness"}, {"name": "jpeg_compressibility"}],
        "share": 0.5,
    }
    train(tiny.config(reward=reward, epochs=3), tmp_path / "straight")
    train(tiny.config(reward=reward), tmp_path / "run")
    resume(tmp_path / "run", epochs=3)
    train(tiny.config(reward={"name": "redness"}, epochs=3), tmp_path / "alone")
    metrics = tiny.numbers(tmp_path / "run")
    assert metrics == tiny.numbers(tmp_path / "straight")
    assert [row["reward_mean"] for row in metrics] == [
        row["reward_mean"] for row in tiny.numbers(tmp_path / "alone")
    ]
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    seen = [
        row["parts"]["second_opinion"] for row in rows if row["parts"]["second_opinion"] is not None
    ]
    assert 0 < len(seen) < len(rows) and all(value < 0 for value in seen)
    of_the_first_epoch = [
        row["parts"]["second_opinion"] for row in rows if row["epoch"] == rows[0]["epoch"]
    ]
    known = [value for value in of_the_first_epoch if value is not None]
    assert metrics[0]["reward_second_opinion"] == pytest.approx(sum(known) / len(known))
    assert metrics[0]["reward_second_opinion"] != metrics[0]["reward_mean"]


def test_a_judgement_of_nobody_is_nobody_s():
    """A batch of which none is chosen asks nothing."""
    rows = set(range(40)) - set(rows_to_ask(IMAGES, 0.25))
    got = judged(second("redness", "redness"), IMAGES[sorted(rows)], PROMPTS[: len(rows)])
    assert got.parts["second_opinion"].isnan().all() and isinstance(got, Judgement)
