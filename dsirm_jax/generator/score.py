"""Exact `log P(c_1 .. c_l | query)` of given SIDs, at every level; one encoder pass per query."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Array, Float, Int

from dsirm_jax.generator.losses import level_log_probs
from dsirm_jax.generator.model import EncodedQueries, T5Config, Transformer, decoder_inputs
from dsirm_jax.generator.predict import padded_batches
from dsirm_jax.sids.codes import list_column, write_versioned
from dsirm_jax.training.progress import progress

ITEMS_AT_ONCE = 16


@functools.partial(jax.jit, static_argnames="config")
def encode(params: Any, tokens: Int[Array, "batch length"], *, config: T5Config) -> EncodedQueries:
    """Returns what the decoder needs of the queries; see `Transformer.encode`."""
    return Transformer(config).apply({"params": params}, tokens, method=Transformer.encode)


@functools.partial(jax.jit, static_argnames="config")
def score(
    params: Any,
    queries: EncodedQueries,
    sids: Int[Array, "batch item level"],
    *,
    config: T5Config,
) -> Float[Array, "batch item level"]:
    """Returns the log-probability of every prefix of every item's SID.

    Args:
      params: parameters of the generator.
      queries: from `encode`.
      sids: int `[batch, item, level]` valid codes.
      config: shape of the generator.

    Returns:
      float32 `[batch, item, level]`, nats, not increasing along the levels; the last level's is the
      score that `decoding.beam_search` gives to the SID.
    """
    inputs = decoder_inputs(sids, config=config)
    logits, _ = Transformer(config).apply(
        {"params": params}, queries, inputs, method=Transformer.decode
    )
    return jnp.cumsum(level_log_probs(logits, sids), axis=-1)


def score_pairs(
    *,
    params: Any,
    config: T5Config,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    query_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "pair level"],
    batch_size: int,
) -> Float[np.ndarray, "pair level"]:
    """Scores (query, SID) pairs; every query that occurs is encoded once.

    Args:
      params: parameters of the generator.
      config: its shape.
      pieces: tokens of each query, as the training rows had them; cut at `max_pieces`.
      max_pieces: tokens read of a query.
      query_index: int `[pair]` row of `pieces`.
      sids: int `[pair, level]` SID of the pair's item.
      batch_size: queries encoded at once.

    Returns:
      float32 `[pair, level]`: `log P(c_1 .. c_l | query)`, nats, in the order of the pairs.
    """
    params = jax.device_put(params)
    by_query = np.argsort(query_index, kind="stable")
    starts = np.searchsorted(query_index, np.arange(len(pieces) + 1), sorter=by_query)
    counts = np.diff(starts)
    # Queries with like numbers of pairs share a batch, so that few places are left empty.
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    batches = list(
        padded_batches(pieces, order=order, batch_size=batch_size, max_pieces=max_pieces)
    )
    log_probs = np.empty(sids.shape, np.float32)
    for rows, tokens in progress(batches, total=len(batches), name="score", unit="batch"):
        queries = encode(params, tokens, config=config)
        for first in range(0, counts[rows].max(), ITEMS_AT_ONCE):
            rank = first + np.arange(ITEMS_AT_ONCE)
            real = rank < counts[rows, None]  # [row, item]
            pairs = by_query[(starts[rows, None] + rank)[real]]
            chosen = np.zeros((batch_size, ITEMS_AT_ONCE, config.num_levels), np.int32)
            chosen[: len(rows)][real] = sids[pairs]
            scored = np.asarray(score(params, queries, chosen, config=config))
            log_probs[pairs] = scored[: len(rows)][real]
    return log_probs


def write_pair_log_probs(
    path: Path,
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    log_probs: Float[np.ndarray, "pair level"],
    sid_version: str,
) -> None:
    """Writes `pair_log_probs.parquet`: query_index, item_index and log_probs, one row a judgement.

    Args:
      path: where to.
      query_index: int `[pair]` row of `queries.parquet`.
      item_index: int `[pair]` row of `items.parquet`.
      log_probs: from `score_pairs`.
      sid_version: of the SIDs scored; goes into the schema metadata.
    """
    table = pa.table(
        {
            "query_index": pa.array(query_index, pa.int64()),
            "item_index": pa.array(item_index, pa.int64()),
            "log_probs": list_column(np.asarray(log_probs, np.float32)),
        }
    )
    write_versioned(path, table, version=sid_version)
