"""Generalisation: compares the fine-tuned model with the pretrained one on suites of prompts, with
the same seeds.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.markup import escape
from rich.progress import track
from torch import Tensor

from rediffuse.config.rewards import Use, component_of, term_names
from rediffuse.config.schema import Config, Options
from rediffuse.errors import ConfigError, RewardError
from rediffuse.evaluation import lengths
from rediffuse.evaluation.pictures import distinct, save, tuned
from rediffuse.evaluation.previews import View
from rediffuse.faults import told
from rediffuse.images import grid
from rediffuse.lookup.build import build, check_names
from rediffuse.lookup.find import GIVEN_IN_PYTHON
from rediffuse.maths import noise
from rediffuse.maths.bootstrap import interval
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.memory import RowLimits
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.rollout import Draws, collect
from rediffuse.runs import files, folder
from rediffuse.runs.rows import read_rewards
from rediffuse.scoring.journal import finite_or_none
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.terms import Term, load_all
from rediffuse.terminal.output import console, printable
from rediffuse.types import Prompt, PromptSet, Rollout

OWN = "own"
"""The suite of the run's own prompts, with seeds that were not used in training."""
SUITES = (
    OWN,
    "unseen_animals",
    "everyday_objects",
    "unseen_activities",
    "unseen_animals_activities",
)
NUM_PICTURES = 12
"""How many prompts each suite's picture shows."""


@dataclass(frozen=True)
class Question:
    """What to evaluate.

    Attributes:
        suites: OWN, names of prompt sets, or files of prompts.
        rewards: Names of rewards; empty: those of the run that score samples as they are.
        checkpoint: "newest", "best", or the number of completed epochs.
        num_prompts: The most prompts of each suite.
        images_per_prompt: The number of images of each prompt.
        seed: Of prompts, noise and bootstrap.
    """

    suites: Sequence[str] = SUITES
    rewards: Sequence[str] = ()
    checkpoint: str = "newest"
    num_prompts: int = 40
    images_per_prompt: int = 4
    seed: int = 0


@torch.no_grad()
def evaluate(run_dir: Path, question: Question) -> Mapping[str, Any]:
    """Evaluates a run and writes RUN/evaluation.

    The folder gets a picture of each suite, before above after, and evaluation.json, whose content
    is returned. If a reward fails on a suite, its entry holds the error.

    Raises:
        ConfigError: If a suite or a reward does not exist.
    """
    run = folder.existing(run_dir)
    config = run.config()
    suites = {name: _suite(name, config) for name in question.suites}
    rewards = _rewards(config, question.rewards)
    trained_on = {row["prompt"] for row in read_rewards(run)}
    files.make_folder(run.evaluation)
    rows = []
    with World.joined(num_samples=1) as world, closing(Caller()) as caller:
        terms = load_all(rewards, world.device, caller)
        policy = tuned(run, question.checkpoint)
        for number, (name, prompts) in enumerate(suites.items(), start=1):
            draws, picture = _draws(prompts, question), f"suite-{number}.png"
            lengths.warn(policy.denoiser, lengths.known_texts(prompts, draws.prompts))
            pair = Pair.sampled(policy, draws, config, world, name)
            view = View(policy.denoiser.modality, prompts)
            save(pair.picture(view), run.evaluation / picture)
            compared = pair.compared(terms, config, question, caller)
            rows.append({**compared, **_described(name, pair, trained_on), "grid": picture})
    found = {**vars(question), "suites": rows, "rewards": [term.name for term in rewards]}
    files.write_json(run.evaluation / "evaluation.json", found)
    return found


@dataclass(frozen=True)
class Pair:
    """Samples of both models from the same prompts and noise.

    Attributes:
        before: Of the pretrained model, ordered by prompt, with equally many for each.
        after: Of the fine-tuned model, in the same order.
        prompts: The prompt of each sample.
        modality: The kind of the samples.
    """

    before: Sequence[Rollout]
    after: Sequence[Rollout]
    prompts: Sequence[Prompt]

    @classmethod
    def sampled(
        cls, policy: DiffusionPolicy, draws: Draws, config: Config, world: World, name: str
    ) -> "Pair":
        """Samples both models; `name` is that of the suite, for the progress bar."""

        def sample(which: str) -> list[Rollout]:
            limits = RowLimits.of(config.rows_for)
            rollouts = collect(policy, draws, limits, world)
            told, errors = escape(printable(f"{name}, {which}")), console("error")
            total = -(-len(draws.prompts) // limits.sampling.rows)
            return list(
                track(
                    rollouts,
                    told,
                    total,
                    console=errors,
                    transient=True,
                    disable=not errors.is_terminal,
                )
            )

        with policy.using("start"):
            before = sample("before")
        return cls(before, sample("after"), draws.prompts)

    def compared(
        self, terms: Sequence[Term], config: Config, question: Question, caller: Caller
    ) -> dict[str, Any]:
        """Returns the result of `gained` for each reward and each of its parts, or its error."""
        generator = noise.generator(question.seed, "bootstrap")
        found: dict[str, Any] = {}
        for term in terms:
            try:
                was, now = (
                    _values(term, each, config, caller) for each in (self.before, self.after)
                )
            except RewardError as error:
                found[term.name] = {"error": str(error)}
                continue
            both = [value for value in was if value in now]
            found |= {
                value: gained(was[value], now[value], question.images_per_prompt, generator)
                for value in both
            }
        return {"rewards": found}

    def picture(self, view: View) -> Image.Image:
        """Draws the first image of each of the first prompts, before above after."""
        step = len(self.prompts) // len({prompt.key for prompt in self.prompts})
        first = self.prompts[::step][:NUM_PICTURES]
        was, now = (
            view.preview(
                torch.cat([rollout.samples for rollout in each])[::step][:NUM_PICTURES], first
            )
            for each in (self.before, self.after)
        )
        return grid(torch.stack([was, now], 1).flatten(0, 1), columns=len(was))


def gained(
    before: Tensor, after: Tensor, images_per_prompt: int, generator: torch.Generator
) -> dict[str, Any]:
    """Computes means over prompts and the bootstrap interval of their difference.

    Prompts are resampled rather than images, since images of one prompt are not independent.

    Args:
        before: Shape (prompts * images_per_prompt,), ordered by prompt; NaN if unknown.
        after: The same for the other model.
        images_per_prompt: The number of images of each prompt.
        generator: Of the bootstrap.

    Returns:
        The means "before", "after" and of the "difference", its 95 % interval "low" to "high", and
        "num_images", all over images with both values; None if unknown.
    """
    known = before.isfinite() & after.isfinite()
    was, now = (
        each.where(known, torch.nan).view(-1, images_per_prompt).nanmean(1)
        for each in (before, after)
    )
    gains = (now - was)[was.isfinite()]
    low, high = interval(gains, generator) if len(gains) > 1 else (None, None)
    means = [finite_or_none(each.nanmean().item()) for each in (was, now, now - was)]
    named = dict(zip(("before", "after", "difference"), means, strict=True))
    return {**named, "low": low, "high": high, "num_images": int(known.sum())}


def _suite(name: str, config: Config) -> PromptSet:
    """Builds the prompt set of a suite: OWN, a file of prompts, or a name."""
    if name == OWN:
        options = config.prompts
    elif Path(name).suffix in (".txt", ".jsonl"):
        options = {"name": "text_file", "path": name}
    else:
        options = {"name": name}
    check_names("prompts", options)
    prompts: PromptSet = build("prompts", options)
    return prompts


def _rewards(config: Config, names: Sequence[str]) -> list[Term]:
    """Builds the named rewards, or those of the run that score samples as they are."""
    listed = [{"name": name} for name in names] or config.rewards
    known: dict[str, Options] = {}
    components = [component_of(entry) for entry in listed]
    for name, entry, options in zip(term_names(components), listed, components, strict=True):
        gone = str(entry["name"]).startswith(GIVEN_IN_PYTHON)
        if not gone and not entry.get("copy") and options not in known.values():
            known[name] = options
    if not known:
        raise ConfigError(
            "--rewards: the run's own reward was given in Python and is not stored; name one to"
            " evaluate with."
        )
    for options in known.values():
        check_names("reward", options)
    return [Term(name, Use(), build("reward", options)) for name, options in known.items()]


def _draws(prompts: PromptSet, question: Question) -> Draws:
    chosen = distinct(prompts, question.num_prompts, question.seed)
    each = [prompt for prompt in chosen for _ in range(question.images_per_prompt)]
    return Draws(range(len(each)), each, (question.seed, "evaluate"))


def _values(
    term: Term, rollouts: Sequence[Rollout], config: Config, caller: Caller
) -> dict[str, Tensor]:
    """Returns a reward and its parts, each (N,). Raises RewardError if there is no number at
    all.
    """
    n = sum(len(rollout.prompts) for rollout in rollouts)
    options = replace(config.scoring, max_failed=1.0)
    scorer = Scorer(term.judged, options, name=term.name, num_samples=n, caller=caller)
    _, scores = scorer.score(rollouts, n)
    if len(scores.faults) == n:
        raise RewardError(f"None of the images is finite. {told(scores.faults)}", "broken_sample")
    if not scores.rewards.isfinite().any():
        raise RewardError(str(scorer.failure or f"The reward {term.name} gave no number."))
    parts = {f"{term.name}: {part}": values for part, values in scores.parts.items()}
    return {term.name: scores.rewards, **parts}


def _described(name: str, pair: Pair, trained_on: set[str]) -> dict[str, Any]:
    texts = [prompt.shown for prompt in {each.key: each for each in pair.prompts}.values()]
    before, after = (
        [fault for rollout in each for fault in rollout.faults if fault]
        for each in (pair.before, pair.after)
    )
    broken = (
        {"before": len(before), "after": len(after), "cause": told([*before, *after])}
        if before or after
        else None
    )
    return {
        **({"broken": broken} if broken else {}),
        "name": name,
        "num_prompts": len(texts),
        "num_images": len(pair.prompts),
        "trained_on": sum(text in trained_on for text in texts),
        "prompts": texts[:NUM_PICTURES],
    }
