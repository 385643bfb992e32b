"""Events of OpenSearch's user behaviour insights (UBI): impressions, clicks and purchases."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap, replace_column
from dsirm_jax.ingestion.formats.documents import documents, member, object_of
from dsirm_jax.ingestion.formats.file_starts import FileStart, file_start, numbered_lines
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks, faulty
from dsirm_jax.ingestion.topics import as_binary, query_texts, read_topics
from dsirm_jax.io import storage
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError

ACTION = "action_name"
ITEM = "event_attributes.object.object_id"
POSITION = "event_attributes.position.ordinal"
HITS = "query_response_hit_ids"

COLUMNS = {
    "query": "user_query",
    "query_id": "query_id",
    "item_id": ITEM,
    "impressions": ACTION,
    "clicks": ACTION,
    "purchases": ACTION,
    "position": POSITION,
}
_FIELDS = (ACTION, "user_query", "query_id", ITEM, POSITION)
_JSON_ACTION = re.compile(rf'"{ACTION}"\s*:\s*(?:"([^"]*)"|null)')
_JSON_TEXT = re.compile(r'"user_query"\s*:\s*"[^"]')
_BATCH_ROWS = 16_384
_COUNTS = ("impressions", "clicks", "purchases")
_NAMED = 12
_SAMPLE = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ubi:
    """Events of user behaviour insights, a row each, which `prepare` adds up by query and item.

    Events come as JSON lines, JSON, Parquet or CSV (with `event_attributes.object.object_id` for a
    column). The text of a query is its event's `user_query`, or what the file of queries
    (`Tables.queries`, such as the index ubi_queries) has for `query_id`. Where no event is an
    impression, the hits of that file (`query_response_hit_ids`) are. Events of other actions are
    left out, and counted in a finding.

    Source: https://github.com/o19s/ubi, schemas 1.0 to 1.3.

    Attributes:
      impressions: names of actions that show an item; None: `impression`, or `view` where no event
        is called so.
      clicks: names of actions that are a click.
      purchases: names of actions that are a purchase.
    """

    impressions: Sequence[str] | None = None
    clicks: Sequence[str] = ("click",)
    purchases: Sequence[str] = ("purchase",)

    title: ClassVar[str] = "UBI events"

    def __post_init__(self) -> None:
        for name in _COUNTS:
            actions = getattr(self, name)
            if isinstance(actions, str) or not isinstance(actions, Sequence | None):
                raise InputError(
                    f"gin binding Ubi.{name} is {actions!r}; bind a tuple of names of actions, "
                    "such as ('click',)"
                )
            for action in actions or ():
                check_text(f"Ubi.{name}", action)
        named = [action for name in _COUNTS for action in {*(getattr(self, name) or ())}]
        if len(named) > len({*named}):
            raise InputError(
                "gin bindings Ubi.impressions, Ubi.clicks and Ubi.purchases share an action; bind "
                "each to one of them"
            )

    def recognises(self, start: FileStart) -> bool:
        if start.columns:
            return ACTION in start.columns and not {"query", "item_id"} <= {*start.columns}
        if start.text.lstrip().startswith(("{", "[")):
            line = next((line for line in start.lines if f'"{ACTION}"' in line), "")
            return bool(line) and not ('"item_id"' in line and '"query"' in line)
        return bool(start.lines) and ACTION in start.lines[0] and "object_id" in start.lines[0]

    def read(
        self, files: Sequence[str], *, queries: Sequence[str]
    ) -> tuple[list[Part], list[Finding]]:
        actions = collections.Counter[str]()
        for file in files:
            actions.update(_actions(file))
        if not queries and not any(_has_texts(file_start(file)) for file in files):
            raise InputError(
                f"{files[0]}: no event has a user_query; bind Tables.queries (in tables.gin "
                "QUERIES) to the file of ubi_queries, which has user_query for each query_id"
            )
        counted = self._counted(actions)
        topics = read_topics(queries) if queries else None
        first = 0 if any(map(_counts_from_zero, files)) else 1
        parts: list[Part] = [
            functools.partial(_event_chunks, file, counted, topics, first) for file in files
        ]
        shown: list[str] = []
        if not any(actions[action] for action, name in counted.items() if name == "impressions"):
            shown = [file for file in queries if _has_hits(file)]
            parts += [functools.partial(_hit_chunks, file) for file in shown]
        return parts, [_finding(actions, counted, uses_hits=bool(shown))]

    def _counted(self, actions: Mapping[str, int]) -> dict[str, str]:
        """Returns the column that each action adds to."""
        shown = self.impressions
        if shown is None:
            shown = ("impression",) if actions.get("impression") else ("view",)
        return {
            action.strip().lower(): name
            for name, names in zip(_COUNTS, (shown, self.clicks, self.purchases))
            for action in names
        }


def _finding(actions: Mapping[str, int], counted: Mapping[str, str], *, uses_hits: bool) -> Finding:
    found = {name: 0 for name in _COUNTS}
    others = {}
    for action, number in sorted(actions.items(), key=lambda item: (-item[1], item[0])):
        if action in counted:
            found[counted[action]] += number
        else:
            others[action] = number
    read = ", ".join(
        f"{found[name]} {name} ({' and '.join(a for a in counted if counted[a] == name)})"
        for name in _COUNTS
    )
    text = f"{sum(actions.values())} UBI events: {read}"
    if uses_hits:
        text += f"; no event is an impression, so the {HITS} of the queries are"
    if others:
        named = [f"{number} {action or 'without a name'}" for action, number in others.items()]
        more = ", …" if len(named) > _NAMED else ""
        text += (
            f"; left out: {', '.join(named[:_NAMED])}{more}; bind Ubi.impressions, Ubi.clicks or "
            "Ubi.purchases where they stand for such"
        )
    nothing_shown = not found["impressions"] and not uses_hits
    if nothing_shown:
        text += (
            "; none is an impression: bind Ubi.impressions to the action that shows an item, or "
            f"Tables.queries to the file of ubi_queries with {HITS}"
        )
    return Finding(table="judgements", text=text, is_fault=nothing_shown)


def _event_chunks(
    file: str, counted: Mapping[str, str], topics: pa.Table | None, first_place: int
) -> Iterator[Chunk]:
    rows = _event_rows(file, counted, first_place)
    for chunk in chunks(rows, file=file, columns=COLUMNS):
        yield chunk if topics is None else _named(chunk, topics)


def _named(chunk: Chunk, topics: pa.Table) -> Chunk:
    """Puts the texts of queries where events have none."""
    found, unknown = query_texts(chunk.table["query_id"], topics)
    texts = pc.coalesce(as_binary(chunk.table["query"]), found)
    missing = {
        position: (query_id, "neither a user_query nor a known query_id")
        for position, (query_id, _) in unknown.items()
        if not texts[position].is_valid
    }
    table = replace_column(chunk.table, "query", texts)
    return dataclasses.replace(chunk, table=table, unreadable=missing | dict(chunk.unreadable))


def _counts_from_zero(file: str) -> bool:
    sample = itertools.islice(_events(file), _SAMPLE)
    return any(event is not None and _whole(event[POSITION]) == 0 for _, event, _ in sample)


def _whole(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _event_rows(file: str, counted: Mapping[str, str], first_place: int) -> Iterator[Row]:
    for number, event, line in _events(file):
        if event is None:
            yield faulty(number, line, "not an event")
            continue
        column = counted.get(_plain(event[ACTION]))
        if column is not None:
            place = _whole(event[POSITION])
            yield Row(
                number,
                {
                    "query": event["user_query"],
                    "query_id": event["query_id"],
                    "item_id": event[ITEM],
                    "position": None if place is None else place - first_place + 1,
                    column: 1,
                },
            )


def _actions(file: str) -> Iterator[str]:
    """Yields the action of each event; to count them all takes no more than the text."""
    start = file_start(file)
    if start.text.lstrip().startswith(("{", "[")):
        for _, line in numbered_lines(file):
            yield from map(_plain, _JSON_ACTION.findall(line))
        return
    mapping = ColumnMap(columns={ACTION: ACTION}, required=frozenset({ACTION}))
    for part in formats.parts([file], mapping=mapping):
        for chunk in part():
            yield from (_plain(_decoded(value)) for value in chunk.table[ACTION].to_pylist())


def _plain(action: object) -> str:
    return str(action or "").strip().lower()


def _has_texts(start: FileStart) -> bool:
    if start.text.lstrip().startswith(("{", "[")):
        return _JSON_TEXT.search(start.text) is not None
    return "user_query" in (start.columns or start.lines[0])


def _events(file: str) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Yields number, fields and text of each event."""
    start = file_start(file)
    if start.columns:
        wanted = {field.partition(".")[0] for field in _FIELDS} | {*_FIELDS}
        for number, event in _parquet_rows(file, [n for n in start.columns if n in wanted]):
            yield number, _fields(event), ""
    elif start.text.lstrip().startswith(("{", "[")):
        for number, event, line in documents(file):
            yield number, None if event is None else _fields(event), line
    else:
        yield from _table_events(file)


def _fields(event: dict[str, Any]) -> dict[str, Any]:
    attributes = event.get("event_attributes")
    if isinstance(attributes, str):
        event = {**event, "event_attributes": object_of(attributes)}
    return {name: member(event, name) for name in _FIELDS}


def _table_events(file: str) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    mapping = ColumnMap(
        columns={name: name for name in _FIELDS}, required=frozenset({ACTION, ITEM})
    )
    for part in formats.parts([file], mapping=mapping):
        for chunk in part():
            for position, event in enumerate(chunk.table.to_pylist()):
                contents, _ = chunk.unreadable.get(position, (None, None))
                fields = {name: _decoded(event.get(name)) for name in _FIELDS}
                number = chunk.row_numbers()[position]
                yield number, fields if contents is None else None, contents or ""


def _decoded(value: object) -> object:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _parquet_rows(file: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    with storage.open_file(file) as source:
        batches = pq.ParquetFile(source).iter_batches(_BATCH_ROWS, columns=list(columns))
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from enumerate(rows, 1)


def _has_hits(file: str) -> bool:
    start = file_start(file)
    return HITS in start.columns or f'"{HITS}"' in start.text


def _hit_chunks(file: str) -> Iterator[Chunk]:
    columns = {"query": "user_query", "item_id": HITS, "impressions": HITS, "position": HITS}
    return chunks(_hit_rows(file), file=file, columns=columns)


def _hit_rows(file: str) -> Iterator[Row]:
    if file_start(file).columns:
        asked = _parquet_rows(file, ["user_query", HITS])
    else:
        asked = ((number, query) for number, query, _ in documents(file) if query is not None)
    for number, query in asked:
        hits = query.get(HITS) or []
        for place, hit in enumerate(hits if isinstance(hits, list) else [hits], 1):
            values = {"query": query.get("user_query"), "item_id": hit, "position": place}
            yield Row(number, {**values, "impressions": 1})
