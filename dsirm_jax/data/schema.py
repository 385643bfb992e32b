"""What readers yield and what `prepare` writes, column by column.

Every reader (a `readers.reader.Reader`, one file a kind beside it) returns a `Source` of *raw* rows
in the two schemas below. `prepare` turns any `Source` into the three *prepared* tables, which are
all that later stages know of the input.

A raw table may leave out every column but those it needs: items need `item_id` and `title`;
judgements need `query`, `item_id` and one of `label`, `clicks` and `purchases`, the latter two
with `impressions`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from dsirm_jax.data.findings import Finding


def _field(name: str, type_: pa.DataType, doc: str, *, required: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=not required, metadata={"doc": doc})


CATEGORY = pa.list_(pa.string())

RAW_ITEMS = pa.schema(
    [
        _field("item_id", pa.string(), "the shop's own id, unique and not empty", required=True),
        _field("title", pa.string(), "not empty", required=True),
        _field("description", pa.string(), "free text"),
        _field("brand", pa.string(), "brand or supplier"),
        _field("colour", pa.string(), "colour name"),
        _field("category", CATEGORY, "category path, coarse to fine"),
    ]
)
"""Raw items. Any further column is declared by `Source.extras` and passes through unchanged."""

RAW_JUDGEMENTS = pa.schema(
    [
        _field("query", pa.string(), "the text a customer typed, not empty", required=True),
        _field("item_id", pa.string(), "an id of the items table", required=True),
        _field(
            "label",
            pa.string(),
            "one of `label_gains`, as `labels.LabelTable` compares; null: derived from the counts",
        ),
        _field("impressions", pa.int64(), "times the item was shown for the query, >= 0"),
        _field("clicks", pa.int64(), "times it was clicked, >= 0"),
        _field("purchases", pa.int64(), "times it was bought, >= 0"),
        _field("weight", pa.float32(), "importance of the row in training losses, >= 0; null: 1"),
        _field("split", pa.string(), "train or test; null: decided by a hash of its identity"),
        _field("query_frequency", pa.float64(), "how often the query is asked, >= 0"),
        _field("position", pa.int64(), "place of the result list of the counts, from 1, the top"),
        _field("judged_at", pa.string(), "when it was judged: ISO 8601 in all rows, or a number"),
    ]
)
"""Raw judgements: one row is a grade, or the counted behaviour, of one item for one query."""

ITEMS = pa.schema(
    [
        _field("item_index", pa.int64(), "row number, from 0", required=True),
        _field("item_id", pa.string(), "rows are sorted by it", required=True),
        _field("title", pa.string(), "cleaned by `text.clean`", required=True),
        _field("description", pa.string(), "cleaned"),
        _field("brand", pa.string(), "cleaned"),
        _field("colour", pa.string(), "cleaned"),
        _field("category", CATEGORY, "path, coarse to fine; null when unknown, never empty"),
        _field(
            "text",
            pa.string(),
            "title, then brand and colour where the title lacks them: what the encoders and the "
            "generator read",
            required=True,
        ),
    ]
)
"""`prepare/items.parquet`; the columns of `Source.extras` follow."""


def number_columns(items: pa.Schema) -> list[str]:
    """Returns the names of the user's own columns of numbers in a prepared table of items."""
    return [
        field.name
        for field in items
        if field.name not in ITEMS.names
        and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    ]


QUERIES = pa.schema(
    [
        _field("query_index", pa.int64(), "row number, from 0", required=True),
        _field("query", pa.string(), "cleaned text; rows are sorted by it", required=True),
        _field(
            "split",
            pa.string(),
            "train: encode, quantize and generate learn from it; head: the relevance head alone "
            "does; test: nothing but evaluation sees it",
            required=True,
        ),
        _field(
            "frequency",
            pa.float64(),
            "the query_frequency given, else impressions, else clicks, else number of judgements",
            required=True,
        ),
        _field("segment", pa.string(), "head, torso or tail, by frequency", required=True),
        _field(
            "identity",
            pa.string(),
            "what all spellings of the query share, see `identity.QueryIdentity`; queries of one "
            "identity are in one split",
            required=True,
        ),
    ]
)
"""`prepare/queries.parquet`: the queries with at least one judgement."""

JUDGEMENTS = pa.schema(
    [
        _field("query_index", pa.int64(), "row of the queries table", required=True),
        _field("item_index", pa.int64(), "row of the items table", required=True),
        _field("query", pa.string(), "rows are sorted by query, then item_id", required=True),
        _field("item_id", pa.string(), "an id of the items table", required=True),
        _field("label", pa.string(), "as `label_gains` writes it", required=True),
        _field("gain", pa.float32(), "of the label, or of the mean of several", required=True),
        _field("relevant", pa.bool_(), "by `relevant_labels` or `relevant_from`", required=True),
        _field("weight", pa.float32(), "importance in training losses, >= 0", required=True),
        _field("split", pa.string(), "that of its query", required=True),
    ]
)
"""`prepare/judgements.parquet`: each (query, item) pair once."""

EXAMPLES = pa.schema(
    [
        _field("query", pa.string(), "rows are sorted by query, then item_id", required=True),
        _field("text", pa.string(), "that of the item", required=True),
        _field("query_index", pa.int64(), "row of the queries table", required=True),
        _field("item_index", pa.int64(), "row of the items table", required=True),
        _field("gain", pa.float32(), "of the label, or of the mean of several", required=True),
        _field("relevant", pa.bool_(), "by `relevant_labels` or `relevant_from`", required=True),
        _field("weight", pa.float32(), "importance in training losses, >= 0", required=True),
        _field("split", pa.string(), "that of its query", required=True),
    ]
)
"""`prepare/examples.parquet`: the judgements with the texts of query and item, for TFDS."""

REJECTED = pa.schema(
    [
        _field("table", pa.string(), "items or judgements", required=True),
        _field(
            "file", pa.string(), "file or database table, as the reader names it", required=True
        ),
        _field(
            "row",
            pa.int64(),
            "data row in that file, from 1; of a database's table, which has no order, its place "
            "in this reading",
            required=True,
        ),
        _field("query", pa.string(), "of a judgement; null where it cannot be read"),
        _field("item_id", pa.string(), "null where it cannot be read"),
        _field("column", pa.string(), "the user's name of the column at fault"),
        _field("value", pa.string(), "what stood there, shortened"),
        _field("reason", pa.string(), "why the row was rejected", required=True),
    ]
)
"""`prepare/rejected.parquet`: every row read that no prepared table keeps, with the reason."""

EMPTY_ROW = "empty row"
"""Reason of a row without anything in the columns that are read, which is no fault."""
UNRATED = "neither a label nor a count"
"""The reason of a judgement that is unrated, which is no fault and counted apart."""

TRAIN, HEAD, TEST = SPLITS = ("train", "head", "test")
VOTING = (TRAIN, HEAD)
"""Splits whose judgements other queries' features may look at."""
TRAIN_RELEVANT, TRAIN_IRRELEVANT = "train_relevant", "train_irrelevant"
"""What the TFDS dataset splits `TRAIN` into."""

SEGMENTS = ("head", "torso", "tail")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some consecutive rows of one input file.

    Attributes:
      table: columns of `RAW_ITEMS` or `RAW_JUDGEMENTS` by name, and extras; columns may be missing.
        Types may be looser than the schema's (numbers as text, unchecked UTF-8): prepare casts
        each column, and rejects the rows that it cannot.
      file: the file, as messages name it.
      first_row: number of the table's first row among the file's data rows, from 1.
      rows: the number of each row, where they do not follow each other. `[row]`
      columns: our column name to the user's, where they differ.
      unreadable: position in `table` to (its contents, reason), for rows that could not be
        parsed; `table` holds nulls in their place.
      unclosed: lines of CSV whose quote begins a value and does not end it, so that it is text.
      decimal: the character before decimals in numbers that are text, "." or ","; None: a point,
        and a comma where it can be nothing else.
    """

    table: pa.Table
    file: str
    first_row: int = 1
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unreadable: Mapping[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    rows: Sequence[int] | None = None
    unclosed: Sequence[str] = ()
    decimal: str | None = None

    def head(self, rows: int) -> Chunk:
        """Returns the first rows."""
        if rows >= self.table.num_rows:
            return self
        return dataclasses.replace(
            self,
            table=self.table.slice(0, rows),
            rows=self.row_numbers()[:rows],
            unreadable={place: row for place, row in self.unreadable.items() if place < rows},
        )

    def row_numbers(self) -> Sequence[int]:
        if self.rows is not None:
            return self.rows
        return range(self.first_row, self.first_row + self.table.num_rows)


Part = Callable[[], Iterator[Chunk]]
"""Reads a share of a table from its start. Parts are read in any order, perhaps at the same time in
several processes, to which they must be able to travel: they are partial applications of module
functions or of frozen dataclasses' methods."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """One input: items and judgements in parts that are streamed in chunks.

    Attributes:
      items: parts of the raw items.
      judgements: parts of the raw judgements.
      extras: further item columns that pass through to `prepare/items.parquet`.
      if_empty: what to look at when a table turns out to have no rows.
      findings: what the reader saw while it opened the tables, and how it reads them.
    """

    items: Sequence[Part]
    judgements: Sequence[Part]
    extras: pa.Schema = dataclasses.field(default_factory=lambda: pa.schema([]))
    if_empty: str = "add at least one row"
    findings: Sequence[Finding] = ()
