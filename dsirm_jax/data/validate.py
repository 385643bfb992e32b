"""Checks raw rows one chunk at a time: what shows in a row alone, before tables are joined."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from dsirm_jax.data.identity import PLAIN, QueryIdentity
from dsirm_jax.data.limits import ID_CHARACTERS, QUERY_CHARACTERS
from dsirm_jax.data.schema import CATEGORY, RAW_ITEMS, RAW_JUDGEMENTS, REJECTED, Chunk
from dsirm_jax.data.text import clean
from dsirm_jax.io.errors import InputError

VALUE_CHARACTERS = 200

ORIGIN = pa.schema([("_file", pa.string()), ("_row", pa.int64())])
"""Columns that follow those of a checked row and say where it came from."""

DRAWS = pa.schema([("_test_draw", pa.int64()), ("_head_draw", pa.int64())])
"""Where a query falls, from 0 to `DRAW_RANGE`, when queries are drawn for test and for the head."""

DRAW_RANGE = 2**32

LARGEST = 2**53
"""Counts up to this add up without overflow in any engine."""

IDENTITY = pa.schema([("_identity", pa.string())])
"""What all spellings of a row's query share."""

CHECKED_JUDGEMENTS = pa.schema([*RAW_JUDGEMENTS, *IDENTITY, *DRAWS, *ORIGIN])
"""Judgements that passed."""


PAIR_COLUMNS = pa.schema([("query", pa.string()), ("item_id", pa.string())])
CHECKED_PAIRS = pa.schema([*PAIR_COLUMNS, *ORIGIN])
"""Pairs to be scored that passed."""


def checked_items_schema(extras: pa.Schema) -> pa.Schema:
    """Returns the columns of items that passed."""
    return pa.schema([*RAW_ITEMS, ("text", pa.string()), *extras, *ORIGIN])


def checked_items(chunk: Chunk, *, extras: pa.Schema) -> tuple[pa.Table, pa.Table]:
    """Casts, cleans and checks raw items.

    Rejects a row that could not be parsed, an empty item_id or title, an item_id beyond
    `ID_CHARACTERS`, invalid UTF-8 in any text, and an extra column's value that is not of its type.

    Args:
      chunk: raw items.
      extras: further columns to keep, with their types.

    Returns:
      kept: columns of `checked_items_schema`.
      rejected: columns of `REJECTED`.

    Raises:
      InputError: a column's type cannot be turned into the schema's in any row.
    """
    rows = _Rows(chunk, "items", pa.schema([*RAW_ITEMS, *extras]))
    for name in ("title", "description", "brand", "colour"):
        rows.replace(name, lambda text: clean(text) or None)
    rows.replace("category", lambda path: [name for name in map(clean, filter(None, path)) if name])
    rows.replace("category", lambda path: path or None)
    rows.require_id()
    rows.require("title", bool, "empty title")
    rows.columns["text"] = [
        _text(*row) if row[0] else None
        for row in zip(rows.columns["title"], rows.columns["brand"], rows.columns["colour"])
    ]
    return rows.split(checked_items_schema(extras))


def checked_judgements(
    chunk: Chunk, *, labels: Collection[str], seed: int, identity: QueryIdentity = PLAIN
) -> tuple[pa.Table, pa.Table]:
    """Casts, cleans and checks raw judgements.

    Rejects a row that could not be parsed, a query or item_id that is empty or beyond
    `QUERY_CHARACTERS` or `ID_CHARACTERS`, a label outside `labels`, a
    row with neither a label nor a positive count, a negative, non-finite or
    too large number, a split other
    than train and test, and invalid UTF-8.

    Args:
      chunk: raw judgements.
      labels: the legal labels.
      seed: of the draws, which are made here because databases disagree on lower case.
      identity: of queries, by which they are drawn.

    Returns:
      kept: columns of `CHECKED_JUDGEMENTS`.
      rejected: columns of `REJECTED`.

    Raises:
      InputError: a column's type cannot be turned into the schema's in any row.
    """
    rows = _Rows(chunk, "judgements", RAW_JUDGEMENTS)
    rows.replace("query", lambda text: clean(text) or None)
    for name in ("label", "split"):
        rows.replace(name, lambda text: text.strip() or None)
    rows.require_query()
    rows.require_id()
    rows.require("label", lambda label: label is None or label in labels, "unknown label")
    for name in ("impressions", "clicks", "purchases", "weight", "query_frequency"):
        rows.require(name, lambda number: number is None or math.isfinite(number), "not finite")
        rows.require(name, lambda number: number is None or number >= 0, "negative number")
        rows.require(name, lambda number: number is None or number <= LARGEST, "too large a number")
    rows.require("split", lambda split: split in (None, "train", "test"), "neither train nor test")
    has_evidence = [
        label is not None or any(counts)
        for label, *counts in zip(
            *(rows.columns[name] for name in ("label", "impressions", "clicks", "purchases"))
        )
    ]
    for position, has_any in enumerate(has_evidence):
        if not has_any:
            rows.fault(position, "label", None, "neither a label nor a count")
    queries = rows.columns["query"]
    drawn = {query: _drawn(query, identity, seed) for query in {*queries} if query is not None}
    for place, name in enumerate((*IDENTITY.names, *DRAWS.names)):
        rows.columns[name] = [None if query is None else drawn[query][place] for query in queries]
    return rows.split(CHECKED_JUDGEMENTS)


def checked_pairs(chunk: Chunk) -> tuple[pa.Table, pa.Table]:
    """Casts, cleans and checks pairs to be scored: a query and an item_id, as judgements are.

    Args:
      chunk: raw pairs.

    Returns:
      kept: columns of `CHECKED_PAIRS`.
      rejected: columns of `REJECTED`.
    """
    rows = _Rows(chunk, "pairs", PAIR_COLUMNS)
    rows.replace("query", lambda text: clean(text) or None)
    rows.require_query()
    rows.require_id()
    return rows.split(CHECKED_PAIRS)


@functools.lru_cache(maxsize=4096)
def _drawn(query: str, identity: QueryIdentity, seed: int) -> tuple[str, int, int]:
    """Returns a query's identity and, by a hash of that, its draws for test and for the head."""
    name = identity.of(query)
    digests = (
        hashlib.md5(f"{seed}:{purpose}:{name}".encode()).hexdigest() for purpose in ("test", "head")
    )
    test, head = (int(digest[:8], 16) for digest in digests)
    return name, test, head


def _text(title: str, brand: str | None, colour: str | None) -> str:
    """What encoders read: the title, and the brand and colour that it does not name."""
    lower = title.lower()
    return " ".join(
        [title, *(name for name in (brand, colour) if name and name.lower() not in lower)]
    )


class _Rows:
    """The columns of one chunk as Python values, and the first fault of each row."""

    def __init__(self, chunk: Chunk, table: str, schema: pa.Schema):
        self.chunk, self.table = chunk, table
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

    def require_id(self) -> None:
        """Rejects rows whose item_id is empty, or longer than anything that serves it takes."""
        self.require("item_id", lambda item_id: item_id and not item_id.isspace(), "empty item_id")
        self.require_length("item_id", most=ID_CHARACTERS)

    def require_query(self) -> None:
        """Rejects rows whose query, which has been cleaned, is empty or too long, likewise."""
        self.require("query", bool, "empty query")
        self.require_length("query", most=QUERY_CHARACTERS)

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
        kept = [position for position in range(rows) if position not in self.faults]
        columns = [
            pa.array([self.columns[field.name][position] for position in kept], field.type)
            for field in schema
        ]
        return pa.table(columns, schema=schema), pa.Table.from_pylist(
            [dict(zip(REJECTED.names, row)) for row in rejected], REJECTED
        )

    def _values(self, field: pa.Field) -> list:
        table = self.chunk.table
        if field.name not in table.column_names:
            return [None] * table.num_rows
        column = table[field.name].combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        try:
            return _cast(column, field.type).to_pylist()
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            name = self.chunk.columns.get(field.name, field.name)
            raise InputError(
                f"{self.chunk.file}: column {name} has type {column.type}, which is no "
                f"{field.name} ({field.type}); map another column to it"
            ) from error
        except pa.ArrowInvalid:
            return [self._value(column, position, field) for position in range(len(column))]

    def _value(self, column: pa.Array, position: int, field: pa.Field) -> object:
        cell = column.slice(position, 1)
        try:
            return _cast(cell, field.type)[0].as_py()
        except pa.ArrowInvalid:
            textual = pa.types.is_string(field.type) or field.type == CATEGORY
            reason = "invalid UTF-8" if textual else f"not a value of type {field.type}"
            self.fault(position, field.name, _bytes(cell), reason)
            return None


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
