"""Applies a trained tower to texts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float

from dsirm_jax.data import vocabulary as vocabularies
from dsirm_jax.data.vectors import shard, write_vectors
from dsirm_jax.encoder.model import TextTower
from dsirm_jax.training import processes
from dsirm_jax.training.progress import progress

log = logging.getLogger(__name__)
ROWS = 1024


def embed_table(
    *,
    table: Path,
    id_column: str,
    text_column: str,
    vocabulary: Path,
    tower: TextTower,
    params: Any,
    max_pieces: int,
    pattern: Path,
) -> None:
    """Writes the vectors of a table's texts, one shard a row group: memory does not grow with it.

    A shard that is already there is left as it is, so an interrupted pass goes on where it stopped.
    Processes write every n-th shard each, and return when all are there.

    Args:
      table: a Parquet file of `prepare`.
      id_column: its column that names the rows, copied to the shards.
      text_column: its column of texts.
      vocabulary: the SentencePiece model.
      tower: see `embed`.
      params: see `embed`.
      max_pieces: see `embed`.
      pattern: of the shards' paths, with one `*`.
    """
    with pq.ParquetFile(table) as file:
        for number in range(jax.process_index(), file.num_row_groups, jax.process_count()):
            path = shard(pattern, number=number, of=file.num_row_groups)
            if path.exists():
                log.info("%s is there already", path)
                continue
            rows = file.read_row_group(number, columns=list({id_column, text_column}))
            vectors = embed(
                tower=tower,
                params=params,
                pieces=vocabularies.encode(vocabulary, rows[text_column].to_pylist()),
                max_pieces=max_pieces,
                name=f"encode {path.stem}",
            )
            write_vectors(path, rows[id_column].to_pylist(), vectors, id_column=id_column)
    processes.wait()


def embed(
    *,
    tower: TextTower,
    params: Any,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    name: str,
) -> Float[np.ndarray, "text dim"]:
    """Returns the vectors of tokenised texts, in order.

    Args:
      tower: the Flax module.
      params: its parameters.
      pieces: SentencePiece ids of each text; cut at `max_pieces`.
      max_pieces: pieces read of a text.
      name: shown with the progress.

    Returns:
      float32 `[text, dim]`, each of length 1.
    """
    apply = _apply(tower)
    vectors = np.empty((len(pieces), tower.dim), np.float32)
    starts = range(0, len(pieces), ROWS)
    for start in progress(starts, total=len(starts), name=name, unit="batch"):
        chunk = pieces[start : start + ROWS]
        padded = np.zeros((ROWS, max_pieces), np.int32)  # one shape, so one compilation
        for row, ids in enumerate(chunk):
            padded[row, : min(len(ids), max_pieces)] = ids[:max_pieces]
        vectors[start : start + len(chunk)] = apply(params, padded)[: len(chunk)]
    return vectors


@functools.cache
def _apply(tower: TextTower) -> Callable[[Any, np.ndarray], jax.Array]:
    """Returns the compiled tower, the same one for all shards."""
    return jax.jit(tower.apply)
