import torch

from rediffuse.rewards.redness import Redness


def test_by_hand():
    image = torch.zeros(1, 3, 2, 2)
    image[:, 0], image[:, 1], image[:, 2] = 0.9, 0.2, 0.4
    torch.testing.assert_close(Redness()(image, []), torch.tensor([0.6]))
