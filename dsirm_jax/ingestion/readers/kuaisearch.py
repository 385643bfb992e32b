"""Reads the tables of KuaiSearch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import posixpath
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Part, Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap, filter_rows, replace_column
from dsirm_jax.ingestion.formats.documents import object_of
from dsirm_jax.ingestion.formats.file_starts import file_start
from dsirm_jax.ingestion.formats.row_chunks import Row, chunks
from dsirm_jax.io.checks import check_choice, check_text

TABLES = ("recall", "rank", "relevance")
LEVELS = ("category_level1_name", "category_level2_name", "category_level3_name")
SELLER = pa.schema([("seller", pa.string())])

_ITEMS = {"item_id": "item_id", "title": "item_title", "brand": "brand_name"}
_RECALL = {
    "query": "query",
    "impressions": "impressed_item_ids",
    "clicks": "clicked_item_ids",
    "purchases": "purchased_item_ids",
    "split": "split",
}
_RANK = {
    "query": "query",
    "item_id": "target_item_id",
    "clicks": "is_clicked",
    "purchases": "is_purchased",
    "split": "split",
}
_RELEVANCE_ITEMS = {
    "title": "item_title",
    "brand": "brand",
    "seller": "seller_name",
    "description": "attr_value",
}
_NOTHING = (b"UNKNOWN", "无品牌".encode(), "其他/other".encode(), b"\\N")
"""What the tables write for no brand, no attributes and an unknown category."""

_NO_IDS = Finding(
    table="items",
    text=(
        "relevance.jsonl has no item_id: items are what differs in title, brand, seller or "
        "attributes, each with a digest of them for an id"
    ),
    is_fault=False,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KuaiSearch:
    """The tables of KuaiSearch, as its demo has them: JSON lines of items and of one task.

    - *recall*: sessions, whose impressions, clicks and purchases are counted by query and item.
    - *rank*: impressions, each clicked and bought or not; counted likewise.
    - *relevance*: grades from 0 to 3. Where the table has no `item_id` (the demo lacks it), it is
      the catalogue, too: items are what differs in title, brand, seller or attributes.

    A category is the path of the levels 1 to 3 up to the first that is UNKNOWN. The seller is an
    extra column.

    Source: Li et al. 2026, "KuaiSearch: A Large-Scale E-Commerce Search Dataset for Recall,
    Ranking, and Relevance", arXiv 2602.11518; https://github.com/benchen4395/KuaiSearch.

    Attributes:
      data_dir: folder or URL of items.jsonl and of recall.jsonl, rank.jsonl or relevance.jsonl.
      table: which of the three has the judgements.
    """

    data_dir: str
    table: str = "recall"

    def __post_init__(self) -> None:
        check_text("KuaiSearch.data_dir", self.data_dir)
        check_choice("KuaiSearch.table", self.table, TABLES)

    def files(self) -> list[str]:
        judgements = self._file(self.table)
        if self.table == "relevance" and "item_id" not in _names(judgements):
            return [judgements]
        return [self._file("items"), judgements]

    def read(self) -> Source:
        *catalogue, judgements = self.files()
        return Source(
            items=_items(catalogue) if catalogue else _relevance_items(judgements),
            judgements={"recall": _recall, "rank": _rank, "relevance": _relevance}[self.table](
                judgements
            ),
            extras=SELLER,
            findings=[] if catalogue else [_NO_IDS],
            if_empty=f"bind KuaiSearch.data_dir (now {self.data_dir}) to the tables",
        )

    def _file(self, table: str) -> str:
        return posixpath.join(self.data_dir, f"{table}.jsonl")


def _names(file: str) -> Sequence[str]:
    lines = file_start(file).lines
    return list(object_of(lines[0]) or {}) if lines else []


def _mapping(columns: dict[str, str]) -> ColumnMap:
    return ColumnMap(columns=columns, required=frozenset(columns))


def _items(files: Sequence[str]) -> list[Part]:
    levels = {f"level {place}": name for place, name in enumerate(LEVELS)}
    mapping = _mapping({**_ITEMS, "seller": "seller_name", **levels})
    return [
        functools.partial(_with_category, part) for part in formats.parts(files, mapping=mapping)
    ]


def _with_category(part: Part) -> Iterator[Chunk]:
    for chunk in map(_without_nothing, part()):
        levels = [chunk.table[f"level {place}"].to_pylist() for place in range(len(LEVELS))]
        paths = [list(itertools.takewhile(bool, path)) for path in zip(*levels)]
        table = chunk.table.select([*_ITEMS, "seller"])
        table = table.append_column("category", pa.array(paths, pa.list_(pa.binary())))
        yield dataclasses.replace(chunk, table=table)


def _without_nothing(chunk: Chunk) -> Chunk:
    table = chunk.table
    for name in table.column_names:
        if name not in ("item_id", "title"):
            is_nothing = pc.is_in(table[name], pa.array(_NOTHING, table[name].type))
            column = pc.if_else(is_nothing, pa.scalar(None, table[name].type), table[name])
            table = replace_column(table, name, column)
    return dataclasses.replace(chunk, table=table)


def _recall(file: str) -> list[Part]:
    parts = formats.parts([file], mapping=_mapping(_RECALL))
    return [functools.partial(_recall_chunks, part, file) for part in parts]


def _recall_chunks(part: Part, file: str) -> Iterator[Chunk]:
    rows = (row for chunk in part() for row in _recall_rows(chunk))
    return chunks(rows, file=file, columns={**_RECALL, "item_id": _RECALL["impressions"]})


def _recall_rows(chunk: Chunk) -> Iterator[Row]:
    sessions = zip(chunk.row_numbers(), chunk.table.to_pylist())
    for position, (number, session) in enumerate(sessions):
        if position in chunk.unreadable:
            yield Row(number, {}, chunk.unreadable[position])
            continue
        shared = {
            name: (session[name] or b"").decode(errors="surrogateescape")
            for name in ("query", "split")
        }
        counted = {
            name: json.loads(session[name] or b"[]")
            for name in ("impressions", "clicks", "purchases")
        }
        for item_id in dict.fromkeys(itertools.chain(*counted.values())):
            counts = {name: int(item_id in items) for name, items in counted.items()}
            yield Row(number, {**shared, "item_id": item_id, **counts})


def _rank(file: str) -> list[Part]:
    parts = formats.parts([file], mapping=_mapping(_RANK))
    return [functools.partial(_rank_chunks, part) for part in parts]


def _rank_chunks(part: Part) -> Iterator[Chunk]:
    for chunk in part():
        shown = pa.array([1] * len(chunk.table), pa.int64())
        yield dataclasses.replace(chunk, table=chunk.table.append_column("impressions", shown))


def _relevance(file: str) -> list[Part]:
    names = _names(file)
    # The demo calls it score, the code beside it label.
    label = "label" if "label" in names else "score"
    columns = {"query": "query", "label": label, **_RELEVANCE_ITEMS}
    if "item_id" in names:
        columns["item_id"] = "item_id"
    parts = formats.parts([file], mapping=_mapping(columns))
    return [functools.partial(_relevance_chunks, part) for part in parts]


def _relevance_chunks(part: Part) -> Iterator[Chunk]:
    for chunk in part():
        table = chunk.table if "item_id" in chunk.table.column_names else _with_ids(chunk.table)
        yield dataclasses.replace(chunk, table=table.select(["query", "item_id", "label"]))


def _relevance_items(file: str) -> list[Part]:
    parts = formats.parts([file], mapping=_mapping(_RELEVANCE_ITEMS))
    return [functools.partial(_distinct_items, part) for part in parts]


def _distinct_items(part: Part) -> Iterator[Chunk]:
    seen: set[str] = set()
    for chunk in part():
        table = _with_ids(chunk.table)
        is_new = []
        for position, item_id in enumerate(table["item_id"].to_pylist()):
            is_new.append(position not in chunk.unreadable and item_id not in seen)
            seen.add(item_id)
        readable = dataclasses.replace(chunk, table=table, unreadable={})
        yield _without_nothing(filter_rows(readable, pa.array(is_new, pa.bool_())))


def _with_ids(table: pa.Table) -> pa.Table:
    """Adds ids that are digests of what an item is."""
    texts = zip(*(table[name].to_pylist() for name in _RELEVANCE_ITEMS))
    ids = [
        hashlib.sha256(b"\x1f".join(text or b"" for text in item)).hexdigest()[:16]
        for item in texts
    ]
    return table.append_column("item_id", pa.array(ids, pa.string()))
