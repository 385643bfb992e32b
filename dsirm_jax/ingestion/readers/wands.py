"""Reads the official WANDS release."""

from __future__ import annotations

import dataclasses
import functools
import posixpath
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.schema import Chunk, Part, Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import ColumnMap, replace_column, split_category
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.topics import named_queries
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError

WANDS_ITEMS = ColumnMap(
    columns={
        "item_id": "product_id",
        "title": "product_name",
        "description": "product_description",
        "category": "category hierarchy",
        "colour": "product_features",
        "average_rating": "average_rating",
        "rating_count": "rating_count",
        "review_count": "review_count",
    },
    required=frozenset(("item_id", "title", "description", "category", "colour")),
)
WANDS_EXTRAS = pa.schema(
    [("average_rating", pa.float64()), ("rating_count", pa.int64()), ("review_count", pa.int64())]
)
WANDS_QUERIES = ColumnMap(
    columns={"query_id": "query_id", "text": "query"}, required=frozenset(("query_id", "text"))
)
WANDS_JUDGEMENTS = ColumnMap(
    columns={"query": "query_id", "item_id": "product_id", "label": "label"},
    required=frozenset(("query", "item_id", "label")),
)
WANDS_DIALECT = Dialect(delimiter="\t", quoting="doubled", encoding="utf-8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wands:
    """The files of Wayfair's annotation data set (WANDS), as officially released.

    Its labels are Exact, Partial and Irrelevant. `colour` is the first `color` of a product's
    features. Ratings and reviews are the extra columns of `WANDS_EXTRAS`.

    Source: Chen et al. 2022, "WANDS: Dataset for Product Search Relevance Assessment", ECIR;
    https://github.com/wayfair/WANDS.

    Attributes:
      data_dir: folder or URL of product.csv, query.csv and label.csv, which are tab-separated.
    """

    data_dir: str

    def __post_init__(self) -> None:
        check_text("Wands.data_dir", self.data_dir)

    def files(self) -> list[str]:
        return [
            posixpath.join(self.data_dir, f"{name}.csv") for name in ("product", "query", "label")
        ]

    def read(self) -> Source:
        product, query, label = self.files()
        items = formats.csv_parts(product, mapping=WANDS_ITEMS, dialect=WANDS_DIALECT)
        queries = _wands_queries(query)
        judgements = formats.csv_parts(label, mapping=WANDS_JUDGEMENTS, dialect=WANDS_DIALECT)
        return Source(
            items=[functools.partial(_wands_items, part) for part in items],
            judgements=named_queries(judgements, queries),
            extras=WANDS_EXTRAS,
            if_empty=f"bind Wands.data_dir (now {self.data_dir}) to the official files",
        )


def _wands_items(part: Part) -> Iterator[Chunk]:
    for chunk in part():
        features = chunk.table["colour"]
        colour = pc.extract_regex(features, r"(?:^|\|)\s*color\s*:\s*(?P<colour>[^|]*)")
        table = replace_column(chunk.table, "colour", pc.struct_field(colour, "colour"))
        yield split_category(dataclasses.replace(chunk, table=table), separator=" / ")


def _wands_queries(file: str) -> pa.Table:
    (part,) = formats.csv_parts(file, mapping=WANDS_QUERIES, dialect=WANDS_DIALECT)
    chunks = list(part())
    for chunk in chunks:
        for position, (_, reason) in chunk.unreadable.items():
            raise InputError(f"{file}: row {chunk.row_numbers()[position]}: {reason}")
    if not chunks:
        raise InputError(f"{file}: no data rows; bind Wands.data_dir to the official files")
    return pa.concat_tables(chunk.table for chunk in chunks)
