"""Which judged pairs teach which head, and which halves of a cross-fit their features come from."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from dsirm_jax.run.layout import FULL

ON_SEEN = "full_on_seen"
"""The full model's head, taught by queries that earlier stages saw: what a leak would show."""


class Lesson(NamedTuple):
    """What a head is taught.

    Attributes:
      rung: whose features it reads.
      rows: the pairs that it is fitted to.
      halves: the halves of the cross-fit whose features of a pair count, at least one of each row.
    """

    rung: str
    rows: Bool[np.ndarray, " pair"]
    halves: Bool[np.ndarray, "half pair"]


def lessons_of(
    rungs: Collection[str],
    *,
    seen: Bool[np.ndarray, "half pair"],
    tested: Bool[np.ndarray, " pair"],
) -> dict[str, Lesson]:
    """Returns the lesson of each rung's head, and of `ON_SEEN` where there is a full model.

    No head is taught by a query that is tested, and a rung's by no query that the stages before it
    saw in the half that its features come from.

    Args:
      rungs: names of the rungs.
      seen: pairs of the queries that the stages of each half were fitted to; of a run without a
        cross-fit there is one half.
      tested: pairs of the queries that rungs are judged on.
    """
    lessons = {rung: Lesson(rung, (~seen).any(axis=0) & ~tested, ~seen) for rung in rungs}
    if FULL in rungs:
        lessons[ON_SEEN] = Lesson(FULL, seen.any(axis=0) & ~tested, seen)
    return lessons
