"""Dense vectors in Parquet shards: what `encode` writes, and vectors of your own."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from dsirm_jax.data.text import clean
from dsirm_jax.data.title_types import TitleTypes, types_of_catalogue
from dsirm_jax.data.vector_columns import VectorError, block_of, converter, flat, ids_of
from dsirm_jax.io import arrays
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing

log = logging.getLogger(__name__)
VECTOR_ROWS = 16_384
"""Rows read or written at a time, by default."""

VECTOR = "vector"
_FIXED_SIZE = re.compile(r"to be of size=(\d+) but index (\d+) had size=(\d+)")
SEPARATOR = " > "
"""Between the levels of a category path that is one text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VectorFiles:
    """Vectors of your own.

    Attributes:
      pattern: file, or glob pattern of the shards; see `read_vectors`.
    """

    pattern: str

    def __post_init__(self) -> None:
        check_text("VectorFiles.pattern", self.pattern)

    def files(self) -> list[str]:
        """Returns the files that this reads."""
        return shards(self.pattern)


def shard(pattern: Path, *, number: int, total: int) -> Path:
    """Returns the path of one of several shards, such as `items-00002-of-00007.parquet`.

    Args:
      pattern: its name has one `*`, such as `items-*.parquet`.
      number: of the shard, from 0.
      total: number of shards.
    """
    return pattern.with_name(pattern.name.replace("*", f"{number:05d}-of-{total:05d}"))


def remove_other_shards(pattern: Path, paths: Sequence[Path]) -> None:
    """Removes the shards of an earlier division of a table into shards.

    Args:
      pattern: see `shard`.
      paths: of all shards of the division that holds.
    """
    digits = "[0-9]" * 5
    for path in pattern.parent.glob(pattern.name.replace("*", f"{digits}-of-{digits}")):
        if path not in paths:
            path.unlink(missing_ok=True)


def write_vectors(
    path: str | os.PathLike[str],
    ids: Sequence[str],
    vectors: Float[np.ndarray, "row dim"],
    *,
    id_column: str,
    rows: int = VECTOR_ROWS,
) -> None:
    """Writes one Parquet shard.

    Args:
      path: the file.
      ids: item ids or query texts. `[row]`
      vectors: float32 `[row, dim]`.
      id_column: name of the id column: `item_id` or `query`.
      rows: rows written at a time.

    Raises:
      ValueError: there are not as many ids as vectors.
    """
    if len(ids) != len(vectors):
        raise ValueError(f"{len(ids)} ids and {len(vectors)} vectors")
    schema = pa.schema([(id_column, pa.string()), (VECTOR, pa.list_(pa.float32()))])
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for start in range(0, len(ids), rows):
            block = np.ascontiguousarray(vectors[start : start + rows], np.float32)
            offsets = np.arange(len(block) + 1, dtype=np.int32) * block.shape[1]
            column = pa.ListArray.from_arrays(offsets, block.ravel())
            part = pa.array(ids[start : start + rows], pa.string())
            writer.write_batch(pa.record_batch([part, column], schema=schema))


def read_vectors(
    pattern: str | os.PathLike[str],
    *,
    ids: Sequence[str] | pa.ChunkedArray,
    id_column: str,
    scratch: Path | None = None,
    rows: int = VECTOR_ROWS,
) -> Float[np.ndarray, "row dim"]:
    """Reads vectors from Parquet shards, in the order of some ids.

    Args:
      pattern: file, or glob pattern of the shards, with the columns `id_column` (text or whole
        numbers) and `vector` (lists of numbers of any kind, see `vector_columns.converter`).
        Further ids are ignored. An id may stand there as it was before cleaning (`text.clean`).
      ids: item ids or query texts, each once. `[row]`
      id_column: name of the id column.
      scratch: folder of a temporary file that holds the vectors, memory-mapped: memory then does
        not grow with their width, nor with their number where they come in the order of the ids.
        They are held in memory when not given.
      rows: rows read at a time.

    Returns:
      float32 `[row, dim]`: row i is the vector of `ids[i]`.

    Raises:
      InputError: a file or column is missing, or a vector is; a vector's width is not the first
        one's; an entry is not finite, or the vector's square is not; an id has two vectors. The
        message names file and row.
    """
    ids = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids], pa.string())
    vectors, filled = None, np.zeros(len(ids), bool)
    next_row, row_by_id, example = 0, None, None
    for file in shards(pattern):
        for first_row, names, block in vector_blocks(file, id_column=id_column, rows=rows):
            if vectors is None:
                vectors = _empty((len(ids), block.shape[1]), scratch)
            if block.shape[1] != vectors.shape[1]:
                raise _fault(file, first_row, f"{block.shape[1]} numbers, not {vectors.shape[1]}")
            if row_by_id is None:
                following = slice(next_row, next_row + len(names))
                if pa.chunked_array([names]).equals(ids[following]):
                    vectors[following], filled[following] = block, True
                    next_row = following.stop
                    continue
                row_by_id = {id_: row for row, id_ in enumerate(ids.to_pylist())}
            for position, name in enumerate(names.to_pylist()):
                row = row_by_id.get(name, row_by_id.get(clean(name)))
                if row is None:
                    example = example or name
                    continue
                if filled[row]:
                    raise _fault(file, first_row + position, f"a second one for {str(ids[row])!r}")
                vectors[row], filled[row] = block[position], True
    if vectors is None:
        raise InputError(f"{pattern}: no data rows; write a {VECTOR} for every {id_column}")
    if not filled.all():
        raise InputError(
            f"{pattern}: no {VECTOR} for {int((~filled).sum())} of {len(ids)} {id_column}s, the "
            f"first of them {str(ids[int(np.argmin(filled))])!r}; add them"
            + (f" (it has {example!r}, which is none of them)" if example else "")
        )
    return vectors


def copy_vectors(
    source: str | os.PathLike[str], *, table: Path, id_column: str, pattern: Path
) -> None:
    """Writes vectors of your own in the order of a table, one shard a row group of it.

    Args:
      source: pattern of their files, see `read_vectors`.
      table: a Parquet file of `prepare`.
      id_column: of both.
      pattern: of the shards' paths, with one `*`; their folder also gets the temporary file.

    Raises:
      InputError: see `read_vectors`.
    """
    pattern.parent.mkdir(parents=True, exist_ok=True)
    ids = pq.read_table(table, columns=[id_column])[id_column]
    vectors = read_vectors(source, ids=ids, id_column=id_column, scratch=pattern.parent)
    zeros = sum(
        int((~vectors[start : start + VECTOR_ROWS].any(axis=1)).sum())
        for start in range(0, len(vectors), VECTOR_ROWS)
    )
    if zeros:
        log.warning(
            "%s: the vectors of %s of %s %ss are all zeros, near to nothing and far from nothing; "
            "give those that are missing",
            *(source, f"{zeros:,}", f"{len(vectors):,}", id_column),
        )
    groups, row = pq.read_metadata(table), 0
    total = groups.num_row_groups
    paths = [shard(pattern, number=number, total=total) for number in range(total)]
    remove_other_shards(pattern, paths)
    for number, path in enumerate(paths):
        rows = slice(row, row + groups.row_group(number).num_rows)
        write_vectors(path, ids[rows].to_pylist(), vectors[rows], id_column=id_column)
        row = rows.stop


def _empty(shape: tuple[int, int], scratch: Path | None) -> Float[np.ndarray, "row dim"]:
    """Returns zeros in memory, or in a file that goes when the array does."""
    if scratch is None:
        return np.zeros(shape, np.float32)
    return arrays.scratch(shape, np.float32, folder=scratch)


def shards(pattern: str | os.PathLike[str]) -> list[str]:
    """Returns the files that a pattern means, in their order.

    Raises:
      InputError: there is none.
    """
    path = Path(pattern)
    # A folder's name may itself look like a pattern.
    files = sorted(glob.glob(str(path)) or map(str, path.parent.glob(path.name)))
    files = files or [str(path)]
    if not Path(files[0]).is_file():
        raise InputError(f"{pattern}: no such file; bind the path of your {VECTOR}s")
    return files


def vector_blocks(
    file: str | os.PathLike[str], *, id_column: str, rows: int = VECTOR_ROWS
) -> Iterator[tuple[int, pa.Array, Float[np.ndarray, "row dim"]]]:
    """Yields the vectors of one Parquet shard, some rows at a time.

    Args:
      file: see `read_vectors`.
      id_column: name of the id column.
      rows: rows at a time.

    Yields:
      Number of the first row (from 1), ids as strings `[row]`, vectors float32 `[row, dim]`.

    Raises:
      InputError: see `read_vectors`.
    """
    convert, first_row = None, 1
    for batch in _batches(file, columns=[id_column, VECTOR], rows=rows):
        with _faults(file, id_column, first_row):
            names = ids_of(batch.column(id_column))
        with _faults(file, VECTOR, first_row):
            values, width = flat(batch.column(VECTOR))
            convert = convert or converter(batch.schema.field(VECTOR), values)
            block = block_of(values, width=width, convert=convert)
        yield first_row, names, block
        first_row += batch.num_rows


def read_ids(files: Sequence[str], *, id_column: str) -> pa.ChunkedArray:
    """Returns the ids of all files without the white space around them, each once.

    Args:
      files: see `read_vectors`.
      id_column: name of the id column.

    Raises:
      InputError: there is none, a row has none, or two rows have the same.
    """
    chunks, places = [], []
    for file in files:
        first_row = 1
        for batch in _batches(file, columns=[id_column], rows=VECTOR_ROWS):
            with _faults(file, id_column, first_row):
                chunks.append(pc.utf8_trim_whitespace(ids_of(batch.column(0))))
            places.append((file, first_row))
            first_row += batch.num_rows
    ids = pa.chunked_array(chunks, pa.string())
    if not len(ids):
        raise InputError(f"{files[0]}: no data rows; write a {VECTOR} for every {id_column}")
    seen: set[str] = set()
    for (file, first_row), chunk in zip(places, chunks, strict=True):
        for position, name in enumerate(chunk.to_pylist()):
            if name in seen:
                raise InputError(
                    f"{file} row {first_row + position}: column {id_column!r} has {name!r} a "
                    f"second time; leave one of them out"
                )
            seen.add(name)
    return ids


def _batches(
    file: str | os.PathLike[str], *, columns: Sequence[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yields some columns of a Parquet file, without empty batches.

    Raises:
      InputError: it cannot be read, or has not one such column.
    """
    unreadable = f"{file}: not a readable Parquet file; write it anew"
    try:
        reader = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise InputError(unreadable) from error
    with reader:
        names = reader.schema_arrow.names
        for column in columns:
            if names.count(column) != 1:
                fault = "there more than once" if column in names else "missing"
                raise InputError(
                    f"{file}: column {column!r} is {fault}; the file has {', '.join(names[:20])}"
                )
        batches = reader.iter_batches(rows, columns=list(columns))
        rows_read = 0
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                # Arrow itself refuses a null among lists of a fixed size, by its place from 1.
                if odd := _FIXED_SIZE.search(str(error)):
                    size, place, found = map(int, odd.groups())
                    with _faults(file, VECTOR, rows_read + 1):
                        raise VectorError(place - 1, f"has {found} numbers, not {size}") from error
                raise InputError(unreadable) from error
            if batch is None:
                return
            if batch.num_rows:
                yield batch
            rows_read += batch.num_rows


@contextlib.contextmanager
def _faults(file: str | os.PathLike[str], column: str, first_row: int) -> Iterator[None]:
    """Names file, row and column of what is wrong."""
    try:
        yield
    except VectorError as error:
        if error.row is None:
            raise InputError(f"{file}: column {column!r} {error}") from error
        raise InputError(
            f"{file} row {first_row + error.row}: column {column!r} {error}; fix or leave out the "
            f"row"
        ) from error


def read_categories(
    files: Sequence[str], *, depth: int, types: TitleTypes | None = None
) -> pa.ChunkedArray:
    """Returns the first levels of each item's category path, as `Shoes > Boots`.

    Args:
      files: Parquet shards with, where they are known, columns `category`, list<string> or text
        with ` > ` between levels, and `title`.
      depth: levels of the path; with 0 no category is known.
      types: where no item has a category, each has its title's product type instead; None: it has
        nothing.

    Returns:
      Strings, null or empty where nothing is known. `[item]`
    """
    paths = _optional(files, "category", pa.list_(pa.string()))
    categories = pc.binary_join(pc.list_slice(paths, 0, depth), SEPARATOR)
    if types is None or any_known(categories):
        return categories
    titles = _optional(files, "title", pa.string()).fill_null("")
    chunks = [
        pa.array([types.of(title) for title in chunk.to_pylist()], pa.string())
        for chunk in titles.iterchunks()
    ]
    return pa.chunked_array(chunks, pa.string())


def read_title_types(files: Sequence[str], *, language: str | None) -> TitleTypes:
    """Returns how the titles of a catalogue become product types.

    Args:
      files: Parquet shards with, where they are known, a column `title`.
      language: as in `product_type`.
    """
    titles = _optional(files, "title", pa.string()).fill_null("")
    named = (title for chunk in titles.iterchunks() for title in chunk.to_pylist())
    return types_of_catalogue(named, language=language)


def any_known(categories: pa.ChunkedArray) -> bool:
    """Returns whether any item has a category; arguments as `read_categories` returns them."""
    return bool(pc.any(pc.not_equal(categories, "")).as_py())


def _optional(files: Sequence[str], column: str, type_: pa.DataType) -> pa.ChunkedArray:
    """Returns a column of all files, null where a file lacks it."""
    chunks = []
    for file in files:
        if column in pq.read_schema(file).names:
            chunks += _cast(file, pq.read_table(file, columns=[column])[column], type_).chunks
        else:
            chunks.append(pa.nulls(pq.read_metadata(file).num_rows, type_))
    return pa.chunked_array(chunks, type_)


def _cast(file: str, column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    """Returns a column of texts, or of category paths, which may be texts such as `Shoes > Boots`.

    Raises:
      InputError: it holds anything else.
    """
    name = "category" if pa.types.is_list(type_) else "title"
    given = column.type
    if pa.types.is_dictionary(given):
        column, given = column.cast(given.value_type), given.value_type
    texts = (pa.string(), pa.large_string(), pa.string_view())
    try:
        if pa.types.is_list(type_) and given in texts:
            paths = pc.split_pattern(column.cast(pa.string()), SEPARATOR)
            return pc.if_else(pc.equal(column.cast(pa.string()), ""), None, paths).cast(type_)
        return column.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        wanted = "lists of texts, such as ['Shoes', 'Boots']" if name == "category" else "texts"
        raise InputError(f"{file}: column {name!r} has type {given}; write {wanted}") from error


def _fault(file: str | os.PathLike[str], row: int, fault: str) -> InputError:
    return InputError(f"{file} row {row}: column {VECTOR!r} has {fault}; fix or leave out the row")
