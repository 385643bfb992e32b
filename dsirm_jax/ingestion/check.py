"""A look at tables before anything is made of them: what would be read, and what is wrong."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part, Source
from dsirm_jax.ingestion.columns.mapping import filter_rows
from dsirm_jax.ingestion.joins.connections import embedded
from dsirm_jax.ingestion.prepared_tables import prepared_tables
from dsirm_jax.ingestion.rules import Rules
from dsirm_jax.ingestion.validation.ids import likeness, read_id
from dsirm_jax.io.errors import InputError

MOST_PARTS = 16
"""Parts of a table of judgements that are looked at, from its first to its last."""

SHOWN = 3
"""Rows of a table that are shown, and of each reason for which rows are rejected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """What a sample of tables shows.

    Attributes:
      findings: in the order in which they were met.
      summary: of the prepared tables, see `prepare/summary.json`; empty where `prepare` stops, but
        for too many rejected rows.
      stop: why it stops; None where it does not.
      rejected: rows that it rejects, `SHOWN` of each reason, columns of `schema.REJECTED`.
      rows: the first prepared ones, by table.
    """

    findings: Sequence[Finding]
    summary: Mapping[str, Any]
    stop: str | None
    rejected: Sequence[Mapping[str, Any]]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]


def look(source: Source, *, rules: Rules, rows: int) -> Look:
    """Makes the prepared tables of a sample, in a temporary folder, and tells what comes out.

    Of the items, which are read to their end, the sample has the first ones and those that its
    judgements name, perhaps with other zeros, case or notation: what joins there, joins here.

    Args:
      source: the tables.
      rules: what becomes of them. Where too many rows are rejected for `prepare`, the look goes on.
      rows: of each table, about.
    """
    judgements = _heads(source.judgements, rows)
    judged = {_key(text) for text in values(judgements, "item_id")}
    share = math.ceil(rows / max(1, len(source.items)))
    items = [functools.partial(_judged_items, part, judged, share) for part in source.items]
    sample = dataclasses.replace(source, items=items, judgements=judgements)
    seen = _look(sample, rules)
    if seen.stop and not seen.summary:
        lenient = _look(sample, dataclasses.replace(rules, max_rejected_share=1.0))
        return dataclasses.replace(lenient, stop=seen.stop)
    return seen


def _look(sample: Source, rules: Rules) -> Look:
    findings: list[Finding] = []
    summary: dict[str, Any] = {}
    stop = None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with embedded(memory_limit="1GB", spill=folder / "spill") as database:
                summary = prepared_tables(
                    sample,
                    rules=rules,
                    database=database,
                    folder=folder,
                    rejected=folder / "rejected.parquet",
                    workers=1,
                    say=findings.extend,
                )
        except InputError as error:
            stop = _as_seen(str(error).replace(f"{folder}{os.sep}", ""))
        return Look(
            findings=[dataclasses.replace(each, text=_as_seen(each.text)) for each in findings],
            summary=summary,
            stop=stop,
            rejected=_examples(folder / "rejected.parquet"),
            rows={table: _first(folder / f"{table}.parquet") for table in ("items", "judgements")},
        )


def _as_seen(text: str) -> str:
    """Returns a message without the file of rejected rows, which is gone with the folder."""
    return text.replace("; all are in rejected.parquet", "")


def _judged_items(part: Part, judged: Collection[str], rows: int) -> Iterator[Chunk]:
    """Yields the first rows of a part, then those whose id is judged."""
    seen = 0
    for chunk in part():
        end = seen + chunk.table.num_rows
        if end <= rows or chunk.unreadable:
            yield chunk
        else:
            ids = enumerate(map(_text, chunk.table["item_id"].to_pylist()), seen)
            keep = [place < rows or _key(text) in judged for place, text in ids]
            yield filter_rows(chunk, pa.array(keep, pa.bool_()))
        seen = end


def labels(source: Source, *, rows: int) -> dict[str, int]:
    """Counts the labels in the first judgements, as they are written.

    Args:
      source: the tables.
      rows: that are read, about.
    """
    return values(_heads(source.judgements, rows), "label")


def values(parts: Sequence[Part], column: str) -> dict[str, int]:
    """Counts the values of a raw column, as texts."""
    counts: collections.Counter[str] = collections.Counter()
    for part in parts:
        for chunk in part():
            if column in chunk.table.column_names:
                counts.update(map(_text, chunk.table[column].drop_null().to_pylist()))
    return dict(counts)


def _key(text: str) -> str:
    return likeness(read_id(text))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _heads(parts: Sequence[Part], rows: int) -> list[Part]:
    """Returns parts that read the first rows of some parts, equally many of each."""
    step = max(1, math.ceil(len(parts) / MOST_PARTS))
    chosen = parts[::step]
    share = math.ceil(rows / max(1, len(chosen)))
    return [functools.partial(_head, part, share) for part in chosen]


def _head(part: Part, rows: int) -> Iterator[Chunk]:
    for chunk in part():
        head = chunk.head(rows)
        yield head
        rows -= head.table.num_rows
        if rows <= 0:
            return


def _examples(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    shown: collections.Counter[tuple[str, str]] = collections.Counter()
    examples = []
    for row in pq.read_table(path).to_pylist():
        kind = (row["table"], row["reason"])
        shown[kind] += 1
        if shown[kind] <= SHOWN:
            examples.append(row)
    return examples


def _first(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).slice(0, SHOWN).to_pylist() if path.is_file() else []
