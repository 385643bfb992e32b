"""Exact `log P(c_1 .. c_l | query)` of given SIDs, at every level.

A query is encoded once, and each prefix that its SIDs share is decoded once, from the cached keys
and values of the prefix that is one code shorter.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.generator.architectures.architecture import Architecture, State
from dsirm_jax.generator.decoding import require_finite
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.losses import level_log_probs
from dsirm_jax.generator.predict import padded_batches
from dsirm_jax.sids.codes import list_column, write_versioned
from dsirm_jax.training.progress import progress

PREFIXES_AT_ONCE = 4096
FEWEST_PREFIXES = 8


class Prefixes(NamedTuple):
    """The distinct prefixes of one length among the SIDs of each query.

    Attributes:
      parent: int32 `[batch, prefix]`, which of the prefixes one code shorter each goes on from.
      code: int32 `[batch, prefix]`, its last code.
    """

    parent: Int[Array, "batch prefix"]
    code: Int[Array, "batch prefix"]


@functools.partial(jax.jit, static_argnames="config")
@exact
def encode_texts(params: Any, tokens: Int[Array, "batch length"], *, config: Architecture) -> State:
    """Returns what decoding needs of the queries; see `Architecture.encode`."""
    return config.encode(params, tokens)


@functools.partial(jax.jit, static_argnames="config")
@exact
def score_prefixes(
    params: Any, state: State, prefixes: Sequence[Prefixes], *, config: Architecture
) -> tuple[Float[Array, "batch _prefix"], ...]:
    """Returns the log-probability of every prefix.

    Args:
      params: parameters of the generator.
      state: from `encode_texts`.
      prefixes: those of one code, those of two codes, and so on up to whole SIDs.
      config: the generator's network.

    Returns:
      For each length float32 `[batch, prefix]`, nats; that of a whole SID is the score that
      `decoding.beam_search` gives to it. Source: this project.
    """
    rows = jnp.arange(prefixes[0].parent.shape[0])[:, None]
    log_probs = jnp.zeros(rows.shape, jnp.float32)
    newest, past, scores = jnp.zeros((*rows.shape, 0), jnp.int32), None, []
    for parent, code in prefixes:
        (logits,), past = config.decode(params, state, newest, past)
        log_z = jax.nn.logsumexp(logits, axis=-1)  # [batch, prefix]
        log_probs = log_probs[rows, parent] + logits[rows, parent, code] - log_z[rows, parent]
        scores.append(log_probs)
        past = jax.tree.map(lambda array, parent=parent: array[rows, parent], past)
        newest = code[..., None].astype(jnp.int32)
    return tuple(scores)


@exact
def score_sids(
    params: Any,
    state: State,
    sids: Int[Array, "batch sid level"],
    *,
    config: Architecture,
) -> Float[Array, "batch sid level"]:
    """Returns the log-probabilities of the prefixes of a few SIDs of each query, all at once.

    Args:
      params: parameters of the generator.
      state: from `encode_texts`.
      sids: their SIDs.
      config: the generator's network.

    Returns:
      float32: what `score_pairs` gives, without looking for what the SIDs of a query share.
    """
    logits, _ = config.decode(params, state, sids[..., :-1])
    return jnp.cumsum(level_log_probs(logits, sids), axis=-1)


class DistinctSids(NamedTuple):
    """The distinct SIDs of every query, in groups of a limited number, each of one query.

    Attributes:
      sids: int32 `[sid, level]`, in the order of the queries and of the codes.
      starts: int64 `[group + 1]`, first row of each group in `sids`, and their number.
      query: int64 `[group]`.
      prefix: int64 `[sid, level]`, number in its group of the prefix that ends at the level.
      row: int64 `[pair]`, row in `sids` of each pair.
    """

    sids: Int[np.ndarray, "sid level"]
    starts: Int[np.ndarray, " boundary"]
    query: Int[np.ndarray, " group"]
    prefix: Int[np.ndarray, "sid level"]
    row: Int[np.ndarray, " pair"]


def distinct_sids(
    query_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "pair level"],
    *,
    most: int = PREFIXES_AT_ONCE,
) -> DistinctSids:
    """Returns what the SIDs of each query share.

    Args:
      query_index: int `[pair]`.
      sids: int `[pair, level]`.
      most: SIDs of a group.
    """
    pairs = np.column_stack([query_index, sids])
    order = np.lexsort(pairs.T[::-1])
    pairs = pairs[order]
    # Whether the query, or it and the first codes, differ from those of the row before.
    is_new = np.ones(pairs.shape, bool)
    is_new[1:] = np.logical_or.accumulate(pairs[1:] != pairs[:-1], axis=1)
    row = np.empty(len(order), np.int64)
    row[order] = np.cumsum(is_new[:, -1]) - 1
    pairs, is_new = pairs[is_new[:, -1]], is_new[is_new[:, -1]]
    rows = np.arange(len(pairs))
    rank = rows - np.maximum.accumulate(np.where(is_new[:, 0], rows, 0))
    is_new[rank % most == 0] = True
    starts = np.flatnonzero(is_new[:, 0])
    group = np.cumsum(is_new[:, 0]) - 1
    count = np.cumsum(is_new[:, 1:], axis=0)
    return DistinctSids(
        sids=pairs[:, 1:].astype(np.int32),
        starts=np.append(starts, len(pairs)),
        query=pairs[starts, 0],
        prefix=count - count[starts[group]],
        row=row,
    )


def score_pairs(
    *,
    fitted: FittedGenerator,
    pieces: Sequence[Sequence[int]],
    query_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "pair level"],
    batch_size: int,
) -> Float[np.ndarray, "pair level"]:
    """Scores (query, SID) pairs; what the pairs of a query share is computed once.

    Args:
      fitted: the generator.
      pieces: tokens of each query, as the training rows had them; cut at `fitted.max_pieces`.
      query_index: int `[pair]` row of `pieces`.
      sids: int `[pair, level]` SID of the pair's item.
      batch_size: queries encoded at once; fewer where they have many SIDs.

    Returns:
      float32 `[pair, level]`: `log P(c_1 .. c_l | query)`, nats, in the order of the pairs.

    Raises:
      FloatingPointError: the logits are not finite.
    """
    params, config = jax.device_put(fitted.params), fitted.config
    distinct = distinct_sids(query_index, sids)
    batches = list(_batches(distinct, pieces, max_pieces=fitted.max_pieces, batch_size=batch_size))
    log_probs = np.empty(distinct.sids.shape, np.float32)
    for groups, tokens, widths in progress(batches, total=len(batches), name="score", unit="batch"):
        spans = [np.arange(*distinct.starts[group : group + 2]) for group in groups]
        rows, lines = np.concatenate(spans), np.repeat(np.arange(len(spans)), [*map(len, spans)])
        prefixes = shared_prefixes(
            distinct, rows, lines=lines, shapes=[(len(tokens), width) for width in widths]
        )
        state = encode_texts(params, tokens, config=config)
        scores = score_prefixes(params, state, prefixes, config=config)
        log_probs[rows] = scores_by_sid(scores, distinct, rows, lines=lines)
    require_finite(np.all(~np.isnan(log_probs), axis=1), rows="SIDs")
    return log_probs[distinct.row]


def shared_prefixes(
    distinct: DistinctSids,
    rows: Int[np.ndarray, " sid"],
    *,
    lines: Int[np.ndarray, " sid"],
    shapes: Sequence[tuple[int, int]],
) -> list[Prefixes]:
    """Returns the prefixes of some groups as `score_prefixes` takes them.

    Args:
      distinct: the SIDs.
      rows: of `distinct.sids`, all of each group.
      lines: line of the batch that each belongs to.
      shapes: lines, and room for prefixes, of each length.
    """
    prefixes, parent = [], np.zeros(len(rows), np.int64)
    for code, number, shape in zip(
        distinct.sids[rows].T, distinct.prefix[rows].T, shapes, strict=True
    ):
        level = Prefixes(*np.zeros((2, *shape), np.int32))
        level.parent[lines, number], level.code[lines, number] = parent, code
        prefixes.append(level)
        parent = number
    return prefixes


def scores_by_sid(
    scores: Sequence[Float[Array, "batch _prefix"]],
    distinct: DistinctSids,
    rows: Int[np.ndarray, " sid"],
    *,
    lines: Int[np.ndarray, " sid"],
) -> Float[np.ndarray, "sid level"]:
    """Returns the log-probabilities of SIDs, of those of prefixes; see `shared_prefixes`."""
    columns = [
        np.asarray(values)[lines, distinct.prefix[rows, level]]
        for level, values in enumerate(scores)
    ]
    return np.stack(columns, axis=1)


def _batches(
    distinct: DistinctSids, pieces: Sequence[Sequence[int]], *, max_pieces: int, batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " group"], Int[np.ndarray, "batch length"], list[int]]]:
    """Yields groups with like numbers of SIDs, their tokens, and room for prefixes per length."""
    counts = distinct.prefix[distinct.starts[1:] - 1] + 1  # [group, level]
    widths = 2 ** np.ceil(np.log2(np.maximum(counts, FEWEST_PREFIXES))).astype(int)
    for most in np.unique(widths[:, -1]):
        groups = np.flatnonzero(widths[:, -1] == most)
        for rows, tokens in padded_batches(
            [pieces[query] for query in distinct.query[groups]],
            order=np.arange(len(groups)),
            batch_size=min(batch_size, max(PREFIXES_AT_ONCE // most, 1)),
            max_pieces=max_pieces,
        ):
            yield groups[rows], tokens, widths[groups].max(axis=0).tolist()


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
