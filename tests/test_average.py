import tiny
import torch
from safetensors.torch import load_file
from torch import nn

from rediffuse import train
from rediffuse.evaluation.pictures import before_and_after
from rediffuse.learning.average import PREFIX, Average


def test_an_average_by_hand():
    learns = {"w": nn.Parameter(torch.tensor([1.0]))}
    average = Average(learns, 0.75)
    learns["w"].data.fill_(5.0)
    average.update()
    with average.shown():
        assert learns["w"].item() == 2.0
    assert learns["w"].item() == 5.0


def test_without_a_decay_what_learns_is_shown():
    learns = {"w": nn.Parameter(torch.tensor([1.0]))}
    average = Average(learns, None)
    average.update()
    with average.shown():
        assert learns["w"].item() == 1.0
    assert average.state() == {}


def test_an_average_changes_the_pictures_and_not_the_learning(tmp_path):
    plain, averaged = tmp_path / "plain", tmp_path / "averaged"
    options = {"epochs": 3, "learning_rate": 0.01}
    train(tiny.config(**options), plain)
    train(tiny.config(**options, ema_decay=0.5), averaged)
    assert tiny.numbers(plain) == tiny.numbers(averaged)
    last = "samples/epoch-00003/grid.png"
    assert (plain / last).read_bytes() != (averaged / last).read_bytes()
    ours, saved = (
        load_file(run / "checkpoints/epoch-00003/weights.safetensors") for run in (plain, averaged)
    )
    assert all(torch.equal(value, saved[name]) for name, value in ours.items())
    assert all(not torch.equal(value, saved[PREFIX + name]) for name, value in ours.items())
    adapters = [load_file(run / "adapter" / tiny.ADAPTER) for run in (plain, averaged)]
    assert all(torch.equal(adapters[1][name], saved[PREFIX + name]) for name in ours)
    assert all(torch.equal(adapters[0][name], value) for name, value in ours.items())
    pictures = [before_and_after(run, "a cat", 0).read_bytes() for run in (plain, averaged)]
    assert pictures[0] != pictures[1]
