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
from jaxtyping import Array, Float, Int, Shaped

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
    found, scores, valid = map(np.asarray, beams)
    right = {"query_index": row, "relevant_sids": sids[item[counted]]}
    prefixes = beam_prefixes(found, scores, valid, **right)
    branch = branch_probability(log_probs[counted], **right, queries=len(queries))
    # In the order of the first level's prefixes.
    of_beams = np.column_stack([np.nonzero(valid)[0], found[valid][:, 0]])
    entropies, first = first_level(fitted, texts, pairs=np.unique(of_beams, axis=0))
    columns = {
        "query_index": pa.array(queries, pa.int64()),
        "ranks": list_column(first_hits(found, valid, **right)),
        "branch": list_column(branch.astype(np.float32)),
        "first_entropy": entropies,
        "first_probability": _lists(prefixes[0].query, first, lists=len(queries)),
        "prefix_mass": _by_level(prefixes, "mass", np.float32, queries=len(queries)),
        "prefix_right": _by_level(prefixes, "right", np.bool_, queries=len(queries)),
    }
    write = functools.partial(write_versioned, path, pa.table(columns))
    processes.first(functools.partial(write, version=fitted.sid_version))


def first_level(
    fitted: FittedGenerator, pieces: Sequence[Sequence[int]], *, pairs: Int[np.ndarray, "pair 2"]
) -> tuple[Float[np.ndarray, " query"], Float[np.ndarray, " pair"]]:
    """Returns what the first level's softmax, over all its codes, says of queries.

    Args:
      fitted: the generator.
      pieces: tokens of each query; cut at `fitted.max_pieces`.
      pairs: a query's row and a first code.

    Returns:
      float32: the entropy of the first code of each query, nats, and the probability of each pair.
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
    query, code = pairs.T
    entropies, probabilities = (np.empty(len(of), np.float32) for of in (pieces, pairs))
    place = np.empty(len(pieces), np.int64)
    for rows, log_probs in results:
        entropies[rows] = entropy(log_probs[: len(rows)])
        place[rows] = np.arange(len(rows))
        kept = np.isin(query, rows)
        probabilities[kept] = np.exp(log_probs[place[query[kept]], code[kept]])
    return entropies, np.minimum(probabilities, 1)  # a rounded log-probability may exceed 0


@functools.partial(jax.jit, static_argnames="config")
@exact
def _first_log_probs(
    params: Any, tokens: Int[Array, "batch length"], *, config: Architecture
) -> Float[Array, "batch code"]:
    state = config.encode(params, tokens)
    (logits,), _ = config.decode(params, state, jnp.zeros((tokens.shape[0], 1, 0), jnp.int32))
    return jax.nn.log_softmax(logits[:, 0])


def _by_level(
    prefixes: Sequence[Prefixes], name: str, dtype: type, *, queries: int
) -> pa.ListArray:
    """Returns a column of a list a level, each of an attribute of a query's prefixes."""
    levels = len(prefixes)
    place = np.concatenate([of.query * levels + level for level, of in enumerate(prefixes)])
    values: np.ndarray = np.concatenate([getattr(of, name) for of in prefixes]).astype(dtype)
    order = np.argsort(place, kind="stable")
    inner = _lists(place[order], values[order], lists=queries * levels)
    return pa.ListArray.from_arrays((np.arange(queries + 1) * levels).astype(np.int32), inner)


def _lists(
    number: Int[np.ndarray, " value"], values: Shaped[np.ndarray, " value"], *, lists: int
) -> pa.ListArray:
    """Returns lists of values, which are in their order, of the numbers of their lists."""
    ends = np.cumsum(np.bincount(number, minlength=lists))
    return pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), pa.array(values))
