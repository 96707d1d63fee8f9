"""The results of an evaluation on suites of prompts, as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from rediffuse.report.markup import shown as plain


def suite_table(found: Mapping[str, Any]) -> Group:
    """Returns the result of `evaluate` as tables for a terminal."""
    return Group(
        *(part for suite in found["suites"] for part in (_heading(suite), _rows(suite["rewards"])))
    )


def _heading(suite: Mapping[str, Any]) -> Text:
    seen = f", {suite['trained_on']} of them trained on" if suite["trained_on"] else ""
    said = plain(
        f"{suite['name']}: {suite['num_images']} images of {suite['num_prompts']}"
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
            shown.add_row(Text(f"  {plain(name)}: cannot score these"))
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
