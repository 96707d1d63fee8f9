"""Equal to diffusers' DDIMScheduler at every step."""

import itertools
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from torch.utils._python_dispatch import TorchDispatchMode

from rediffuse.errors import ConfigError
from rediffuse.maths.schedules import Flow, shifted
from rediffuse.models._diffusers import noise_schedule
from rediffuse.samplers.ddim import DDIM

PLANS = list(
    itertools.product(
        ["epsilon", "v_prediction", "sample"],
        ["leading", "trailing", "linspace"],
        [True, False],  # set_alpha_to_one
        [True, False],  # clip_sample
        [0.0, 0.4, 1.0],  # eta
        [7, 10],  # steps
    )
)


def scheduler(prediction="epsilon", spacing="leading", to_one=True, clip=False):
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        timestep_spacing=spacing,
        set_alpha_to_one=to_one,
        clip_sample=clip,
        clip_sample_range=1.5,
    )


@pytest.mark.parametrize(("prediction", "spacing", "to_one", "clip", "eta", "num_steps"), PLANS)
def test_every_step_is_diffusers(prediction, spacing, to_one, clip, eta, num_steps):
    theirs = scheduler(prediction, spacing, to_one, clip)
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    theirs.final_alpha_cumprod = theirs.final_alpha_cumprod.double()
    theirs.set_timesteps(num_steps)
    ours = DDIM(num_steps=num_steps, eta=eta).bind(noise_schedule(theirs))
    assert ours.times.tolist() == theirs.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    for step, time in enumerate(theirs.timesteps):
        output, state, noise = torch.randn(3, 2, 4, 3, 3, generator=generator, dtype=torch.float64)
        want = theirs.step(output, time, state, eta=eta, variance_noise=noise).prev_sample
        law = ours.step(output, state, torch.tensor([step, step]))
        torch.testing.assert_close(law.sample(noise), want, atol=1e-12, rtol=1e-12)
        # The log-probability of what diffusers drew, by torch's own density.
        if law.std.min() > 0:
            density = (
                torch.distributions.Normal(law.mean, law.std.view(-1, 1, 1, 1))
                .log_prob(want)
                .flatten(1)
                .mean(1)
            )
            torch.testing.assert_close(law.log_prob(want), density, atol=1e-9, rtol=1e-9)


def test_the_known_std_of_stable_diffusions_last_step():
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
    )
    ours = DDIM(num_steps=50).bind(noise_schedule(theirs))
    assert ours.times[-1] == 1
    assert ours.std[-1].item() == pytest.approx(0.0206, abs=5e-5)
    assert all(ours.noisy)


def test_the_step_onto_a_clean_image_draws_nothing():
    ours = DDIM(num_steps=8, spacing="trailing").bind(noise_schedule(scheduler(to_one=True)))
    assert ours.noisy == [True] * 7 + [False]


def test_set_alpha_to_one_can_be_chosen():
    ours = DDIM(num_steps=8, spacing="trailing", set_alpha_to_one=False).bind(
        noise_schedule(scheduler(to_one=True))
    )
    assert all(ours.noisy)


def test_quiet_steps_draw_nothing():
    ours = DDIM(num_steps=10, num_quiet_steps=2).bind(noise_schedule(scheduler(to_one=False)))
    assert ours.noisy == [True] * 8 + [False] * 2


def test_all_steps_quiet_is_refused():
    with pytest.raises(ConfigError, match="num_quiet_steps: 10 of 10"):
        DDIM(num_steps=10, num_quiet_steps=10)


def test_eta_zero_draws_nothing():
    assert not any(DDIM(num_steps=5, eta=0).bind(noise_schedule(scheduler())).noisy)


def test_more_steps_than_the_model_knows():
    with pytest.raises(ConfigError, match="num_steps: 1001"):
        DDIM(num_steps=1001).bind(noise_schedule(scheduler()))


def test_times_beyond_the_training_are_refused():
    schedule = replace(noise_schedule(scheduler()), steps_offset=1)
    with pytest.raises(
        ConfigError, match="begin at time 1000, but the model was trained on 0 to 999"
    ):
        DDIM(num_steps=1000).bind(schedule)


FLOW = Flow(lambda n: shifted(torch.linspace(1, 0, n + 1, dtype=torch.float64), 3.0))


def test_without_noise_a_flow_is_walked_by_eulers_method():
    steps = DDIM(num_steps=6, eta=0).bind(FLOW)
    sigmas = FLOW.sigmas(6)
    velocity, state = torch.randn(
        2, 6, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    got = steps.step(velocity, state, torch.arange(6))
    assert not any(steps.noisy)
    torch.testing.assert_close(
        got.mean, state + (sigmas[1:] - sigmas[:-1]).view(-1, 1, 1) * velocity
    )


def test_with_noise_a_flow_keeps_the_noise_level_of_each_step():
    """Of a clean sample of zero and noise of variance one, the next state's variance is that of its level."""
    steps = DDIM(num_steps=6, eta=1).bind(FLOW)
    assert steps.noisy == [True] * 5 + [False]
    table = steps._table
    torch.testing.assert_close(table.noise_weight**2 + table.std**2, FLOW.sigmas(6)[1:] ** 2)


def test_options_of_discrete_times_are_refused_for_a_flow():
    with pytest.raises(
        ConfigError, match="sampler.spacing, sampler.set_alpha_to_one: belong to models"
    ):
        DDIM(num_steps=6, spacing="trailing").bind(FLOW)


class CopiesToADevice(TorchDispatchMode):
    """Notes for each copy to another device than the host whether the host waits for it."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "_to_copy" in str(function) and kwargs.get("device") == torch.device("meta"):
            self.waited.append(not kwargs.get("non_blocking"))
        return function(*args, **kwargs)


def test_the_host_waits_for_no_copy_to_the_device_within_a_step():
    steps = DDIM(num_steps=6).bind(FLOW)
    output, state = torch.empty(2, 2, 3, device="meta")
    with CopiesToADevice() as copies:
        law = steps.step(output, state, torch.tensor([0, 4]))
        law.log_prob(state)
    assert law.mean.device == law.std.device == torch.device("meta")
    assert len(copies.waited) >= 3
    assert not any(copies.waited)
