"""How soon the generator writes the SID of a relevant item, and how sure it is of what."""

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

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import TEST
from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.devices.precision import exact
from dsirm_jax.devices.stream import stream
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.predict import SEARCHED_AT_ONCE, batches_by_length, predict_sids
from dsirm_jax.metrics.belief import Prefixes, beam_prefixes, branch_probability, entropy
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
    log_probs: Float[np.ndarray, "pair level"],
) -> None:
    """Writes `hits.parquet`: what the generator makes of the queries that nothing has seen.

    Args:
      path: where to; columns as docs/contract.md has them.
      fitted: the generator.
      trie: the existing SIDs.
      pieces: tokens of all queries.
      sids: of all items.
      judgements: `prepare/judgements.parquet`; the relevant pairs of the split `test` count.
      log_probs: of all its pairs, from `score.score_pairs`.
    """
    names = ("query_index", "item_index", "relevant", "split")
    query, item, relevant, split = read_judgements(judgements, *names).values()
    counted = relevant & (split == TEST)
    queries, row = np.unique(query[counted], return_inverse=True)
    texts = [pieces[number] for number in queries]
    beams = predict_sids(
        fitted=fitted,
        trie=trie,
        pieces=texts,
        beams=max(HITS_AT),
        batch_size=SEARCHED_AT_ONCE // 8,  # many beams take much memory
    )
    written = (np.asarray(beams.sids), np.asarray(beams.valid))
    right = {"query_index": row, "relevant_sids": sids[item[counted]]}
    prefixes = beam_prefixes(written[0], np.asarray(beams.log_probs), written[1], **right)
    branch = branch_probability(log_probs[counted], **right, queries=len(queries))
    columns = {
        "query_index": pa.array(queries, pa.int64()),
        "ranks": list_column(first_hits(*written, **right)),
        "branch": list_column(branch.astype(np.float32)),
        "first_entropy": first_entropy(fitted, texts),
        "prefix_mass": _by_query(prefixes, "mass", np.float32, queries=len(queries)),
        "prefix_right": _by_query(prefixes, "right", np.bool_, queries=len(queries)),
    }
    write = functools.partial(write_versioned, path, pa.table(columns))
    processes.first(functools.partial(write, version=fitted.sid_version))


def first_entropy(
    fitted: FittedGenerator, pieces: Sequence[Sequence[int]]
) -> Float[np.ndarray, " query"]:
    """Returns the entropy of the first code, exact over all codes of the level.

    Args:
      fitted: the generator.
      pieces: tokens of each query; cut at `fitted.max_pieces`.

    Returns:
      float32, nats.
    """
    batches = batches_by_length(
        pieces,
        order=np.arange(len(pieces)),
        batch_size=SEARCHED_AT_ONCE,
        max_pieces=fitted.max_pieces,
    )
    params = jax.device_put(fitted.params)
    results = stream(
        ((rows, rectangle([pieces[row] for row in rows], shape=shape)) for rows, shape in batches),
        put=jax.device_put,
        step=functools.partial(_first_log_probs, params, config=fitted.config),
    )
    found = np.empty(len(pieces), np.float32)
    for rows, log_probs in results:
        found[rows] = entropy(np.asarray(log_probs)[: len(rows)])
    return found


@functools.partial(jax.jit, static_argnames="config")
@exact
def _first_log_probs(
    params: Any, tokens: Int[Array, "batch length"], *, config: Architecture
) -> Float[Array, "batch code"]:
    state = config.encode(params, tokens)
    (logits,), _ = config.decode(params, state, jnp.zeros((tokens.shape[0], 1, 0), jnp.int32))
    return jax.nn.log_softmax(logits[:, 0])


def _by_query(
    prefixes: Sequence[Prefixes], name: str, dtype: type, *, queries: int
) -> pa.ListArray:
    """Returns a column of a list a level, each of an attribute of a query's prefixes."""
    levels = len(prefixes)
    place = np.concatenate([of.query * levels + level for level, of in enumerate(prefixes)])
    values = np.concatenate([getattr(of, name) for of in prefixes]).astype(dtype)
    counts = np.bincount(place, minlength=queries * levels)
    inner = np.append(0, np.cumsum(counts)).astype(np.int32)
    lists = pa.ListArray.from_arrays(inner, pa.array(values[np.argsort(place, kind="stable")]))
    outer = (np.arange(queries + 1) * levels).astype(np.int32)
    return pa.ListArray.from_arrays(outer, lists)
