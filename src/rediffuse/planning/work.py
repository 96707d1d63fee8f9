"""What a run does and decides, as numbers, from its configuration and its components."""

from collections.abc import Mapping
from dataclasses import asdict

from rediffuse.config.schema import Config, Rows
from rediffuse.costs import rows
from rediffuse.costs.architecture import Architecture
from rediffuse.costs.devices import Device
from rediffuse.costs.workload import Workload
from rediffuse.lookup.parts import Parts
from rediffuse.types import EncodedSamples, HasCosts, Selects, Transitions

USUAL_STEPS = 50
"""Of a sampler that has no option `num_steps`."""


def architecture_of(parts: Parts) -> Architecture | None:
    """Returns the costs of a run's model, if its family knows them."""
    return parts.family.costs() if isinstance(parts.family, HasCosts) else None


def workload(config: Config, parts: Parts, size: int = 1) -> Workload:
    """Returns what one of `size` processes does in an epoch."""
    algorithm, evaluation = parts.algorithm, config.evaluation
    passes, trains_on = algorithm.passes, algorithm.trains_on
    steps = int(getattr(parts.sampler, "num_steps", USUAL_STEPS))
    random = steps - int(getattr(parts.sampler, "num_quiet_steps", 0))
    of_steps = issubclass(trains_on, Transitions)
    trained = passes.rows_per_sample or (random if of_steps else 1)
    samples = -(-config.num_samples // size)
    share = (
        algorithm.num_trained(config) / config.num_samples if isinstance(algorithm, Selects) else 1
    )
    trains_all = getattr(parts.family, "train", "") == "full"
    return Workload(
        samples=samples,
        num_steps=steps,
        trained_steps=min(trained, random) if of_steps else trained,
        trained_share=min(1.0, share),
        updates=config.updates_per_epoch,
        inner_epochs=passes.inner_epochs,
        references=passes.reference is not None,
        encodes=issubclass(trains_on, EncodedSamples),
        keeps_states=of_steps,
        allows_one_pass=bool(getattr(algorithm, "is_of_scores", False)),
        evaluated=-(-evaluation.num_prompts * evaluation.images_per_prompt // size),
        evaluated_steps=int(getattr(parts.evaluation_sampler, "num_steps", USUAL_STEPS)),
        evaluated_share=1 / evaluation.every if evaluation.every else 2 / config.epochs,
        measures_kl=evaluation.kl,
        loads_twice=trains_all and (evaluation.kl or passes.reference is not None),
        texts=config.prompts_per_epoch,
    )


def decided_one_pass(
    config: Config,
    architecture: Architecture | None,
    device: Device,
    work: Workload,
    host_bytes: int,
) -> bool:
    """Returns the option if it is set, else what the rule says."""
    if config.one_pass != "auto":
        return config.one_pass
    return rows.takes_one_pass(architecture, device, work, host_bytes)


def decided_rows(
    config: Config,
    architecture: Architecture | None,
    device: Device,
    work: Workload,
    *,
    one_pass: bool,
    measured: Mapping[str, int] | None = None,
) -> Rows:
    """Returns the rows of each kind of pass. Those of the configuration go before measured ones,
    and these before the rule's. With an explicit `micro_batch_size` nothing is chosen.
    """
    if config.micro_batch_size != "auto":
        return config.rows
    chosen = asdict(rows.choose(architecture, device, work, one_pass=one_pass))
    given = {name: value for name, value in asdict(config.rows).items() if value is not None}
    return Rows(**{**chosen, **(measured or {}), **given})


def useful_rows(config: Config, parts: Parts, size: int = 1) -> dict[str, int]:
    """Returns the most rows of each kind of pass that one of `size` processes has use for."""
    work = workload(config, parts, size)
    return {
        "sampling": work.samples,
        "decoding": work.samples,
        "training": work.rows_per_update,
    }
