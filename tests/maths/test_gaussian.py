import math

import torch
from torch.distributions import Normal, kl_divergence

from rediffuse.maths.gaussian import Gaussian


def law(n=5):
    return Gaussian(
        torch.randn(n, 3, 2, dtype=torch.float64), torch.rand(n, dtype=torch.float64) + 0.1
    )


def theirs(law):
    return Normal(law.mean, law.std.view(-1, 1, 1))


def test_log_prob_is_torchs_mean_over_latent_elements():
    ours, x = law(), torch.randn(5, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(
        ours.log_prob(x), theirs(ours).log_prob(x).flatten(1).mean(1), rtol=1e-12, atol=1e-12
    )


def test_log_prob_by_hand():
    # Two elements, one and two standard deviations away: -(0.5 + 2) / 2 - log 2 - log sqrt(2 pi).
    ours = Gaussian(torch.zeros(1, 2), torch.tensor([2.0]))
    want = -1.25 - math.log(2) - 0.5 * math.log(2 * math.pi)
    assert ours.log_prob(torch.tensor([[2.0, -4.0]])).item() == torch.tensor(want).item()


def test_kl_is_torchs_also_between_different_stds():
    a, b = law(), law()
    torch.testing.assert_close(
        a.kl(b), kl_divergence(theirs(a), theirs(b)).flatten(1).mean(1), rtol=1e-12, atol=1e-12
    )


def test_kl_to_oneself_is_zero():
    ours = law()
    assert ours.kl(ours).abs().max() == 0


def test_sample_is_mean_plus_std_times_noise():
    ours, noise = law(), torch.randn(5, 3, 2, dtype=torch.float64)
    torch.testing.assert_close((ours.sample(noise) - ours.mean) / ours.std.view(-1, 1, 1), noise)
