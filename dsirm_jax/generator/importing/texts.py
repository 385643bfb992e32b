"""Texts of a user's files whose pieces a trimmed vocabulary keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dsirm_jax.data.text import clean
from dsirm_jax.data.vocabularies.prompt import QUERY
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap
from dsirm_jax.ingestion.formats.file_starts import numbered_lines, suffix
from dsirm_jax.io.errors import InputError

READ = ("query", "text")
"""Columns of prepared tables that a generator reads."""


def read_texts(file: str) -> Iterator[str]:
    """Yields the texts of a file, cleaned as `prepare` does.

    Args:
      file: a table that `prepare` has written, of which the column `query` or `text` is read;
        another Parquet, CSV, TSV or JSON file, of which all texts are; or a text, line by line.

    Raises:
      InputError: it cannot be read, or a row of it.
    """
    for value in _values(file):
        text = clean(value)
        if text:
            yield text


def prompted(texts: Iterator[str], *, prompt: str) -> Iterator[str]:
    """Yields texts as a generator reads them, and what it reads of any other.

    Args:
      texts: the texts.
      prompt: see `data.vocabularies.prompt.check_prompt`.
    """
    before, _, behind = prompt.partition(QUERY)
    yield before + behind
    yield behind  # alone, where a text is cut
    for text in texts:
        yield f"{before}{text}{behind}"


def read_columns(names: Sequence[str]) -> list[str]:
    """Returns the columns that are read of a table with some."""
    return [name for name in READ if name in names] or list(names)


def _values(file: str) -> Iterator[str]:
    if suffix(file) not in formats.FORMATS:
        for number, line in numbered_lines(file):
            if any("\ud800" <= character <= "\udfff" for character in line):
                raise InputError(f"{file} line {number}: no UTF-8; save the file as UTF-8")
            yield line
        return
    columns = read_columns(formats.header(file))
    mapping = ColumnMap(columns={name: name for name in columns}, required=frozenset(columns))
    for part in formats.told_parts(file, mapping=mapping):
        for chunk in part():
            for position, (_, reason) in sorted(chunk.unreadable.items()):
                row = chunk.row_numbers()[position]
                raise InputError(f"{file} row {row}: {reason}; mend the row or leave it out")
            for name in chunk.table.column_names:
                for value in chunk.table[name].to_pylist():
                    yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
