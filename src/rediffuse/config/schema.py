"""A whole run as data: one tree of dataclasses, checked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from rediffuse.config import rewards
from rediffuse.config.merge import deep, merge
from rediffuse.config.problems import problems
from rediffuse.config.reading import read_yaml
from rediffuse.config.rewards import use_of
from rediffuse.errors import ConfigError, did_you_mean

Options = dict[str, Any]
"""A component: its `name`, and values for its fields."""

DEFAULT_REWARD = "jpeg_incompressibility"
SHORT_FORMS = {"": ("reward",), "evaluation.": ("held_out",)}
"""Keys that say a part of `rewards`, by what stands before them."""
Text = Annotated[str, "names nothing outside of the run"]
FilePath = Annotated[Path, "a file"]
HubId = Annotated[str, "a model of the Hub, or of this machine"]
Address = Annotated[str, "of a server"]
Variable = Annotated[str, "of the environment"]
Permit = Annotated[bool, "whether something unsafe is allowed"]
"""What a component's option names. All but Text, and a plain `str` too, take a permission where a
file says them (trust).
"""
Value = TypeVar("Value")
Connection = Annotated[Value, "how something is reached: no result depends on it"]
Method = Annotated[Value, "how a model learns: methods that are compared may differ in it"]
DEFAULT_ROWS = 32
"""The rows of a forward pass of a model that no rule knows."""
LARGEST = 1_000_000_000
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=LARGEST)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Optimizer:
    """AdamW, and the norm that gradients are clipped to.

    first_moment: its precision from one update to the next; bf16 is the authors' TPU code's, in
    which it also decays: by 0.8984, while the bias correction is that of 0.9, so that steps become
    1.5 % shorter.
    """

    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    first_moment: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Scoring:
    """How rewards are computed and combined.

    Attributes:
        max_failed: The share of an epoch's rewards that may be missing, those of samples that are
            not finite included. Missing rewards are masked and never count as 0. If more are
            missing, the run retries while that may help, else it saves its state and stops.
        timeout_seconds: For one call of a reward.
        deadline_seconds: How long the run retries without a single reward before it stops.
        untrained_seconds: How long a batch of samples waits for a reward of weight 0. Where that
            fails or is late, its value is missing; it is not retried, and no run stops for it.
        normalize: With several rewards, subtract each one's mean over the epoch and divide by its
            standard deviation before it is weighted, so that weights mean the same whatever the
            units. The mean of the sum is then 0 in every epoch: the parts say what rose.
        clip_at: Where each normalised reward is clipped, in standard deviations.
    """

    max_failed: Annotated[float, Field(ge=0, le=1)] = 0.05
    timeout_seconds: Positive = 1800.0
    deadline_seconds: Positive = 1800.0
    untrained_seconds: Positive = 60.0
    normalize: bool = True
    clip_at: Positive | None = 5.0


@dataclass(frozen=True)
class Logging:
    """How often, in epochs, and how many of the newest checkpoints stay; the best one always does
    and, as long as they are small (an adapter's), so do those of every look. keep_checkpoints 0:
    all stay. report_every 0: the page is written at the end alone.
    """

    checkpoint_every: PositiveInt = 1
    keep_checkpoints: NonNegativeInt = 2
    report_every: NonNegativeInt = 5


@dataclass(frozen=True)
class Evaluation:
    """Evaluations of the policy along a run, on fixed prompts and noise.

    Rewards of weight 0 score these images; `held_out` is the short form that lists them.

    Attributes:
        every: In epochs; 0: only before training and at the end.
        num_prompts: The first of the run's prompts, each with `images_per_prompt` images.
        sampler: With which images are made, as options over the run's own or as another sampler;
            None: as in training. It is also that of `rediffuse sample` and `rediffuse evaluate`.
        guidance_scale: Of classifier-free guidance in these images; None: as in training.
        on_overoptimisation: What to do if the trained reward rises and a held-out one falls: report
            it, stop, or train on and export the best checkpoint before it.
        kl: Measure the divergence from the pretrained model. If all weights of a model are trained,
            that loads it a second time.
    """

    every: NonNegativeInt = 1
    num_prompts: PositiveInt = 12
    images_per_prompt: PositiveInt = 2
    sampler: Options | None = None
    guidance_scale: Positive | None = None
    on_overoptimisation: Literal["warn", "stop", "keep_best"] = "warn"
    kl: bool = True

    @property
    def is_as_in_training(self) -> bool:
        """Whether its images are made as those that are trained on."""
        return self.sampler is None and self.guidance_scale is None

    def is_due(self, epoch: int) -> bool:
        """Whether the policy is evaluated after so many epochs; after the last epoch it always
        is.
        """
        return not (epoch % self.every if self.every else epoch)


@dataclass(frozen=True)
class Rows:
    """How many rows one forward pass takes; None: `micro_batch_size`.

    Attributes:
        sampling: Samples that take a denoising step together.
        decoding: Latents that are decoded together.
        training: Training rows, each a sample at one step or time.
    """

    sampling: PositiveInt | None = None
    decoding: PositiveInt | None = None
    training: PositiveInt | None = None


@dataclass(frozen=True)
class Config:
    """micro_batch_size: the rows of one forward pass. With "auto", a rule chooses them by the
    model's shapes, the memory and the kind of device when the run begins; the result is in `rows`.
    It never changes the mathematics.

    one_pass: whether the first update after sampling uses gradients that are computed while
    sampling, instead of a second pass; exact in both cases. "auto": where that is faster and fits
    the memory.

    ema_decay: of a moving average of what learns, over updates, from which pictures and the adapter
    are made; None: no average.

    stall_seconds: of several processes, one that does nothing for so long ends all, with 75; a
    reward that is slow is waited for.
    """

    seed: Seed = 0
    epochs: PositiveInt = 10
    prompts_per_epoch: PositiveInt = 32
    images_per_prompt: PositiveInt = 1
    updates_per_epoch: PositiveInt = 1
    learning_rate: Positive = 3e-4
    micro_batch_size: PositiveInt | Literal["auto"] = "auto"
    rows: Rows = field(default_factory=Rows)
    one_pass: bool | Literal["auto"] = "auto"
    ema_decay: Share | None = None
    stall_seconds: Positive = 120.0
    model: Options = field(default_factory=lambda: {"name": "emoji"})
    sampler: Options = field(default_factory=lambda: {"name": "ddim"})
    algorithm: Options = field(default_factory=lambda: {"name": "ddpo_is"})
    rewards: list[Options] = field(default_factory=lambda: [{"name": DEFAULT_REWARD}])
    prompts: Options = field(default_factory=lambda: {"name": "animals"})
    optimizer: Optimizer = field(default_factory=Optimizer)
    scoring: Scoring = field(default_factory=Scoring)
    logging: Logging = field(default_factory=Logging)
    evaluation: Evaluation = field(default_factory=Evaluation)

    @property
    def num_samples(self) -> int:
        """Of one epoch, all processes together."""
        return self.prompts_per_epoch * self.images_per_prompt

    def rows_for(self, passes: str) -> int:
        """Returns how many rows one forward pass takes; DEFAULT_ROWS if none are chosen yet.

        Args:
            passes: What the passes are for: sampling, decoding or training.
        """
        usual = DEFAULT_ROWS if self.micro_batch_size == "auto" else self.micro_batch_size
        rows: int = getattr(self.rows, passes) or usual
        return rows

    @property
    def evaluation_sampler(self) -> Options:
        """The sampler of evaluations, with the options of the run's own where it says nothing."""
        over = {"sampler": self.evaluation.sampler or {}}
        sampler: Options = deep({"sampler": self.sampler}, over)["sampler"]
        return sampler

    @property
    def goal(self) -> str:
        """What is trained on: the name of the reward, or the sum of several."""
        return rewards.title(self.rewards)


@cache
def validator(kind: type) -> TypeAdapter[Any]:
    """Returns pydantic's validator of a dataclass, which takes milliseconds to make."""
    return TypeAdapter(kind)


def from_mapping(raw: Mapping[str, Any]) -> Config:
    """Raises ConfigError, naming the key, for anything that is not a run."""
    plain = merge({}, raw)
    if "rewards" not in plain:
        plain = merge({"reward": {"name": DEFAULT_REWARD}}, plain)
    _refuse_unknown(plain, Config, "")
    try:
        config: Config = validator(Config).validate_python(_with_uses(plain))
    except ValidationError as error:
        raise ConfigError(problems(error)) from error
    if config.updates_per_epoch > config.num_samples:
        raise ConfigError(
            f"updates_per_epoch: {config.updates_per_epoch} updates need as many samples, but"
            f" {config.prompts_per_epoch} prompts x {config.images_per_prompt} images ="
            f" {config.num_samples}. Raise those, or make fewer updates."
        )
    held_out = [each for each in config.rewards if use_of(each).is_held_out]
    if config.evaluation.on_overoptimisation == "stop" and not held_out:
        raise ConfigError(
            "evaluation.on_overoptimisation: stop needs a held-out reward; name one in"
            " evaluation.held_out."
        )
    return config


def _with_uses(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Checks how each reward is used, and makes numbers of weights that are text."""
    entries = plain["rewards"]
    uses = [use_of(entry, f"rewards.{number}") for number, entry in enumerate(entries)]
    exact = [
        {**entry, "weight": use.weight} if "weight" in entry else entry
        for entry, use in zip(entries, uses, strict=True)
    ]
    return {**plain, "rewards": exact}


def to_yaml(config: Config) -> str:
    """Returns the configuration as YAML that `from_yaml` reads back to an equal one."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False)


def to_mapping(config: Config) -> dict[str, Any]:
    """Returns the configuration as plain values that `from_mapping` reads back to an equal one."""
    return {key: _plain(value) for key, value in asdict(config).items()}


def from_yaml(path: Path) -> Config:
    """Returns the configuration in a file. Raises ConfigError, naming the key, if it is none."""
    return from_mapping(read_yaml(path))


def _refuse_unknown(raw: Mapping[str, Any], kind: type, prefix: str) -> None:
    hints = get_type_hints(kind)
    known = [*(f.name for f in fields(kind)), *SHORT_FORMS.get(prefix, ())]
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(
                f"{prefix}{str(key)[:100]}: no such key; there are"
                f" {', '.join(known)}.{did_you_mean(str(key), known)}"
            )
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _refuse_unknown(value, hints[key], f"{prefix}{key}.")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
