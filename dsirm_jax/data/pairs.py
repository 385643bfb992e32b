"""Which items answer which queries, as arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Int

from dsirm_jax.data.identity import identities_in

NO_ITEM = -1
MOST_POSITIVES = 64


def relevant_pairs(judgements: Path, *, split: str) -> Int[np.ndarray, "pair 2"]:
    """Reads the relevant pairs of one split.

    Args:
      judgements: `prepare/judgements.parquet`.
      split: `train`, `head` or `test`.

    Returns:
      int64 `[pair, 2]`: query_index and item_index.
    """
    pairs, relevant = judged_pairs(judgements, splits=(split,))
    return pairs[relevant]


def judged_pairs(
    judgements: Path, *, splits: Sequence[str]
) -> tuple[Int[np.ndarray, "pair 2"], Bool[np.ndarray, " pair"]]:
    """Reads all pairs of some splits, and whether each is relevant; see `relevant_pairs`."""
    table = pq.read_table(judgements, columns=["query_index", "item_index", "relevant", "split"])
    table = table.filter(pc.is_in(table["split"], pa.array(splits)))
    pairs = [table[name].to_numpy() for name in ("query_index", "item_index")]
    return np.stack(pairs, axis=1), table["relevant"].to_numpy()


def read_judgements(judgements: Path, *names: str) -> dict[str, np.ndarray]:
    """Reads columns of `prepare/judgements.parquet`, `[pair]` each."""
    table = pq.read_table(judgements, columns=list(names))
    return {name: table[name].to_numpy() for name in names}


def held_out_queries(queries: Path, *, share: float, seed: int) -> Bool[np.ndarray, " query"]:
    """Returns which queries are held out from training, a random share of all.

    Every query has a draw by its number, and all of one identity have that of the first of them:
    a spelling that is learnt would tell what another one is measured by.

    Args:
      queries: `prepare/queries.parquet`.
      share: of the queries.
      seed: of the draws.
    """
    identity = identities_in(queries)
    draws = np.random.Generator(np.random.Philox(key=seed)).random(len(identity))
    _, first, spelling_of = np.unique(identity, return_index=True, return_inverse=True)
    return draws[first[spelling_of]] < share


def positives_of(pairs: Int[np.ndarray, "pair 2"], *, queries: int) -> np.ndarray:
    """Returns the items relevant to each query, which are no negatives of it.

    A query with more than `MOST_POSITIVES` relevant items keeps its first ones: the others may be
    taken for negatives, which bounds a batch's memory.

    Args:
      pairs: relevant (query, item) numbers.
      queries: number of queries.

    Returns:
      int32 `[query + 1, positive]`, filled up with `NO_ITEM`. The last row is empty: query number
      -1, no query, finds it.
    """
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    query, item = pairs[order, 0], pairs[order, 1]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    width = min(MOST_POSITIVES, int(rank.max(initial=0)) + 1)
    positives = np.full((queries + 1, width), NO_ITEM, np.int32)
    kept = rank < width
    positives[query[kept], rank[kept]] = item[kept]
    return positives
