"""Hard negatives: items judged irrelevant to a training query."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.data.schema import TRAIN


class Irrelevant(NamedTuple):
    """The items judged irrelevant to each training query.

    Attributes:
      items: of all queries, one query after the other.
      edges: where those of each query begin, and where the last end. `[query + 1]`
    """

    items: Int[np.ndarray, " pair"]
    edges: Int[np.ndarray, " edge"]

    def draw(
        self,
        queries: Int[np.ndarray, " row"],
        *,
        each: int,
        num_items: int,
        random: np.random.Generator,
    ) -> Int[np.ndarray, "row each"]:
        """Returns items judged irrelevant to each query, with replacement.

        A query without any gets items of the whole catalogue, which is to say easy ones.
        """
        first, last = self.edges[queries], self.edges[queries + 1]
        chance = random.random((len(queries), each))
        judged = first[:, None] + (chance * (last - first)[:, None]).astype(np.int64)
        anything = (chance * num_items).astype(np.int64)
        known = np.append(self.items, 0)[np.minimum(judged, len(self.items))]
        return np.where((last > first)[:, None], known, anything)


def read_irrelevant(judgements: Path, *, queries: int) -> Irrelevant:
    """Reads the judged-irrelevant items of the training queries.

    Args:
      judgements: `prepare/judgements.parquet`.
      queries: number of queries.
    """
    columns = ["query_index", "item_index", "relevant", "split"]
    table = pq.read_table(judgements, columns=columns)
    table = table.filter(pc.and_(pc.invert(table["relevant"]), pc.equal(table["split"], TRAIN)))
    query, item = (table[name].to_numpy() for name in columns[:2])
    order = np.argsort(query, kind="stable")
    return Irrelevant(
        items=item[order], edges=np.searchsorted(query[order], np.arange(queries + 1))
    )
