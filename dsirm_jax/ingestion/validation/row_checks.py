"""The columns of a chunk as Python values, and the first fault of each of its rows."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from dsirm_jax.data.limits import ID_CHARACTERS, QUERY_CHARACTERS
from dsirm_jax.data.schema import CATEGORY, EMPTY_ROW, REJECTED, Chunk
from dsirm_jax.ingestion.numbers import doubt, plain_numbers, whole_number, without_nan
from dsirm_jax.ingestion.validation.ids import read_id, whole_numbers
from dsirm_jax.ingestion.validation.missing import MISSING
from dsirm_jax.ingestion.validation.oddities import Oddities, may_have
from dsirm_jax.io.errors import InputError

VALUE_CHARACTERS = 200
"""Of a value that `rejected.parquet` shows."""

LARGEST = 2**53
"""Counts up to this add up without overflow in any engine."""

OPTIONAL = ("description", "brand", "colour", "category", "split")
"""Columns of text, and of paths, in which a marker of a missing value is null."""

GARBLED = ("title", "brand", "query")
"""Columns of text that are searched for characters which an earlier conversion spoilt."""


class RowChecks:
    """The columns of one chunk as Python values, and the first fault of each row."""

    def __init__(
        self,
        chunk: Chunk,
        table: str,
        schema: pa.Schema,
        missing: Collection[str] = MISSING,
        oddities: Oddities | None = None,
    ):
        self.chunk, self.table, self.missing = chunk, table, frozenset(missing)
        self.oddities = Oddities() if oddities is None else oddities
        for line in chunk.unclosed:
            self.oddities.add("unclosed", "", 1, line.strip())
        # Columns that may have markers of missing values: a search by Arrow spares that by Python.
        self.marked: set[str] = set()
        self.faults: dict[int, tuple[str | None, str | None, str]] = {}
        for position, (value, reason) in chunk.unreadable.items():
            self.fault(position, None, value, reason)
        self.columns: dict[str, Sequence[Any]] = {
            field.name: self._values(field) for field in schema
        }

    def fault(self, position: int, column: str | None, value: object, reason: str) -> None:
        name = self.chunk.columns.get(column, column) if column else None
        self.faults.setdefault(position, (name, _shown(value), reason))

    def replace(self, name: str, change: Callable) -> None:
        self.columns[name] = [
            None if value is None else change(value) for value in self.columns[name]
        ]

    def require(self, name: str, holds: Callable[[Any], object], reason: str) -> None:
        for position, value in enumerate(self.columns[name]):
            if not holds(value):
                self.fault(position, name, value, reason)

    def drop_missing(self, name: str) -> None:
        """Turns the markers of missing values into nulls; those of a path's levels go."""
        if self._markers("missing", name):
            missing = self.missing
            if name == "category":
                self.replace(name, lambda path: [part for part in path if part not in missing])
                self.replace(name, lambda path: path or None)
            else:
                self.replace(name, lambda text: None if text in missing else text)

    def note_markers(self, name: str) -> None:
        """Counts the markers of missing values, which stay."""
        self._markers("marker", name)

    def _markers(self, kind: str, name: str) -> bool:
        if name not in self.marked:
            return False
        values = self.columns[name]
        if name == "category":
            values = list(itertools.chain.from_iterable(filter(None, values)))
        found = self.missing.intersection(values)
        if found:
            for marker, rows in collections.Counter(filter(found.__contains__, values)).items():
                self.oddities.add(kind, name, rows, marker, marker)
        return bool(found)

    def require_id(self) -> None:
        """Rejects rows whose item_id is empty, or longer than anything that serves it takes."""
        self.replace("item_id", read_id)
        self._require_key("item_id")
        self.require_length("item_id", most=ID_CHARACTERS)

    def require_query(self) -> None:
        """Rejects rows whose query, which has been cleaned, is empty or too long, likewise."""
        self._require_key("query")
        self.require_length("query", most=QUERY_CHARACTERS)

    def _require_key(self, name: str) -> None:
        """Rejects rows with an empty key: as harmless, where they have no value at all."""
        keys = self.columns[name]
        if all(keys):  # one look spares one at each row
            return
        for position, key in enumerate(keys):
            if not key:
                if all(_is_blank(values[position]) for values in self.columns.values()):
                    self.fault(position, None, None, EMPTY_ROW)
                else:
                    self.fault(position, name, key, f"empty {name}")

    def require_number(self, name: str) -> None:
        """Rejects rows with a number that is not finite, negative or too large."""
        numbers = [number for number in self.columns[name] if number is not None]
        # One look at the ends spares three at each row; NaN is null by now.
        if numbers and not 0 <= min(numbers) <= max(numbers) <= LARGEST:
            self.require(name, lambda each: each is None or math.isfinite(each), "not finite")
            self.require(name, lambda each: each is None or each >= 0, "negative number")
            self.require(name, lambda each: each is None or each <= LARGEST, "too large a number")

    def require_length(self, name: str, *, most: int) -> None:
        if max(map(len, filter(None, self.columns[name])), default=0) > most:
            reason = f"longer than {most:,} characters"
            self.require(name, lambda text: text is None or len(text) <= most, reason)

    def split(self, schema: pa.Schema) -> tuple[pa.Table, pa.Table]:
        rows = self.chunk.table.num_rows
        self.columns["_file"] = [self.chunk.file] * rows
        self.columns["_row"] = self.chunk.row_numbers()
        keys = [self.columns.get(name, [None] * rows) for name in ("query", "item_id")]
        rejected = [
            (
                *(self.table, self.chunk.file, self.columns["_row"][position]),
                *(_shown(key[position]) for key in keys),
                *fault,
            )
            for position, fault in sorted(self.faults.items())
        ]
        columns = [pa.array(self._kept(self.columns[field.name]), field.type) for field in schema]
        return pa.table(columns, schema=schema), pa.Table.from_pylist(
            [dict(zip(REJECTED.names, row)) for row in rejected], REJECTED
        )

    def _kept(self, values: Sequence[Any]) -> Sequence[Any]:
        if not self.faults:
            return values
        return [value for position, value in enumerate(values) if position not in self.faults]

    def _values(self, field: pa.Field) -> list:
        table = self.chunk.table
        if field.name not in table.column_names:
            return [None] * table.num_rows
        column = table[field.name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column = without_nan(column)
        if field.name == "item_id":
            column = whole_numbers(column)
        given = column
        try:
            if _is_number(field.type) and _is_text(column.type):
                column = self._plain_numbers(column, field)
            values = without_nan(_cast(column, field.type))
            if field.name in GARBLED and pa.types.is_string(values.type):
                self.oddities.add_garbled(field.name, values)
            if field.name in ("title", *OPTIONAL) and may_have(values, self.missing):
                self.marked.add(field.name)
            return values.to_pylist()
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            name = self.chunk.columns.get(field.name, field.name)
            raise InputError(
                f"{self.chunk.file}: column {name} has type {column.type}, which is no "
                f"{field.name} ({field.type}); map another column to it"
            ) from error
        except pa.ArrowInvalid:
            self.marked.add(field.name)
            return [
                self._value(column.slice(position, 1), given.slice(position, 1), position, field)
                for position in range(len(column))
            ]

    def _plain_numbers(self, column: pa.Array, field: pa.Field) -> pa.Array:
        try:
            _cast(column, field.type)
        except pa.ArrowInvalid:
            plain, commas = plain_numbers(column, missing=self.missing, decimal=self.chunk.decimal)
            self.oddities.add_where("comma", field.name, column.cast(pa.string()), commas)
            return plain
        return column

    def _value(self, cell: pa.Array, given: pa.Array, position: int, field: pa.Field) -> object:
        try:
            return _cast(cell, field.type)[0].as_py()
        except pa.ArrowInvalid:
            value = _bytes(cell)
            if pa.types.is_integer(field.type) and isinstance(value, bytes):
                number = whole_number(value.decode("utf-8", "replace"))
                if number is not None and abs(number) <= LARGEST:
                    return number
            textual = pa.types.is_string(field.type) or field.type == CATEGORY
            reason = "invalid UTF-8" if textual else f"not a value of type {field.type}"
            if _is_text(cell.type) and _is_number(field.type):
                reason = doubt(cell, type_=field.type, table=self.table) or reason
            self.fault(position, field.name, _bytes(given), reason)
            return None


def _is_blank(value: object) -> bool:
    return not value.strip() if isinstance(value, str) else value in (None, [])


def _cast(column: pa.Array, type_: pa.DataType) -> pa.Array:
    """Casts, checking UTF-8, which Arrow otherwise takes on trust."""
    if type_ == CATEGORY and not pa.types.is_null(column.type):
        return column.cast(pa.list_(pa.large_binary())).cast(type_)
    if pa.types.is_string(type_) and _is_text(column.type):
        return column.cast(pa.large_binary()).cast(type_)
    try:
        return column.cast(type_)
    except pa.ArrowInvalid:
        if not pa.types.is_integer(type_):
            raise
        # "3.0" is a whole number too.
        return column.cast(pa.float64()).cast(type_)


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _is_text(type_: pa.DataType) -> bool:
    """Whether values are bytes, which may be no UTF-8 whatever the type says."""
    return type_ in (
        *(pa.string(), pa.large_string(), pa.string_view()),
        *(pa.binary(), pa.large_binary(), pa.binary_view()),
    )


def _bytes(cell: pa.Array) -> object:
    """The value of a cell, or the parts of a path together, unchecked."""
    if pa.types.is_nested(cell.type):
        return b" > ".join(cell.flatten().cast(pa.large_binary()).drop_null().to_pylist())
    return cell.cast(pa.large_binary())[0].as_py() if _is_text(cell.type) else cell[0].as_py()


def _shown(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value[: 4 * VALUE_CHARACTERS].decode("utf-8", "backslashreplace")
    return str(value)[:VALUE_CHARACTERS]
