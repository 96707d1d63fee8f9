"""Rules on technical problems: clipping, precision, skipped updates and missing rewards."""

from collections.abc import Mapping
from typing import get_args

from rediffuse.faults import Place, metric, place_of, told
from rediffuse.runs.rows import column
from rediffuse.verdict.evidence import Evidence, Finding

OFTEN_CLIPPED = 0.5
"""The clipped share of samples from which there is a warning."""
MASKED = 0.01
"""The share of missing rewards or broken samples above which there is a warning."""
SAME = 0.05
"""If the reward's standard deviation falls to this share of the first epoch's, all samples count as
equally good.
"""


def divergence(evidence: Evidence) -> Finding | None:
    """Reports the KL divergence from the pretrained model at the last evaluation, in nats per
    image.
    """
    if evidence.kl is None:
        return None
    return Finding(
        "kl",
        "note",
        f"KL divergence from the pretrained model: {evidence.kl:.3g} nats per image.",
        {"nats": evidence.kl},
    )


def clipping(evidence: Evidence) -> Finding | None:
    """Warns if most of the ratios are clipped."""
    share = evidence.clip_fraction
    if share < OFTEN_CLIPPED:
        return None
    text = (
        f"{share:.0%} of the samples are clipped: the policy moves further than the clip range"
        " allows."
    )
    return Finding("clipping", "warning", text, {"clip_fraction": share})


def precision(evidence: Evidence) -> Finding | None:
    """Warns if the ratio before the first update, which should be 1, is further off than the
    algorithm tolerates.
    """
    known = [row for row in evidence.metrics if "ratio_drift" in row and "max_ratio_drift" in row]
    worst = max(
        known, key=lambda row: float(row["ratio_drift"] / row["max_ratio_drift"]), default=None
    )
    if worst is None or worst["ratio_drift"] <= worst["max_ratio_drift"]:
        return None
    drift, allowed = worst["ratio_drift"], worst["max_ratio_drift"]
    text = (
        f"Before the first update the importance ratio deviates from 1 by up to {drift:.1e}; more"
        f" than {allowed:.1e} distorts the loss."
    )
    return Finding("precision", "warning", text, {"ratio_drift": drift, "allowed": allowed})


def skipped(evidence: Evidence) -> Finding | None:
    """Warns of updates that were skipped because their loss or gradient was not finite."""
    count = sum(row.get("skipped_updates", 0) for row in evidence.metrics)
    if not count:
        return None
    return Finding(
        "skipped",
        "warning",
        f"{count:.0f} updates were skipped: their loss or gradient was not finite.",
        {"updates": count},
    )


def broken(evidence: Evidence) -> Finding | None:
    """Reports samples that were not finite, as a warning if they are more than MASKED of all."""
    count = sum(row.get("masked_broken_sample", 0) for row in evidence.metrics)
    if not count:
        return None
    places = {
        place: sum(column(row, metric(place)) or 0 for row in evidence.metrics)
        for place in get_args(Place)
    }
    most = max(places, key=lambda place: places[place])
    share = count / max(1, evidence.metrics[-1]["reward_queries"])
    text = (
        f"{share:.1%} of the samples were not finite and were left out ({count:.0f}), most of"
        f" them because of the {most}."
    )
    return Finding(
        "broken", "warning" if share > MASKED else "note", text, {"share": share, "place": most}
    )


def broken_pictures(evidence: Evidence) -> Finding | None:
    """Warns of evaluation images that are not finite at the last evaluation."""
    found: Mapping[str, str] | None = evidence.looks[-1].get("broken") if evidence.looks else None
    if not found or not isinstance(found, Mapping):
        return None
    text = (
        f"At the last evaluation {len(found)} of the fixed images were not finite."
        f" {told(found.values())}"
    )
    return Finding(
        "broken_pictures",
        "warning",
        text,
        {"pictures": len(found), "place": place_of(next(iter(found.values())))},
    )


def masked_rewards(evidence: Evidence) -> Finding | None:
    """Warns if more than MASKED of the rewards are missing, not counting samples that are not
    finite.
    """
    count = sum(
        row["masked_rewards"] - row.get("masked_broken_sample", 0) for row in evidence.metrics
    )
    share = count / max(1, evidence.metrics[-1]["reward_queries"])
    if share <= MASKED:
        return None
    return Finding(
        "masked",
        "warning",
        f"{share:.1%} of the rewards failed and were left out ({count:.0f}).",
        {"share": share},
    )


def spread(evidence: Evidence) -> Finding | None:
    """Warns if all samples have nearly the same reward, so that nothing can be learned from
    them.
    """
    first, last = evidence.metrics[0]["reward_std"], evidence.metrics[-1]["reward_std"]
    if last > SAME * first and last > 0:
        return None
    text = (
        f"All samples have nearly the same reward: its standard deviation is {last:.3g}, and was"
        f" {first:.3g} at first."
    )
    return Finding("spread", "warning", text, {"first": first, "last": last})
