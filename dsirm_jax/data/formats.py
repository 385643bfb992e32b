"""Streams the rows of Parquet, CSV, TSV and JSONL files, by suffix, each plain or with `.gz`.

A file is read in parts: a Parquet file in runs of row groups, any other file as a whole. A part
holds one chunk of its rows in memory at a time.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.columns import ColumnMap, present_columns
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.io import storage
from dsirm_jax.io.errors import InputError

_Row = TypeVar("_Row")
_BUFFER = 1 << 22
_HEADERS_AT_A_TIME = 16
_HEADER_LINES = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much of a file is read at a time.

    Attributes:
      rows: most rows of a chunk.
      bytes: bytes of a chunk, about, and the most that a single row of CSV or JSONL may have.
      part_rows: fewest rows of a part of a Parquet file that has more.
    """

    rows: int = 16_384
    bytes: int = 1 << 24
    part_rows: int = 1 << 17


_LIMITS = Limits()


def parts(files: Sequence[str], *, mapping: ColumnMap, limits: Limits = _LIMITS) -> list[Part]:
    """Returns the parts of some files, in order.

    Args:
      files: paths or URLs.
      mapping: the columns to read.
      limits: how much is read at a time.

    Raises:
      InputError: a file is missing, empty or of an unknown format, or the head of a Parquet or
        CSV file lacks a column. What is wrong further down is raised when a part is read.
    """
    read_header = functools.partial(_parts, mapping=mapping, limits=limits)
    # On a remote store each header is a round trip.
    with concurrent.futures.ThreadPoolExecutor(_HEADERS_AT_A_TIME) as pool:
        return list(itertools.chain.from_iterable(pool.map(read_header, files)))


def _parts(file: str, *, mapping: ColumnMap, limits: Limits) -> list[Part]:
    formats: dict[str, Callable[..., list[Part]]] = {
        ".parquet": parquet_parts,
        ".csv": functools.partial(csv_parts, delimiter=","),
        ".tsv": functools.partial(csv_parts, delimiter="\t"),
        ".jsonl": jsonl_parts,
    }
    suffix = Path(storage.name(file).removesuffix(".gz")).suffix.lower()
    if suffix not in formats:
        raise InputError(
            f"{file}: unknown suffix {suffix!r}; name the file .parquet, .csv, .tsv or .jsonl, "
            "each perhaps with .gz"
        )
    return formats[suffix](file, mapping=mapping, limits=limits)


def header(file: str, *, limits: Limits = _LIMITS) -> list[str]:
    """Returns the names of the columns of a file; of JSONL those of its first rows.

    Raises:
      InputError: as `parts` does.
    """
    storage.require_file(file)
    suffix = Path(storage.name(file).removesuffix(".gz")).suffix.lower()
    if suffix == ".parquet":
        with _readable(file, "Parquet"), _plain_parquet(file) as source:
            return list(pq.ParquetFile(source).metadata.schema.to_arrow_schema().names)
    if suffix == ".jsonl":
        with (
            _readable(file, "JSONL"),
            storage.stream(file) as packed,
            io.BufferedReader(packed, _BUFFER) as text,
        ):
            lines = itertools.islice(_lines(text, file, limits), _HEADER_LINES)
            return list(dict.fromkeys(name for _, line in lines for name in _record(line)[0]))
    records = _csv_records(file, "\t" if suffix == ".tsv" else ",", limits)
    with contextlib.closing(records):
        return next(records, [])


def headers(files: Sequence[str]) -> list[list[str]]:
    """Returns the `header` of each file."""
    with concurrent.futures.ThreadPoolExecutor(_HEADERS_AT_A_TIME) as pool:
        return list(pool.map(header, files))


def parquet_parts(file: str, *, mapping: ColumnMap, limits: Limits = _LIMITS) -> list[Part]:
    """Returns a part for each run of row groups; see `parts`."""
    storage.require_file(file)
    if storage.name(file).endswith(".gz"):
        return [functools.partial(_packed_parquet_rows, file, mapping, limits)]
    with _readable(file, "Parquet"), storage.open_file(file) as source:
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
    with _readable(file, "Parquet"), storage.open_file(file) as source:
        reader = _parquet_file(source)
        yield from _parquet_chunks(reader, file, mapping, limits, groups, first_row)


def _packed_parquet_rows(file: str, mapping: ColumnMap, limits: Limits) -> Iterator[Chunk]:
    with _readable(file, "Parquet"), _plain_parquet(file) as plain:
        reader = _parquet_file(plain)
        groups = range(reader.num_row_groups)
        yield from _parquet_chunks(reader, file, mapping, limits, groups, 1)


@contextlib.contextmanager
def _plain_parquet(file: str) -> Iterator[pa.NativeFile | BinaryIO]:
    if not storage.name(file).endswith(".gz"):
        with storage.open_file(file) as source:
            yield source
        return
    # Parquet is read from its end, gzip only from its start.
    with tempfile.TemporaryFile() as plain:
        with storage.stream(file) as packed:
            shutil.copyfileobj(packed, plain, _BUFFER)
        yield plain


def _parquet_file(source: pa.NativeFile | BinaryIO) -> pq.ParquetFile:
    # Otherwise a whole row group is fetched, which may be a whole file.
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER)


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


def csv_parts(
    file: str, *, mapping: ColumnMap, delimiter: str, limits: Limits = _LIMITS
) -> list[Part]:
    """Returns the only part of a CSV file in UTF-8 with a header; see `parts`."""
    records = _csv_records(storage.require_file(file), delimiter, limits)
    with contextlib.closing(records):
        present_columns(file, next(records, []), mapping)
    return [functools.partial(_csv_rows, file, mapping, delimiter, limits)]


def _csv_rows(file: str, mapping: ColumnMap, delimiter: str, limits: Limits) -> Iterator[Chunk]:
    records = _csv_records(file, delimiter, limits)
    header = next(records, [])
    names = present_columns(file, header, mapping)
    width, first_row = len(header), 1
    for block in _blocks(records, limits, size=lambda record: sum(map(len, record))):
        unreadable = {
            position: (
                _shown(delimiter.join(record)),
                f"{len(record)} values where the header has {width}",
            )
            for position, record in enumerate(block)
            if len(record) != width
        }
        for position in unreadable:
            block[position] = [""] * width
        table = {
            ours: _csv_column([record[place] for record in block])
            for ours, place in ((ours, header.index(users)) for ours, users in names.items())
        }
        yield Chunk(
            table=pa.table(table),
            file=file,
            first_row=first_row,
            columns=names,
            unreadable=unreadable,
        )
        first_row += len(block)


def _csv_records(file: str, delimiter: str, limits: Limits) -> Generator[list[str], None, None]:
    """Yields the cells of the header, then those of each row; a blank line is no row.

    Bytes that are no UTF-8 stay for the check of their column.
    """
    # A limit of the whole process, which no other module here depends on.
    csv.field_size_limit(limits.bytes)
    ended, read = [], 0

    def lines(text: io.TextIOWrapper) -> Iterator[str]:
        for line in iter(functools.partial(text.readline, limits.bytes + 1), ""):
            if len(line) > limits.bytes:
                raise csv.Error(f"a line is longer than {limits.bytes} characters")
            yield line
        ended.append(True)

    try:
        with (
            storage.stream(file) as source,
            io.TextIOWrapper(
                io.BufferedReader(source, _BUFFER),
                encoding="utf-8-sig",
                errors="surrogateescape",
                newline="",
            ) as text,
        ):
            for record in filter(None, csv.reader(lines(text), delimiter=delimiter)):
                if not read:
                    "".join(record).encode()
                # Only in the midst of a record does the parser ask for lines after the last.
                if ended:
                    raise csv.Error("the file ends within quotes")
                yield record
                read += 1
    except (pa.ArrowException, csv.Error, OSError, UnicodeError) as error:
        hint = "; is a quote left open?" if isinstance(error, csv.Error) else ""
        raise InputError(
            f"{file}: not a readable CSV file in UTF-8 after row {max(read - 1, 0)}: "
            f"{_line(error)}{hint}"
        ) from error


def _csv_column(cells: Iterable[str]) -> pa.Array:
    """Returns the bytes of cells; those of empty ones are null."""
    return pa.array(
        [cell.encode("utf-8", "surrogateescape") if cell else None for cell in cells], pa.binary()
    )


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def jsonl_parts(file: str, *, mapping: ColumnMap, limits: Limits = _LIMITS) -> list[Part]:
    """Returns the only part of a file of one JSON object a line; see `parts`."""
    return [functools.partial(_jsonl_rows, storage.require_file(file), mapping, limits)]


def _jsonl_rows(file: str, mapping: ColumnMap, limits: Limits) -> Iterator[Chunk]:
    seen: set[str] = set()
    with (
        _readable(file, "JSONL"),
        storage.stream(file) as source,
        io.BufferedReader(source, _BUFFER) as text,
    ):
        lines = _lines(text, file, limits)
        for block in _blocks(lines, limits, size=lambda numbered: len(numbered[1])):
            records, unreadable = [], {}
            for position, (_, line) in enumerate(block):
                record, reason = _record(line)
                if reason:
                    unreadable[position] = (line.decode("utf-8", "backslashreplace"), reason)
                records.append(record)
                seen.update(record)
            table = {
                ours: _json_column([record.get(users) for record in records], ours)
                for ours, users in mapping.columns.items()
            }
            yield Chunk(
                table=pa.table(table),
                file=file,
                columns=mapping.columns,
                unreadable=unreadable,
                rows=[number for number, _ in block],
            )
    if seen:
        present_columns(file, sorted(seen), mapping)


def _lines(text: io.BufferedReader, file: str, limits: Limits) -> Iterator[tuple[int, bytes]]:
    """Yields lines that are not blank, with their numbers from 1."""
    for number in itertools.count(1):
        line = text.readline(limits.bytes + 1)
        if len(line) > limits.bytes:
            raise InputError(
                f"{file}: row {number} is longer than {limits.bytes} bytes; shorten it"
            )
        if not line:
            return
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line and not line.isspace():
            yield number, line


def _record(line: bytes) -> tuple[dict, str | None]:
    """Parses one line of JSON; bytes that are no UTF-8 stay for the check of their column."""
    try:
        record = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return {}, "not valid JSON"
    return (record, None) if isinstance(record, dict) else ({}, "not a JSON object")


def _json_column(values: list, name: str) -> pa.Array:
    if name != "category" or not any(isinstance(value, list) for value in values):
        return pa.array(map(_json_text, values), pa.binary())
    paths = [value if isinstance(value, list) or value is None else [value] for value in values]
    return pa.array(
        [None if path is None else [_json_text(part) for part in path] for path in paths],
        pa.list_(pa.binary()),
    )


def _json_text(value: object) -> bytes | None:
    """Returns a JSON value as text, whatever its type: ids may be numbers in some rows."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _blocks(
    rows: Iterable[_Row], limits: Limits, *, size: Callable[[_Row], int]
) -> Iterator[list[_Row]]:
    """Groups rows to chunks."""
    block, total = [], 0
    for row in rows:
        block.append(row)
        total += size(row)
        if len(block) == limits.rows or total >= limits.bytes:
            yield block
            block, total = [], 0
    if block:
        yield block


@contextlib.contextmanager
def _readable(file: str, kind: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise InputError(f"{file}: not a readable {kind} file: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
