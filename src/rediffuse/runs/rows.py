"""The rows of a run's logs: every column, its unit, and when a row has it.

The types are those of what this version writes. A file of an older version may lack columns, and a
file of someone else may hold anything: whatever reads such files converts numbers with
`rediffuse.verdict.changes.finite`. Each line of a log ends in its checksum, `crc32`, which
`runs/log.py` adds and removes.
"""

from collections.abc import Mapping
from typing import Required, TypedDict, cast

from rediffuse.errors import Status
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder


class MaskedColumns(TypedDict, total=False):
    """The columns of metrics.jsonl that count `masked_rewards` by the status of the sample.

    A row has the column of a status only if a sample of the epoch has that status.

    Attributes:
        masked_failed: Samples for which the reward raised an error.
        masked_timeout: Samples for which no reward came in time.
        masked_invalid_shape: Samples for which the reward was not one number.
        masked_non_finite: Samples for which the reward was not a finite number.
        masked_unparseable: Samples for which a model's answer could not be read.
        masked_broken_sample: Samples that were not finite themselves, so that no reward was asked.
    """

    masked_failed: int
    masked_timeout: int
    masked_invalid_shape: int
    masked_non_finite: int
    masked_unparseable: int
    masked_broken_sample: int


class BrokenColumns(TypedDict, total=False):
    """The columns of metrics.jsonl that count `masked_broken_sample` by the place where a sample
    stopped being finite.

    A row has the column of a place only if a sample of the epoch broke there.

    Attributes:
        broken_text_encoder: Samples whose prompt's embedding was not finite.
        broken_network: Samples for which the output of the denoiser was not finite.
        broken_latents: Samples for which a latent was not finite.
        broken_log_probability: Samples for which a log-probability was not finite.
        broken_decoder: Samples that were not finite once decoded.
        broken_encoder: Samples that were not finite once encoded again.
    """

    broken_text_encoder: int
    broken_network: int
    broken_latents: int
    broken_log_probability: int
    broken_decoder: int
    broken_encoder: int


class RewardColumns(MaskedColumns, BrokenColumns, total=False):
    """The columns of metrics.jsonl that sum up the rewards of an epoch's samples.

    A row also has a column `reward_<name>` for each reward of the run that scored a sample of the
    epoch, and for each part of a reward: its mean, in its own unit. These columns depend on the
    run, so they are not declared here; `column` reads them.

    Attributes:
        reward_mean: The mean of what is trained on, over the samples that have it, in the unit of
            the reward; about 0 in every epoch for a normalised sum.
        reward_std: The standard deviation over the same samples (of the population, 1/n).
        masked_rewards: The number of samples without a reward, which are not trained on.
        seconds_reward: The time that calls of the reward took in the first process, in seconds;
            samples are drawn meanwhile.
        relative_reward: 1 if rewards are relative to their epoch (a normalised sum), so that
            `reward_mean` cannot be compared between epochs; missing otherwise.
    """

    reward_mean: float
    reward_std: float
    masked_rewards: int
    seconds_reward: float
    relative_reward: float


class UpdateColumns(TypedDict, total=False):
    """The columns of metrics.jsonl that describe an epoch's updates.

    A row also has a column for each of the algorithm's own metrics (`Algorithm.metric_names`), its
    mean over the rows that were trained on. They depend on the algorithm, so except for
    `clip_fraction` they are not declared here; `column` reads them.

    Attributes:
        trained_samples: The number of samples that were trained on, in all processes.
        loss: The mean loss over the rows (pairs of a sample and a step) of all updates.
        approx_kl: The mean of half the squared log-ratio, of log-probabilities that are means over
            a latent's entries: how far the updates have moved the policy from the one that drew the
            samples. Only for algorithms with a ratio.
        clip_fraction: The share of rows, in [0, 1], whose ratio was outside of the clip range. Only
            for ddpo_is.
        grad_norm: The mean norm of the finite gradients, before clipping; 0 without any.
        skipped_updates: The number of updates without a finite loss and gradient.
        ratio_drift: The largest |ratio - 1| before the first update, where the ratio should be 1.
            Only for algorithms with a ratio.
        max_ratio_drift: The largest `ratio_drift` that the algorithm tolerates. Only for algorithms
            with a ratio.
    """

    trained_samples: int
    loss: float
    approx_kl: float
    clip_fraction: float
    grad_norm: float
    skipped_updates: int
    ratio_drift: float
    max_ratio_drift: float


class MetricsRow(RewardColumns, UpdateColumns, total=False):
    """A row of metrics.jsonl: one epoch, over the samples of all processes.

    Attributes:
        epoch: The number of the epoch, from 0.
        reward_queries: The number of samples since the run began, those of this epoch included.
        seconds_sampling: The time of sampling and of waiting for rewards, in seconds; that of the
            samples that callbacks draw along with the epoch's is included.
        seconds_training: The time of advantages and updates, in seconds.
        images_per_second: The number of samples divided by both times.
        peak_memory_bytes: The largest memory in use so far, in bytes: of the GPU, or of the process
            on a CPU.
    """

    epoch: Required[int]
    reward_queries: int
    seconds_sampling: float
    seconds_training: float
    images_per_second: float
    peak_memory_bytes: float


class RewardsRow(TypedDict, total=False):
    """A row of rewards.jsonl: one sample of an epoch.

    Attributes:
        epoch: The number of the epoch, from 0.
        index: The number of the sample in its epoch, from 0.
        prompt: The prompt as it is shown.
        reward: The reward that is trained on, in its unit; None if the status is not "ok".
        status: "ok", or why there is no reward.
        attempts: How often the reward was asked; 0 for a sample that is not finite.
        image_hash: 48 bits of the sample's SHA-256, as 12 hexadecimal digits; zeros if the reward
            gave nothing for it.
        parts: The sample's value of each reward and of each part of a reward, by the name that its
            column in metrics.jsonl has after `reward_`; None where it is missing. The key is
            missing if the epoch's rewards have no parts.
        notes: What the rewards noted on the sample, by name; the key is missing without notes.
    """

    epoch: Required[int]
    index: int
    prompt: str
    reward: float | None
    status: Status
    attempts: int
    image_hash: str
    parts: dict[str, float | None]
    notes: dict[str, str]


class HeldOut(TypedDict, total=False):
    """What a held-out reward says of an evaluation's images, in its own unit.

    Attributes:
        mean: The mean over the images that have a value; None without any.
        values: The value of each image, in the order of the prompts; None where it is missing.
        parts: The values of each part of the reward, in the same order.
        of_other_prompts: The mean if each prompt's images are scored with the next prompt; None if
            there is no value. Only in the first evaluation, before training.
    """

    mean: float | None
    values: list[float | None]
    parts: dict[str, list[float | None]]
    of_other_prompts: float | None


class Statistics(TypedDict, total=False):
    """Statistics of an evaluation's images that are finite (docs/verdict.md).

    Each is None if it is not a finite number. All are missing, except for `kl`, if no image is
    finite; the three distances are also missing if no image was finite before training.

    Attributes:
        brightness: The mean over all pixels, in [0, 1].
        saturation: The mean over all pixels, in [0, 1].
        edge_density: The share of pixels on an edge, in [0, 1].
        colour_entropy: The entropy of the colour histogram, in bits.
        diversity: The mean distance between two images of a prompt, relative to the pretrained
            model's.
        near_identical: The share of images that nearly equal another one, in [0, 1].
        distance: The mean distance from the pretrained model's image of the same prompt and seed,
            in mean distances between two of its images.
        kl: The KL divergence from the pretrained model, in nats per image. Missing if
            `evaluation.kl` is false.
    """

    brightness: float | None
    saturation: float | None
    edge_density: float | None
    colour_entropy: float | None
    diversity: float | None
    near_identical: float | None
    distance: float | None
    kl: float | None


class MonitorRow(TypedDict, total=False):
    """A row of monitor.jsonl: one evaluation on the fixed prompts and seeds.

    Attributes:
        epoch: The number of completed epochs; 0 before training.
        images_per_prompt: The number of images of each prompt, which stand next to one another.
        held_out: What each held-out reward says, by its name; empty without held-out rewards.
        statistics: The statistics of the images.
        seconds: The time of the evaluation without its sampling, in seconds.
        broken: For each image that is not finite, its number, as text, and where it stopped being
            finite. Missing if all images are finite.
    """

    epoch: Required[int]
    images_per_prompt: int
    held_out: dict[str, HeldOut]
    statistics: Statistics
    seconds: float
    broken: dict[str, str]


def read_metrics(run: RunFolder) -> list[MetricsRow]:
    """Returns the rows of metrics.jsonl. Raises RunError if a line was changed."""
    return cast(list[MetricsRow], log.read(run.metrics))


def read_rewards(run: RunFolder) -> list[RewardsRow]:
    """Returns the rows of rewards.jsonl. Raises RunError if a line was changed."""
    return cast(list[RewardsRow], log.read(run.rewards))


def read_monitor(run: RunFolder) -> list[MonitorRow]:
    """Returns the rows of monitor.jsonl. Raises RunError if a line was changed."""
    return cast(list[MonitorRow], log.read(run.monitor))


def column(row: Mapping[str, object], name: str) -> float | None:
    """Returns a number whose column depends on the run, such as `reward_<name>` or a metric of the
    algorithm; None if the row has no such column.
    """
    return cast("float | None", row.get(name))
