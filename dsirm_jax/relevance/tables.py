"""Reads what one rung's stages wrote, as the arrays that features want; writes predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.files import replacing
from dsirm_jax.sids.codes import check_same_version, read_sids
from dsirm_jax.sids.prefix_match import Beams

ABOUT_THE_PAIR = ("query", "item_id", "label", "split")
"""Columns of `predictions.parquet` that are no rung's score."""


def read_rung(
    *,
    sids: Path,
    health: Path,
    query_sids: Path,
    pair_log_probs: Path,
    rows: Int[np.ndarray, " row"],
) -> dict[str, Any]:
    """Returns a rung's arguments of `features.with_sids`.

    Args:
      sids: table of the items' SIDs.
      health: JSON with the codes per level.
      query_sids: table of the queries' beams.
      pair_log_probs: table of the judged pairs' exact log-probs.
      rows: judgements wanted, by row.

    Raises:
      InputError: the tables are of different SIDs.
    """
    check_same_version(sids, query_sids, pair_log_probs)
    items = read_sids(sids)
    table = pq.read_table(pair_log_probs, columns=["log_probs"])["log_probs"].combine_chunks()
    return {
        "sids": items.sids,
        "sizes": tuple(json.loads(health.read_text())["sizes"]),
        "beams": read_beams(query_sids, levels=items.sids.shape[1]),
        "pair_log_probs": table.flatten().to_numpy().reshape(len(table), -1)[rows],
    }


def read_beams(path: Path, *, levels: int) -> Beams:
    """Reads `query_sids.parquet`; queries with fewer beams than others are filled up, not valid."""
    table = pq.read_table(path, columns=["sids", "log_probs"])
    log_probs = table["log_probs"].combine_chunks()
    counts = log_probs.value_lengths().to_numpy()
    valid = np.arange(max(counts.max(initial=0), 1)) < counts[:, None]  # [query, beam]
    beams = Beams(
        sids=np.full((*valid.shape, levels), -1, np.int32),
        log_probs=np.full(valid.shape, -np.inf, np.float32),
        valid=valid,
    )
    codes = table["sids"].combine_chunks().flatten().flatten().to_numpy()
    beams.sids[valid] = codes.reshape(-1, levels)
    beams.log_probs[valid] = log_probs.flatten().to_numpy()
    return beams


def read_hits(path: Path) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, "query level"]]:
    """Reads `hits.parquet`: the queries, and their ranks as `metrics.retrieval.first_hits` has."""
    table = pq.read_table(path, columns=["query_index", "ranks"])
    ranks = table["ranks"].combine_chunks().flatten().to_numpy()
    return table["query_index"].to_numpy(), ranks.reshape(len(table), -1)


def write_predictions(
    path: Path, *, judged: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
) -> None:
    """Writes `predictions.parquet`: query, item_id, label, split and a score column per rung."""
    columns = {name: judged[name] for name in ABOUT_THE_PAIR} | dict(scores)
    with replacing(path) as partial:
        pq.write_table(pa.table(columns), partial)
