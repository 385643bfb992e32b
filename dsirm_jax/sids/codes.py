"""SIDs as arrays of codes, as tokens of the generator, as sortable integers and as a table.

A SID is one code per level, coarse to fine, each counted from 0. `sizes` is the number of codes of
each level, e.g. `(64, 128, 128)`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Integer

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.sids.arrays import AnyArray

VERSION_KEY = b"sid_version"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SidTable:
    """The contents of `sids.parquet`.

    Attributes:
      item_ids: strings `[item]`, in the order of the catalogue.
      sids: int32 `[item, level]`.
      distances: float32 `[item, level]`: distance of the latent to the prefix vector of each level.
      errors: float32 `[item]`: squared distance of the dense vector to the decoded SID.
      version: names the codebooks and settings that the SIDs came from.
    """

    item_ids: pa.ChunkedArray
    sids: Integer[np.ndarray, "item level"]
    distances: Float[np.ndarray, "item level"]
    errors: Float[np.ndarray, " item"]
    version: str


SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("sid", pa.list_(pa.int32())),
        ("distances", pa.list_(pa.float32())),
        ("error", pa.float32()),
    ]
)
"""Columns of `sids.parquet`."""


def level_offsets(sizes: Sequence[int]) -> Integer[np.ndarray, " level"]:
    """Returns the number of codes of all levels before each level, int64 `[level]`.

    Example:
      >>> level_offsets((64, 128, 128)).tolist()
      [0, 64, 192]
    """
    return np.cumsum([0, *sizes[:-1]], dtype=np.int64)


def to_tokens(
    sids: Integer[AnyArray, "*rows level"], *, sizes: Sequence[int], text_vocab_size: int
) -> Integer[AnyArray, "*rows level"]:
    """Returns the generator's token ids of SIDs (or of their prefixes).

    The SID tokens follow the text vocabulary, level by level:
    `token = text_vocab_size + sum(sizes[:level]) + code`.

    Args:
      sids: codes; fewer levels than `sizes` make a prefix.
      sizes: codes per level.
      text_vocab_size: number of text tokens, which come first.

    Returns:
      Token ids, of the type of `sids`. Source: this project.

    Example:
      >>> to_tokens(np.array([3, 0, 127]), sizes=(64, 128, 128), text_vocab_size=1000).tolist()
      [1003, 1064, 1319]
    """
    offsets = text_vocab_size + level_offsets(sizes)[: sids.shape[-1]]
    return sids + offsets.astype(sids.dtype)


def from_tokens(
    tokens: Integer[AnyArray, "*rows level"], *, sizes: Sequence[int], text_vocab_size: int
) -> Integer[AnyArray, "*rows level"]:
    """Returns the codes of token ids; undoes `to_tokens`.

    Example:
      >>> from_tokens(np.array([1003, 1064]), sizes=(64, 128, 128), text_vocab_size=1000).tolist()
      [3, 0]
    """
    offsets = text_vocab_size + level_offsets(sizes)[: tokens.shape[-1]]
    return tokens - offsets.astype(tokens.dtype)


def validate(
    sids: Integer[np.ndarray, "row level"], *, sizes: Sequence[int], source: str = "SIDs"
) -> None:
    """Checks that every code exists at its level.

    Args:
      sids: codes.
      sizes: codes per level.
      source: what the SIDs were read from, for the message.

    Raises:
      InputError: naming the first row (from 1) and level (from 1) at fault.
    """
    if sids.ndim != 2 or sids.shape[1] != len(sizes):
        levels = sids.shape[1] if sids.ndim == 2 else "no fixed number of"
        raise InputError(
            f"{source}: SIDs have {levels} levels but sizes {tuple(sizes)} name {len(sizes)}; "
            f"use the sizes that the SIDs were made with"
        )
    wrong = (sids < 0) | (sids >= np.asarray(sizes))
    if wrong.any():
        row, level = np.argwhere(wrong)[0]
        raise InputError(
            f"{source}: row {row + 1}, column sid, level {level + 1}: code {sids[row, level]} is "
            f"not in 0..{sizes[level] - 1}; use the sizes that the SIDs were made with"
        )


def pack(
    sids: Integer[np.ndarray, "*rows level"], *, sizes: Sequence[int]
) -> Integer[np.ndarray, "*rows"]:
    """Returns each SID as one mixed-radix int64 whose order is the lexicographic order of codes.

    Args:
      sids: valid codes, all levels.
      sizes: codes per level.

    Returns:
      int64 keys, `((c_1 * sizes[1]) + c_2) * sizes[2] + ...`. Source: this project.

    Raises:
      InputError: the number of possible SIDs does not fit in an int64.

    Example:
      >>> pack(np.array([[0, 2], [1, 0]]), sizes=(2, 3)).tolist()
      [2, 3]
    """
    check_packable(sizes)
    keys = np.zeros(sids.shape[:-1], np.int64)
    for level, size in enumerate(sizes):
        keys = keys * size + sids[..., level]
    return keys


def unpack(
    keys: Integer[np.ndarray, "*rows"], *, sizes: Sequence[int]
) -> Integer[np.ndarray, "*rows level"]:
    """Returns the SIDs of packed keys, int32; undoes `pack`.

    Example:
      >>> unpack(np.array([2, 3]), sizes=(2, 3)).tolist()
      [[0, 2], [1, 0]]
    """
    levels = []
    for size in reversed(sizes):
        keys, code = np.divmod(keys, size)
        levels.append(code.astype(np.int32))
    return np.stack(levels[::-1], axis=-1)


def prefix_keys(
    sids: Integer[np.ndarray, "*rows level"], *, sizes: Sequence[int]
) -> Integer[np.ndarray, "*rows level"]:
    """Returns the packed key of every prefix, int64; two prefixes of one length agree iff equal.

    Example:
      >>> prefix_keys(np.array([[1, 0, 3]]), sizes=(2, 2, 4)).tolist()
      [[1, 2, 11]]
    """
    check_packable(sizes)
    keys = np.zeros(sids.shape, np.int64)
    keys[..., 0] = sids[..., 0]
    for level in range(1, len(sizes)):
        keys[..., level] = keys[..., level - 1] * sizes[level] + sids[..., level]
    return keys


def suffixes(
    sids: Integer[np.ndarray, "item level"], *, sizes: Sequence[int], cap: int
) -> Integer[np.ndarray, " item"]:
    """Returns numbers that part the items of an over-full bucket, int32 `[item]`.

    The first `cap` items with a SID have 0, in the order of the catalogue, the next `cap` have 1.
    A suffix is no level: it is never generated nor matched, so every prefix keeps its meaning.

    Args:
      sids: codes of the catalogue.
      sizes: codes per level.
      cap: items that may share SID and suffix. Source: DSIRM (secondary note: 50).

    Example:
      >>> suffixes(np.array([[0, 1], [1, 1], [0, 1], [0, 1]]), sizes=(2, 2), cap=2).tolist()
      [0, 0, 0, 1]
    """
    keys = pack(sids, sizes=sizes)
    order = np.argsort(keys, kind="stable")
    ranks = np.empty(len(keys), np.int64)
    ranks[order] = np.arange(len(keys)) - np.searchsorted(keys[order], keys[order])
    return (ranks // cap).astype(np.int32)


def check_packable(sizes: Sequence[int]) -> None:
    """Raises InputError when SIDs of these sizes cannot be packed into an int64."""
    if math.prod(sizes) > 2**63:
        raise InputError(
            f"codebook sizes {tuple(sizes)} allow more than 2^63 SIDs; use fewer or smaller levels"
        )


@contextlib.contextmanager
def sid_writer(path: Path, *, version: str) -> Iterator[Callable[..., None]]:
    """Yields `write(item_ids, sids, distances, errors)`, which adds rows to a table of SIDs.

    Args:
      path: where to; the table is there when the block is left, whole.
      version: see `SidTable`, which also describes the arrays; the ids of a call are one
        `pa.Array`.
    """
    schema = SCHEMA.with_metadata({VERSION_KEY: version.encode()})
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:

        def write(
            item_ids: pa.Array,
            sids: Integer[AnyArray, "item level"],
            distances: Float[AnyArray, "item level"],
            errors: Float[AnyArray, " item"],
        ) -> None:
            columns = [
                item_ids,
                list_column(np.asarray(sids, np.int32)),
                list_column(np.asarray(distances, np.float32)),
                pa.array(np.asarray(errors, np.float32)),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))

        yield write


def read_sids(path: Path) -> SidTable:
    """Reads `sids.parquet`.

    Raises:
      InputError: SIDs of different lengths in one table, or no version.
    """
    table = pq.read_table(path, columns=SCHEMA.names)
    return SidTable(
        item_ids=table["item_id"],
        sids=_rectangle(table, "sid", path),
        distances=_rectangle(table, "distances", path),
        errors=table["error"].to_numpy(),
        version=read_version(path),
    )


def aligned_sids(
    path: Path, *, item_ids: pa.ChunkedArray, version: str
) -> Integer[np.ndarray, "item level"]:
    """Returns the SIDs of some items, in their order, -1 for those that a table lacks.

    Args:
      path: a table of SIDs, of this catalogue or another one.
      item_ids: the items. `[item]`
      version: that the table must have, see `SidTable`.

    Raises:
      InputError: the table has another version.
    """
    table = read_sids(path)
    if table.version != version:
        raise InputError(
            f"{path}: sid_version {table.version} is not {version}, that of the quantizer beside "
            f"it; run `dsirm quantize` there again"
        )
    rows = pc.index_in(item_ids, table.item_ids.combine_chunks()).fill_null(-1).to_numpy()
    return np.where((rows >= 0)[:, None], table.sids[rows], -1)


def _rectangle(table: pa.Table, column: str, path: Path) -> np.ndarray:
    lists = table[column].combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    if len(lengths) and (lengths != lengths[0]).any():
        row = int(np.flatnonzero(lengths != lengths[0])[0]) + 1
        raise InputError(
            f"{path}: row {row}, column {column}: {lengths[row - 1]} levels where row 1 has "
            f"{lengths[0]}; write the table again with `dsirm quantize`"
        )
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def list_column(array: np.ndarray) -> pa.Array:
    """Returns an array `[row, ...]` as an Arrow list column, one (nested) list per row."""
    column = pa.array(array.ravel())
    for axis in range(array.ndim - 1, 0, -1):
        length = array.shape[axis]
        offsets = np.arange(len(column) // length + 1, dtype=np.int32) * length
        column = pa.ListArray.from_arrays(offsets, column)
    return column


def write_versioned(path: Path, table: pa.Table, *, version: str) -> None:
    """Writes a table whose SIDs are of one version, which goes into its schema metadata."""
    with replacing(path) as partial:
        pq.write_table(table.replace_schema_metadata({VERSION_KEY: version.encode()}), partial)


def read_version(path: Path) -> str:
    """Returns the SID version of a table.

    Raises:
      InputError: the table has none.
    """
    metadata = pq.read_schema(path).metadata or {}
    if VERSION_KEY not in metadata:
        raise InputError(f"{path}: no sid_version in its schema metadata; write the table again")
    return metadata[VERSION_KEY].decode()


def check_same_version(*paths: Path) -> str:
    """Returns the SID version that all tables share.

    Raises:
      InputError: two tables hold SIDs of different codebooks, which must never be joined.
    """
    versions = {path: read_version(path) for path in paths}
    first, *others = versions
    for other in others:
        if versions[other] != versions[first]:
            raise InputError(
                f"{other}: sid_version {versions[other]} differs from {versions[first]} of "
                f"{first}; run the later stage again"
            )
    return versions[first]
