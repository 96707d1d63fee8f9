"""DDIM with noise: eta 0 is deterministic, eta 1 as noisy as DDPM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rediffuse.errors import ConfigError
from rediffuse.maths.schedules import Discrete, NoiseSchedule, Spacing, Steps
from rediffuse.samplers._steps import SamplerOptions, Table

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DDIM"]


@dataclass(frozen=True)
class DDIM(SamplerOptions):
    """DDIM (Song et al. 2021, eqs. 12 and 16), generalised to any pair of noise levels. For flow
    matching, eta = 0 is Euler's method.

    Attributes:
        eta: The standard deviation of each step as a share of the posterior's, in [0, 1].
        spacing: How the times of a model with discrete times are spaced; None uses that of the
            model's scheduler.
        set_alpha_to_one: Whether the last step ends at a clean sample (alpha_bar = 1); None uses
            the setting of the model's scheduler.
    """

    eta: Annotated[float, Field(ge=0, le=1)] = 1.0
    spacing: Spacing | None = None
    set_alpha_to_one: bool | None = None

    def table(self, steps: Steps, draws: Tensor) -> Table:
        here, after = steps.here, steps.after
        kept = here.alpha * after.sigma / (after.alpha * here.sigma)
        std = draws * self.eta * after.sigma * (1 - kept**2).clamp_min(0).sqrt()
        return Table(after.alpha, (after.sigma**2 - std**2).clamp_min(0).sqrt(), std)

    def adapted(self, schedule: NoiseSchedule) -> NoiseSchedule:
        if self.spacing is None and self.set_alpha_to_one is None:
            return schedule
        if not isinstance(schedule, Discrete):
            raise ConfigError(
                "sampler.spacing, sampler.set_alpha_to_one: belong to models that were trained on"
                " discrete times; leave them out."
            )
        ends = {None: schedule.final_alpha_bar, True: 1.0, False: float(schedule.alpha_bar[0])}
        return replace(
            schedule,
            spacing=self.spacing or schedule.spacing,
            final_alpha_bar=ends[self.set_alpha_to_one],
        )
