"""Checks raw rows one chunk at a time: what shows in a row alone, before tables are joined."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Collection, Sequence

import pyarrow as pa

from dsirm_jax.data.identity import PLAIN, QueryIdentity
from dsirm_jax.data.item_text import TITLE, ItemText
from dsirm_jax.data.schema import RAW_ITEMS, RAW_JUDGEMENTS, UNRATED, Chunk
from dsirm_jax.data.text import clean
from dsirm_jax.ingestion.grading.labels import Labels, is_missing
from dsirm_jax.ingestion.validation.missing import MISSING
from dsirm_jax.ingestion.validation.oddities import Oddities
from dsirm_jax.ingestion.validation.row_checks import OPTIONAL, RowChecks
from dsirm_jax.ingestion.validation.times import seconds

ORIGIN = pa.schema([("_file", pa.string()), ("_row", pa.int64())])
"""Columns that follow those of a checked row and say where it came from."""

DRAWS = pa.schema([("_test_draw", pa.int64()), ("_head_draw", pa.int64())])
"""Where a query falls, from 0 to `DRAW_RANGE`, when queries are drawn for test and for the head."""

DRAW_RANGE = 2**32

RATINGS = pa.schema([("_grade", pa.float64()), ("_judged_at", pa.float64())])
"""What a label stands for (`labels.Labels`); when it was given, in seconds or as the table says."""

IDENTITY = pa.schema([("_identity", pa.string())])
"""What all spellings of a row's query share."""

CHECKED_JUDGEMENTS = pa.schema([*RAW_JUDGEMENTS, *RATINGS, *IDENTITY, *DRAWS, *ORIGIN])
"""Judgements that passed."""

UNKNOWN_LABEL = "unknown label"
NO_SPLIT = "neither train nor test"
NO_TIME = "neither an ISO 8601 time nor a number"

PAIR_COLUMNS = pa.schema([("query", pa.string()), ("item_id", pa.string())])
CHECKED_PAIRS = pa.schema([*PAIR_COLUMNS, *ORIGIN])
"""Pairs to be scored that passed."""

ID_COLUMNS = pa.schema([("item_id", pa.string())])
CHECKED_IDS = pa.schema([*ID_COLUMNS, *ORIGIN])
"""Ids of items that passed."""


def checked_items_schema(extras: pa.Schema) -> pa.Schema:
    """Returns the columns of items that passed."""
    return pa.schema([*RAW_ITEMS, ("text", pa.string()), *extras, *ORIGIN])


def checked_items(
    chunk: Chunk,
    *,
    extras: pa.Schema,
    missing: Collection[str] = MISSING,
    item_text: ItemText = TITLE,
    oddities: Oddities | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Casts, cleans and checks raw items.

    Rejects a row that could not be parsed, an empty item_id or title, an item_id beyond
    `ID_CHARACTERS`, invalid UTF-8 in any text, and an extra column's value that is not of its type.

    Args:
      chunk: raw items.
      extras: further columns to keep, with their types.
      missing: texts that stand for no value in every column but item_id, title and extra texts.
      item_text: what encoders read of an item.
      oddities: what is odd is added to it.

    Returns:
      kept: columns of `checked_items_schema`.
      rejected: columns of `REJECTED`.

    Raises:
      InputError: a column's type cannot be turned into the schema's in any row.
    """
    rows = RowChecks(chunk, "items", pa.schema([*RAW_ITEMS, *extras]), missing, oddities)
    for name in ("title", "description"):
        rows.replace(name, lambda text: clean(text) or None)
    for name in ("brand", "colour"):
        rows.replace(name, lambda text: _clean_name(text) or None)
    rows.replace("category", _clean_path)
    for name in OPTIONAL[:-1]:
        rows.drop_missing(name)
    rows.note_markers("title")
    rows.require_id()
    rows.require("title", bool, "empty title")
    names = ("title", *item_text.columns(extras.names))
    columns = zip(*(rows.columns[name] for name in names), strict=True)
    rows.columns["text"] = [
        item_text.of(dict(zip(names, row, strict=True))) if row[0] else None for row in columns
    ]
    return rows.split(checked_items_schema(extras))


def checked_judgements(
    chunk: Chunk,
    *,
    labels: Labels,
    seed: int,
    identity: QueryIdentity = PLAIN,
    is_timed: bool = False,
    is_placed: bool = False,
    missing: Collection[str] = MISSING,
    oddities: Oddities | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Casts, cleans and checks raw judgements.

    Rejects a row that could not be parsed, a query or item_id that is empty or beyond
    `QUERY_CHARACTERS` or `ID_CHARACTERS`, a label that there is not, a row with neither a label nor
    a positive count (as unrated), a negative, non-finite or too large number, a split other than
    train and test, and invalid UTF-8.

    Args:
      chunk: raw judgements.
      labels: those that exist.
      seed: of the draws, which are made here because databases disagree on lower case.
      identity: of queries, by which they are drawn.
      is_timed: judged_at is needed: what is no time is rejected. Otherwise it is not read.
      is_placed: position is needed, likewise. Otherwise it is null where it is no number.
      missing: texts that stand for no number and no split; a query and an item_id are texts
        whatever they are.
      oddities: what is odd is added to it.

    Returns:
      kept: columns of `CHECKED_JUDGEMENTS`.
      rejected: columns of `REJECTED`.

    Raises:
      InputError: a column's type cannot be turned into the schema's in any row.
    """
    chunk = _without_unused(chunk, is_timed=is_timed, is_placed=is_placed)
    rows = RowChecks(chunk, "judgements", RAW_JUDGEMENTS, missing, oddities)
    rows.replace("query", lambda text: _clean_name(text) or None)
    for name in ("label", "split"):
        rows.replace(name, lambda text: text.strip() or None)
    rows.drop_missing("split")
    rows.replace("split", str.lower)
    rows.require_query()
    rows.require_id()
    written = rows.columns["label"]
    grades = {label: labels.grade(label) for label in set(written) if label is not None}
    unrated = {label for label, grade in grades.items() if grade is None and is_missing(label)}
    if unrated:
        rows.replace("label", lambda label: None if label in unrated else label)
    rows.columns["_grade"] = [grades.get(label) for label in rows.columns["label"]]
    rows.require("label", lambda label: label is None or grades[label] is not None, UNKNOWN_LABEL)
    for name in ("impressions", "clicks", "purchases", "weight", "query_frequency"):
        rows.require_number(name)
    if is_placed:
        rows.require("position", lambda place: place is None or place >= 1, "no place from 1")
    rows.columns["_judged_at"] = rows.columns["judged_at"]  # nulls, where no time is needed
    if is_timed:
        rows.require("judged_at", lambda time: time is None or seconds(time) is not None, NO_TIME)
        rows.replace("_judged_at", seconds)
    rows.require("split", lambda split: split in (None, "train", "test"), NO_SPLIT)
    has_evidence = [
        label is not None or any(counts)
        for label, *counts in zip(
            *(rows.columns[name] for name in ("label", "impressions", "clicks", "purchases"))
        )
    ]
    for position, has_any in enumerate(has_evidence):
        if not has_any:
            rows.fault(position, "label", written[position], UNRATED)
    queries = rows.columns["query"]
    drawn = {query: _drawn(query, identity, seed) for query in {*queries} if query is not None}
    for place, name in enumerate((*IDENTITY.names, *DRAWS.names)):
        rows.columns[name] = [None if query is None else drawn[query][place] for query in queries]
    return rows.split(CHECKED_JUDGEMENTS)


def _without_unused(chunk: Chunk, *, is_timed: bool, is_placed: bool) -> Chunk:
    """Drops what would be rejected for a column that nothing reads."""
    table = chunk.table
    if "judged_at" in table.column_names and not is_timed:
        table = table.drop_columns("judged_at")
    if "position" in table.column_names and not is_placed:
        try:
            table["position"].cast(pa.int64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
            table = table.drop_columns("position")
    return dataclasses.replace(chunk, table=table)


def checked_pairs(chunk: Chunk) -> tuple[pa.Table, pa.Table]:
    """Casts, cleans and checks pairs to be scored: a query and an item_id, as judgements are.

    Args:
      chunk: raw pairs.

    Returns:
      kept: columns of `CHECKED_PAIRS`.
      rejected: columns of `REJECTED`.
    """
    rows = RowChecks(chunk, "pairs", PAIR_COLUMNS)
    rows.replace("query", lambda text: clean(text) or None)
    rows.require_query()
    rows.require_id()
    return rows.split(CHECKED_PAIRS)


def checked_ids(chunk: Chunk) -> tuple[pa.Table, pa.Table]:
    """Casts and checks ids of items, likewise.

    Args:
      chunk: raw rows.

    Returns:
      kept: columns of `CHECKED_IDS`.
      rejected: columns of `REJECTED`.
    """
    rows = RowChecks(chunk, "items", ID_COLUMNS)
    rows.require_id()
    return rows.split(CHECKED_IDS)


_clean_name = functools.lru_cache(maxsize=4096)(clean)
"""`clean` of what rows have in common: queries, brands, levels of a category."""


def _clean_path(path: Sequence[str | None]) -> list[str] | None:
    return [*filter(None, map(_clean_name, filter(None, path)))] or None


@functools.lru_cache(maxsize=4096)
def _drawn(query: str, identity: QueryIdentity, seed: int) -> tuple[str, int, int]:
    """Returns a query's identity and, by a hash of that, its draws for test and for the head."""
    name = identity.of(query)
    digests = (
        hashlib.md5(f"{seed}:{purpose}:{name}".encode()).hexdigest() for purpose in ("test", "head")
    )
    test, head = (int(digest[:8], 16) for digest in digests)
    return name, test, head
