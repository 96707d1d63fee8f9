import warnings
from dataclasses import dataclass

import pytest
import tiny
import torch

from rediffuse.evaluation import lengths
from rediffuse.evaluation.pictures import before_and_after
from rediffuse.evaluation.suites import Question, evaluate
from rediffuse.prompts.text_file import TextFile
from rediffuse.start import train
from rediffuse.types import ListsPrompts, Prompt, ReadsTokens


class Reads:
    """A token a word, and two around them."""

    max_tokens = 6

    def num_tokens(self, text):
        return len(text.split()) + 2


def test_prompts_that_are_cut_are_counted_and_the_first_named():
    texts = ["a b c d", "a b c d e", "short", *[f"{n} b c d e f" for n in range(3)]]
    said = lengths.warning(Reads(), texts)
    assert "4 of 6 prompts have more than the 6 tokens" in said
    assert "'a b c d e' (7), '0 b c d e f' (8), '1 b c d e f' (8), …" in said
    assert len(lengths.warning(Reads(), ["x y z " * 10_000])) < 400


def test_prompts_that_are_read_whole_and_models_that_tell_no_limit_say_nothing():
    """The control of the test above."""
    assert lengths.warning(Reads(), ["a b c d", "antidisestablishmentarianism"]) == ""
    assert lengths.warning(object(), ["a b c d e f g"]) == ""


def test_all_lines_of_a_file_are_known_and_what_was_drawn_of_other_sets(tmp_path):
    (tmp_path / "mine.txt").write_text("a cat\na dog\na cat\n")
    mine = TextFile(tmp_path / "mine.txt")
    assert isinstance(mine, ListsPrompts)
    assert lengths.known_texts(mine, []) == ["a cat", "a dog"]

    class Drawn:
        def draw(self, n, generator):
            return [Prompt("x")] * n

    assert lengths.known_texts(Drawn(), [Prompt("y"), Prompt("y")]) == ["y"]


def test_the_embedded_model_tells_its_limit():
    from rediffuse.models.emoji import Emoji

    denoiser = Emoji().load("cpu", 0)
    assert isinstance(denoiser, ReadsTokens)
    assert denoiser.max_tokens == 16
    long = "a cat " * 20
    assert denoiser.num_tokens(long) == 42 and denoiser.num_tokens("a cat") == 4
    same = denoiser.encode([Prompt(long), Prompt(long + "red")])["text"]
    assert torch.equal(same[0], same[1]), "what is beyond the limit is not read"
    assert "2 of 3 prompts have more than the 16 tokens" in lengths.warning(
        denoiser, [long, long + "red", "a cat"]
    )


@dataclass(frozen=True)
class Limited(tiny.Toy):
    def load(self, device, seed):
        denoiser = super().load(device, seed)
        denoiser.max_tokens, denoiser.num_tokens = 6, Reads().num_tokens
        return denoiser


@pytest.mark.parametrize(
    ("model", "told"), [(f"{__file__}:Limited", True), (f"{tiny.FILE}:Toy", False)]
)
def test_a_run_says_it_before_its_first_epoch(model, told, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("a cat\na cat that sits on a mat\n")
    prompts = {"name": "text_file", "path": str(tmp_path / "mine.txt")}
    train(tiny.config(epochs=1, prompts=prompts, model={"name": model}), tmp_path / "run")
    out = " ".join(capsys.readouterr().out.split())
    with warnings.catch_warnings(record=True, action="always") as said:
        before_and_after(tmp_path / "run", "a cat that sits on a mat", seed=0)
        evaluate(tmp_path / "run", Question(suites=("own",), num_prompts=2, images_per_prompt=1))
    assert [
        "of 1 prompts" in str(each.message) or "1 of 2 prompts" in str(each.message)
        for each in said
    ] == 2 * told * [True]
    assert ("1 of 2 prompts have more than the 6 tokens" in out.split("epoch 0")[0]) == told
