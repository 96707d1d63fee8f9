import json
import math
import threading
import time
from dataclasses import replace

import pytest
import tiny
import torch

from rediffuse.config.schema import Scoring
from rediffuse.errors import Interrupted, RewardError
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect
from rediffuse.samplers.ddim import DDIM
from rediffuse.scoring import scorer as scoring
from rediffuse.scoring.journal import Scored
from rediffuse.scoring.judging import judged, name_of
from rediffuse.scoring.scores import Scores, summary
from rediffuse.start import train
from rediffuse.types import Judgement, Prompt, Rollout, Trajectory

pytestmark = pytest.mark.usefixtures("without_charts")


def scorer(reward, num_samples, stop_if_asked=lambda: None, **options):
    return scoring.Scorer(
        reward,
        Scoring(**options),
        name=name_of(reward),
        num_samples=num_samples,
        stop_if_asked=stop_if_asked,
    )


IMAGES, PROMPTS = torch.rand(4, 3, 8, 8), [Prompt("a cat")] * 4


def test_a_plain_function_with_a_list_is_a_reward():
    got = judged(lambda images, prompts: [1, 2.5, 3, 4], IMAGES, PROMPTS)
    assert got.values.tolist() == [1.0, 2.5, 3.0, 4.0]


def wrong(images, prompts):
    raise KeyError("oh")


def scalar(images, prompts):
    return images.mean()


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (scalar, r"scalar must give one number per image, shape \(4,\); it gave shape \(\)"),
        (lambda i, p: i.mean((1, 2, 3))[:3], r"it gave shape \(3,\)"),
        (lambda i, p: i.mean((1, 2, 3))[:, None], r"it gave shape \(4, 1\)"),
        (lambda i, p: None, "it gave NoneType"),
        (lambda i, p: "1234", "it gave str"),
        (
            lambda i, p: Judgement(i.mean((1, 2, 3)), {"red": i[:2, 0, 0, 0]}),
            r"red: must give one number per image, shape \(4,\)",
        ),
        (
            lambda i, p: Judgement(i.mean((1, 2, 3)), notes={"said": ["a"]}),
            r"must give one text per image, 4, for the note said; it gave \['a'\]",
        ),
        (wrong, "wrong failed on a batch of 4 images: KeyError: 'oh'"),
    ],
)
def test_a_reward_of_the_wrong_form_is_named(reward, said):
    with pytest.raises(RewardError, match=said):
        judged(reward, IMAGES, PROMPTS)


def test_a_reward_cannot_change_the_images():
    kept = IMAGES.clone()
    judged(lambda images, prompts: images.zero_().mean((1, 2, 3)), IMAGES, PROMPTS)
    assert torch.equal(IMAGES, kept)


def test_a_reward_cannot_change_the_metadata():
    prompt = Prompt("a cat", {"weight": 2.0})
    for _ in range(2):
        assert judged(
            lambda images, prompts: [prompts[0].metadata.pop("weight")], IMAGES[:1], [prompt]
        ).values.tolist() == [2.0]


def nan_for_some(images, prompts):
    rewards = images.mean((1, 2, 3))
    rewards[::3] = math.nan
    rewards[1::3] = math.inf if len(rewards) > 4 else rewards[1::3]
    return rewards


def test_rewards_that_are_not_finite_are_masked_counted_and_journalled(tmp_path):
    config = tiny.config(
        algorithm={"name": "ddpo_sf"}, updates_per_epoch=1, scoring={"max_failed": 0.5}
    )
    history = train(config, tmp_path / "run", nan_for_some)
    assert history[0]["masked_rewards"] == history[0]["masked_non_finite"] == 4
    assert math.isfinite(history[1]["reward_mean"])
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    assert [row["status"] for row in rows[:4]] == ["non_finite", "ok", "ok", "non_finite"]
    assert rows[0]["reward"] is None


def test_too_many_masked_rewards_stop_the_run(tmp_path):
    with pytest.raises(
        RewardError,
        match=r"^4 of 8 rewards of this epoch cannot be trained on: 4 non_finite; scoring.max_failed allows a share of 0.05. The first: .*<lambda> gave nan: .* The run is saved up to the previous epoch: fix the reward, then resume.$",
    ):
        train(tiny.config(), tmp_path / "run", lambda images, prompts: [math.nan] * len(images))


def test_rewards_are_computed_while_the_next_batch_is_sampled(tmp_path):
    """The first reward returns only once the second batch is being made; in turn, this would never end."""
    second_began = threading.Event()

    def parts():
        denoiser = tiny.ToyDenoiser(8, seed=0)
        policy = DiffusionPolicy(denoiser, DDIM(num_steps=2).bind(denoiser.schedule))
        for i, rollout in enumerate(
            collect(policy, Draws([0, 1], PROMPTS[:2], (0,)), tiny.limits(1), World(lanes=1))
        ):
            if i == 1:
                second_began.set()
            yield rollout

    def patient(images, prompts):
        assert second_began.wait(timeout=20)
        return [0.0]

    rollout, scores = scorer(patient, 2).score(parts(), 2)
    assert scores.rewards.tolist() == [0.0, 0.0]
    assert rollout.indices.tolist() == [0, 1]


def batches(n):
    trajectory = Trajectory(torch.arange(1), torch.zeros(4, 2, 3), torch.zeros(4, 1))
    return [
        Rollout(PROMPTS, torch.zeros(4), torch.arange(4) + 4 * i, IMAGES, trajectory)
        for i in range(n)
    ]


@pytest.mark.parametrize("how", ["a failing reward", "a signal"])
def test_what_ends_an_epoch_leaves_the_queued_rewards_uncomputed(how):
    calls, all_queued = [], threading.Event()

    def slow(images, prompts):
        calls.append(1)
        assert all_queued.wait(timeout=20)
        if how == "a failing reward" and len(calls) == 1:
            raise ValueError
        time.sleep(1)  # what ends the epoch comes meanwhile
        return [0.0] * len(prompts)

    def all_batches():
        yield from batches(scoring.MAX_WAITING // 4)
        all_queued.set()

    def stop():
        raise Interrupted(15)

    with pytest.raises((RewardError, Interrupted)):
        scorer(slow, scoring.MAX_WAITING, stop_if_asked=stop).score(
            all_batches(), scoring.MAX_WAITING
        )
    assert len(calls) <= 2


def test_a_batch_larger_than_what_may_wait_waits_alone(tmp_path, monkeypatch):
    straight = train(tiny.config(epochs=1), tmp_path / "straight")
    monkeypatch.setattr(scoring, "MAX_WAITING", 2)
    assert (
        train(tiny.config(epochs=1), tmp_path / "run")[0]["reward_mean"]
        == straight[0]["reward_mean"]
    )


@pytest.mark.parametrize(("bytes_waiting", "most"), [(12 * IMAGES[0].nbytes, 12), (2**30, 128)])
def test_samples_that_wait_are_counted_by_bytes(bytes_waiting, most, monkeypatch):
    """While the first batch has no rewards yet, so many samples are made and not one more."""
    monkeypatch.setattr(scoring, "MAX_WAITING_BYTES", bytes_waiting)
    made, seen = [], []

    def slow(images, prompts):
        if not seen:
            time.sleep(1)
            seen.append(len(made))
        return [0.0] * len(prompts)

    def noted():
        for batch in batches(40):
            made.extend(batch.prompts)
            yield batch

    scorer(slow, 160).score(noted(), 160)
    assert seen == [most + 4], "and the batch that waits to be handed over"


@pytest.mark.parametrize("bytes_waiting", [2 * IMAGES[0].nbytes, 2**30])
def test_what_keeps_failing_is_masked_also_where_few_samples_may_wait(bytes_waiting, monkeypatch):
    """One of twenty never gets an answer; with room for two, the sampling itself waits for it."""
    monkeypatch.setattr(scoring, "MAX_WAITING_BYTES", bytes_waiting)
    monkeypatch.setattr("rediffuse.scoring.asked.LONGEST_PAUSE_SECONDS", 0.01)
    sick = IMAGES[3]

    def patient(images, prompts):
        late = ["timeout" if torch.equal(image, sick) else "ok" for image in images]
        return Judgement(torch.zeros(len(prompts)), statuses=late)

    first, *others = batches(5)
    rollouts = [first, *(replace(each, samples=torch.zeros(4, 3, 8, 8)) for each in others)]
    _, scores = scorer(patient, 20, max_failed=0.2, deadline_seconds=2.0).score(rollouts, 20)
    assert scores.rewards.isnan().sum() == 1


def test_a_reward_called_std_leaves_the_deviation_alone():
    samples = [Scored(i, 0, value, parts={"mean": 1.0}) for i, value in enumerate((1.0, 2.0, 9.0))]
    assert summary("std", Scores.of(samples, 0.0))["reward_std"] == pytest.approx(3.559, abs=1e-3)


def test_a_part_that_is_called_as_its_reward_has_its_own_mean():
    samples = [Scored(i, 0, 1.0, parts={"second_judge": 5.0}) for i in range(3)]
    metrics = summary("second_judge", Scores.of(samples, 0.0))
    assert (metrics["reward_second_judge"], metrics["reward_mean"]) == (5.0, 1.0)
    assert summary("redness", Scores.of(samples, 0.0))["reward_redness"] == 1.0


def in_parts(images, prompts):
    """Red and blue; of every third image nothing is known of its blue."""
    red, blue = images[:, 0].mean((1, 2)), images[:, 2].mean((1, 2))
    blue[::3] = math.nan
    return Judgement(
        red,
        {"red": red, "blue": blue},
        {"word": ["röt" * 200 if r > 0.5 else "" for r in red.tolist()]},
    )


def test_what_a_reward_is_made_of_is_logged_beside_it(tmp_path):
    history = train(tiny.config(epochs=1, micro_batch_size=3), tmp_path / "run", in_parts)
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").read_text().splitlines()
    ]
    known = [row["parts"]["blue"] for row in rows if row["parts"]["blue"] is not None]
    assert 0 < len(known) < len(rows)
    assert history[0]["reward_blue"] == pytest.approx(sum(known) / len(known))
    assert history[0]["reward_red"] == history[0]["reward_mean"]
    for row in rows:
        assert row["parts"]["red"] == row["reward"]
        assert ("röt" * 50 in row["notes"]["word"]) == (row["reward"] > 0.5)
        assert len(row["notes"]["word"].encode()) <= 300
