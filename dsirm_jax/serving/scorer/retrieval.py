"""Items for a query by its SIDs and by its vector, as a search engine finds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Integer

from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.engines.engine import SCALE, terms_of
from dsirm_jax.serving.scorer.answers import AnswerSource, Candidate, Retrieved
from dsirm_jax.serving.scorer.evidence import QueryEvidence
from dsirm_jax.sids.prefix_match import Beams


def retrieve(
    catalogue: BundleCatalogue,
    *,
    context: QueryEvidence,
    beams: Beams,
    source: AnswerSource,
    most: int,
) -> Retrieved:
    """Returns the best items of a query.

    Args:
      catalogue: whose items they are.
      context: what is known of the query without the generator.
      beams: its SIDs, without an axis of queries.
      source: of the beams.
      most: items of each list.
    """
    sids = np.asarray(beams.sids)[beams.valid].tolist()
    log_probs = np.asarray(beams.log_probs, np.float64)[beams.valid]
    terms = terms_of(sids, np.exp(log_probs).tolist())
    by_sid = below(catalogue, terms, most=most)
    near = context.near.items
    ids = _ids(catalogue, near.row[0])
    by_vector = best(zip(ids, near.cosine[0].tolist(), strict=True), most=most)
    return Retrieved(
        by_sid=by_sid,
        by_vector=by_vector,
        by_both=best(_summed((*by_sid, *by_vector)).items(), most=most),
        terms=terms,
        vector=context.vector[0],
        source=source,
    )


def below(
    catalogue: BundleCatalogue, terms: Mapping[str, float], *, most: int
) -> tuple[Candidate, ...]:
    """Returns the items with the greatest sum of the weights of their prefixes.

    Args:
      catalogue: whose items they are.
      terms: weight of each prefix, as `terms_of` has them.
      most: items returned; those that are equal are taken in the order of their ids.
    """
    parts = [catalogue.items_below([*map(int, prefix.split("."))]) for prefix in terms]
    if not parts:
        return ()
    # Whole numbers, whose sums do not depend on the order, so that equal items are equal.
    units = np.rint(10**SCALE * np.fromiter(terms.values(), float)).astype(np.int64)
    numbers, place = np.unique(np.concatenate(parts), return_inverse=True)
    masses = np.zeros(len(numbers), np.int64)
    np.add.at(masses, place, np.repeat(units, [len(part) for part in parts]))
    if len(masses) > most:
        last = np.partition(masses, len(masses) - most)[len(masses) - most]
        numbers, masses = numbers[masses >= last], masses[masses >= last]
    scores = (masses / 10**SCALE).tolist()
    return best(zip(_ids(catalogue, numbers), scores, strict=True), most=most)


def best(scored: Iterable[tuple[str, float]], *, most: int) -> tuple[Candidate, ...]:
    """Returns the items of the greatest scores; those that are equal in the order of their ids.

    Example:
      >>> [item_id for item_id, _ in best([("b", 1.0), ("a", 1.0), ("c", 2.0)], most=2)]
      ['c', 'a']
    """
    ordered = sorted(scored, key=lambda item: (-item[1], item[0]))
    return tuple(Candidate(*item) for item in ordered[:most])


def _summed(found: Iterable[Candidate]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for item_id, score in found:
        scores[item_id] = scores.get(item_id, 0.0) + score
    return scores


def _ids(catalogue: BundleCatalogue, numbers: Integer[np.ndarray, " item"]) -> list[str]:
    return [item.item_id for item in catalogue.items(numbers)]
