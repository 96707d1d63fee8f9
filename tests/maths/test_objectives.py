import pytest
import torch

from rediffuse.maths.objectives import clipped_surrogate, score_function


@pytest.mark.parametrize(
    ("ratio", "advantage", "want"),
    [
        (1.0, 2.0, -2.0),  # inside: the ratio times the advantage
        (1.5, 2.0, -2.4),  # too likely and good: clipped at 1.2
        (1.5, -2.0, 3.0),  # too likely and bad: not clipped, so that it can be undone
        (0.5, 2.0, -1.0),  # too unlikely and good: not clipped
        (0.5, -2.0, 1.6),  # too unlikely and bad: clipped at 0.8
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, want):
    got = clipped_surrogate(torch.tensor([ratio]).log(), torch.tensor([advantage]), 0.2)
    torch.testing.assert_close(got, torch.tensor([want]))


def test_both_objectives_have_one_gradient_where_the_ratio_is_one():
    log_prob, advantage = torch.randn(6, requires_grad=True), torch.randn(6)
    clipped = clipped_surrogate(log_prob - log_prob.detach(), advantage, 1e-4).sum()
    plain = score_function(log_prob, advantage).sum()
    torch.testing.assert_close(
        torch.autograd.grad(clipped, log_prob)[0], torch.autograd.grad(plain, log_prob)[0]
    )


def test_no_gradient_where_clipped():
    log_ratio = torch.tensor([0.5], requires_grad=True)
    clipped_surrogate(log_ratio, torch.tensor([1.0]), 0.1).sum().backward()
    assert log_ratio.grad.item() == 0
