import pytest
import torch
from diffusers import DDIMScheduler

from rediffuse.maths.schedules import (
    MEANINGS,
    Flow,
    NoiseLevel,
    clean_and_noise,
    noised,
    shifted,
    spaced_times,
    training_target,
)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("offset", [0, 1])
def test_times_are_diffusers_for_every_number_of_steps(spacing, offset):
    theirs = DDIMScheduler(timestep_spacing=spacing, steps_offset=offset)
    alike = 0
    for num_steps in range(1, 1001):
        theirs.set_timesteps(num_steps)
        # of some trailing numbers diffusers gives one time too many
        if len(theirs.timesteps) == num_steps:
            assert (
                spaced_times(spacing, num_steps, 1000, offset).tolist() == theirs.timesteps.tolist()
            )
            alike += 1
    assert alike == 1000 if spacing != "trailing" else alike > 900


LEVELS = {
    "variance preserving": NoiseLevel(torch.tensor(0.6).double(), torch.tensor(0.8).double())
} | {"flow": NoiseLevel(torch.tensor(0.7).double(), torch.tensor(0.3).double())}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("prediction", MEANINGS)
def test_a_perfect_network_gives_back_the_clean_sample_and_the_noise(prediction, level):
    if (prediction, level) == ("v_prediction", "flow"):
        pytest.skip("v-prediction belongs to levels whose squares add up to one")
    clean, eps = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = LEVELS[level]
    output = training_target(prediction, clean, eps, at)
    torch.testing.assert_close(
        clean_and_noise(prediction, output, noised(clean, eps, at), at), (clean, eps)
    )


def test_the_four_predictions_by_hand():
    """A clean 2 and a noise of 1 at alpha 0.6, sigma 0.8."""
    at = LEVELS["variance preserving"]
    clean, eps = torch.tensor(2.0).double(), torch.tensor(1.0).double()
    targets = {name: training_target(name, clean, eps, at).item() for name in MEANINGS}
    assert targets == pytest.approx(
        {"epsilon": 1.0, "v_prediction": 0.6 * 1 - 0.8 * 2, "sample": 2.0, "flow": 1.0 - 2.0}
    )


def test_a_flow_goes_from_noise_to_a_clean_sample_in_a_straight_line():
    flow = Flow(lambda n: shifted(torch.linspace(1, 0, n + 1, dtype=torch.float64), 3.0))
    steps = flow.steps(2)
    assert steps.times.tolist() == pytest.approx([1.0, 0.75])  # 3 * 0.5 / (1 + 2 * 0.5)
    assert (steps.here.sigma.tolist(), steps.after.sigma.tolist()) == (
        pytest.approx([1, 0.75]),
        pytest.approx([0.75, 0]),
    )
    torch.testing.assert_close(steps.here.alpha, 1 - steps.here.sigma)
    times = torch.cat([flow.training_time(torch.Generator().manual_seed(i)) for i in range(50)])
    assert 0 <= times.min() < 0.2 and 0.8 < times.max() < 1
