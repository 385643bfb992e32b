"""Applies a fitted quantizer of any kind: dense vectors to codes."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from dsirm_jax.data.vectors import blocks, shard
from dsirm_jax.files import replacing
from dsirm_jax.quantizer.model import (
    Autoencoder,
    Codebooks,
    Identity,
    beam_quantize,
    residual_quantize,
)
from dsirm_jax.quantizer.train import Catalogue
from dsirm_jax.sids.codes import VERSION_KEY, sid_writer
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh
from dsirm_jax.training.progress import progress

log = logging.getLogger(__name__)
ROWS = 4096

Chunk = tuple[Float[np.ndarray, "row dim"], Int[np.ndarray, " row"] | None]
Assigned = tuple[
    Int[np.ndarray, "row level"], Float[np.ndarray, "row level"], Float[np.ndarray, " row"]
]


@functools.partial(jax.jit, static_argnames=("model", "beams"))
def _assign(model, params, codebooks, vectors, pinned, beams):
    latents = model.apply(params, vectors, method="encode")
    if beams > 1:
        quantized = beam_quantize(latents, codebooks, beams=beams, pinned=pinned)
    else:
        quantized = residual_quantize(latents, codebooks, pinned=pinned)
    last = quantized.prefixes[:, -1]
    # The first residual is the latent itself; the others are what each level left.
    left = [
        jnp.sum(quantized.residuals[:, level] ** 2, axis=-1) for level in range(1, len(codebooks))
    ]
    left.append(jnp.sum((latents - last) ** 2, axis=-1))
    error = jnp.sum((vectors - model.apply(params, last, method="decode")) ** 2, axis=-1)  # [row]
    return quantized.codes, jnp.sqrt(jnp.stack(left, axis=1)), error


def assign(
    *,
    model: Autoencoder | Identity,
    params: Any,
    codebooks: Codebooks,
    chunks: Iterable[Chunk],
    beams: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Iterator[Assigned]:
    """Yields the codes of vectors, chunk by chunk: memory does not grow with the catalogue.

    Args:
      model: what `model.autoencoder` returns for the quantizer.
      params: its parameters.
      codebooks: one per level.
      chunks: float32 vectors of at most `ROWS` rows each, with pinned first codes or None.
      beams: partial SIDs kept, see `beam_quantize`; 1 takes the nearest codeword level by level.
      devices: local devices that share the rows of a chunk; all when not given.

    Yields:
      For every chunk: codes int32 `[row, level]`; distance to the prefix vector in the quantized
      space float32 `[row, level]`; squared reconstruction error float32 `[row]`.
    """
    mesh = data_mesh(devices or jax.local_devices())
    rows_over_devices = NamedSharding(mesh, PartitionSpec(DATA_AXIS))
    params, codebooks = jax.device_put((params, codebooks), NamedSharding(mesh, PartitionSpec()))
    # Every chunk has one shape, so the program is compiled once.
    full = -(-ROWS // mesh.size) * mesh.size
    waiting = None
    for vectors, pinned in chunks:
        lacking = full - len(vectors)
        filled = (
            np.pad(vectors, ((0, lacking), (0, 0))),
            None if pinned is None else np.pad(pinned, (0, lacking)),
        )
        found = _assign(model, params, codebooks, *jax.device_put(filled, rows_over_devices), beams)
        # The devices work on this chunk while the one before is handed out and the next is read.
        if waiting is not None:
            yield _fetch(*waiting)
        waiting = found, len(vectors)
    if waiting is not None:
        yield _fetch(*waiting)


def _fetch(found: tuple[jax.Array, ...], rows: int) -> Assigned:
    codes, distances, error = (np.asarray(array)[:rows] for array in found)
    return codes, distances, error


def sid_version(
    *, params: Any, codebooks: Codebooks, names: Sequence[str] = (), beams: int = 1
) -> str:
    """Returns what identifies SIDs: a hash of all that decides an item's codes.

    Codes of two versions must never be joined: the same numbers mean different things.

    Args:
      params: of the encoder.
      codebooks: one per level.
      names: categories that the first codes are pinned to.
      beams: see `assign`.
    """
    digest = hashlib.sha256("\n".join([str(beams), *names]).encode())
    for array in (*jax.tree.leaves(params), *(a for book in codebooks for a in book.identity())):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def assign_catalogue(
    *,
    model: Autoencoder | Identity,
    params: Any,
    codebooks: Codebooks,
    catalogue: Catalogue,
    beams: int = 1,
) -> tuple[Int[np.ndarray, "item level"], Float[np.ndarray, "item level"], float]:
    """Returns codes, distances and the reconstruction error of a catalogue in memory.

    Args:
      model: see `assign`.
      params: see `assign`.
      codebooks: see `assign`.
      catalogue: the vectors, with their pinned codes.
      beams: see `assign`.

    Returns:
      Codes int32 `[item, level]`, distances float32 `[item, level]` (see `assign`) and the squared
      reconstruction error as a share of the vectors' variance, so that 0 is perfect and 1 is what
      the mean vector would give.
    """

    def chunks() -> Iterator[Chunk]:
        starts = range(0, len(catalogue.items), ROWS)
        for start in progress(starts, total=len(starts), name="assign", unit="chunk"):
            rows = slice(start, start + ROWS)
            yield (
                catalogue.items[rows],
                catalogue.pinned[rows] if catalogue.pinned is not None else None,
            )

    parts = assign(model=model, params=params, codebooks=codebooks, chunks=chunks(), beams=beams)
    codes, distances, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    return codes, distances, float(np.mean(errors)) / variance(catalogue.items)


def variance(vectors: Float[np.ndarray, "row dim"]) -> float:
    """Returns the mean squared distance to the mean vector, what 0 levels of codes would cost.

    Args:
      vectors: float32 `[row, dim]`, in memory or memory-mapped.
    """
    squares = np.einsum("rd,rd->", vectors, vectors, dtype=np.float64)
    mean = vectors.mean(axis=0, dtype=np.float64)
    return float(squares / len(vectors) - mean @ mean)


def assign_shards(
    *,
    model: Autoencoder | Identity,
    params: Any,
    codebooks: Codebooks,
    vectors: Sequence[Path],
    pattern: Path,
    version: str,
    pinned: Int[np.ndarray, " item"] | None = None,
    beams: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> list[Path]:
    """Writes the SIDs of a catalogue that lies in shards, one shard for each, in their order.

    Memory holds a few chunks. A shard that is already there with this version is left as it is, so
    an interrupted pass goes on where it stopped. Processes share the shards.

    Args:
      model: see `assign`.
      params: see `assign`.
      codebooks: see `assign`.
      vectors: the shards of `encode`, in the catalogue's order: columns item_id and vector.
      pattern: of the paths of the SID shards, with one `*`: item_id, sid, distances and error (see
        `assign`), as in `sids.parquet`.
      version: see `sid_version`.
      pinned: int32 `[item]` pinned first codes of the whole catalogue, or None.
      beams: see `assign`.
      devices: see `assign`.

    Returns:
      The paths of all shards, those of other processes included.

    Raises:
      InputError: a vector is not finite; the message names file and row.
    """
    counts = [pq.read_metadata(file).num_rows for file in vectors]
    starts = np.cumsum([0, *counts])
    paths = [shard(pattern, number=n, of=len(vectors)) for n in range(len(vectors))]
    mine = range(jax.process_index(), len(vectors), jax.process_count())
    for number in progress(mine, total=len(mine), name="assign", unit="shard"):
        path = paths[number]
        if _has_version(path, version):
            log.info("%s is there already", path)
            continue
        part = None if pinned is None else pinned[starts[number] : starts[number + 1]]
        # `assign` is a chunk ahead of what it hands out: tee keeps the ids of what is under way.
        read, named = itertools.tee(blocks(vectors[number], id_column="item_id", rows=ROWS))
        found = assign(
            model=model,
            params=params,
            codebooks=codebooks,
            chunks=((block, _rows_of(part, row, len(block))) for row, _, block in read),
            beams=beams,
            devices=devices,
        )
        with sid_writer(path, version=version) as write:
            for (_, ids, _), arrays in zip(named, found, strict=True):
                write(ids, *arrays)
    return paths


def join_shards(paths: Sequence[Path], *, into: Path) -> None:
    """Moves the shards into one table, one after the other, in bounded memory.

    Args:
      paths: what `assign_shards` returned; all of them have to be there, with one version.
      into: `sids.parquet`.
    """
    schema = pq.read_schema(paths[0])
    with replacing(into) as partial, pq.ParquetWriter(partial, schema) as writer:
        for path in paths:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group))
    for path in paths:
        path.unlink()


def _rows_of(
    pinned: Int[np.ndarray, " row"] | None, first_row: int, count: int
) -> Int[np.ndarray, " row"] | None:
    """Returns the pinned codes of a block whose rows are counted from 1."""
    return None if pinned is None else pinned[first_row - 1 : first_row - 1 + count]


def _has_version(path: Path, version: str) -> bool:
    return (
        path.exists() and (pq.read_schema(path).metadata or {}).get(VERSION_KEY) == version.encode()
    )
