"""How far two forms of a bundle are from each other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.verification.answers import Answers

TOLERANCE = 1e-5
ROUNDING = 1e-5
"""Two forms may compute a feature that far from each other, relative to its size where above 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far a form is from the models in memory.

    Attributes:
      form: its name.
      batch: pairs at once; of a scorer callers at once, each with a pair.
      pairs: compared.
      other_sids: SIDs at another rank, or none there, but for those of equal probability.
      of_sids: greatest difference of the probabilities of SIDs.
      of_pairs: greatest difference of the probabilities of pairs, but for those on a step.
      on_a_step: pairs whose probability jumps to that of the other form where one feature moves by
        `ROUNDING`: one of its values lies at a threshold of a tree.
      of_vectors: greatest difference of the coordinates of vectors, where the form makes them.
    """

    form: str
    batch: int
    pairs: int
    other_sids: int
    of_sids: float
    of_pairs: float
    on_a_step: int
    of_vectors: float

    @property
    def agrees(self) -> bool:
        differences = np.array([self.of_sids, self.of_pairs, self.of_vectors])
        return not self.other_sids and bool((differences <= TOLERANCE).all())  # and none is NaN


def comparison(
    answers: Answers,
    expected: Answers,
    *,
    beside: Float[np.ndarray, "neighbour pair"],
    form: str,
    batch: int,
) -> Comparison:
    """Returns how far two answers are from each other.

    Args:
      answers: those of the form.
      expected: those of the models in memory.
      beside: `probabilities_beside` of these.
      form: see `Comparison`.
      batch: likewise.
    """
    # A SavedModel may lack the vectors, and a scorer does not show them.
    vectors = expected.vector[:, : answers.vector.shape[1]]
    probabilities = [np.exp(each.log_probs) for each in (answers, expected)]
    differs = (answers.sids != expected.sids).any(axis=-1) & ~tied(probabilities[1])
    apart = np.abs(answers.probability - expected.probability)
    jumps = np.abs(beside - expected.probability) > 10 * TOLERANCE
    reached = jumps & (np.abs(beside - answers.probability) <= TOLERANCE)
    on_a_step = (apart > TOLERANCE) & reached.any(axis=0)
    return Comparison(
        form=form,
        batch=batch,
        pairs=len(answers.sids),
        other_sids=int(differs.sum()),
        of_sids=float(np.abs(probabilities[0] - probabilities[1]).max(initial=0)),
        of_pairs=float(apart[~on_a_step].max(initial=0)),
        on_a_step=int(on_a_step.sum()),
        of_vectors=float(np.abs(answers.vector - vectors).max(initial=0)),
    )


def tied(falling: Float[np.ndarray, "pair beam"]) -> Bool[np.ndarray, "pair beam"]:
    """Returns which beams are as probable as a neighbour, within rounding: either may come first.

    What comes after the last beam is not known, so that this one always may be another.
    """
    gap = -np.diff(falling, axis=1, append=falling[:, -1:])
    close = gap <= 1e-5 * falling
    close[:, 1:] |= close[:, :-1].copy()
    return close


def probabilities_beside(
    head: FittedHead, features: FeatureTable
) -> Float[np.ndarray, "neighbour pair"]:
    """Returns what a head makes of pairs one of whose features is off by `ROUNDING`."""
    neighbours = []
    for column, sign in itertools.product(range(len(head.features)), (1, -1)):
        values = features.values.copy()
        moved = values[:, column]
        moved += sign * ROUNDING * np.maximum(np.abs(moved), 1)
        moved_table = dataclasses.replace(features, values=values)
        neighbours.append(score(head, moved_table, lists=np.arange(len(values))))
    return np.stack(neighbours)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Returns comparisons as text."""
    lines = [
        "form            batch  pairs  other SIDs  on a step  greatest difference of SIDs    pairs"
        "  vectors"
    ]
    lines += [
        f"{row.form:<15} {row.batch:>5} {row.pairs:>6} {row.other_sids:>11} {row.on_a_step:>10} "
        f"{row.of_sids:>28.1e} {row.of_pairs:>8.1e} {row.of_vectors:>8.1e}"
        f"{'' if row.agrees else '  <- over ' + format(TOLERANCE, '.0e')}"
        for row in comparisons
    ]
    return "\n".join(lines)
