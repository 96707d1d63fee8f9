"""What became of a run, in words: the findings of its rules, one headline, one suggestion."""

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
"""Up to this KL divergence a policy counts as unmoved."""


@dataclass(frozen=True)
class Verdict:
    """overoptimised_at, best: in epochs done"""

    headline: str
    level: Level
    findings: Sequence[Finding]
    suggestion: str
    overoptimised_at: int | None
    best: int | None


WORST_FIRST: Sequence[Level] = ("bad", "warning", "unknown", "note", "good")
KEEP = "Keep the best checkpoint (--checkpoint best); next time stop there"


def conclude(evidence: Evidence) -> Verdict:
    """Applies all rules, and chooses the headline and the suggestion."""
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
    """None where no epoch is done."""
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
    """RUN/verdict.json, all or nothing; None where no epoch is done."""
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
            f"After {told['overoptimised'].numbers['epoch']} epochs the reward was paid for"
            f" with the pictures{kept}"
        )
    if "collapse" in told:
        return "The reward rose and then collapsed."
    if learned == "unknown":
        return (
            "The reward may be rising; it is too early to be sure."
            if told["learning"].numbers
            else "Too short to say."
        )
    if learned == "bad":
        return "The reward fell."
    if learned == "warning":
        return "The reward did not move."
    if "text" in told:
        return "The reward rose, and pictures began to hold text."
    if held == "bad":
        return "The reward rose, but a held-out reward fell."
    if held == "unknown":
        return (
            "The reward rose; nothing was asked that could say whether the pictures are still good."
        )
    alike = ", but the pictures have become more alike" if _warns(told, "diversity") else ""
    return (
        "The reward rose, and the held-out reward"
        f" {'rose too' if held == 'good' else 'stayed as it was'}{alike}."
    )


def _suggestion(told: Mapping[str, Finding], evidence: Evidence) -> str:
    """One: of the first rule that calls for it."""
    learned, rate = told["learning"].level, _rate(evidence)
    longer = f"rediffuse resume RUN --epochs {2 * int(evidence.config['epochs'])}"
    flat = learned == "warning"
    moved = evidence.kl is None or evidence.kl > UNMOVED_NATS
    model = evidence.config.get("model")
    precision = str(model.get("precision", "")) if isinstance(model, Mapping) else ""
    sick = next((told[rule] for rule in ("broken", "broken_pictures") if _warns(told, rule)), None)
    advice = (
        (sick is not None, cure(sick.numbers["place"], precision) if sick else ""),
        ("masked" in told, "Mend the reward first: rewards.jsonl says what became of each sample."),
        (
            "precision" in told,
            "Use --model.precision fp32, a wider --algorithm.clip-range, or"
            " --sampler.num-quiet-steps 1.",
        ),
        ("skipped" in told, f"Lower the learning rate, {rate} now."),
        ("overoptimised" in told, f"{KEEP}: --evaluation.on-overoptimisation stop."),
        (
            "text" in told,
            "Train against text: add {name: text_penalty, weight: 0.5} to rewards"
            " (docs/hacking.md).",
        ),
        (
            "collapse" in told,
            f"Lower the learning rate, {rate} now, or stop at epoch {_peak(told)}.",
        ),
        (
            learned == "bad",
            f"Lower the learning rate, {rate} now; and see to it that higher is better in the"
            " reward.",
        ),
        (
            flat and "clipping" in told,
            "The policy moves further than the clip range allows: lower the learning rate.",
        ),
        (
            flat and "spread" in told,
            "The reward hardly tells samples apart: make it smoother, or the prompts harder.",
        ),
        (
            flat and not moved,
            f"The policy hardly moved: raise the learning rate, {rate} now, threefold.",
        ),
        (
            flat,
            "Take more samples an epoch; and try --reward jpeg_incompressibility, which must rise,"
            " to tell setting from bug.",
        ),
        (learned == "unknown", f"Train for longer: {longer}"),
        (
            told["held_out"].level == "unknown",
            "Name a reward to hold out next time: --evaluation.held-out NAME.",
        ),
        (told["held_out"].level == "bad" or _warns(told, "diversity"), _go_back(evidence)),
        (
            _warns(told, "watched_rewards"),
            "Look at the samples on which the rewards differ most.",
        ),
        (_still_rising(evidence), f"It is still rising: {longer}"),
    )
    return next((said for holds, said in advice if holds), "Nothing to mend.")


def _go_back(evidence: Evidence) -> str:
    """To the last look whose checkpoint is there and whose pictures had neither lost by a held-out
    reward nor become alike.
    """
    for number in range(len(evidence.looks) - 1, 0, -1):
        then = replace(evidence, looks=evidence.looks[: number + 1])
        told = [*held_out_trend(then), loss_of_diversity(then)]
        epoch = evidence.looks[number]["epoch"]
        kept = evidence.checkpoints is None or epoch in evidence.checkpoints
        if kept and not any(finding and finding.level in ("bad", "warning") for finding in told):
            return (
                f"Look at the pictures of epoch {epoch}, before that: rediffuse sample RUN"
                f" --checkpoint {epoch} --prompt TEXT"
            )
    return (
        "No checkpoint from before that is left; next time stop earlier, or lower the learning"
        f" rate, {_rate(evidence)} now."
    )


def _rate(evidence: Evidence) -> str:
    return f"{float(evidence.config['learning_rate']):g}"


def _still_rising(evidence: Evidence) -> bool:
    rows = evidence.metrics[-max(FEWEST_EPOCHS, len(evidence.metrics) // 3) :]
    return not relative(rows) and trend([row["reward_mean"] for row in rows]).sure >= SURE


def _warns(told: Mapping[str, Finding], rule: str) -> bool:
    return rule in told and told[rule].level == "warning"


def _peak(told: Mapping[str, Finding]) -> Any:
    return told["collapse"].numbers["peak"] if "collapse" in told else ""
