"""Applies the generator: query text to the most probable existing SIDs."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from dsirm_jax.data.vectors import remove_other_shards, shard
from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.devices.stream import (
    memory_limit,
    read_ahead,
    rows_per_chunk,
    stream,
    write_behind,
)
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.decoding import NO_CODE, Beams, beam_search, check_beams
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.sids.codes import VERSION_KEY, list_column, read_version, write_versioned
from dsirm_jax.sids.trie import Trie
from dsirm_jax.training import processes
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh
from dsirm_jax.training.progress import progress

log = logging.getLogger(__name__)
SHORTEST_TEXT = 16
SEARCHED_AT_ONCE = 256
STEPS_HELD = 4
"""States of a search that a device holds at once: before and after a step, and what is between."""
PARTS = 16
"""Least batches of all queries: the last one of every length is filled up."""
SHARD_ROWS = 1 << 16


def batches_by_length(
    pieces: Sequence[Sequence[int]],
    *,
    order: Int[np.ndarray, " text"],
    batch_size: int,
    max_pieces: int,
) -> Iterator[tuple[Int[np.ndarray, " row"], tuple[int, int]]]:
    """Yields texts in batches of few shapes, so that few programs are compiled.

    Texts are grouped by length: `SHORTEST_TEXT`, twice that and so on up to `max_pieces`.

    Args:
      pieces: tokens of each text; cut at `max_pieces`.
      order: text numbers in the order wanted within a group.
      batch_size: rows of every batch; the last one of a group is filled up with empty texts.
      max_pieces: tokens read of a text.

    Yields:
      Numbers of the texts, and the shape of their `vocabulary.rectangle`: `batch_size` and a
      length.
    """
    lengths = np.asarray([min(len(text), max_pieces) for text in pieces], np.int64)
    shorter, length = -1, min(SHORTEST_TEXT, max_pieces)
    while shorter < max_pieces:
        group = order[(lengths[order] > shorter) & (lengths[order] <= length)]
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size], (batch_size, length)
        shorter, length = length, min(2 * length, max_pieces)


@functools.partial(jax.jit, static_argnames=("config", "beams", "mesh"))
def search_on_mesh(
    params: Any,
    trie: Trie,
    tokens: Int[Array, "batch length"],
    *,
    config: Architecture,
    beams: int,
    mesh: Mesh,
) -> Beams:
    """Returns `beam_search`, its rows split over the devices of a mesh."""
    one = functools.partial(beam_search, config=config, beams=beams)
    rows = PartitionSpec(DATA_AXIS)
    over_devices = jax.shard_map(
        one,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(), rows),
        out_specs=rows,
        check_vma=False,
    )
    return over_devices(params, trie, tokens)


def queries_at_once(
    config: Architecture,
    params: Any,
    *,
    max_pieces: int,
    hypotheses: int,
    rows: int,
    devices: int,
    memory: int | None,
) -> int:
    """Returns how many queries suit the devices, `SEARCHED_AT_ONCE` on a CPU.

    Args:
      config: the generator's network.
      params: its parameters, or their shapes and types.
      max_pieces: tokens read of a query.
      hypotheses: SIDs that are looked at of each query.
      rows: queries that there are.
      devices: that share the queries.
      memory: bytes of one device; None: it is a CPU.
    """
    if memory is None:
        return searched_at_once(SEARCHED_AT_ONCE, devices=devices)

    def state_and_past(
        params: Any,
        tokens: Int[Array, "batch length"],
        codes: Int[Array, "batch hypothesis prefix"],
    ) -> Any:
        state = config.encode(params, tokens)
        return state, config.decode(params, state, codes)

    shapes = jax.eval_shape(
        state_and_past,
        params,
        jax.ShapeDtypeStruct((1, max_pieces), np.int32),
        jax.ShapeDtypeStruct((1, hypotheses, len(config.sid_sizes) - 1), np.int32),
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return rows_per_chunk(
        sent=4 * max_pieces,
        held=STEPS_HELD * size,
        rows=rows // PARTS,
        least=SEARCHED_AT_ONCE,
        devices=devices,
        memory=memory,
    )


def searched_at_once(batch_size: int, *, devices: int) -> int:
    """Returns the batch size, rounded up to a multiple of the devices."""
    return -(-batch_size // devices) * devices


def predict_sids(
    *,
    fitted: FittedGenerator,
    trie: Trie,
    pieces: Sequence[Sequence[int]],
    beams: int,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Beams:
    """Returns the best existing SIDs of every query.

    Args:
      fitted: the generator.
      trie: the existing SIDs.
      pieces: tokens of each query, as the training rows had them; cut at `fitted.max_pieces`.
      beams: SIDs per query.
      batch_size: queries searched at once, rounded up to a multiple of the devices; what suits
        them when not given.
      devices: local devices that share the queries; all when not given.

    Returns:
      NumPy `Beams` over all queries, in their order.

    Raises:
      InputError: `beams` is not positive.
      FloatingPointError: the logits are not finite.
    """
    if beams < 1:
        raise InputError(f"{beams} beams: search for 1 or more")
    devices = devices or jax.local_devices()
    mesh = data_mesh(devices)
    params, trie = jax.device_put((fitted.params, trie), NamedSharding(mesh, PartitionSpec()))
    rows_over_devices = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    if batch_size is None:
        batch_size = queries_at_once(
            fitted.config,
            fitted.params,
            max_pieces=fitted.max_pieces,
            hypotheses=beams,
            rows=len(pieces),
            devices=len(devices),
            memory=memory_limit(devices),
        )
    every = (len(pieces), beams)
    best = Beams(
        sids=np.full((*every, len(fitted.config.sid_sizes)), NO_CODE, np.int32),
        log_probs=np.full(every, -np.inf, np.float32),
        valid=np.zeros(every, bool),
    )
    batches = list(
        batches_by_length(
            pieces,
            order=np.arange(len(pieces)),
            batch_size=searched_at_once(batch_size, devices=mesh.size),
            max_pieces=fitted.max_pieces,
        )
    )
    results = stream(
        ((rows, rectangle([pieces[row] for row in rows], shape=shape)) for rows, shape in batches),
        put=lambda tokens: jax.device_put(tokens, rows_over_devices),
        step=functools.partial(
            search_on_mesh, params, trie, config=fitted.config, beams=beams, mesh=mesh
        ),
    )
    for rows, batch in progress(results, total=len(batches), name="predict", unit="batch"):
        for whole, part in zip(best, batch, strict=True):
            whole[rows] = part[: len(rows)]
    check_beams(best)
    return best


def predict_shards(
    *,
    fitted: FittedGenerator,
    trie: Trie,
    queries: Path,
    encode: Callable[[Sequence[str]], list[list[int]]],
    pattern: Path,
    beams: int,
    batch_size: int | None = None,
    shard_rows: int = SHARD_ROWS,
    devices: Sequence[jax.Device] | None = None,
) -> list[Path]:
    """Writes the SIDs of a table of queries, in shards and in its order.

    Memory holds a few shards: the next one is read and tokenised, and the one before is written,
    while one is searched for. One that exists already, from the same generator and search, is left
    as it is, so an interrupted pass goes on where it stopped; those of another number of shards are
    removed. Processes share the shards, and each returns when all are written.

    Args:
      fitted: the generator.
      trie: the existing SIDs.
      queries: Parquet with a column `query`.
      encode: texts to tokens, see `data.vocabulary.text_pieces`.
      pattern: of the paths of the shards, with one `*`; columns as in `write_query_sids`.
      beams: SIDs per query.
      batch_size: see `predict`.
      shard_rows: queries of a shard.
      devices: see `predict`.

    Returns:
      The paths of all shards, those of other processes included.
    """
    number = max(1, -(-pq.read_metadata(queries).num_rows // shard_rows))
    paths = [shard(pattern, number=n, total=number) for n in range(number)]
    version = f"{fitted.sid_version}/{fitted.version}/{beams}"
    if jax.process_index() == 0:
        remove_other_shards(pattern, paths)
    with pq.ParquetFile(queries, pre_buffer=False) as file:

        def shards() -> Iterator[tuple[Path, list[str], list[list[int]]]]:
            blocks = file.iter_batches(shard_rows, columns=["query"])
            for place, path in enumerate(paths):
                texts = next(blocks).column(0).to_pylist() if file.metadata.num_rows else []
                if place % jax.process_count() != jax.process_index():
                    continue
                if path.exists() and read_version(path) == version:
                    log.info("%s exists already", path)
                    continue
                yield path, texts, encode(texts)

        with contextlib.closing(read_ahead(shards(), count=1)) as read, write_behind() as write:
            for path, texts, pieces in read:
                best = predict_sids(
                    fitted=fitted,
                    trie=trie,
                    pieces=pieces,
                    beams=beams,
                    batch_size=batch_size,
                    devices=devices,
                )
                write(write_query_sids, path, queries=texts, beams=best, sid_version=version)
    processes.wait()
    return paths


def join_query_shards(paths: Sequence[Path], *, into: Path, sid_version: str) -> None:
    """Moves the shards into one table, one after the other.

    Args:
      paths: what `predict_shards` returned.
      into: `query_sids.parquet`.
      sid_version: of the SIDs.
    """
    schema = pq.read_schema(paths[0]).with_metadata({VERSION_KEY: sid_version.encode()})
    with replacing(into) as partial, pq.ParquetWriter(partial, schema) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path).replace_schema_metadata(schema.metadata))
    for path in paths:
        path.unlink()


def write_query_sids(path: Path, *, queries: Sequence[str], beams: Beams, sid_version: str) -> None:
    """Writes `query_sids.parquet`, see `query_sid_table`.

    Args:
      path: where to.
      queries: texts, one per row of `beams`.
      beams: from `predict_sids`.
      sid_version: of the SIDs that the trie was built from; goes into the schema metadata.
    """
    write_versioned(path, query_sid_table(queries, beams), version=sid_version)


def query_sid_table(queries: Sequence[str], beams: Beams) -> pa.Table:
    """Returns a table of query, and sids and log_probs of its valid beams, best first.

    Args:
      queries: texts, one per row of `beams`.
      beams: from `predict_sids`.
    """
    sids, log_probs, valid = map(np.asarray, beams)
    starts = np.append(0, np.cumsum(valid.sum(axis=1))).astype(np.int32)
    return pa.table(
        {
            "query": pa.array(queries, pa.string()),
            "sids": pa.ListArray.from_arrays(starts, list_column(sids[valid])),
            "log_probs": pa.ListArray.from_arrays(starts, pa.array(log_probs[valid])),
        }
    )
