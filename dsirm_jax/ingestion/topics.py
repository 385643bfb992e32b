"""Texts of queries by their ids, for judgements that name a query by its id.

A file of topics has one of these layouts:

- a table (CSV, TSV, JSON lines, Parquet) whose columns are called as in `IDS` and `TEXTS`;
- two columns without a header, id and text, separated by a tab, a comma or, of the id alone,
  white space;
- a JSON dictionary of id to text, or documents with an id and a text, as BEIR and OpenSearch's
  user behaviour insights have them;
- TREC topics, `<top>` or `<topic>` with a number and a title or query.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap, replace_column
from dsirm_jax.ingestion.formats.documents import documents
from dsirm_jax.ingestion.formats.file_starts import FileStart, as_bytes, file_start, numbered_lines
from dsirm_jax.ingestion.formats.row_chunks import text_of
from dsirm_jax.io.errors import InputError

IDS = ("query_id", "query-id", "qid", "topic_id", "topic", "number", "_id", "id")
TEXTS = ("user_query", "query_text", "query", "text", "title")

TOPICS = pa.schema([("query_id", pa.binary()), ("text", pa.binary())])

_TREC_TOPIC = re.compile(r"<top(?:ic)?\b([^>]*)>(.*?)</top(?:ic)?>", re.S | re.I)
_TREC_NUMBER = re.compile(
    r"<num(?:ber)?>\s*(?:Number:)?\s*([^\s<]+)|\bnumber\s*=\s*[\"']([^\"']+)[\"']", re.I
)
_TREC_TEXT = re.compile(r"<(?:title|query)>\s*(?:Topic:)?\s*([^<]+)", re.I)


def read_topics(files: Sequence[str]) -> pa.Table:
    """Returns the columns of `TOPICS` of some files.

    Raises:
      InputError: a file cannot be read or is of no known layout, or an id has two texts.
    """
    texts: dict[bytes, bytes] = {}
    for file in files:
        for query_id, text in _topics(file_start(file)):
            if query_id is None or text is None:
                continue
            if texts.setdefault(query_id, text) != text:
                shown = [_shown(value) for value in (query_id, texts[query_id], text)]
                raise InputError(
                    f"{file}: query {shown[0]!r} has the texts {shown[1]!r} and {shown[2]!r}; "
                    "leave one of them"
                )
        if not texts:
            raise InputError(f"{file}: no query has an id and a text")
    return pa.table([list(texts), list(texts.values())], schema=TOPICS)


def query_texts(
    ids: pa.ChunkedArray, topics: pa.Table
) -> tuple[pa.ChunkedArray, dict[int, tuple[str, str]]]:
    """Looks up the texts of queries.

    Args:
      ids: of queries; text or numbers.
      topics: columns `query_id` and `text`.

    Returns:
      The texts, null where an id is unknown; and, as `Chunk.unreadable` has them, the unknown ones.
    """
    ids = as_binary(ids)
    places = pc.index_in(ids, topics["query_id"], skip_nulls=True)
    unknown = {
        position: (_shown(ids[position].as_py()), "unknown query_id")
        for position, place in enumerate(places.to_pylist())
        if place is None
    }
    return topics["text"].take(places), unknown


def unused_queries(title: str) -> Finding:
    """Returns what is said where topics are bound to a layout that has the texts itself."""
    return Finding(
        table="judgements",
        text=f"Tables.queries is bound and not used: a file of {title} has the queries' texts",
    )


def as_binary(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns texts, or numbers as texts, in bytes."""
    is_text = pa.types.is_large_binary(column.type) or pa.types.is_binary(column.type)
    return (column if is_text else column.cast(pa.string())).cast(pa.binary())


def named_queries(parts: Iterable[Part], topics: pa.Table) -> list[Part]:
    """Returns the parts with the text of each query in the place of its id."""
    return [functools.partial(_named_queries, part, topics) for part in parts]


def _named_queries(part: Part, topics: pa.Table) -> Iterator[Chunk]:
    for chunk in part():
        texts, unknown = query_texts(chunk.table["query"], topics)
        yield dataclasses.replace(
            chunk,
            table=replace_column(chunk.table, "query", texts),
            unreadable=unknown | dict(chunk.unreadable),
        )


def are_ids(topics: Iterable[str]) -> bool:
    """Returns whether what stands in the place of queries can only be their ids.

    That is so where none of them has a space, and most have a digit.

    Example:
      >>> are_ids(["301", "302"]), are_ids(["q7", "q8"]), are_ids(["kettle"]), are_ids(["7", "a b"])
      (True, True, False, False)
    """
    known = {topic.strip() for topic in topics}
    numbered = sum(any(map(str.isdigit, topic)) for topic in known)
    return not any(len(topic.split()) > 1 for topic in known) and 2 * numbered > len(known)


def _topics(start: FileStart) -> Iterator[tuple[bytes | None, bytes | None]]:
    if start.columns or start.suffix == ".parquet":
        yield from _table_topics(start, start.columns)
    elif start.text.lstrip().startswith(("{", "[")):
        yield from _document_topics(start)
    elif re.match(r"\s*(?:<\?xml.*?\?>\s*)?<top", start.text, re.S | re.I):
        yield from _trec_topics(start)
    else:
        header = _cells(start, start.lines[0]) if start.lines else []
        if _pair_of(header, allows_any=False):
            yield from _table_topics(start, header)
        else:
            yield from _bare_topics(start)


def _table_topics(
    start: FileStart, names: Sequence[str]
) -> Iterator[tuple[bytes | None, bytes | None]]:
    query_id, text = _pair(start, names)
    mapping = ColumnMap(
        columns={"query_id": query_id, "text": text}, required=frozenset({"query_id", "text"})
    )
    for part in formats.parts([start.file], mapping=mapping):
        for chunk in part():
            for position, (_, reason) in chunk.unreadable.items():
                raise InputError(f"{start.file}: row {chunk.row_numbers()[position]}: {reason}")
            columns = (chunk.table[name].to_pylist() for name in ("query_id", "text"))
            yield from zip(*(map(_value, column) for column in columns))


def _document_topics(start: FileStart) -> Iterator[tuple[bytes | None, bytes | None]]:
    for number, document, _ in documents(start.file):
        if document is None:
            raise InputError(f"{start.file}: row {number}: not a JSON object")
        pair = _pair_of(list(document), allows_any=False)
        if pair:
            yield text_of(document[pair[0]]), text_of(document[pair[1]])
        elif document and all(isinstance(text, str) for text in document.values()):
            yield from ((text_of(name), text_of(text)) for name, text in document.items())
        else:
            _pair(start, list(document))


def _trec_topics(start: FileStart) -> Iterator[tuple[bytes, bytes]]:
    text = "".join(line for _, line in numbered_lines(start.file))
    # The oldest topics close none of their tags but <top>.
    for attributes, body in _TREC_TOPIC.findall(text):
        number = _TREC_NUMBER.search(f"{body} {attributes}")
        title = _TREC_TEXT.search(body)
        if number is None or title is None:
            raise InputError(f"{start.file}: a topic has no number, or no title or query")
        query = " ".join(html.unescape(title[1]).split())
        yield as_bytes((number[1] or number[2]).strip()), as_bytes(query)


def _bare_topics(start: FileStart) -> Iterator[tuple[bytes, bytes]]:
    for number, line in numbered_lines(start.file):
        cells = _cells(start, line.strip("\r\n"))
        if len(cells) != 2 or not all(cell.strip() for cell in cells):
            raise InputError(
                f"{start.file}: row {number} has {len(cells)} values where an id and a text are "
                "expected; give the file a header with query_id and query"
            )
        yield as_bytes(cells[0].strip()), as_bytes(cells[1].strip())


def _cells(start: FileStart, line: str) -> list[str]:
    tabs = any("\t" in other for other in start.lines[:1])
    if tabs:
        return line.split("\t")
    if start.suffix == ".csv" or _pair_of(start.lines[0].split(","), allows_any=False):
        return next(csv.reader([line]))
    return line.split(None, 1)


def _pair(start: FileStart, names: Sequence[str]) -> tuple[str, str]:
    pair = _pair_of(names, allows_any=True)
    if pair is None:
        raise InputError(
            f"{start.file}: which column has the queries' ids, and which their texts? It has: "
            f"{', '.join(names[:20])}; call them query_id and query"
        )
    return pair


def _pair_of(names: Sequence[str], *, allows_any: bool) -> tuple[str, str] | None:
    """Returns the columns of ids and of texts; of two columns these may be called anything."""
    known: Mapping[str, str] = {name.strip().lower(): name for name in names}
    query_id = next((known[name] for name in IDS if name in known), None)
    text = next((known[name] for name in TEXTS if name in known and known[name] != query_id), None)
    if query_id is not None and text is not None:
        return query_id, text
    return (names[0], names[1]) if allows_any and len(names) == 2 else None


def _value(value: object) -> bytes | None:
    return value.strip() or None if isinstance(value, bytes) else text_of(value)


def _shown(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "backslashreplace")
