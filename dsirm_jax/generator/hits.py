"""How soon the generator writes the SID of a relevant item."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from dsirm_jax.data.pairs import relevant_pairs
from dsirm_jax.data.schema import TEST
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.predict import SEARCHED_AT_ONCE, predict_sids
from dsirm_jax.metrics.retrieval import HITS_AT, first_hits
from dsirm_jax.sids.codes import list_column, write_versioned
from dsirm_jax.sids.trie import Trie
from dsirm_jax.training import processes


def write_hits(
    path: Path,
    *,
    fitted: FittedGenerator,
    trie: Trie,
    pieces: Sequence[Sequence[int]],
    sids: Int[np.ndarray, "item level"],
    judgements: Path,
) -> None:
    """Writes `hits.parquet`: what the generator makes of the queries that nothing has seen.

    Args:
      path: where to; columns `query_index` and `ranks`, see `metrics.retrieval.first_hits`.
      fitted: the generator.
      trie: the existing SIDs.
      pieces: tokens of all queries.
      sids: of all items.
      judgements: `prepare/judgements.parquet`; the relevant pairs of the split `test` count.
    """
    query, item = relevant_pairs(judgements, split=TEST).T
    queries, row = np.unique(query, return_inverse=True)
    beams = predict_sids(
        fitted=fitted,
        trie=trie,
        pieces=[pieces[query] for query in queries],
        beams=max(HITS_AT),
        batch_size=SEARCHED_AT_ONCE // 8,  # many beams take much memory
    )
    ranks = first_hits(
        np.asarray(beams.sids), np.asarray(beams.valid), query_index=row, relevant_sids=sids[item]
    )
    table = pa.table({"query_index": pa.array(queries, pa.int64()), "ranks": list_column(ranks)})
    write = functools.partial(write_versioned, path, table)
    processes.first(functools.partial(write, version=fitted.sid_version))
