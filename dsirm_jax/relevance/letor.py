"""Feature tables as LETOR text, which RankLib, LightGBM, XGBoost and scikit-learn read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Real, Shaped

from dsirm_jax.relevance.schema import FeatureTable

MOST_GRADES = 31
"""LightGBM's default gains are of grades 0 to 30."""


def letor_lines(
    features: FeatureTable,
    *,
    queries: Shaped[np.ndarray, " pair"],
    item_ids: Sequence[str],
    grades: Real[np.ndarray, " pair"],
) -> Iterator[str]:
    """Yields the lines of pairs, those of a query together, in the order of queries' first pairs.

    First comes a comment a query, `# qid:1: red shoes`, then a line a pair,
    `2 qid:1 1:0.5 2:-1.25 # item id`. Every feature is written, 0 too, in as few digits as give the
    same float32.

    Args:
      features: of pairs.
      queries: text of each pair's query.
      item_ids: of each pair.
      grades: of each pair, whole or not.

    Source: https://www.cs.cornell.edu/people/tj/svm_light/svm_rank.html; the comments are those of
    Elasticsearch's learning to rank.

    Example:
      >>> table = FeatureTable(names=("cosine",), groups=("dense",), values=np.float32([[0.5]]))
      >>> [*letor_lines(table, queries=np.array(["mug"]), item_ids=["a"], grades=np.array([2.0]))]
      ['# qid:1: mug', '2 qid:1 1:0.5 # a']
    """
    _, first, row = np.unique(queries, return_index=True, return_inverse=True)
    qid = np.argsort(np.argsort(first))[row]
    for number, place in enumerate(np.sort(first), start=1):
        yield f"# qid:{number}: {queries[place]}"
    for pair in np.argsort(qid, kind="stable"):
        values = " ".join(
            f"{column}:{_shortest(value)}" for column, value in enumerate(features.values[pair], 1)
        )
        grade = _shortest(np.float32(grades[pair]))
        yield f"{grade} qid:{qid[pair] + 1} {values} # {item_ids[pair]}"


def feature_map(features: FeatureTable) -> Iterator[str]:
    """Yields the lines of XGBoost's map, `1<TAB>cosine<TAB>q`: number, name, a quantity.

    Example:
      >>> table = FeatureTable(names=("cosine",), groups=("dense",), values=np.float32([[0.5]]))
      >>> [*feature_map(table)]
      ['1\\tcosine\\tq']
    """
    for number, name in enumerate(features.names, start=1):
        yield f"{number}\t{'_'.join(name.split())}\tq"


def grades_of(gains: Real[np.ndarray, " pair"], *, known: Real[np.ndarray, " gain"]) -> np.ndarray:
    """Returns the grade of each gain: its place among the gains that there are, from 0.

    Where more are known than `MOST_GRADES`, as of clicks, gains are their own grades.

    Args:
      gains: of pairs.
      known: all that occur, `gains` among them.

    Example:
      >>> grades_of(np.array([0.1, 1.0]), known=np.array([0.0, 0.1, 1.0])).tolist()
      [1, 2]
    """
    distinct = np.unique(known)
    return np.searchsorted(distinct, gains) if len(distinct) <= MOST_GRADES else gains


def _shortest(value: np.floating) -> str:
    return np.format_float_positional(value, trim="-")
