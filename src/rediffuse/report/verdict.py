"""What became of a run, in words: the findings of its rules, one headline, one suggestion."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rediffuse.config import read_yaml
from rediffuse.maths.trend import SURE, trend
from rediffuse.overoptimisation import found
from rediffuse.report.disagreement import gaps
from rediffuse.report.rules import FEWEST_EPOCHS, RULES, UNMOVED_NATS, Evidence, Finding, Level, held_out, learning, normalised
from rediffuse.runs import log
from rediffuse.runs.folder import RunFolder


@dataclass(frozen=True)
class Verdict:
    """overoptimised_at, best: in epochs done"""

    headline: str
    level: Level
    findings: Sequence[Finding]
    suggestion: str
    overoptimised_at: int | None
    best: int | None


KEEP = "Keep the best checkpoint (--checkpoint best); next time stop there"


def judged(evidence: Evidence) -> Verdict:
    findings = [learning(evidence), *held_out(evidence), *(said for rule in RULES if (said := rule(evidence)))]
    finding = found(evidence.metrics, evidence.looks)
    told = {each.rule: each for each in findings}
    at = finding.fall.epoch if finding.fall else None
    return Verdict(_headline(told, finding.best), _level(findings), findings, _suggestion(told, evidence), at, finding.best)


def write(run: RunFolder) -> Verdict | None:
    """RUN/verdict.json, all or nothing; None where no epoch is done."""
    metrics = log.read(run.metrics)
    if not metrics:
        return None
    config = read_yaml(run.path / "config.yaml")
    again = gaps(log.read(run.rewards), str(config["reward"]["name"]).rpartition(":")[2])
    verdict = judged(Evidence(config, metrics, log.read(run.monitor), again))
    staged = run.path / f".verdict-{os.getpid()}"
    staged.write_text(json.dumps(asdict(verdict), indent=1))
    os.replace(staged, run.verdict)
    return verdict


def _level(findings: Sequence[Finding]) -> Level:
    levels = {finding.level for finding in findings}
    order: Sequence[Level] = ("bad", "warning", "unknown")
    return next((level for level in order if level in levels), "good")


def _headline(told: Mapping[str, Finding], best: int | None) -> str:
    learned = told["learning"].level
    if learned == "unknown":
        return "The reward may be rising; it is too early to be sure." if told["learning"].numbers else "Too short to say."
    if "overoptimised" in told:
        kept = f": keep the checkpoint of epoch {best}." if best else "."
        return f"The reward rose, but after {told['overoptimised'].numbers['epoch']} epochs at the pictures' cost{kept}"
    if "collapse" in told:
        return "The reward rose and then collapsed."
    if learned == "bad":
        return "The reward fell."
    if learned == "warning":
        return "The reward did not move."
    held = told["held_out"].level
    if "text" in told:
        return "The reward rose, and pictures began to hold text."
    if held == "unknown":
        return "The reward rose; nothing was asked that could say whether the pictures are still good."
    alike = ", but the pictures have become more alike" if told.get("diversity", told["held_out"]).level == "warning" else ""
    return f"The reward rose, and the held-out reward {'rose too' if held == 'good' else 'stayed as it was'}{alike}."


def _suggestion(told: Mapping[str, Finding], evidence: Evidence) -> str:
    """One: of the first rule that calls for it."""
    learned, rate = told["learning"].level, f"{float(evidence.config['learning_rate']):g}"
    longer = f"rediffuse resume RUN --epochs {2 * int(evidence.config['epochs'])}"
    flat = learned == "warning"
    moved = evidence.kl is None or evidence.kl > UNMOVED_NATS
    advice = (
        ("masked" in told, "Mend the reward first: rewards.jsonl says what became of each sample."),
        ("precision" in told, "Use --model.precision fp32, a wider --algorithm.clip-range, or --sampler.num-quiet-steps 1."),
        ("skipped" in told, f"Lower the learning rate, {rate} now."),
        ("overoptimised" in told, f"{KEEP}: --evaluation.on-overoptimisation stop."),
        ("text" in told, "Hold text against the pictures: text_penalty in a weighted_sum (docs/hacking.md)."),
        ("collapse" in told, f"Lower the learning rate, {rate} now, or stop at epoch {_peak(told)}."),
        (learned == "bad", f"Lower the learning rate, {rate} now; and see to it that higher is better in the reward."),
        (flat and "clipping" in told, "The policy moves further than the clip range allows: lower the learning rate."),
        (flat and "spread" in told, "The reward hardly tells samples apart: make it smoother, or the prompts harder."),
        (flat and not moved, f"The policy hardly moved: raise the learning rate, {rate} now, threefold."),
        (flat, "Take more samples an epoch; and try --reward jpeg_incompressibility, which must rise, to tell setting from bug."),
        (learned == "unknown", f"Train for longer: {longer}"),
        (told["held_out"].level == "unknown", "Name a reward to hold out next time: --evaluation.held-out NAME."),
        (_warns(told, "diversity"), "Look at the pictures; an earlier checkpoint may be the better one."),
        (_warns(told, "second_judge"), "Look at the samples on which the two judges differ most."),
        (_still_rising(evidence), f"It is still rising: {longer}"),
    )
    return next((said for holds, said in advice if holds), "Nothing to mend.")


def _still_rising(evidence: Evidence) -> bool:
    rows = evidence.metrics[-max(FEWEST_EPOCHS, len(evidence.metrics) // 3) :]
    return not normalised(rows) and trend([row["reward_mean"] for row in rows]).sure >= SURE


def _warns(told: Mapping[str, Finding], rule: str) -> bool:
    return rule in told and told[rule].level == "warning"


def _peak(told: Mapping[str, Finding]) -> Any:
    return told["collapse"].numbers["peak"] if "collapse" in told else ""
