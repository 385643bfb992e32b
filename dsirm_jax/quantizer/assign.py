"""Applies a fitted quantizer of any kind: dense vectors to codes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from dsirm_jax.data.vectors import remove_other_shards, shard, vector_blocks
from dsirm_jax.devices.precision import exact
from dsirm_jax.devices.stream import memory_limit, read_ahead, rows_per_chunk, stream
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.model import (
    UNPINNED,
    Codebooks,
    Quantized,
    beam_quantize,
    decode,
    encode,
    quantized_by,
    residual_quantize,
)
from dsirm_jax.sids.codes import VERSION_KEY, sid_writer, suffixes
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh
from dsirm_jax.training.progress import progress

log = logging.getLogger(__name__)
CHUNK_ROWS = 4096
"""Rows that suit a CPU, whose caches hold few more."""
JOINED_ROWS = 1 << 17  # of a row group: few large ones are read fastest

_Key = TypeVar("_Key")


class VectorChunk(NamedTuple):
    """Some rows of a catalogue.

    Attributes:
      vectors: `[row, dim]`, sent to the devices as they lie, where they become float32.
      pinned: int32 `[row]` pinned first codes, or None.
      previous: int32 `[row, level]`: SIDs that the items have had, -1 for new ones; or None.
    """

    vectors: Float[np.ndarray, "row dim"]
    pinned: Int[np.ndarray, " row"] | None = None
    previous: Int[np.ndarray, "row level"] | None = None


class Assigned(NamedTuple):
    """The SIDs of a chunk.

    Attributes:
      codes: int32 `[row, level]`.
      distances: float32 `[row, level]`: from the latent to the prefix vector of every level.
      errors: float32 `[row]`: squared distance from the vector to the decoded SID.
    """

    codes: Int[np.ndarray, "row level"]
    distances: Float[np.ndarray, "row level"]
    errors: Float[np.ndarray, " row"]


@functools.partial(jax.jit, static_argnames=("model", "beams", "stay"))
@exact
def _assign(
    model: nn.Module, params: Any, codebooks: Codebooks, chunk: VectorChunk, beams: int, stay: float
) -> tuple[Int[Array, "row level"], Float[Array, "row level"], Float[Array, " row"]]:
    vectors, pinned, previous = jax.tree.map(jnp.asarray, chunk)
    vectors = vectors.astype(jnp.float32)
    latents = encode(model, params, vectors)
    if beams > 1:
        quantized = beam_quantize(latents, codebooks, beams=beams, pinned=pinned)
    else:
        quantized = residual_quantize(latents, codebooks, pinned=pinned)
    if previous is not None:
        quantized = _stayed(quantized, latents, codebooks, pinned, previous, stay)
    last = quantized.prefixes[:, -1]
    squares = jnp.sum((latents[:, None] - quantized.prefixes) ** 2, axis=-1)  # [row, level]
    error = jnp.sum((vectors - decode(model, params, last)) ** 2, axis=-1)  # [row]
    return quantized.codes, jnp.sqrt(squares), error


def _stayed(
    quantized: Quantized,
    latents: Float[Array, "row latent"],
    codebooks: Codebooks,
    pinned: Int[Array, " row"] | None,
    previous: Int[Array, "row level"],
    stay: float,
) -> Quantized:
    """Returns the previous SIDs instead where they cost hardly more."""
    before = quantized_by(jnp.maximum(previous, 0), latents, codebooks)

    def cost(sids: Quantized) -> Float[Array, " row"]:
        return jnp.sum((latents - sids.prefixes[:, -1]) ** 2, axis=-1)

    stays = (previous[:, 0] >= 0) & (cost(before) <= (1 + stay) * cost(quantized))
    if pinned is not None:
        stays &= (pinned == UNPINNED) | (pinned == previous[:, 0])
    return jax.tree.map(
        lambda old, new: jnp.where(stays.reshape(-1, *[1] * (new.ndim - 1)), old, new),
        before,
        quantized,
    )


def assign(
    *,
    fitted: FittedQuantizer,
    chunks: Iterable[VectorChunk],
    stay: float = 0.0,
    chunk_rows: int = CHUNK_ROWS,
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[Assigned]:
    """Yields the codes of vectors, chunk by chunk: memory does not grow with the catalogue.

    Args:
      fitted: the quantizer; with `config.beams` over 1 codes are searched for, see `beam_quantize`.
      chunks: of at most `chunk_rows` rows each, whose arrays stay as they are; what comes of files
        is best read ahead, see `devices.stream.read_ahead`.
      stay: an item keeps its previous SID where the squared distance to it is at most `1 + stay`
        times that to the best SID, and its category is still the same.
      chunk_rows: rows that the devices take at a time.
      devices: local devices that share the rows of a chunk; all when not given.
    """
    numbered = enumerate(chunks)
    for _, found in _assigned(
        numbered, fitted=fitted, stay=stay, chunk_rows=chunk_rows, devices=devices
    ):
        yield found


def _assigned(
    chunks: Iterable[tuple[_Key, VectorChunk]],
    *,
    fitted: FittedQuantizer,
    chunk_rows: int,
    stay: float = 0.0,
    devices: Sequence[jax.Device] | None = None,
) -> Generator[tuple[_Key, Assigned]]:
    """Yields what `assign` does, each chunk with what it is known by."""
    mesh = data_mesh(devices or jax.local_devices())
    rows_over_devices = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    learnt = jax.device_put((fitted.params, fitted.codebooks), NamedSharding(mesh, PartitionSpec()))
    model, beams = fitted.model, fitted.config.beams
    # Every chunk has one shape, so the program is compiled once.
    full = -(-chunk_rows // mesh.size) * mesh.size

    def blocks() -> Iterator[tuple[tuple[_Key, int], VectorChunk]]:
        for key, chunk in chunks:
            vectors = fitted.scaled(chunk.vectors)
            if vectors.dtype.itemsize > 4:  # narrower ones are sent as they lie
                vectors = vectors.astype(np.float32)
            yield (key, len(vectors)), _filled(chunk._replace(vectors=vectors), full)

    results = stream(
        blocks(),
        put=lambda chunk: jax.device_put(chunk, rows_over_devices),
        step=lambda chunk: _assign(model, *learnt, chunk, beams, stay),
    )
    for (key, rows), arrays in results:
        found = Assigned(*(array[:rows] for array in arrays))
        if fitted.scaling is not None:  # in the units of the vectors
            errors = (found.errors * fitted.scaling.spread**2).astype(np.float32)
            found = found._replace(errors=errors)
        yield key, found


def _filled(chunk: VectorChunk, rows: int) -> VectorChunk:
    """Returns a chunk with rows of zeros at its end; one that is full is not copied."""
    lacking = rows - len(chunk.vectors)
    if not lacking:
        return chunk
    filled: VectorChunk = jax.tree.map(
        lambda array: np.pad(array, [(0, lacking), *[(0, 0)] * (array.ndim - 1)]), chunk
    )
    return filled


def _chunk_rows(fitted: FittedQuantizer, *, rows: int, devices: Sequence[jax.Device] | None) -> int:
    """Returns the rows of a chunk that suit the devices."""
    devices = devices or jax.local_devices()
    levels, codes = len(fitted.sizes), max(fitted.sizes) * fitted.config.beams
    # A vector, its latent and what it decodes to; residuals and prefixes; costs, and what orders
    # them.
    numbers = (3 + 2 * levels) * fitted.dim + 2 * codes
    return rows_per_chunk(
        sent=4 * fitted.dim,
        held=4 * numbers,
        rows=rows,
        least=CHUNK_ROWS,
        devices=len(devices),
        memory=memory_limit(devices),
    )


def assign_vectors(
    *,
    fitted: FittedQuantizer,
    vectors: Float[np.ndarray, "row dim"],
    pinned: Int[np.ndarray, " row"] | None = None,
    chunk_rows: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Assigned:
    """Returns the SIDs of vectors in memory or memory-mapped, of items or of queries.

    Args:
      fitted: see `assign`.
      vectors: `[row, dim]`, sent to the devices as they lie, where they become float32.
      pinned: see `VectorChunk`.
      chunk_rows: rows that the devices take at a time; what suits them when not given.
      devices: see `assign`.

    Raises:
      InputError: the vectors are not as wide as those that the quantizer was fitted to, or one is
        not finite; the message names its row, from 0.
    """
    if vectors.ndim != 2 or vectors.shape[1] != fitted.dim:
        raise InputError(
            f"vectors of the shape {vectors.shape} for a quantizer of vectors of {fitted.dim} "
            f"numbers: pass [row, {fitted.dim}]"
        )
    count, levels = len(vectors), len(fitted.codebooks)
    full = chunk_rows or _chunk_rows(fitted, rows=count, devices=devices)
    spans = [slice(start, start + full) for start in range(0, count, full)]
    chunks = ((rows, VectorChunk(vectors[rows], _part(pinned, rows))) for rows in spans)
    whole = Assigned(
        codes=np.empty((count, levels), np.int32),
        distances=np.empty((count, levels), np.float32),
        errors=np.empty(count, np.float32),
    )
    parts = _assigned(chunks, fitted=fitted, chunk_rows=full, devices=devices)
    with contextlib.closing(parts):
        for rows, part in progress(parts, total=len(spans), name="assign", unit="chunk"):
            if not np.isfinite(part.errors).all():
                _check_finite(vectors[rows], first_row=rows.start)
            for array, found in zip(whole, part, strict=True):
                array[rows] = found
    return whole


def _check_finite(vectors: Float[np.ndarray, "row dim"], *, first_row: int) -> None:
    """Raises InputError where a vector is not finite; its error, which is not either, tells."""
    if not (finite := np.isfinite(vectors)).all():
        row, column = np.argwhere(~finite)[0]
        raise InputError(
            f"vectors[{first_row + row}] has {vectors[row, column]} among its numbers; fix or "
            f"leave out the row"
        )


def variance(vectors: Float[np.ndarray, "row dim"]) -> float:
    """Returns the mean squared distance to the mean vector: the error of SIDs that tell nothing.

    Args:
      vectors: float32 `[row, dim]`, in memory or memory-mapped, at least one.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    square = np.einsum("rd,rd->", vectors, vectors, dtype=np.float64) / len(vectors)
    difference = float(square - mean @ mean)
    if difference <= 1e-3 * square:  # far from the origin that difference is mostly rounding
        blocks = range(0, len(vectors), CHUNK_ROWS)
        centred = (vectors[start : start + CHUNK_ROWS] - mean for start in blocks)
        difference = sum(float(np.vdot(block, block)) for block in centred) / len(vectors)
    return difference if difference > 1e-24 * square else 0.0  # below is rounding


def assign_shards(
    *,
    fitted: FittedQuantizer,
    vectors: Sequence[str | os.PathLike[str]],
    pattern: Path,
    item_ids: pa.ChunkedArray | None = None,
    pinned: Int[np.ndarray, " item"] | None = None,
    previous: Int[np.ndarray, "item level"] | None = None,
    stay: float = 0.0,
    chunk_rows: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> list[Path]:
    """Writes the SIDs of a catalogue that lies in shards, one shard for each, in their order.

    Memory holds a few chunks. A finished shard of this version is left as it is, so an interrupted
    pass goes on where it stopped; those of another number of shards are removed. Processes share
    the shards, and each returns when all are written.

    Args:
      fitted: see `assign`.
      vectors: the shards of `encode`, in the catalogue's order: columns item_id and vector.
      pattern: of the paths of the SID shards, with one `*`; columns as in `codes.SCHEMA`.
      item_ids: ids of the whole catalogue to write, those of the shards when not given.
      pinned: int32 `[item]` pinned first codes of the whole catalogue, or None.
      previous: int32 `[item, level]` previous SIDs of the whole catalogue, or None; see
        `VectorChunk`.
      stay: see `assign`.
      chunk_rows: see `assign_vectors`.
      devices: see `assign`.

    Returns:
      The paths of all shards, those of other processes included.

    Raises:
      InputError: a vector is not finite or not as wide as those that the quantizer was fitted to;
        the message names file and row.
    """
    counts = [pq.read_metadata(file).num_rows for file in vectors]
    starts = np.cumsum([0, *counts])
    paths = [shard(pattern, number=n, total=len(vectors)) for n in range(len(vectors))]
    full = chunk_rows or _chunk_rows(fitted, rows=max(counts, default=0), devices=devices)
    numbers = range(jax.process_index(), len(vectors), jax.process_count())
    mine: Iterable[int] = numbers
    if jax.process_index() == 0:
        remove_other_shards(pattern, paths)
        mine = progress(numbers, total=len(numbers), name="assign", unit="shard")
    for number in mine:
        path = paths[number]
        if _has_version(path, fitted.version):
            log.info("%s is finished already", path)
            continue

        def chunks(
            start: int = starts[number], file: str | os.PathLike[str] = vectors[number]
        ) -> Iterator[tuple[pa.Array, VectorChunk]]:
            blocks = vector_blocks(file, id_column="item_id", rows=full)
            for first_row, ids, block in blocks:  # counted from 1
                if block.shape[1] != fitted.dim:
                    raise InputError(
                        f"{file} row {first_row}: column 'vector' has {block.shape[1]} numbers, "
                        f"where the quantizer was fitted to {fitted.dim}; give vectors of the same "
                        f"model"
                    )
                rows = slice(start + first_row - 1, start + first_row - 1 + len(block))
                if item_ids is not None:
                    ids = item_ids[rows].combine_chunks()
                yield ids, VectorChunk(block, _part(pinned, rows), _part(previous, rows))

        with (
            sid_writer(path, version=fitted.version) as write,
            contextlib.closing(read_ahead(chunks())) as read,
            contextlib.closing(
                _assigned(read, fitted=fitted, stay=stay, chunk_rows=full, devices=devices)
            ) as parts,
        ):
            for ids, assigned in parts:
                write(ids, *assigned)
    multihost_utils.sync_global_devices("assign_shards")
    return paths


def _part(array: np.ndarray | None, rows: slice) -> np.ndarray | None:
    return None if array is None else array[rows]


def join_sids(
    paths: Sequence[Path], *, into: Path, sizes: Sequence[int], bucket_cap: int | None = None
) -> None:
    """Moves the shards into one table, one after the other; memory holds their codes.

    Args:
      paths: what `assign_shards` returned; all of one version.
      into: `sids.parquet`.
      sizes: codes per level.
      bucket_cap: items that may share SID and `suffix`, a further column, see `codes.suffixes`;
        any number may share their SID, and there is no such column, when not given.
    """
    schema, suffix = pq.read_schema(paths[0]), None
    if bucket_cap:
        schema = schema.append(pa.field("suffix", pa.int32()))
        codes = pq.read_table(paths, columns=["sid"])["sid"].combine_chunks().flatten().to_numpy()
        sids = codes.reshape(-1, len(sizes))
        suffix = pa.array(suffixes(sids, sizes=sizes, cap=bucket_cap))
    row = 0
    with replacing(into) as partial, pq.ParquetWriter(partial, schema) as writer:
        for path in paths:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(JOINED_ROWS):
                    if suffix is not None:
                        batch = batch.append_column("suffix", suffix[row : row + len(batch)])
                    writer.write_batch(batch.cast(schema))
                    row += len(batch)
    for path in paths:
        path.unlink()


def _has_version(path: Path, version: str) -> bool:
    return (
        path.exists() and (pq.read_schema(path).metadata or {}).get(VERSION_KEY) == version.encode()
    )
