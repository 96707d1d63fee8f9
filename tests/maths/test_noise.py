import torch

from rediffuse.maths import noise


def test_equal_keys_draw_equal_noise_whatever_was_drawn_before():
    first = torch.randn(4, generator=noise.generator(7, 3, "noise", 11))
    torch.manual_seed(99)
    torch.randn(100)
    assert torch.equal(first, torch.randn(4, generator=noise.generator(7, 3, "noise", 11)))


def test_every_part_of_the_key_matters():
    keys = [
        (7, 3, "noise", 11),
        (8, 3, "noise", 11),
        (7, 4, "noise", 11),
        (7, 3, "order", 11),
        (7, 3, "noise", 12),
        (73, "noise", 11),
    ]
    draws = {torch.randn(1, generator=noise.generator(*key)).item() for key in keys}
    assert len(draws) == len(keys)


def test_a_row_does_not_depend_on_its_neighbours():
    def generators(*indices):
        return [noise.generator(0, index) for index in indices]

    together = noise.draw(generators(1, 2, 3), (4, 2))
    alone = noise.draw(generators(2), (4, 2))
    assert torch.equal(together[1:2], alone)
