"""Streams the rows of Parquet, CSV, TSV and JSON files, by suffix, each plain or with `.gz`.

A file is read in parts: a Parquet file in runs of row groups, any other file as a whole. A part
holds one chunk of its rows in memory at a time. How a text file is written (`dialect.Dialect`) is
sniffed by its head where it is not bound, and said.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Part
from dsirm_jax.ingestion.columns.mapping import ColumnMap
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.formats.delimited import csv_parts, open_csv
from dsirm_jax.ingestion.formats.format import LIMITS, Format, Limits, Opened, Remark
from dsirm_jax.ingestion.formats.json_rows import open_json
from dsirm_jax.ingestion.formats.parquet import open_parquet, parquet_parts
from dsirm_jax.io import storage
from dsirm_jax.io.errors import InputError

__all__ = [
    "FORMATS",
    "Limits",
    "csv_parts",
    "header",
    "opened",
    "parquet_parts",
    "parts",
    "told_parts",
]

log = logging.getLogger(__name__)
_HEADERS_AT_A_TIME = 16
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
_PLAIN = Dialect()

FORMATS: Mapping[str, Format] = {
    ".parquet": open_parquet,
    ".csv": open_csv,
    ".tsv": functools.partial(open_csv, delimiter="\t"),
    ".jsonl": open_json,
    ".json": open_json,
}
"""Suffix to format."""


def parts(
    files: Sequence[str],
    *,
    mapping: ColumnMap,
    dialect: Dialect = _PLAIN,
    limits: Limits = LIMITS,
) -> list[Part]:
    """Returns the parts of some files, in order; nothing is said of how they are read.

    Args:
      files: paths or URLs.
      mapping: the columns to read.
      dialect: how text files are written; what is None is sniffed, but no encoding is guessed.
      limits: how much is read at a time.

    Raises:
      InputError: a file is missing, empty or of an unknown format, or the head of a Parquet or
        CSV file lacks a column. What is wrong further down is raised when a part is read.
    """
    heads = _opened(files, mapping=mapping, dialect=dialect, binding=None, limits=limits)
    return list(itertools.chain.from_iterable(head.parts for head in heads))


def opened(
    files: Sequence[str],
    *,
    mapping: ColumnMap,
    dialect: Dialect,
    binding: str | None,
    limits: Limits = LIMITS,
) -> tuple[list[Opened], list[Finding]]:
    """Returns the files, in order, and how they are read; see `parts`.

    Args:
      files: paths or URLs.
      mapping: the columns to read, of items or judgements.
      dialect: how text files are written; what is None is sniffed.
      binding: `dialect` as a gin file names it; None: there is no such binding.
      limits: how much is read at a time.
    """
    heads = _opened(files, mapping=mapping, dialect=dialect, binding=binding, limits=limits)
    mend = f"; to read it otherwise, bind {binding}" if binding else ""
    alike: dict[Remark, list[str]] = {}
    for file, head in zip(files, heads, strict=True):
        for remark in head.remarks:
            alike.setdefault(remark, []).append(file)
    remarks = [
        Finding(
            table=mapping.table or "",
            text=f"{_named(seen)}: {remark.text}"
            + ("" if f"bind {binding}" in remark.text or not remark.is_bound else mend),
            is_fault=remark.is_fault,
        )
        for remark, seen in alike.items()
    ]
    names = {file: head.names for file, head in zip(files, heads, strict=True)}
    columns = [*mapping.findings(heads[0].names), *mapping.differences(names)]
    return heads, [*remarks, *columns]


def told_parts(file: str, *, mapping: ColumnMap) -> list[Part]:
    """Returns the parts of a file that has no dialect bound, and logs how it is read.

    Args:
      file: path or URL.
      mapping: the columns to read.

    Raises:
      InputError: as `parts` does.
    """
    (head,), findings = opened([file], mapping=mapping, dialect=_PLAIN, binding=None)
    for finding in findings:
        log.log(finding.level, "%s", finding.text)
    return list(head.parts)


def header(file: str, *, dialect: Dialect = _PLAIN, limits: Limits = LIMITS) -> Sequence[str]:
    """Returns the names of the columns of a file; of JSON those of its first rows.

    Args:
      file: path or URL.
      dialect: see `parts`.
      limits: how much is read at a time.

    Raises:
      InputError: as `parts` does.
    """
    nothing = ColumnMap(columns={}, required=frozenset())
    (head,) = _opened([file], mapping=nothing, dialect=dialect, binding=None, limits=limits)
    return head.names


def _named(files: Sequence[str]) -> str:
    return files[0] + (f" and {len(files) - 1} other files" if len(files) > 1 else "")


def _opened(
    files: Sequence[str],
    *,
    mapping: ColumnMap,
    dialect: Dialect,
    binding: str | None,
    limits: Limits,
) -> list[Opened]:
    def read_head(file: str) -> Opened:
        kind = _format(file)
        return kind(file, mapping=mapping, dialect=dialect, binding=binding, limits=limits)

    # On a remote store each header is a round trip.
    with concurrent.futures.ThreadPoolExecutor(_HEADERS_AT_A_TIME) as pool:
        return list(pool.map(read_head, files))


def _format(file: str) -> Format:
    suffix = Path(storage.name(file).removesuffix(".gz")).suffix.lower()
    if suffix in _SHEETS:
        raise InputError(f"{file}: a sheet; export it as CSV, with the names of columns on top")
    if suffix not in FORMATS:
        raise InputError(
            f"{file}: unknown suffix {suffix!r}; name the file .parquet, .csv, .tsv, .jsonl or "
            ".json, each perhaps with .gz"
        )
    return FORMATS[suffix]
