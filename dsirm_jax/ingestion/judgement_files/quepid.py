"""Exports of Quepid."""

from __future__ import annotations

import csv
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap, filter_rows
from dsirm_jax.ingestion.formats.documents import documents, member
from dsirm_jax.ingestion.formats.file_starts import FileStart, file_start
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks, faulty
from dsirm_jax.ingestion.topics import as_binary, unused_queries
from dsirm_jax.io.errors import InputError

_QUERIES = ("query", "query text")
_ITEMS = ("docid", "doc_id", "doc id")
_RATINGS = ("rating",)
_POSITIONS = ("doc position", "position")
_DETAILED = {"query text", "doc id"}
_JSON = re.compile(r'\s*\{.*?"queries"\s*:\s*\[\s*(?:\]|\{\s*"(?:query|placeholders)"\s*:)', re.S)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quepid:
    """Exports of a case or book of Quepid.

    - CSV of `query,docid,rating` (*Basic*), which as a plain table's columns are not taken unless
      this kind is bound; of `Team Name,Case Name,Case ID,Query Text,Doc ID,…,Rating` (*Detailed*);
      of a book's judgements, `query,docid` and a column for each judge, each rating a row.
    - JSON of queries and their ratings, and that of the Rated Ranking Evaluator.
    - *TREC* and *LTR* text are `qrels.Qrels` and `letor.Letor`.

    A query without a document, which Quepid writes where nothing is rated, is left out and counted
    in a finding; a document without a rating is an unrated row.

    Source: https://github.com/o19s/quepid.
    """

    title: ClassVar[str] = "Quepid export"

    def recognises(self, start: FileStart) -> bool:
        if start.text.lstrip().startswith("{"):
            return _JSON.match(start.text) is not None
        header = _header(start)
        return {name.lower() for name in header} >= _DETAILED

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        parts: list[Part] = []
        bare = 0
        for file in files:
            start = file_start(file)
            if start.text.lstrip().startswith(("{", "[")):
                parts.append(functools.partial(_json_chunks, file))
                continue
            raw = formats.parts([file], mapping=_mapping(start))
            bare += sum(pc.sum(_bare(chunk)).as_py() or 0 for part in raw for chunk in part())
            parts += [functools.partial(_rated, part) for part in raw]
        findings = [unused_queries(self.title)] if queries else []
        if bare:
            text = f"{bare} queries without a document, as Quepid writes unrated ones, are left out"
            findings.append(Finding(table="judgements", text=text, is_fault=False))
        return parts, findings


def _header(start: FileStart) -> list[str]:
    first = start.lines[0] if start.lines else ""
    delimiter = max(",;\t", key=first.count)
    return next(csv.reader([first], delimiter=delimiter), [])


def _mapping(start: FileStart) -> ColumnMap:
    header = _header(start)
    known = {name.strip().lower(): name for name in header}
    columns = {
        ours: known[name]
        for ours, names in (("query", _QUERIES), ("item_id", _ITEMS), ("position", _POSITIONS))
        for name in names
        if name in known
    }
    if not {"query", "item_id"} <= columns.keys():
        raise InputError(
            f"{start.file}: no export of Quepid, which has columns query and docid, or Query Text "
            f"and Doc ID; it has: {', '.join(header[:20])}"
        )
    ratings = [known[name] for name in _RATINGS if name in known]
    if not ratings and "position" in columns:
        raise InputError(
            f"{start.file}: no column Rating, as exports of snapshots lack it; export the case's "
            "ratings, Basic or Detailed"
        )
    judges = ratings or [name for name in header if name not in columns.values()]
    columns |= {f"rating {place}": name for place, name in enumerate(judges)}
    return ColumnMap(columns=columns, required=frozenset(columns))


def _bare(chunk: Chunk) -> pa.ChunkedArray:
    """Which rows are queries that have no document; rows that cannot be read are none."""
    readable = pa.array([place not in chunk.unreadable for place in range(len(chunk.table))])
    without = pc.and_(_is_empty(chunk.table["item_id"]), pa.chunked_array([readable]))
    return pc.and_(without, _unrated(chunk))


def _unrated(chunk: Chunk) -> pa.ChunkedArray:
    ratings = (_is_empty(chunk.table[name]) for name in _rating_names(chunk))
    return functools.reduce(pc.and_, ratings)


def _is_empty(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(pc.binary_length(as_binary(column)), 0), True)


def _rating_names(chunk: Chunk) -> list[str]:
    return [name for name in chunk.table.column_names if name.startswith("rating ")]


def _rated(part: Part) -> Iterator[Chunk]:
    """Yields a row for each rating, and one for a document that has none."""
    for chunk in part():
        ratings = _rating_names(chunk)
        others = [name for name in chunk.table.column_names if name not in ratings]
        for place, name in enumerate(ratings):
            table = chunk.table.select([*others, name]).rename_columns([*others, "label"])
            left_out = _is_empty(table["label"])
            if place == 0:
                # What nobody has rated is a row all the same, as what cannot be read is.
                left_out = pc.or_(_bare(chunk), pc.and_not(left_out, _unrated(chunk)))
            columns = {ours: chunk.columns[ours] for ours in others}
            judged = dataclasses.replace(
                chunk,
                table=table,
                columns={**columns, "label": chunk.columns[name]},
                unreadable=chunk.unreadable if place == 0 else {},
            )
            yield _without_rows(judged, left_out)


def _without_rows(chunk: Chunk, left_out: pa.ChunkedArray) -> Chunk:
    keep = pc.invert(left_out)
    kept = [place for place, is_kept in enumerate(keep.to_pylist()) if is_kept]
    places = {place: new for new, place in enumerate(kept)}
    unreadable = {places[place]: fault for place, fault in chunk.unreadable.items()}
    filtered = filter_rows(dataclasses.replace(chunk, unreadable={}), keep)
    return dataclasses.replace(filtered, unreadable=unreadable)


def _json_chunks(file: str) -> Iterator[Chunk]:
    columns = {"query": "query", "item_id": "docid", "label": "rating"}
    return chunks(_json_rows(file), file=file, columns=columns)


def _json_rows(file: str) -> Iterator[Row]:
    for number, (query, item_id, rating) in enumerate(_ratings(file), 1):
        if query is None:
            yield faulty(number, str(item_id)[:400], "no query with its ratings")
        else:
            yield Row(number, {"query": query, "item_id": item_id, "label": rating})


def _ratings(file: str) -> Iterator[tuple[Any, Any, Any]]:
    """Yields query, document and rating; what is not as it should be comes without a query."""
    for _, document, line in documents(file):
        judged = document.get("queries") if document is not None else None
        if not isinstance(judged, list):
            yield None, line, None
            continue
        for query in judged:
            text = _query_text(query)
            ratings = _query_ratings(query) if text is not None else None
            if ratings is None:
                yield None, query, None
            else:
                yield from ((text, *rating) for rating in ratings)


def _query_text(query: Any) -> str | None:
    if not isinstance(query, dict):
        return None
    text = query.get("query", member(query, "placeholders.$query"))
    return text if isinstance(text, str) else None


def _query_ratings(query: Mapping[str, Any]) -> list[tuple[Any, Any]] | None:
    ratings = query.get("ratings", query.get("relevant_documents"))
    if not isinstance(ratings, dict):
        return None
    found: list[tuple[Any, Any]] = []
    # The evaluator's own files list documents by gain, and Quepid writes the gain of each.
    for name, value in ratings.items():
        if isinstance(value, list):
            found += [(item_id, name) for item_id in value]
        else:
            found.append((name, value.get("gain") if isinstance(value, dict) else value))
    return found
