"""Rows of CSV and TSV: a header, then a record a row."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence

import pyarrow as pa

from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion.columns.mapping import ColumnMap, present_columns
from dsirm_jax.ingestion.dialect import NONE, Dialect
from dsirm_jax.ingestion.formats.encodings import (
    ESCAPE,
    UTF8,
    Encoding,
    decoded,
    opened_utf8,
    read_head,
    told_encoding,
)
from dsirm_jax.ingestion.formats.format import (
    LIMITS,
    Limits,
    Opened,
    Remark,
    blocks,
    one_line,
    otherwise,
    readable,
)
from dsirm_jax.ingestion.formats.records import Layout, Records, TwoReadings
from dsirm_jax.ingestion.formats.sniffing import is_excel_line, sniff_layout
from dsirm_jax.io.errors import InputError

_LINES_ABOVE = 50


def open_csv(
    file: str,
    *,
    mapping: ColumnMap,
    dialect: Dialect,
    binding: str | None,
    limits: Limits,
    delimiter: str = ",",
) -> Opened:
    """Opens a CSV file, or with another usual `delimiter` a TSV file; see `format.Format`."""
    # A limit of the whole process, which no other module here depends on.
    csv.field_size_limit(limits.bytes)
    with readable(file, "CSV"):
        head, is_whole = read_head(file, limits.sample)
        encoding, remarks = told_encoding(head, is_whole=is_whole, dialect=dialect, binding=binding)
        text = decoded(head, encoding).decode(UTF8, ESCAPE)
    try:
        layout, others = sniff_layout(
            text,
            is_whole=is_whole,
            dialect=dialect,
            default=delimiter,
            mapping=mapping,
            binding=binding,
        )
    except TwoReadings as error:
        raise InputError(f"{file}: {error}") from error
    read = functools.partial(
        _rows, file, mapping, layout, encoding, binding, limits, dialect.decimal
    )
    records = _records(file, layout, encoding, binding, limits, [])
    with contextlib.closing(records):
        header = next(records, [])
    names = _names(header, mapping)
    try:
        present_columns(file, names, mapping)
    except InputError as error:
        raise InputError(f"{error}{_above_header(text, layout.delimiter, mapping)}") from error
    if names != header:
        others.append(Remark(text="spaces around names of columns are left out", is_bound=False))
    return Opened(parts=[read], names=names, remarks=[*remarks, *others])


def csv_parts(
    file: str, *, mapping: ColumnMap, dialect: Dialect, limits: Limits = LIMITS
) -> Sequence[Part]:
    """Returns the only part of a CSV file of a known dialect; see `formats.parts`."""
    opened = open_csv(file, mapping=mapping, dialect=dialect, binding=None, limits=limits)
    return opened.parts


def _above_header(text: str, delimiter: str, mapping: ColumnMap) -> str:
    """Returns what to do about lines above the names of columns, where there are some."""
    wanted = {mapping.columns[name] for name in mapping.required}
    for number, line in enumerate(text.splitlines()[:_LINES_ABOVE], 1):
        if wanted and wanted <= {name.strip(' "') for name in line.split(delimiter)}:
            return f"; its columns are named in line {number}: leave out the lines above it"
    return ""


def _names(header: Sequence[str], mapping: ColumnMap) -> list[str]:
    """Returns the names of a header without the spaces around them, unless they are mapped."""
    users = set(mapping.columns.values())
    return [name if name in users else name.strip().strip("\ufeff") for name in header]


def _rows(
    file: str,
    mapping: ColumnMap,
    layout: Layout,
    encoding: Encoding,
    binding: str | None,
    limits: Limits,
    decimal: str | None,
) -> Iterator[Chunk]:
    unclosed: list[str] = []
    records = _records(file, layout, encoding, binding, limits, unclosed)
    header = _names(next(records, []), mapping)
    names = present_columns(file, header, mapping)
    width, first_row = len(header), 1
    for block in blocks(records, limits, size=lambda record: sum(map(len, record))):
        if layout.has_ends:
            block = [record[: -1 if record[-1] == "" else None] for record in block]
        unreadable = {
            position: (
                _shown(layout.delimiter.join(record)),
                f"{len(record)} values where the header has {width}",
            )
            for position, record in enumerate(block)
            if len(record) != width
        }
        for position in unreadable:
            block[position] = [""] * width
        table = {
            ours: _column([record[place] for record in block])
            for ours, place in ((ours, header.index(users)) for ours, users in names.items())
        }
        yield Chunk(
            table=pa.table(table),
            file=file,
            first_row=first_row,
            columns=names,
            unreadable=unreadable,
            unclosed=[_shown(line) for line in unclosed],
            decimal=decimal,
        )
        unclosed.clear()
        first_row += len(block)


def _records(
    file: str,
    layout: Layout,
    encoding: Encoding,
    binding: str | None,
    limits: Limits,
    unclosed: list[str],
) -> Generator[list[str], None, None]:
    """Yields the values of the header, then those of each row; a blank line is no row.

    Bytes that are no UTF-8 stay for the check of their column. Lines whose quotes do not close are
    added to `unclosed`.
    """
    csv.field_size_limit(limits.bytes)
    row, ends = -1, "\n" if layout.has_returns else ""
    try:
        with (
            opened_utf8(file, encoding, binding=binding) as (source, stream),
            io.TextIOWrapper(source, encoding=UTF8, errors=ESCAPE, newline=ends) as text,
        ):
            lines = iter(functools.partial(text.readline, limits.bytes + 1), "")
            first = next(lines, "")
            skipped = is_excel_line(first)
            kept = lines if skipped else itertools.chain([first], lines)
            records = Records(kept, layout, longest=limits.bytes)
            records.unclosed = unclosed
            for row, record in enumerate(records):
                if not row:
                    "".join(record).encode()
                yield record
            in_file = stream.lines(layout.has_returns)
            if records.lines + skipped != in_file:
                raise csv.Error(f"it has {in_file} lines, of which {records.lines} were read")
    except (pa.ArrowException, csv.Error, OSError, UnicodeError) as error:
        raise InputError(
            f"{file}: not a readable CSV file after row {max(row, 0)}: {_fault(error, binding)}"
        ) from error


def _fault(error: Exception, binding: str | None) -> str:
    fault = one_line(error)
    if not isinstance(error, csv.Error):
        return fault
    fault = "the file ends within quotes" if "unexpected end" in fault else fault
    unquoted = otherwise(binding, f"quoting = '{NONE}'", "put every value in quotes")
    hint = "either is meant" if isinstance(error, TwoReadings) else "is a quote left open?"
    return f"{fault}; {hint}; where quotes are text, {unquoted}"


def _column(cells: Iterable[str]) -> pa.Array:
    """Returns the bytes of cells; those of empty ones are null."""
    return pa.array([cell.encode(UTF8, ESCAPE) if cell else None for cell in cells], pa.binary())


def _shown(text: str) -> str:
    return text.encode(UTF8, ESCAPE).decode(UTF8, "backslashreplace")
