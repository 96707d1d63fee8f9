"""Mistakes as people make them in reward functions: each ends with exit code 2 and says what to do."""

import asyncio
import signal
import sqlite3

import pytest
import tiny
import torch
from PIL import Image

from rediffuse import train
from rediffuse.errors import ConfigError, RewardError, UnusableRewardError
from rediffuse.lookup.build import build

pytestmark = pytest.mark.usefixtures("without_charts")

CONNECTION = sqlite3.connect(":memory:")


def bright(images):
    return images.mean((1, 2, 3))


WRONG = {
    "a pair": (lambda i, p: (bright(i).numpy(), {}), "Return the scores alone, without the dict"),
    "a dict": (lambda i, p: {"score": bright(i)}, "Return the numbers alone"),
    "a column": (lambda i, p: bright(i)[:, None], r"its first column: scores\[:, 0\]"),
    "one number": (lambda i, p: float(bright(i).mean()), "each image's own score"),
    "one tensor": (lambda i, p: bright(i).mean(), "each image's own score"),
    "nothing": (lambda i, p: None, "ends without a return"),
    "a generator": (lambda i, p: (x for x in bright(i)), r"Return a list of it: list\("),
    "texts": (lambda i, p: [str(float(x)) for x in bright(i)], r"entries are str: return float\("),
    "None among numbers": (
        lambda i, p: [None for _ in p],
        r"None is not a number; return float\('nan'\)",
    ),
    "a prompt as text": (lambda i, p: [len(each.lower()) for each in p], "its text is prompt.text"),
    "a prompt searched": (lambda i, p: ["cat" in each for each in p], "its text is prompt.text"),
    "prompts joined": (lambda i, p: [len(",".join(p))], "its text is prompt.text"),
    "a thread's SQLite": (lambda i, p: CONNECTION.execute("select 1"), "check_same_thread=False"),
    "a signal": (
        lambda i, p: signal.signal(signal.SIGALRM, print),
        "scoring.timeout_seconds limits the duration of a call",
    ),
    "floats as a picture": (
        lambda i, p: [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in i],
        r"images are floats in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_mistake_in_a_reward_ends_the_run_with_2_and_says_what_to_do(kind, tmp_path):
    reward, said = WRONG[kind]
    with pytest.raises(RewardError, match=said) as error:
        train(tiny.config(epochs=1), tmp_path / "run", reward)
    assert isinstance(error.value, UnusableRewardError) and error.value.exit_code == 2


def test_a_mistake_that_comes_once_some_rewards_were_well_may_be_passing(tmp_path):
    calls = []

    def later_wrong(images, prompts):
        calls.append(1)
        return bright(images) if len(calls) == 1 else None

    with pytest.raises(RewardError, match="ends without a return") as error:
        train(tiny.config(epochs=1), tmp_path / "run", later_wrong)
    assert error.value.exit_code == 75


async def later(images, prompts):
    return bright(images)


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (
            lambda images, prompts, metadata: bright(images),
            r"takes \(images, prompts, metadata\), but .* prompt.metadata",
        ),
        (
            lambda images: bright(images),
            r"takes \(images\), but a reward is called with \(images, prompts\)",
        ),
        (later, "it is async"),
    ],
)
def test_what_cannot_be_called_is_refused_before_anything_is_loaded(reward, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        train(tiny.config(model={"name": f"{tiny.FILE}:NeverLoaded"}), tmp_path / "run", reward)
    (tmp_path / "mine.py").write_text(
        "def mine(images, prompts, metadata=None, *, scale=1.0): return [scale] * len(prompts)\n"
    )
    # the control: what has a default may be there
    assert build("reward", {"name": f"{tmp_path}/mine.py:mine"})


def keeps_a_connection():
    kept = {}

    def mine(images, prompts):
        if not kept:
            kept["db"] = sqlite3.connect(":memory:")
        kept["db"].execute("select 1")

        async def one(image):
            return float(image.mean())

        async def of_all():
            return await asyncio.gather(*map(one, images))

        return asyncio.get_event_loop().run_until_complete(of_all())

    return mine


def test_a_connection_and_an_event_loop_last_for_the_run(tmp_path):
    train(tiny.config(), tmp_path / "run", keeps_a_connection())
    straight = tmp_path / "straight"
    train(tiny.config(), straight, lambda images, prompts: [float(each.mean()) for each in images])
    ours, theirs = tiny.weights(tmp_path / "run"), tiny.weights(straight)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
