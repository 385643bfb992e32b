"""What the page says and draws of how sure the generator is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsirm_jax.relevance.belief import CATEGORY, CODE, TITLE
from dsirm_jax.report.verdict import rung_name
from dsirm_jax.run.layout import FULL

TYPE_NAMES = {
    CATEGORY: "whole category paths",
    TITLE: "head nouns of titles",
    CODE: "first codes, for the items have no categories",
}


def belief_panel(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what the page shows of the generator's belief; None where it was not measured.

    Args:
      metrics: contents of `metrics.json`.

    Returns:
      `summary`, a sentence; `types`, what product types are; `levels`, a name of each by its key;
      `diagrams`, for each level the points of its reliability diagram by rung, in percent of a
      square, y downwards.
    """
    belief = metrics.get("belief")
    if not belief:
        return None
    keys = [key for key in next(iter(belief["rungs"].values())) if key.startswith("level_")]
    levels = {key: level_name(place, of=len(keys)) for place, key in enumerate(keys)}
    return {
        "summary": summary(belief),
        "types": TYPE_NAMES[belief["types"]],
        "levels": levels,
        "diagrams": {key: reliability_points(belief, key) for key in keys},
    }


def level_name(place: int, *, of: int) -> str:
    """Returns how the page calls a level.

    Args:
      place: of the level, from 0.
      of: levels that there are.
    """
    if place == of - 1:
        return "whole SID"
    return f"first {place + 1} codes" if place else "first code"


def summary(belief: Mapping[str, Any]) -> str:
    """Returns in a sentence where the probability lies, and what it has to do with product types.

    Args:
      belief: `belief` of `metrics.json`; the full model's where it is there.
    """
    rung = FULL if FULL in belief["rungs"] else next(iter(belief["rungs"]))
    levels = [of for key, of in belief["rungs"][rung].items() if key.startswith("level_")]
    first, whole = (100 * of["branch"]["value"] for of in (levels[0], levels[-1]))
    said = (
        f"Of the probability {first:.1f} % lies on first codes of relevant items and "
        f"{whole:.1f} % on their whole SIDs ({rung_name(rung)})"
    )
    if "spearman" not in levels[0]:
        return f"{said}."
    of = levels[0]["spearman"]
    surer = "less sure" if of["low"] > 0 else "surer" if of["high"] < 0 else None
    if surer:
        trend = f"the more kinds of products suit a query, the {surer} it is of the first code"
    else:
        trend = "how sure it is of the first code tells nothing of the kinds of products that suit"
    return f"{said}; {trend}."


def reliability_points(belief: Mapping[str, Any], level: str) -> dict[str, list[dict[str, Any]]]:
    """Returns the points of a reliability diagram by rung, see `belief_panel`."""
    return {
        rung: [
            {
                "x": 100 * of_bin["probability"],
                "y": 100 * (1 - of_bin["share"]),
                "prefixes": of_bin["prefixes"],
            }
            for of_bin in of[level]["reliability"]
        ]
        for rung, of in belief["rungs"].items()
    }
