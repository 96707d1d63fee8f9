"""Whether what was learned carries over: the pretrained and the tuned model on the same prompts and
seeds, suite by suite.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Group
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch import Tensor

from rediffuse.config.rewards import Use, component_of, term_names
from rediffuse.config.schema import Config
from rediffuse.errors import ConfigError, RewardError
from rediffuse.evaluation import lengths
from rediffuse.evaluation.pictures import distinct, save, tuned
from rediffuse.faults import told
from rediffuse.images import grid
from rediffuse.lookup.build import build, check_names
from rediffuse.lookup.find import GIVEN_IN_PYTHON
from rediffuse.maths import noise
from rediffuse.maths.bootstrap import interval
from rediffuse.policy import DiffusionPolicy
from rediffuse.processes.threads import Caller
from rediffuse.processes.world import World
from rediffuse.report.markup import shown as plain
from rediffuse.rollout import Draws, collect
from rediffuse.runs import files, folder
from rediffuse.runs.rows import read_rewards
from rediffuse.scoring.journal import finite_or_none
from rediffuse.scoring.scorer import Scorer
from rediffuse.scoring.terms import Term, load_all
from rediffuse.terminal.output import console, printable
from rediffuse.types import Modality, Prompt, PromptSet, Rollout

OWN = "own"
"""The run's own prompts, with seeds that no training saw."""
SUITES = (
    OWN,
    "unseen_animals",
    "everyday_objects",
    "unseen_activities",
    "unseen_animals_activities",
)
NUM_PICTURES = 12


@dataclass(frozen=True)
class Question:
    """What to ask of a run. rewards: by name, instead of the run's own and its held-out ones
    checkpoint: as checkpoint.load
    """

    suites: Sequence[str] = SUITES
    rewards: Sequence[str] = ()
    checkpoint: str = "newest"
    num_prompts: int = 40
    images_per_prompt: int = 4
    seed: int = 0


@torch.no_grad()
def evaluate(run_dir: Path, question: Question) -> Mapping[str, Any]:
    """Writes RUN/evaluation: evaluation.json, which it also returns, and a picture a suite, before
    above after.

    Raises ConfigError for a suite or a reward that is not there. Why a reward cannot judge a suite
    stands in its place.
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
            save(pair.picture(), run.evaluation / picture)
            compared = pair.compared(terms, config, question, caller)
            rows.append({**compared, **_described(name, pair, trained_on), "grid": picture})
    found = {**vars(question), "suites": rows, "rewards": [term.name for term in rewards]}
    files.write_json(run.evaluation / "evaluation.json", found)
    return found


@dataclass(frozen=True)
class Pair:
    """The same draws before and after, prompt by prompt, as many of each."""

    before: Sequence[Rollout]
    after: Sequence[Rollout]
    prompts: Sequence[Prompt]
    modality: Modality

    @classmethod
    def sampled(
        cls, policy: DiffusionPolicy, draws: Draws, config: Config, world: World, name: str
    ) -> "Pair":
        def sample(which: str) -> list[Rollout]:
            size = config.micro_batch_size
            rollouts = collect(policy, draws, size, world)
            told, errors = escape(printable(f"{name}, {which}")), console("error")
            total = -(-len(draws.prompts) // size)
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
        return cls(before, sample("after"), draws.prompts, policy.denoiser.modality)

    def compared(
        self, terms: Sequence[Term], config: Config, question: Question, caller: Caller
    ) -> dict[str, Any]:
        """Returns each reward's means before and after, and the interval of their difference."""
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

    def picture(self) -> Image.Image:
        """The first picture of each of the first prompts, before above after."""
        step = len(self.prompts) // len({prompt.shown for prompt in self.prompts})
        was, now = (
            self.modality.preview(
                torch.cat([rollout.samples for rollout in each])[::step][:NUM_PICTURES]
            )
            for each in (self.before, self.after)
        )
        return grid(torch.stack([was, now], 1).flatten(0, 1), columns=len(was))


def gained(
    before: Tensor, after: Tensor, images_per_prompt: int, generator: torch.Generator
) -> dict[str, Any]:
    """before, after: (prompts * images_per_prompt,), NaN where unknown -> means over prompts, and
    their difference's interval.

    The interval is that of a bootstrap over prompts, since several pictures of one prompt are not
    independent. All None where nothing is known both before and after.
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


def table(found: Mapping[str, Any]) -> Group:
    """For a terminal."""
    return Group(
        *(part for suite in found["suites"] for part in (_heading(suite), _rows(suite["rewards"])))
    )


def _heading(suite: Mapping[str, Any]) -> Text:
    seen = f", {suite['trained_on']} of them trained on" if suite["trained_on"] else ""
    said = plain(
        f"{suite['name']}: {suite['num_images']} pictures of {suite['num_prompts']}"
        f" prompts{seen}{_broken(suite)}"
    )
    return Text(said, "bold")


def _broken(suite: Mapping[str, Any]) -> str:
    if not (broken := suite.get("broken")):
        return ""
    return f". Not finite: {broken['before']} before, {broken['after']} after. {broken['cause']}"


def _rows(rewards: Mapping[str, Any]) -> Table:
    shown = Table("", "before", "after", "difference", "95 %", box=None)
    shown.columns[0].min_width = 32
    for name, row in rewards.items():
        if "error" in row or row["difference"] is None:
            shown.add_row(Text(f"  {plain(name)}: cannot judge these"))
        else:
            within = "" if row["low"] is None else f"{row['low']:+.3f} {row['high']:+.3f}"
            shown.add_row(
                Text(f"  {plain(name)}"),
                f"{row['before']:.3f}",
                f"{row['after']:.3f}",
                f"{row['difference']:+.3f}",
                within,
            )
    return shown


def _suite(name: str, config: Config) -> PromptSet:
    """own, a prompt set of the house, a file of prompts, or anyone's own."""
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
    """Those that are named, or those of the run that score images as they are."""
    listed = [{"name": name} for name in names] or config.rewards
    known = [
        each
        for each in listed
        if not str(each["name"]).startswith(GIVEN_IN_PYTHON) and not each.get("copy")
    ]
    if not known:
        raise ConfigError(
            "--rewards: the run's own reward was given in Python and is gone; name one to judge by."
        )
    for entry in known:
        check_names("reward", component_of(entry))
    built = [build("reward", component_of(entry)) for entry in known]
    return [
        Term(name, Use(), reward) for name, reward in zip(term_names(known), built, strict=True)
    ]


def _draws(prompts: PromptSet, question: Question) -> Draws:
    chosen = distinct(prompts, question.num_prompts, question.seed)
    each = [prompt for prompt in chosen for _ in range(question.images_per_prompt)]
    return Draws(range(len(each)), each, (question.seed, "evaluate"))


def _values(
    term: Term, rollouts: Sequence[Rollout], config: Config, caller: Caller
) -> dict[str, Tensor]:
    """(N,) each: the reward and its parts. Raises RewardError where it gives nothing at all."""
    n = sum(len(rollout.prompts) for rollout in rollouts)
    options = replace(config.scoring, max_failed=1.0)
    scorer = Scorer(term.judged, options, name=term.name, num_samples=n, caller=caller)
    _, scores = scorer.score(rollouts, n)
    if len(scores.faults) == n:
        raise RewardError(f"None of the pictures is finite. {told(scores.faults)}", "broken_sample")
    if not scores.rewards.isfinite().any():
        raise RewardError(str(scorer.failure or f"The reward {term.name} gave no number."))
    parts = {f"{term.name}: {part}": values for part, values in scores.parts.items()}
    return {term.name: scores.rewards, **parts}


def _described(name: str, pair: Pair, trained_on: set[str]) -> dict[str, Any]:
    texts = list(dict.fromkeys(prompt.shown for prompt in pair.prompts))
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
        "trained_on": len(trained_on & set(texts)),
        "prompts": texts[:NUM_PICTURES],
    }
