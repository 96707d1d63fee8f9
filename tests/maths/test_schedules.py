import pytest
import torch
from diffusers import DDIMScheduler

from rediffuse.maths.schedules import clean_and_noise, spaced_times


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("num_steps", [1, 2, 5, 7, 8, 10, 20, 50, 300, 999])
@pytest.mark.parametrize("offset", [0, 1])
def test_times_are_diffusers(spacing, num_steps, offset):
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    theirs.set_timesteps(num_steps)
    assert spaced_times(spacing, num_steps, 1000, offset).tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_gives_back_the_clean_sample_and_the_noise(prediction):
    clean, eps, alpha_bar = torch.randn(2, 5, dtype=torch.float64)[0], torch.randn(5, dtype=torch.float64), torch.tensor(0.3)
    signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    output = {"epsilon": eps, "v_prediction": signal * eps - spread * clean, "sample": clean}[prediction]
    got = clean_and_noise(prediction, output, signal * clean + spread * eps, alpha_bar)
    torch.testing.assert_close(got, (clean, eps), atol=1e-6, rtol=1e-6)
