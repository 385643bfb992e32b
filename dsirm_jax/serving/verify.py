"""Whether a bundle is whole, and whether all its forms give the same numbers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.bundle.manifest import FULL
from dsirm_jax.serving.forms import (
    Answers,
    Questions,
    answers_in_memory,
    cached_questions,
    head_inputs,
    in_fresh_process,
    in_scorer,
    in_stablehlo,
    sources,
)
from dsirm_jax.serving.scorer.scorer import LIVE, Scorer, Settings

BATCHES = (1, 7, 256)
TOLERANCE = 1e-5
ROUNDING = 1e-5
"""Two forms may compute a feature that far from each other, relative to its size where above 1."""
IN_MEMORY, STABLEHLO, SAVED_MODEL, SCORER = "in memory", "StableHLO", "SavedModel", "scorer"
SECONDS = 600.0
"""That a scorer's caller waits for the generator, which compiles at first."""


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


def verify(path: Path, *, pairs: int, batches: Sequence[int] = BATCHES) -> list[Comparison]:
    """Compares the contents of all files with the manifest, and all forms with each other.

    Args:
      path: of the bundle.
      pairs: of a cached query and an item that each form scores.
      batches: pairs at once; every form answers them all in batches of each size.

    Raises:
      InputError: a file is not what was written, or a SavedModel does not load with TensorFlow and
        tensorflow-text alone.
    """
    bundle = open_bundle(path, verify=True)
    return compare(bundle, cached_questions(bundle, pairs=pairs), batches=batches)


def compare(bundle: Bundle, questions: Questions, *, batches: Sequence[int]) -> list[Comparison]:
    """Compares what the forms of a bundle answer; see `verify`.

    Raises:
      InputError: a SavedModel does not load, or a pair is not cached.
    """
    inputs = {batch: head_inputs(bundle, questions, batch=batch) for batch in batches}
    whole = inputs[max(batches)]
    head = bundle.models.heads[FULL]
    expected, features = answers_in_memory(bundle, questions, whole)
    beside = probabilities_beside(head, features)
    tensorflow = in_fresh_process(bundle, questions, batches=batches)
    forms: dict[str, Callable[[int], Answers]] = {
        IN_MEMORY: lambda batch: answers_in_memory(bundle, questions, inputs[batch])[0],
        STABLEHLO: lambda batch: in_stablehlo(bundle, questions, batch=batch),
        SAVED_MODEL: tensorflow.__getitem__,
    }
    comparisons = [
        compared(answer(batch), expected, beside=beside, form=form, batch=batch)
        for form, answer in forms.items()
        for batch in batches
    ]
    for source, served in sources(bundle).items():
        settings = Settings(waiting=max(batches), deadline=SECONDS, remembered_answers=0)
        with Scorer(served, settings=settings) as scorer:
            for batch in batches:
                answers, given = in_scorer(scorer, bundle, questions, batch=batch, source=source)
                same, near = expected, beside
                if source == LIVE:
                    # It may have other neighbours: a query of training has itself among them.
                    others = questions._replace(given=given)
                    same, features = answers_in_memory(bundle, others, whole)
                    near = probabilities_beside(head, features)
                form = f"{SCORER}, {source}"
                comparisons.append(compared(answers, same, beside=near, form=form, batch=batch))
    return comparisons


def compared(
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
    probabilities = [np.exp(both.log_probs) for both in (answers, expected)]
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


def table(comparisons: Sequence[Comparison]) -> str:
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


def probabilities_beside(
    head: FittedHead, features: FeatureTable
) -> Float[np.ndarray, "neighbour pair"]:
    """Returns what a head makes of pairs one of whose features is off by `ROUNDING`."""
    scores = []
    for column, sign in itertools.product(range(len(head.features)), (1, -1)):
        values = features.values.copy()
        moved = values[:, column]
        moved += sign * ROUNDING * np.maximum(np.abs(moved), 1)
        scores.append(score(head, dataclasses.replace(features, values=values)))
    return np.stack(scores)
