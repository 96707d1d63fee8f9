"""The rewards of a run as one: sums, and rewards that are only watched."""

import gc
import json
import math
import threading
import time

import pytest
import tiny
import torch

from rediffuse import resume, train
from rediffuse.errors import ConfigError, RewardError
from rediffuse.lookup.parts import assemble
from rediffuse.rewards.jpeg_compressibility import JpegCompressibility
from rediffuse.rewards.redness import Redness
from rediffuse.scoring.copies import cropped, recompressed
from rediffuse.scoring.judging import judged
from rediffuse.scoring.terms import Combination, load_reward
from rediffuse.scoring.watched import Watched, rows_in_share
from rediffuse.types import Judgement, Prompt

pytestmark = pytest.mark.usefixtures("without_charts")

SUM = [
    {"name": "redness", "weight": 2.0},
    {"name": "jpeg_compressibility", "quality": 50, "weight": -1},
]
IMAGES = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * torch.linspace(
    0.2, 1, 40
).view(40, 1, 1, 1)
PROMPTS = [Prompt("a cat")] * 40
MINE = """
import threading, time, torch
from dataclasses import dataclass
from rediffuse.errors import RewardError
from rediffuse.types import Judgement

def whole(i, p):
    statuses = ["unparseable" if x % 5 == 0 else "ok" for x in range(len(p))]
    return Judgement(i.mean((1, 2, 3)), {"own": i[:, 0].mean((1, 2))}, {"said": ["x"] * len(p)}, statuses)
def parted(i, p):
    return Judgement(i.mean((1, 2, 3)), {"red": i[:, 0].mean((1, 2))}, {"said": ["y"] * len(p)})
def one(i, p):
    return Judgement(torch.zeros(4), statuses=['failed', 'failed', 'ok', 'ok'])
def two(i, p):
    return Judgement(torch.zeros(4), statuses=['ok', 'timeout', 'unparseable', 'ok'])
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
    size: int = 1
    def load(self, device):
        with open(f"{__file__}.log", "a") as log:
            log.write(device)
        return lambda samples, prompts: torch.full((len(prompts),), float(self.size))
@dataclass(frozen=True)
class Weighs:
    weight: float = 1.0
    def __call__(self, samples, prompts):
        return torch.zeros(len(prompts))
class Prepares:
    def prepare(self, device):
        pass
    def __call__(self, samples, prompts):
        return torch.zeros(len(prompts))
class Both(Prepares):
    def load(self, device):
        return self
class LoadsPath:
    @classmethod
    def load(cls):
        return cls()
class LoadsNothing:
    def load(self, device):
        self.net = 3
class LoadsBadly:
    def load(self, device):
        raise RuntimeError("out of memory")
@dataclass(frozen=True)
class OfOneThread:
    # whatever thread loads it must call it
    def load(self, device):
        home = threading.get_ident()
        def scores(samples, prompts):
            assert threading.get_ident() == home
            return samples.mean((1, 2, 3))
        return scores
def parted_like(i, p):
    return Judgement(i.mean((1, 2, 3)), {"redness": torch.full((len(p),), 7.0)})
def a(i, p):
    return Judgement(torch.zeros(len(p)), {"b_c": torch.full((len(p),), 1.0)})
def a_b(i, p):
    return Judgement(torch.zeros(len(p)), {"c": torch.full((len(p),), 2.0)})
def mean(i, p):
    return torch.full((len(p),), 5.0)
"""
FAILING = ["raises", "refuses", "leaves", "shape"]
UNSAYING = ["nan", "infinite", "unsaid"]


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def summed(parts, **scoring):
    """By the sum of redness, twice, less compressibility."""
    return tiny.combined(SUM, **scoring).combined(
        {name: torch.tensor(values, dtype=torch.float64) for name, values in parts.items()}
    )


def test_the_sum_by_hand():
    """Means 2 and 30, deviations 1 and 10: (2 z1 - z2)."""
    parts = {"redness": [1.0, 3.0, 1.0, 3.0], "jpeg_compressibility": [20.0, 40.0, 40.0, 20.0]}
    torch.testing.assert_close(
        summed(parts),
        torch.tensor([-1.0, 1.0, -3.0, 3.0], dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )
    assert summed(parts, normalize=False).tolist() == [-18.0, -34.0, -38.0, -14.0]
    assert summed(parts, clip_at=0.5).tolist() == [-0.5, 0.5, -1.5, 1.5]


def test_what_one_part_lacks_the_sum_lacks():
    """And the others are measured without it."""
    parts = {"redness": [1.0, math.nan, 3.0], "jpeg_compressibility": [5.0, 5.0, 5.0]}
    got = summed(parts)
    assert got.isfinite().tolist() == [True, False, True]
    torch.testing.assert_close(
        got[[0, 2]], torch.tensor([-2.0, 2.0], dtype=torch.float64), atol=1e-6, rtol=0
    )


def test_what_is_infinite_is_not_clipped_to_a_number():
    got = summed(
        {"redness": [1.0, math.inf, 3.0, -math.inf], "jpeg_compressibility": [1.0, 2.0, 3.0, 4.0]}
    )
    assert got.isfinite().tolist() == [True, False, True, False]


def test_the_status_of_a_sum_is_the_worst_of_its_terms(mine):
    """But what timed out is retried; a value beside a status that is not ok does not count."""
    got = judged(
        tiny.combined([{"name": f"{mine}:one"}, {"name": f"{mine}:two"}]), IMAGES[:4], PROMPTS[:4]
    )
    assert got.statuses == ["failed", "timeout", "unparseable", "ok"]
    assert got.values.isfinite().tolist() == [False, False, False, True]
    assert got.parts["one"].isfinite().tolist() == [False, False, True, True]


def test_no_two_terms_share_a_name():
    same = {"name": "redness"}
    rewards = [same, same, {"name": f"{tiny.FILE}:redness_2"}]
    assert [term.name for term in tiny.combined(rewards).trained] == [
        "redness",
        "redness_2",
        "redness_2_2",
    ]


def test_the_parts_of_a_sum_are_its_rewards_by_themselves():
    judgement = tiny.combined(SUM)(IMAGES, PROMPTS)
    torch.testing.assert_close(judgement.parts["redness"], Redness()(IMAGES, PROMPTS).double())
    torch.testing.assert_close(
        judgement.parts["jpeg_compressibility"], JpegCompressibility(50)(IMAGES, PROMPTS).double()
    )


def test_the_parts_of_a_term_are_logged_under_its_name(mine):
    reward = tiny.combined([{"name": f"{mine}:parted"}, {"name": "redness", "weight": 2}])
    judgement = reward(IMAGES, PROMPTS)
    assert set(judgement.parts) == {"parted", "redness", "parted_red"}
    assert judgement.notes == {"parted_said": ["y"] * 40}
    red = IMAGES[:, 0].mean((1, 2))
    torch.testing.assert_close(judgement.parts["parted_red"], red, check_dtype=False)
    without = {name: judgement.parts[name] for name in ("parted", "redness")}
    torch.testing.assert_close(reward.combined(judgement.parts), reward.combined(without))


def test_a_single_reward_keeps_its_own_values_unless_it_has_a_weight():
    alone = judged(Redness(), IMAGES, PROMPTS)
    assert torch.equal(judged(tiny.combined("redness"), IMAGES, PROMPTS).values, alone.values)
    turned = tiny.combined([{"name": "redness", "weight": -2}])
    assert not turned.is_relative
    torch.testing.assert_close(
        turned.combined(judged(turned, IMAGES, PROMPTS).parts), -2 * alone.values
    )


def test_a_run_learns_from_a_sum_and_resumes_to_the_same_numbers(tmp_path):
    """One file of anyone's among them, and the same reward twice."""
    (tmp_path / "mine.py").write_text(
        "def blue(images, prompts):\n    return [float(i[2].mean()) for i in images]\n"
    )
    rewards = [*SUM, {"name": f"{tmp_path / 'mine.py'}:blue"}, {"name": "redness"}]
    train(tiny.config(rewards=rewards, epochs=3), tmp_path / "straight")
    train(tiny.config(rewards=rewards), tmp_path / "run")
    resume(tmp_path / "run", epochs=3)
    assert tiny.numbers(tmp_path / "run") == tiny.numbers(tmp_path / "straight")
    rows = journal(tmp_path / "run")
    assert set(rows[0]["parts"]) == {"redness", "jpeg_compressibility", "blue", "redness_2"}
    assert abs(sum(row["reward"] for row in rows[:8])) < 1e-5
    assert all(row["parts"]["redness"] == row["parts"]["redness_2"] for row in rows)
    metrics = tiny.numbers(tmp_path / "run")
    assert metrics[0]["reward_redness"] != metrics[0]["reward_blue"]
    assert metrics[0]["relative_reward"] == 1.0


def journal(run):
    return [json.loads(line) for line in (run / "rewards.jsonl").read_text().splitlines()]


def watched(first, *others, share=0.25, **scoring):
    entries = [{"name": str(each), "weight": 0, "share": share} for each in others]
    return AllOf([{"name": str(first)}, *entries], **scoring)


class AllOf:
    """The trained rewards and then the watched ones, as a run calls them."""

    def __init__(self, rewards, **scoring):
        terms, options = tiny.terms_of(rewards, **scoring)
        self._trained = Combination(terms, options)
        self._watched = [
            Watched(term, options.untrained_seconds) for term in terms if not term.use.is_trained
        ]

    def __call__(self, samples, prompts):
        judgement = judged(self._trained, samples, prompts)
        for each in self._watched:
            judgement = each.beside(judgement, samples, prompts)
        return judgement


def unchanged(got, first, *watched_names):
    """All but what the watched rewards add."""

    def own(each):
        return {k: v for k, v in each.items() if not k.startswith(watched_names)}

    parts = own(got.parts)
    same = [parts.keys() == first.parts.keys(), own(got.notes) == first.notes]
    same += [got.statuses == first.statuses, torch.equal(got.values, first.values)]
    return all([*same, *(torch.equal(parts[name], first.parts[name]) for name in parts)])


def alone(mine, name):
    return judged(tiny.loaded({"name": f"{mine}:{name}"}), IMAGES, PROMPTS)


def test_a_watched_reward_adds_a_part_and_changes_nothing(mine):
    got = judged(watched(f"{mine}:whole", "redness"), IMAGES, PROMPTS)
    first = alone(mine, "whole")
    assert unchanged(got, first, "redness")
    known = got.parts["redness"].isfinite()
    torch.testing.assert_close(
        got.parts["redness"][known], judged(Redness(), IMAGES, PROMPTS).values[known]
    )
    assert 2 < known.sum() < 20 and "redness_error" not in got.notes
    assert all(first.statuses[i] == "ok" for i in known.nonzero().flatten().tolist())
    # the control
    assert not unchanged(
        judged(watched("redness", f"{mine}:whole"), IMAGES, PROMPTS), first, "whole"
    )


def test_what_a_watched_reward_is_made_of_is_logged_under_its_name(mine):
    got = judged(watched("redness", f"{mine}:parted"), IMAGES, PROMPTS)
    known = got.parts["parted"].isfinite()
    torch.testing.assert_close(
        got.parts["parted_red"][known], IMAGES[known, 0].mean((1, 2)), check_dtype=False
    )
    assert got.parts["parted_red"][~known].isnan().all()
    assert [text == "y" for text in got.notes["parted_said"]] == known.tolist()


@pytest.mark.parametrize("name", [*FAILING, *UNSAYING])
def test_a_watched_reward_that_fails_changes_nothing(name, mine):
    got = judged(watched(f"{mine}:whole", f"{mine}:{name}"), IMAGES, PROMPTS)
    assert unchanged(got, alone(mine, "whole"), name)
    assert got.parts[name].isnan().all()
    errors = got.notes.get(f"{name}_error", [])
    expected = [i in rows_in_share(IMAGES, 0.25) and i % 5 > 0 for i in range(40)]
    assert [bool(error) for error in errors] == (expected if name != "unsaid" else [])


@pytest.mark.parametrize("name", ["raises", "refuses"])
def test_a_trained_reward_that_fails_fails_as_it_would_alone(name, mine):
    """The control: failures do matter where they are the trained reward's."""
    with pytest.raises(RewardError) as by_itself:
        alone(mine, name)
    with pytest.raises(RewardError) as together:
        judged(watched(f"{mine}:{name}", "redness"), IMAGES, PROMPTS)
    assert (str(together.value), together.value.status, together.value.passing) == (
        str(by_itself.value), by_itself.value.status, by_itself.value.passing
    )  # fmt: skip


def test_a_watched_reward_that_hangs_is_not_called_again_while_it_does(mine):
    reward = watched("redness", f"{mine}:waits", share=1.0, untrained_seconds=0.2)
    first, next_one = judged(reward, IMAGES, PROMPTS), judged(reward, IMAGES, PROMPTS)
    assert "took more than 0.2 seconds" in first.notes["waits_error"][0]
    assert "still busy" in next_one.notes["waits_error"][0]
    assert first.statuses == next_one.statuses == ["ok"] * 40
    patient = watched("redness", f"{mine}:waits", share=1.0, untrained_seconds=5)
    got = judged(patient, IMAGES[:1], PROMPTS[:1])
    assert got.parts["waits"].tolist() == [0.0]  # the control


def test_what_a_reward_does_to_its_samples_is_its_own(mine):
    got = judged(watched(f"{mine}:scribbles", "redness", share=1.0), IMAGES, PROMPTS)
    torch.testing.assert_close(got.parts["redness"], judged(Redness(), IMAGES, PROMPTS).values)


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 3, 4, 4), (5,)])
def test_a_sample_decides_by_itself_whether_it_is_in_the_share(shape):
    """Whoever else is in the batch, whenever; and about as many as the share says."""
    samples = torch.rand(2000, *shape, generator=torch.Generator().manual_seed(1))
    rows = rows_in_share(samples, 0.25)
    assert abs(len(rows) - 500) < 80
    assert rows_in_share(samples.flip(0), 0.25) == [1999 - i for i in reversed(rows)]
    assert [i for i in range(50) if rows_in_share(samples[i : i + 1], 0.25)] == [
        i for i in rows if i < 50
    ]
    assert set(rows) < set(rows_in_share(samples, 0.5))
    assert rows_in_share(samples, 1.0) == list(range(2000))


@pytest.mark.parametrize("copy", ["recompressed", "cropped"])
def test_the_trained_reward_can_be_watched_on_copies(copy):
    entry = {"name": "redness", "weight": 0, "share": 1.0, "copy": copy}
    got = judged(AllOf([{"name": "redness"}, entry]), IMAGES, PROMPTS)
    by_itself, name = judged(Redness(), IMAGES, PROMPTS), f"redness_{copy}"
    assert unchanged(got, by_itself, name)
    assert not torch.equal(got.parts[name], by_itself.values)
    assert (got.parts[name] - by_itself.values).abs().max() < 0.2


def test_a_recompressed_copy_is_nearly_the_image_and_never_a_file_that_jpeg_keeps():
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


def test_equal_rewards_are_loaded_once(mine):
    name = f"{mine}:Loads"
    entries = [{"name": name}, {"name": name, "weight": 0, "share": 1}, {"name": name, "size": 2}]
    got = judged(AllOf(entries, normalize=False), IMAGES, PROMPTS)
    assert {part: values[0].item() for part, values in got.parts.items()} == {
        "Loads": 1.0,
        "Loads_2": 1.0,
        "Loads_3": 2.0,
    }
    assert mine.with_suffix(".py.log").read_text() == "cpucpu"


def test_a_share_without_samples_calls_nothing(mine):
    rows = sorted(set(range(40)) - set(rows_in_share(IMAGES, 0.25)))
    got = judged(watched("redness", f"{mine}:raises"), IMAGES[rows], PROMPTS[: len(rows)])
    assert got.parts["raises"].isnan().all() and isinstance(got, Judgement) and not got.notes


def test_a_run_learns_from_the_trained_reward_alone_and_resumes_to_the_same_numbers(tmp_path):
    """And its metrics say what the watched one saw; the control is the run without it."""
    rewards = [{"name": "redness"}, {"name": "jpeg_compressibility", "weight": 0, "share": 0.5}]
    train(tiny.config(rewards=rewards, epochs=3), tmp_path / "straight")
    train(tiny.config(rewards=rewards), tmp_path / "run")
    resume(tmp_path / "run", epochs=3)
    train(tiny.config(reward={"name": "redness"}, epochs=3), tmp_path / "alone")
    metrics = tiny.numbers(tmp_path / "run")
    assert metrics == tiny.numbers(tmp_path / "straight")
    assert [row["reward_mean"] for row in metrics] == [
        row["reward_mean"] for row in tiny.numbers(tmp_path / "alone")
    ]
    rows = journal(tmp_path / "run")
    seen = [row["parts"]["jpeg_compressibility"] for row in rows]
    known = [value for value in seen if value is not None]
    assert 0 < len(known) < len(rows) and all(value < 0 for value in known)
    of_the_first = [value for value in seen[: len(rows) // 3] if value is not None]
    assert metrics[0]["reward_jpeg_compressibility"] == pytest.approx(
        sum(of_the_first) / len(of_the_first)
    )


def test_a_reward_of_weight_0_scores_evaluations_too(tmp_path):
    """One that scores copies does not: it is the trained reward in another form."""
    rewards = [
        {"name": "redness"},
        {"name": "jpeg_compressibility", "weight": 0, "share": 0.5},
        {"name": "redness", "weight": 0, "share": 0.5, "copy": "cropped"},
        {"name": "jpeg_incompressibility", "weight": 0},
    ]
    train(tiny.config(rewards=rewards, epochs=1), tmp_path / "run")
    look = json.loads((tmp_path / "run" / "monitor.jsonl").read_text().splitlines()[0])
    assert set(look["held_out"]) == {"jpeg_compressibility", "jpeg_incompressibility"}
    parts = journal(tmp_path / "run")[0]["parts"]
    assert set(parts) == {"jpeg_compressibility", "redness_cropped"}


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ([], "none is trained on"),
        ([{"name": "redness", "weight": 0}], "none is trained on"),
        (3, "rewards: must be a list such as"),
        ([3], "rewards.0: must be a name or"),
        ([{"name": "rednes"}], "no 'rednes' among rewards.*Did you mean 'redness'"),
        ([{"name": "redness", "qualiti": 3}], "reward.qualiti: 'redness' has no such option"),
        ([{"name": "redness", "weight": "much"}], r"rewards\.0\.weight: "),
        ([{"name": "redness", "weight": math.nan}], r"rewards\.0\.weight: "),
        ([{"weight": 1}], "no '' among rewards"),
        ([{"name": "redness", "share": 0.5}], r"rewards\.0\.share: redness is trained on"),
        ([{"name": "redness", "copy": "cropped"}], r"rewards\.0\.copy: redness is trained on"),
        (["redness", {"name": "redness", "weight": 0, "copy": "cropped"}], r"rewards\.1\.copy: .*share"),
        (["redness", {"name": "redness", "weight": 0, "share": 2}], r"rewards\.1\.share: "),
        (["redness", {"name": "redness", "weight": 0, "share": 1, "copy": "x"}], r"rewards\.1\.copy: "),
        ("weighted_sum", "there is no weighted_sum any more. List its rewards"),
        ("second_judge", "there is no second_judge any more. List the second reward"),
        ({"3": {"weight": 2}}, r"rewards\.3: no such reward; there are 0 \(redness\)"),
        ({"0": 3}, r"rewards\.0: must hold keys and values"),
    ],
)  # fmt: skip
def test_lists_that_cannot_be(rewards, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        train(tiny.config(rewards=rewards), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Weighs", "has an option 'weight', which in a list of rewards says how"),
        ("Prepares", r"has prepare\(device\), which nothing calls. Rename it load"),
        ("Both", "has both __call__ and load"),
        ("LoadsPath", r"its method load cannot be called with a device"),
    ],
)
def test_a_reward_whose_options_or_methods_mean_something_else(name, said, mine):
    with pytest.raises(ConfigError, match=said):
        assemble(tiny.config(reward={"name": f"{mine}:{name}"}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LoadsNothing", "must return the function that scores.*it returned NoneType"),
        ("LoadsBadly", "cannot be loaded: RuntimeError: out of memory"),
    ],
)
def test_a_reward_whose_load_fails_is_named_before_anything_is_sampled(name, said, mine, tmp_path):
    with pytest.raises(ConfigError, match=said):
        train(tiny.config(reward={"name": f"{mine}:{name}"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_object_given_in_python_is_checked_like_one_that_is_named(tmp_path):
    class Prepares:
        def prepare(self, device):
            raise AssertionError

        def __call__(self, samples, prompts):
            return torch.zeros(len(prompts))

    with pytest.raises(ConfigError, match="has prepare"):
        train(tiny.config(), tmp_path / "run", reward=Prepares())


def test_what_loads_is_loaded_once_and_what_is_called_is_left_as_it_is():
    assert load_reward(Redness(), "cpu") == Redness()


def test_a_reward_is_always_called_on_the_thread_that_loaded_it(mine, tmp_path):
    """Trained, watched, and in evaluations."""
    name = f"{mine}:OfOneThread"
    rewards = ["redness", {"name": name, "weight": 0, "share": 1}]
    train(tiny.config(rewards=rewards, epochs=1), tmp_path / "run")
    assert all(row["parts"]["OfOneThread"] is not None for row in journal(tmp_path / "run"))
    look = json.loads((tmp_path / "run" / "monitor.jsonl").read_text().splitlines()[0])
    assert look["held_out"]["OfOneThread"]["mean"] is not None
    train(tiny.config(reward={"name": name}, epochs=1), tmp_path / "trained")


def test_a_slow_watched_reward_leaves_the_trained_one_its_time(mine, tmp_path):
    """In evaluations it is too slow, and left out."""
    rewards = ["redness", {"name": f"{mine}:waits", "weight": 0, "share": 1}]
    times = {"timeout_seconds": 0.5, "deadline_seconds": 0.5}
    train(tiny.config(rewards=rewards, epochs=1, scoring=times), tmp_path / "run")
    rows = journal(tmp_path / "run")
    assert [(row["status"], row["attempts"]) for row in rows] == [("ok", 1)] * len(rows)
    assert all(row["parts"]["waits"] == 0 for row in rows)


def test_names_of_parts_that_clash_are_numbered(mine):
    got = judged(watched(f"{mine}:parted_like", "redness", share=1.0), IMAGES, PROMPTS)
    assert torch.equal(got.parts["redness"], judged(Redness(), IMAGES, PROMPTS).values)
    assert (got.parts["redness_2"] == 7).all()
    got = tiny.combined([{"name": f"{mine}:a"}, {"name": f"{mine}:a_b"}])(IMAGES, PROMPTS)
    assert (got.parts["a_b_c"] == 1).all() and (got.parts["a_b_c_2"] == 2).all()


def test_a_reward_called_like_a_column_has_one_of_its_own(mine, tmp_path):
    rewards = ["redness", {"name": f"{mine}:mean", "weight": 0, "share": 1}]
    row = train(tiny.config(rewards=rewards, epochs=1), tmp_path / "run")[0]
    assert row["reward_mean"] == row["reward_redness"] != row["reward_mean_2"] == 5.0


@pytest.mark.parametrize(
    ("before", "after", "reused"),
    [
        ([{"name": "redness", "weight": 2}], [{"name": "redness", "weight": 3}], True),
        ([{"name": "redness", "weight": 2}], [{"name": "redness"}], False),
        ([{"name": "redness"}], [{"name": "redness", "weight": 2}], False),
        (["redness", {"name": "jpeg_compressibility", "weight": 0, "share": 1}],
         [{"name": "redness", "weight": 0, "share": 1}, "jpeg_compressibility"], False),
        (["redness", {"name": "remote", "timeout_seconds": 1}],
         ["redness", {"name": "remote", "timeout_seconds": 2}], True),
    ],
)  # fmt: skip
def test_paid_rewards_are_reused_only_if_they_mean_the_same(before, after, reused, tmp_path):
    from rediffuse.scoring.journal import _fingerprint

    prints = [_fingerprint(tiny.config(rewards=each).rewards) for each in (before, after)]
    assert (prints[0] == prints[1]) == reused


def test_a_weight_that_is_changed_after_a_failure_changes_all_rewards_of_the_epoch(tmp_path):
    """Four of eight samples were paid for when the reward failed."""
    reward = tiny.reward_that_dies_at(1, RewardError("away"))
    run = tmp_path / "run"
    with pytest.raises(RewardError):
        train(tiny.config(), run, reward=reward)
    text = (run / "config.yaml").read_text()
    assert "weight: 1.0" in text
    (run / "config.yaml").write_text(text.replace("weight: 1.0", "weight: 2.0"))
    resume(run, reward=tiny.reward_that_dies_at(None))
    train(tiny.config(), tmp_path / "usual", reward=tiny.reward_that_dies_at(None))
    first = [row["reward"] for row in journal(tmp_path / "usual")[:8]]
    assert [row["reward"] for row in journal(run)[:8]] == pytest.approx(
        [2 * each for each in first]
    )


def test_the_threads_of_all_rewards_end_with_the_run(mine, tmp_path):
    """Also those of watched and held-out rewards, without waiting for the garbage collector."""
    gc.disable()
    try:
        before = set(threading.enumerate())
        rewards = [
            "redness",
            {"name": f"{mine}:parted", "weight": 0, "share": 1},
            {"name": f"{mine}:whole", "weight": 0},
        ]
        train(tiny.config(rewards=rewards, epochs=1), tmp_path / "run")
        for _ in range(100):
            left = [t.name for t in set(threading.enumerate()) - before if "_work" in t.name]
            if not left:
                return
            time.sleep(0.05)
        raise AssertionError(left)
    finally:
        gc.enable()
