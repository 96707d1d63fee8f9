"""The verdict on a run: the findings of all rules, a headline and a suggestion."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rediffuse.config.reading import read_yaml
from rediffuse.faults import cure
from rediffuse.maths.trend import SURE, trend
from rediffuse.runs import files
from rediffuse.runs.folder import RunFolder
from rediffuse.runs.rows import read_metrics, read_monitor, read_rewards
from rediffuse.verdict.disagreement import gaps
from rediffuse.verdict.evidence import Evidence, Finding, Level
from rediffuse.verdict.learned import FEWEST_EPOCHS, learning
from rediffuse.verdict.overoptimisation import relative
from rediffuse.verdict.rules import RULES, held_out_trend, loss_of_diversity

UNMOVED_NATS = 1.0
"""A policy with at most this KL divergence from the pretrained model counts as unmoved."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a run.

    Attributes:
        headline: The result in a sentence.
        level: The severity of the worst finding; notes count as good.
        findings: The results of all rules.
        suggestion: What to do next, in a sentence.
        overoptimised_at: The number of completed epochs at which over-optimisation was found; None:
            it was not.
        best: The best checkpoint, in completed epochs; None if there is none.
    """

    headline: str
    level: Level
    findings: Sequence[Finding]
    suggestion: str
    overoptimised_at: int | None
    best: int | None


WORST_FIRST: Sequence[Level] = ("bad", "warning", "unknown", "note", "good")
KEEP = "Keep the best checkpoint (--checkpoint best); next time stop there"


def conclude(evidence: Evidence) -> Verdict:
    """Applies all rules and chooses the headline and the suggestion."""
    others = held_out_trend(evidence)
    findings = [learning(evidence), *others, *(said for rule in RULES if (said := rule(evidence)))]
    told = {each.rule: each for each in findings} | {
        "held_out": min(others, key=lambda each: WORST_FIRST.index(each.level))
    }
    fall, best = evidence.course.fall, evidence.course.best
    at = fall.epoch if fall else None
    return Verdict(
        _headline(told, best), _level(findings), findings, _suggestion(told, evidence), at, best
    )


def of_run(run: RunFolder) -> Verdict | None:
    """Returns the verdict on a run, from its logs; None if no epoch is complete."""
    metrics = read_metrics(run)
    if not metrics:
        return None
    config = read_yaml(run.path / "config.yaml")
    kept = run.planned_checkpoints(
        int(config.get("logging", {}).get("checkpoint_every", 1)), int(config["epochs"])
    )
    return conclude(
        Evidence(
            config,
            metrics,
            read_monitor(run),
            gaps(read_rewards(run), config),
            kept or None,
        )
    )


def write(run: RunFolder) -> Verdict | None:
    """Writes RUN/verdict.json atomically and returns the verdict; None if no epoch is complete."""
    verdict = of_run(run)
    if verdict is not None:
        files.write_json(run.verdict, asdict(verdict))
    return verdict


def _level(findings: Sequence[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    return next(level for level in (*WORST_FIRST[:3], "good") if level in levels or level == "good")


def _headline(told: Mapping[str, Finding], best: int | None) -> str:
    learned, held = told["learning"].level, told["held_out"].level
    if "overoptimised" in told:
        kept = f": keep the checkpoint of epoch {best}." if best else "."
        return (
            f"The run is over-optimised after {told['overoptimised'].numbers['epoch']} epochs{kept}"
        )
    if "collapse" in told:
        return "The reward rose and then collapsed."
    if learned == "unknown":
        return (
            "The reward may be rising; it is too early to be sure."
            if told["learning"].numbers
            else "The run is too short to judge."
        )
    if learned == "bad":
        return "The reward fell."
    if learned == "warning":
        return "The reward did not move."
    if "text" in told:
        return "The reward rose, but images began to contain text."
    if held == "bad":
        return "The reward rose, but a held-out reward fell."
    if held == "unknown":
        return "The reward rose, but no held-out reward shows whether the images are still good."
    alike = ", but the images have become more alike" if _warns(told, "diversity") else ""
    return (
        "The reward rose, and the held-out reward"
        f" {'rose too' if held == 'good' else 'did not change'}{alike}."
    )


@dataclass(frozen=True)
class _Known:
    """What suggestions go by.

    Attributes:
        told: The findings by their rules.
    """

    told: Mapping[str, Finding]
    evidence: Evidence

    @property
    def learned(self) -> Level:
        return self.told["learning"].level

    @property
    def rate(self) -> str:
        return f"{float(self.evidence.config['learning_rate']):g}"

    @property
    def longer(self) -> str:
        return f"rediffuse resume RUN --epochs {2 * int(self.evidence.config['epochs'])}"

    def warns(self, *rules: str) -> bool:
        """Whether one of the rules warns."""
        return any(_warns(self.told, rule) for rule in rules)


def _suggestion(told: Mapping[str, Finding], evidence: Evidence) -> str:
    """Returns the suggestion of the first kind of problem that there is."""
    known = _Known(told, evidence)
    return _of_faults(known) or _of_hacking(known) or _of_the_reward(known) or _of_gains(known)


def _of_faults(known: _Known) -> str:
    told, rate = known.told, known.rate
    sick = next((rule for rule in ("broken", "broken_pictures") if known.warns(rule)), None)
    if sick:
        model = known.evidence.config.get("model")
        precision = str(model.get("precision", "")) if isinstance(model, Mapping) else ""
        return cure(told[sick].numbers["place"], precision)
    if "masked" in told:
        return "Fix the reward first: rewards.jsonl has the status of each sample."
    if "precision" in told:
        return (
            "Use --model.precision fp32, a wider --algorithm.clip-range, or"
            " --sampler.num-quiet-steps 1."
        )
    return f"Lower the learning rate (now {rate})." if "skipped" in told else ""


def _of_hacking(known: _Known) -> str:
    if "overoptimised" in known.told:
        return f"{KEEP}: --evaluation.on-overoptimisation stop."
    if "text" in known.told:
        return (
            "Train against text: add {name: text_penalty, weight: 0.5} to rewards"
            " (docs/hacking.md)."
        )
    return ""


def _of_the_reward(known: _Known) -> str:
    told, rate = known.told, known.rate
    if "collapse" in told:
        return f"Lower the learning rate (now {rate}), or stop at epoch {_peak(told)}."
    if known.learned == "bad":
        return f"Lower the learning rate (now {rate}), and check that a higher reward is better."
    if known.learned != "warning":  # flat
        return ""
    if "clipping" in told:
        return "The policy moves further than the clip range allows: lower the learning rate."
    if "spread" in told:
        return "The reward hardly differs between samples: make it smoother, or the prompts harder."
    if known.evidence.kl is not None and known.evidence.kl <= UNMOVED_NATS:
        return f"The policy hardly moved: raise the learning rate (now {rate}) threefold."
    return (
        "Use more samples per epoch. To rule out a bug, train with --reward"
        " jpeg_incompressibility, which must rise."
    )


def _of_gains(known: _Known) -> str:
    held_out = known.told["held_out"].level
    if known.learned == "unknown":
        return f"Train for longer: {known.longer}"
    if held_out == "unknown":
        return "Name a reward to hold out next time: --evaluation.held-out NAME."
    if held_out == "bad" or known.warns("diversity"):
        return _go_back(known.evidence)
    if known.warns("watched_rewards"):
        return "Inspect the samples on which the rewards differ most."
    if _still_rising(known.evidence):
        return f"It is still rising: {known.longer}"
    return "No action is needed."


def _go_back(evidence: Evidence) -> str:
    """Suggests the last evaluation with a checkpoint at which no held-out reward had fallen and
    diversity was not lost.
    """
    for number in range(len(evidence.looks) - 1, 0, -1):
        then = replace(evidence, looks=evidence.looks[: number + 1])
        told = [*held_out_trend(then), loss_of_diversity(then)]
        epoch = evidence.looks[number]["epoch"]
        kept = evidence.checkpoints is None or epoch in evidence.checkpoints
        if kept and not any(finding and finding.level in ("bad", "warning") for finding in told):
            return (
                f"Inspect the images of epoch {epoch}, before this happened: rediffuse sample RUN"
                f" --checkpoint {epoch} --prompt TEXT"
            )
    return (
        "No checkpoint from before this happened is left; next time stop earlier, or lower the"
        f" learning rate (now {float(evidence.config['learning_rate']):g})."
    )


def _still_rising(evidence: Evidence) -> bool:
    rows = evidence.metrics[-max(FEWEST_EPOCHS, len(evidence.metrics) // 3) :]
    return not relative(rows) and trend([row["reward_mean"] for row in rows]).sure >= SURE


def _warns(told: Mapping[str, Finding], rule: str) -> bool:
    return rule in told and told[rule].level == "warning"


def _peak(told: Mapping[str, Finding]) -> Any:
    return told["collapse"].numbers["peak"] if "collapse" in told else ""
