import pytest
import torch
from diffusers import DDIMScheduler

from rediffuse.maths.schedules import clean_and_noise, spaced_times


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_times_are_diffusers_for_every_number_of_steps(spacing, offset):
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    alike = 0
    for num_steps in range(1, 1001):
        theirs.set_timesteps(num_steps)
        if len(theirs.timesteps) == num_steps:  # of some trailing numbers diffusers gives one time too many
            assert spaced_times(spacing, num_steps, 1000, offset).tolist() == theirs.timesteps.tolist()
            alike += 1
    assert alike == 1000 if spacing != "trailing" else alike > 900


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_network_gives_back_the_clean_sample_and_the_noise(prediction):
    clean, eps, alpha_bar = torch.randn(2, 5, dtype=torch.float64)[0], torch.randn(5, dtype=torch.float64), torch.tensor(0.3)
    signal, spread = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    output = {"epsilon": eps, "v_prediction": signal * eps - spread * clean, "sample": clean}[prediction]
    got = clean_and_noise(prediction, output, signal * clean + spread * eps, alpha_bar)
    torch.testing.assert_close(got, (clean, eps), atol=1e-6, rtol=1e-6)
