"""Rows of Parquet files: a part for each run of row groups."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion.columns.mapping import ColumnMap, present_columns
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.formats.format import BUFFER, LIMITS, Limits, Opened, readable
from dsirm_jax.io import storage


def open_parquet(
    file: str, *, mapping: ColumnMap, dialect: Dialect, binding: str | None, limits: Limits
) -> Opened:
    """Opens a Parquet file, which has no dialect; see `format.Format`."""
    del dialect, binding
    parts = parquet_parts(file, mapping=mapping, limits=limits)
    with readable(file, "Parquet"), _plain(file) as source:
        names = pq.ParquetFile(source).schema_arrow.names
    return Opened(parts=parts, names=names)


def parquet_parts(file: str, *, mapping: ColumnMap, limits: Limits = LIMITS) -> list[Part]:
    """Returns a part for each run of row groups; see `formats.parts`."""
    storage.require_file(file)
    if storage.name(file).endswith(".gz"):
        return [functools.partial(_packed_parquet_rows, file, mapping, limits)]
    with readable(file, "Parquet"), storage.open_file(file) as source:
        metadata = pq.ParquetFile(source).metadata
        present_columns(file, metadata.schema.to_arrow_schema().names, mapping)
    runs: list[tuple[int, list[int]]] = []
    first_row = 1
    for group in range(metadata.num_row_groups):
        if not runs or first_row - runs[-1][0] >= limits.part_rows:
            runs.append((first_row, []))
        runs[-1][1].append(group)
        first_row += metadata.row_group(group).num_rows
    return [
        functools.partial(_parquet_rows, file, mapping, limits, groups=groups, first_row=first_row)
        for first_row, groups in runs
    ]


def _parquet_rows(
    file: str, mapping: ColumnMap, limits: Limits, *, groups: Sequence[int], first_row: int
) -> Iterator[Chunk]:
    with readable(file, "Parquet"), storage.open_file(file) as source:
        reader = _parquet_file(source)
        yield from _parquet_chunks(reader, file, mapping, limits, groups, first_row)


def _packed_parquet_rows(file: str, mapping: ColumnMap, limits: Limits) -> Iterator[Chunk]:
    with readable(file, "Parquet"), _plain(file) as plain:
        reader = _parquet_file(plain)
        groups = range(reader.num_row_groups)
        yield from _parquet_chunks(reader, file, mapping, limits, groups, 1)


@contextlib.contextmanager
def _plain(file: str) -> Iterator[pa.NativeFile | BinaryIO]:
    if not storage.name(file).endswith(".gz"):
        with storage.open_file(file) as source:
            yield source
        return
    # Parquet is read from its end, gzip only from its start.
    with tempfile.TemporaryFile() as plain:
        with storage.stream(file) as packed:
            shutil.copyfileobj(packed, plain, BUFFER)
        yield plain


def _parquet_file(source: pa.NativeFile | BinaryIO) -> pq.ParquetFile:
    # Otherwise a whole row group is fetched, which may be a whole file.
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER)


def _parquet_chunks(
    reader: pq.ParquetFile,
    file: str,
    mapping: ColumnMap,
    limits: Limits,
    groups: Sequence[int],
    first_row: int,
) -> Iterator[Chunk]:
    names = present_columns(file, reader.schema_arrow.names, mapping)
    for group in groups:
        metadata = reader.metadata.row_group(group)
        fitting = limits.bytes * metadata.num_rows // max(1, metadata.total_byte_size)
        batches = reader.iter_batches(
            min(max(1, fitting), limits.rows), row_groups=[group], columns=list(names.values())
        )
        for batch in batches:
            table = pa.Table.from_batches([batch])
            table = table.select(list(names.values())).rename_columns(list(names))
            yield Chunk(table=table, file=file, first_row=first_row, columns=names)
            first_row += table.num_rows
