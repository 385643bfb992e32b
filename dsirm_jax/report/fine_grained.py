"""What the page says of items that differ in one attribute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.relevance.fine_grained import ALL, TEXTS, TRUTH
from dsirm_jax.report.verdict import BASELINE, rung_name
from dsirm_jax.run.layout import FULL

SOURCES = {
    TRUTH: "as the simulated shop knows",
    TEXTS: "as far as words of queries and items tell",
}


def fine_grained_panels(*results: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Returns what the page shows of fine-grained distinctions, of each result that has any.

    Args:
      results: contents of `metrics.json` and `ablation.json`, None where there is none.

    Returns:
      Of each `summary`, a sentence; `source`, where attributes are known from; `columns`, by kind
      its name and counts; `of`, the figures.
    """
    measured = [result.get("fine_grained") for result in results if result]
    return [
        {
            "summary": summary(of),
            "source": SOURCES[of["source"]],
            "columns": {ALL: {"queries": of["queries"], "pairs": of["pairs"]}} | of["kinds"],
            "of": of,
        }
        for of in measured
        if of
    ]


def summary(of: Mapping[str, Any]) -> str:
    """Returns in a sentence how often the right item is first, and whether SIDs help.

    Args:
      of: `fine_grained` of `metrics.json`.
    """
    rung = FULL if FULL in of["rungs"] else next(iter(of["rungs"]))
    said = (
        f"Of two items that differ in one attribute, the {rung_name(rung)} ranks the one that was "
        f"asked for first in {100 * of['rungs'][rung][ALL]['value']:.1f} % of the cases"
    )
    between = {(lift["rung"], lift["over"]): lift[ALL] for lift in of["lifts"].values()}
    if (lift := between.get((rung, BASELINE))) is None:
        return f"{said}."
    low, value, high = (100 * lift[end] for end in ("low", "value", "high"))
    sure = "surely" if low > 0 or high < 0 else "perhaps"
    more = "more" if value >= 0 else "fewer"
    return (
        f"{said}, {sure} {abs(value):.1f} points {more} than {rung_name(BASELINE)} "
        f"({low:+.1f} to {high:+.1f})."
    ).replace("-", "−")
