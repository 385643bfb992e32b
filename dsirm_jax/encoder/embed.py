"""Applies a trained encoder to texts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Array, Float, Int

from dsirm_jax.data.limits import log_cut
from dsirm_jax.data.vectors import remove_other_shards, shard, write_vectors
from dsirm_jax.data.vocabulary import PAD, rectangle
from dsirm_jax.devices.precision import exact
from dsirm_jax.encoder.bert import NO_PIECE, SentenceEncoder
from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.training import processes
from dsirm_jax.training.meshes import data_mesh, sharded
from dsirm_jax.training.progress import progress

if TYPE_CHECKING:
    from dsirm_jax.encoder.kinds.protocol import FittedEncoder, RunTables

log = logging.getLogger(__name__)
TEXTS_AT_ONCE = 1024
LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CPU_PIECES, ACCELERATOR_PIECES = 2**11, 2**16
"""Pieces of a batch on each device; on a CPU more than a cache holds make it slower."""


def embed_tables(encoder: FittedEncoder, tables: RunTables) -> None:
    """Writes the vectors of all items and queries of a run; see `embed_table`."""
    for table, id_column, text_column, of_items, pattern in (
        (tables.items, "item_id", "text", True, tables.item_vectors),
        (tables.queries, "query", "query", False, tables.query_vectors),
    ):
        embed_table(
            table=table,
            id_column=id_column,
            text_column=text_column,
            embed_texts=functools.partial(_embed_texts, encoder, of_items=of_items),
            pattern=pattern,
        )


def _embed_texts(
    encoder: FittedEncoder, texts: Sequence[str], name: str, *, of_items: bool
) -> Float[np.ndarray, "text dim"]:
    return encoder.embed(texts, of_items=of_items, name=name)


def embed_table(
    *,
    table: Path,
    id_column: str,
    text_column: str,
    embed_texts: Callable[[Sequence[str], str], Float[np.ndarray, "text dim"]],
    pattern: Path,
) -> None:
    """Writes the vectors of a table's texts, one shard a row group: memory does not grow with it.

    A shard that is already there is left as it is, so an interrupted pass goes on where it stopped;
    those of another number of shards are removed.
    Processes write every n-th shard each, and return when all are there.

    Args:
      table: a Parquet file of `prepare`.
      id_column: its column that names the rows, copied to the shards.
      text_column: its column of texts.
      embed_texts: `embed_texts(texts, name)` returns their vectors; `name` is for the progress.
      pattern: of the shards' paths, with one `*`.
    """
    with pq.ParquetFile(table) as file:
        total = file.num_row_groups
        paths = [shard(pattern, number=number, total=total) for number in range(total)]
        if jax.process_index() == 0:
            remove_other_shards(pattern, paths)
        for number in range(jax.process_index(), total, jax.process_count()):
            path = paths[number]
            if path.exists():
                log.info("%s is there already", path)
                continue
            rows = file.read_row_group(number, columns=list({id_column, text_column}))
            vectors = embed_texts(rows[text_column].to_pylist(), f"encode {path.stem}")
            write_vectors(path, rows[id_column].to_pylist(), vectors, id_column=id_column)
    processes.wait()


def embed(
    *,
    tower: nn.Module,
    params: Any,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    name: str,
    rows: int = TEXTS_AT_ONCE,
    padding: int = PAD,
) -> Float[np.ndarray, "text dim"]:
    """Returns the vectors of tokenised texts, in order.

    Args:
      tower: the Flax module, whose `dim` is the width of its vectors.
      params: its parameters.
      pieces: ids of each text; cut at `max_pieces`.
      max_pieces: pieces read of a text.
      name: shown with the progress.
      rows: texts of a batch.
      padding: what stands beyond a text's last piece.

    Returns:
      float32 `[text, dim]`.
    """
    apply = _apply(tower)
    log_cut(pieces, most=max_pieces, name=name)
    vectors = np.empty((len(pieces), tower.dim), np.float32)
    starts = range(0, len(pieces), rows)
    for start in progress(starts, total=len(starts), name=name, unit="batch"):
        chunk = pieces[start : start + rows]
        # One shape, so one compilation.
        padded = rectangle(chunk, shape=(rows, max_pieces), beyond=padding)
        vectors[start : start + len(chunk)] = apply(params, padded)[: len(chunk)]
    return vectors


def embed_by_length(
    *,
    module: SentenceEncoder,
    params: Any,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    name: str,
    pieces_at_once: int | None = None,
) -> Float[np.ndarray, "text dim"]:
    """Returns the vectors of tokenised texts, in order; texts of like length share a batch.

    A transformer's time is in its pieces, so as few as can be are padding. The batches are of one
    shape for each of a few lengths, and all devices of this process have an even share of them.

    Args:
      module: the Flax module.
      params: its parameters.
      pieces: ids of each text, at most `max_pieces`.
      max_pieces: the longest that batches are made for.
      name: shown with the progress.
      pieces_at_once: of a batch on each device, padding included; what suits the hardware when not
        given.

    Returns:
      float32 `[text, dim]`, each of length 1.
    """
    apply, mesh = _apply(module), data_mesh(jax.local_devices())
    placement = sharded(mesh)
    params = placement.put_state(params)
    lengths = np.array([len(ids) for ids in pieces], np.int64)
    vectors = np.empty((len(pieces), module.dim or module.config.hidden_size), np.float32)
    if pieces_at_once is None:
        on_cpu = jax.default_backend() == "cpu"
        pieces_at_once = CPU_PIECES if on_cpu else ACCELERATOR_PIECES
    batches = list(
        _by_length(lengths, max_pieces=max_pieces, devices=mesh.size, pieces_at_once=pieces_at_once)
    )
    for rows, shape in progress(batches, total=len(batches), name=name, unit="batch"):
        padded = rectangle([pieces[row] for row in rows], shape=shape, beyond=NO_PIECE)
        vectors[rows] = apply(params, placement.put_batch(padded))[: len(rows)]
    return vectors


def _by_length(
    lengths: Int[np.ndarray, " text"], *, max_pieces: int, devices: int, pieces_at_once: int
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Yields the texts of each batch, the longest first, and the batch's shape.

    A batch that its own length does not fill takes shorter texts: only the last has rows to spare.
    """
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        longest = lengths[order[0]]
        length = min(next((size for size in LENGTHS if size >= longest), max_pieces), max_pieces)
        rows = devices * max(pieces_at_once // length, 1)
        yield order[:rows], (rows, length)
        order = order[rows:]


def embedding(module: nn.Module) -> Callable[[Any, AnyArray], Float[Array, "row dim"]]:
    """Returns `embed(params, features)` of a module whose output is vectors alone."""

    def embed(params: Any, features: AnyArray) -> Float[Array, "row dim"]:
        return jnp.asarray(module.apply(params, features))

    return embed


@functools.cache
def _apply(tower: nn.Module) -> Callable[[Any, AnyArray], Float[Array, "row dim"]]:
    """Returns the compiled tower, the same one for all shards."""
    return jax.jit(exact(embedding(tower)))
