"""What a model card has to say against its own figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.relevance.fine_grained import TRUTH
from dsirm_jax.report.verdict import lift_over_control, rung_name
from dsirm_jax.run.layout import FULL

FEW_QUERIES = 50
"""Fewer in a segment, and its interval says next to nothing."""


def limits(
    metrics: Mapping[str, Any], *, summary: Mapping[str, Any], language: str | None
) -> list[str]:
    """Returns what the figures do not say, a sentence or two each.

    Args:
      metrics: contents of `metrics.json`.
      summary: contents of `prepare/summary.json`.
      language: of titles and queries, where it is known.
    """
    told = f" ({language})" if language else ""
    fine_grained = metrics.get("fine_grained") or {}
    found = [
        f"All figures are of one catalogue and of {metrics['queries']:,} of its "
        f"queries{told}. Codes, vocabulary and statistics are this catalogue's: on another one, "
        f"in another language or market, nothing was measured; fit the model anew there.",
        "Intervals are of drawing other queries. Another seed of training, other raters and other "
        "times of year are not in them.",
    ]
    if fine_grained.get("source") == TRUTH:
        found.append(
            "The shop is simulated, queries and judgements too: how shoppers write and what raters "
            "disagree on is not in these figures."
        )
    found += [*_of_power(metrics), *_of_segments(metrics), *_of_data(summary)]
    measured = (
        ("how well items that differ in one attribute are told apart", fine_grained),
        ("how honest the generator's probabilities are", metrics.get("belief")),
        ("what a head gains that learns from queries seen before", metrics.get("leak")),
    )
    unmeasured = [about for about, of in measured if not of]
    unmeasured += [
        "clicks, sales or any other behaviour after a change of the ranking",
        "whether brands, sellers or groups of shoppers are served alike",
    ]
    return [*found, f"Not measured: {'; '.join(unmeasured)}."]


def _of_power(metrics: Mapping[str, Any]) -> list[str]:
    control, lift = lift_over_control(metrics)
    if control is None:
        return ["The model was compared with none that has no SIDs: what they add is not known."]
    if "power" not in lift:
        return []
    return [
        f"A difference in ROC-AUC to '{rung_name(control)}' of less than "
        f"{lift['power']['detectable']:.4f} would be found in so many queries less than four "
        f"times in five."
    ]


def _of_segments(metrics: Mapping[str, Any]) -> list[str]:
    segments = metrics.get("segments", {})
    few = [name for name, of in segments.items() if of["queries"] < FEW_QUERIES]
    found = []
    if few:
        found.append(
            f"Segments of fewer than {FEW_QUERIES} queries tell little by themselves: "
            f"{', '.join(few)}."
        )
    unseen = segments.get("unseen items")
    if unseen is None or FULL not in unseen["rungs"]:
        found.append("Every item of the test was judged before: of new items nothing is known.")
    else:
        share = 100 * unseen["pairs"] / metrics["pairs"]
        found.append(
            f"Of items that nobody judged outside the test come {unseen['pairs']:,} of the "
            f"{metrics['pairs']:,} test pairs, {share:.1f} %: of new items little is known."
        )
    return found


def _of_data(summary: Mapping[str, Any]) -> list[str]:
    found = []
    twins = summary.get("queries", {}).get("near_twins", {}).get("test", 0)
    if twins:
        found.append(
            f"{twins:,} of the test queries have a near-twin among the others, which differs in "
            f"punctuation or the order of words alone: what is learnt there is tested here."
        )
    disagreement = summary.get("judgements", {}).get("disagreement", {}).get("pairs", 0)
    if disagreement:
        found.append(
            f"Raters disagreed on {disagreement:,} pairs, which no model can get right for all."
        )
    if summary.get("judgements", {}).get("behaviour"):
        found.append("Judgements come from clicks, which favour what was shown at the top.")
    return found
