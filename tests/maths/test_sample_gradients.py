import pytest
import torch
from torch import nn

from rediffuse.maths import sample_gradients

LAYERS = [
    (nn.Linear(5, 3), (7, 5)),
    (nn.Linear(5, 3, bias=False), (5,)),
    (nn.Conv2d(2, 6, 1, bias=False), (2, 9, 8)),
    (nn.Conv2d(6, 2, 3, padding=1), (6, 9, 8)),
    (nn.Conv2d(6, 2, (3, 5), padding=(0, 2)), (6, 9, 8)),
    (nn.Conv2d(6, 2, 3, padding=4), (6, 9, 8)),
    (nn.Conv2d(2, 6, 3, padding=1), (2, 9, 8)),
    (nn.Conv2d(6, 2, 3, stride=2, padding=1), (6, 9, 8)),
    (nn.Conv2d(6, 2, 3, dilation=2, padding=2), (6, 9, 8)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda each: str(each))
def test_each_samples_gradient_is_that_of_autograd_for_it_alone(layer, shape):
    torch.manual_seed(0)
    inputs = torch.randn(4, *shape)
    gradients = torch.randn_like(layer(inputs))
    assert sample_gradients.is_supported(layer)
    found = sample_gradients.of_layer(layer, inputs, gradients)
    for row in range(4):
        value = (layer(inputs[row : row + 1]) * gradients[row : row + 1]).sum()
        (alone,) = torch.autograd.grad(value, layer.weight)
        torch.testing.assert_close(found[row], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        nn.GroupNorm(2, 4),
        nn.Embedding(3, 4),
    ],
    ids=lambda each: str(each),
)
def test_other_layers_are_not_supported(layer):
    assert not sample_gradients.is_supported(layer)
