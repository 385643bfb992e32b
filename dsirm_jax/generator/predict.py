"""Applies the generator: query text to the most probable existing SIDs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
from jaxtyping import Int

from dsirm_jax.generator.decoding import NO_CODE, Beams, beam_search
from dsirm_jax.generator.model import PAD, T5Config
from dsirm_jax.sids.codes import list_column, write_versioned
from dsirm_jax.sids.trie import Trie
from dsirm_jax.training.progress import progress

SHORTEST = 16


def padded_batches(
    pieces: Sequence[Sequence[int]],
    *,
    order: Int[np.ndarray, " text"],
    batch_size: int,
    max_pieces: int,
) -> Iterator[tuple[Int[np.ndarray, " row"], Int[np.ndarray, "batch length"]]]:
    """Yields texts in batches of few shapes, so that few programs are compiled.

    Texts are grouped by length: `SHORTEST`, twice that and so on up to `max_pieces`.

    Args:
      pieces: tokens of each text; cut at `max_pieces`.
      order: text numbers in the order wanted within a group.
      batch_size: rows of every batch; the last one of a group is filled up with empty texts.
      max_pieces: tokens read of a text.

    Yields:
      `(rows, tokens)`: numbers of the texts, and int32 tokens `[batch_size, length]` of which the
      first `len(rows)` rows are theirs.
    """
    lengths = np.asarray([min(len(text), max_pieces) for text in pieces], np.int64)
    shorter, length = -1, min(SHORTEST, max_pieces)
    while shorter < max_pieces:
        group = order[(lengths[order] > shorter) & (lengths[order] <= length)]
        for start in range(0, len(group), batch_size):
            rows = group[start : start + batch_size]
            tokens = np.full((batch_size, length), PAD, np.int32)
            for place, row in enumerate(rows):
                tokens[place, : lengths[row]] = pieces[row][:max_pieces]
            yield rows, tokens
        shorter, length = length, min(2 * length, max_pieces)


def predict(
    *,
    params: Any,
    config: T5Config,
    trie: Trie,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    beams: int,
    batch_size: int,
) -> Beams:
    """Returns the best existing SIDs of every query.

    Args:
      params: parameters of the generator.
      config: its shape.
      trie: the existing SIDs.
      pieces: tokens of each query, as the training rows had them; cut at `max_pieces`.
      max_pieces: tokens read of a query.
      beams: SIDs per query.
      batch_size: queries searched at once.

    Returns:
      NumPy `Beams` over all queries, in their order.
    """
    params, trie = jax.device_put((params, trie))
    shape = (len(pieces), beams)
    found = Beams(
        sids=np.full((*shape, config.num_levels), NO_CODE, np.int32),
        log_probs=np.full(shape, -np.inf, np.float32),
        valid=np.zeros(shape, bool),
    )
    batches = list(
        padded_batches(
            pieces, order=np.arange(len(pieces)), batch_size=batch_size, max_pieces=max_pieces
        )
    )
    for rows, tokens in progress(batches, total=len(batches), name="predict", unit="batch"):
        batch = beam_search(params, trie, tokens, config=config, beams=beams)
        for whole, part in zip(found, batch, strict=True):
            whole[rows] = np.asarray(part)[: len(rows)]
    return found


def write_query_sids(path: Path, *, queries: Sequence[str], beams: Beams, sid_version: str) -> None:
    """Writes `query_sids.parquet`: query, and sids and log_probs of the valid beams, best first.

    Args:
      path: where to.
      queries: texts, one per row of `beams`.
      beams: from `predict`.
      sid_version: of the SIDs that the trie was built from; goes into the schema metadata.
    """
    starts = np.append(0, np.cumsum(beams.valid.sum(axis=1))).astype(np.int32)
    table = pa.table(
        {
            "query": pa.array(queries, pa.string()),
            "sids": pa.ListArray.from_arrays(starts, list_column(beams.sids[beams.valid])),
            "log_probs": pa.ListArray.from_arrays(starts, pa.array(beams.log_probs[beams.valid])),
        }
    )
    write_versioned(path, table, version=sid_version)
