"""A warning about updates whose importance ratios are mostly rounding errors."""

from rediffuse.config.schema import Config
from rediffuse.types import Algorithm, Denoiser, HasPrecision, HasRatio

NOISE = {"bf16": 1e-4}
"""The rounding errors of a log-ratio after an update, by precision, without guidance; with guidance
they are larger (docs/precision.md).
"""


def warning(config: Config, algorithm: Algorithm, denoiser: Denoiser) -> str:
    """Returns a warning if later updates of an epoch compare log-probabilities whose rounding
    errors are larger than the ratio drift that the algorithm tolerates; otherwise an empty text.
    """
    if not isinstance(denoiser, HasPrecision) or not isinstance(algorithm, HasRatio):
        return ""
    noise = NOISE.get(denoiser.precision, 0.0)
    updates = config.updates_per_epoch * algorithm.passes.inner_epochs
    if updates == 1 or algorithm.max_ratio_drift >= noise:
        return ""
    return (
        f"in {denoiser.precision} the log-ratios of all but the first of {updates} updates carry"
        f" rounding errors of {noise:g} and more, and {algorithm.max_ratio_drift:g} is tolerable:"
        " they are mostly noise. Set updates_per_epoch (and algorithm.inner_epochs) to 1, or"
        " model.precision to fp32; docs/precision.md has figures."
    )
