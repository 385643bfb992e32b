"""Gains for labels that are found in a table, suggested and never taken: the user knows better."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from dsirm_jax.ingestion.grading.labels import is_missing
from dsirm_jax.ingestion.numbers import canonical, readings

KNOWN: Sequence[Mapping[str, float]] = (
    {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0},
    {"Exact": 1.0, "Partial": 0.5, "Irrelevant": 0.0},
    {"Exact": 1.0, "Substitute": 0.1, "Complement": 0.01, "Irrelevant": 0.0},
    {"Perfect": 1.0, "Excellent": 0.75, "Good": 0.5, "Fair": 0.25, "Bad": 0.0},
    {"Relevant": 1.0, "Irrelevant": 0.0},
    {"Relevant": 1.0, "Not relevant": 0.0},
    {"Yes": 1.0, "No": 0.0},
)
"""Labels of words that are widely used; the first two as ESCI and WANDS value them."""

MOST_LISTED = 10
"""More numbers than these are grades rather than names."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What labels may be worth.

    Attributes:
      gains: of each label; None: the labels are grades.
      relevant: labels that may be relevant; of grades the lowest of these.
      least: the lowest grade.
      most: the highest grade.
    """

    gains: Mapping[str, float] | None
    relevant: Sequence[str]
    least: float = 0.0
    most: float = 1.0


def suggest_gains(labels: Collection[str]) -> Suggestion | None:
    """Returns what the labels of a table may be worth; None where nothing speaks for anything.

    Of words the best that is found is relevant. Numbers have a gain that is linear from the lowest
    to the highest, and the upper half is relevant; a table that lacks the lowest or highest label
    of its scale misleads this.

    Args:
      labels: that are found, as they are written.
    """
    rated = sorted({text for label in labels if not is_missing(text := label.strip())})
    folded = {label.casefold() for label in rated}
    for gains in KNOWN:
        if folded and folded <= {label.casefold() for label in gains} and len(folded) > 1:
            present = [label for label in gains if label.casefold() in folded]
            return Suggestion(gains=gains, relevant=[max(present, key=gains.__getitem__)])
    numbers = {label: readings(label) for label in rated}
    if not all(len(read) == 1 for read in numbers.values()):
        return None
    distinct = sorted({read[0] for read in numbers.values()})
    if len(distinct) < 2:
        return None
    least, most = distinct[0], distinct[-1]
    half = (least + most) / 2
    relevant = [number for number in distinct if number > half]
    if len(distinct) > MOST_LISTED:
        return Suggestion(gains=None, relevant=[canonical(relevant[0])], least=least, most=most)
    scale = most - least
    return Suggestion(
        gains={canonical(number): round((number - least) / scale, 4) for number in distinct},
        relevant=[canonical(number) for number in relevant],
    )
