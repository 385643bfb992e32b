"""Readers of files: the official ESCI and WANDS releases, and a user's own tables."""

from __future__ import annotations

import dataclasses
import functools
import posixpath
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from dsirm_jax.data import formats
from dsirm_jax.data.columns import (
    Wanted,
    extras_schema,
    filtered,
    replaced,
    split_categories,
    split_category,
    wanted_items,
    wanted_judgements,
)
from dsirm_jax.data.schema import REJECTED, Chunk, Part, Source
from dsirm_jax.data.text import clean
from dsirm_jax.data.validate import CHECKED_PAIRS, checked_pairs
from dsirm_jax.io import storage
from dsirm_jax.io.errors import InputError

ESCI_ITEMS = Wanted(
    columns={
        "item_id": "product_id",
        "title": "product_title",
        "description": "product_description",
        "brand": "product_brand",
        "colour": "product_color",
        "category": "product_category",
        "locale": "product_locale",
        "bullet_points": "product_bullet_point",
    },
    required=frozenset(
        ("item_id", "title", "description", "brand", "colour", "locale", "bullet_points")
    ),
)

WANDS_ITEMS = Wanted(
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
WANDS_QUERIES = Wanted(
    columns={"query_id": "query_id", "text": "query"}, required=frozenset(("query_id", "text"))
)
WANDS_JUDGEMENTS = Wanted(
    columns={"query": "query_id", "item_id": "product_id", "label": "label"},
    required=frozenset(("query", "item_id", "label")),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Esci:
    """The files of Amazon's Shopping Queries data set (ESCI), as officially released.

    `description` is the product's description followed by its bullet points. The column
    `product_category`, which the official release lacks, becomes `category` where it is present
    (a path joined by " > ").

    Source: Reddy et al. 2022, arXiv 2206.06588; https://github.com/amazon-science/esci-data.

    Attributes:
      data_dir: folder or URL of the two shopping_queries_dataset_{examples,products}.parquet files.
      locale: us, es or jp; None for all, in which case `item_id` is `LOCALE:PRODUCT_ID`, since
        locales share product ids.
      version: keep the examples of the "small" (task 1) or "large" (tasks 2 and 3) version; None
        for all.
      drop_task_overlap: drop the training examples whose query, in the same locale and whatever
        the version, a test example asks too, so that task 1's training examples teach nothing
        about the tests of tasks 2 and 3, and the test examples are the official ones. Otherwise
        `prepare` puts all examples of such a query into the test split. (The release's own figures
        for the large version count 130,652 queries, 99,684 of them in training examples and 30,969
        in test examples: there is an overlap, if a small one.)
    """

    data_dir: str
    locale: str | None = "us"
    version: str | None = None
    drop_task_overlap: bool = False

    def files(self) -> list[str]:
        return [
            posixpath.join(self.data_dir, f"shopping_queries_dataset_{name}.parquet")
            for name in ("products", "examples")
        ]

    def read(self) -> Source:
        if self.version not in (None, "small", "large"):
            raise InputError(f"Esci.version is {self.version!r}: bind 'small', 'large' or None")
        products, examples = self.files()
        items = formats.parquet_parts(products, wanted=ESCI_ITEMS)
        judgements = formats.parquet_parts(examples, wanted=self._wanted_judgements())
        tested = self._tested(judgements) if self.drop_task_overlap else frozenset()
        return Source(
            items=[functools.partial(self._items, part) for part in items],
            judgements=[functools.partial(self._judgements, part, tested) for part in judgements],
            if_empty=(
                f"bind Esci.locale (now {self.locale!r}) and Esci.version (now {self.version!r}) "
                f"to what the files of {self.data_dir} hold"
            ),
        )

    def _wanted_judgements(self) -> Wanted:
        columns = {
            "query": "query",
            "item_id": "product_id",
            "label": "esci_label",
            "split": "split",
            "locale": "product_locale",
        }
        if self.version:
            columns["version"] = f"{self.version}_version"
        optional = () if self.drop_task_overlap else ("split",)
        return Wanted(columns=columns, required=frozenset(columns).difference(optional))

    def _items(self, part: Part) -> Iterator[Chunk]:
        for chunk in map(self._of_locale, part()):
            texts = (chunk.table[name].fill_null("") for name in ("description", "bullet_points"))
            description = pc.binary_join_element_wise(*texts, " ")
            table = replaced(chunk.table, "description", description)
            yield split_category(dataclasses.replace(chunk, table=table), separator=" > ")

    def _judgements(self, part: Part, tested: frozenset[tuple]) -> Iterator[Chunk]:
        for chunk in map(self._of_locale, part()):
            if self.version:
                chunk = filtered(chunk, pc.equal(chunk.table["version"], 1))
            if tested:
                keep = [
                    split != b"train" or asked not in tested for split, asked in _asked(chunk.table)
                ]
                chunk = filtered(chunk, pa.array(keep, pa.bool_()))
            yield chunk

    def _of_locale(self, chunk: Chunk) -> Chunk:
        if self.locale:
            return filtered(chunk, pc.equal(chunk.table["locale"], self.locale))
        ids = pc.binary_join_element_wise(chunk.table["locale"], chunk.table["item_id"], ":")
        return dataclasses.replace(chunk, table=replaced(chunk.table, "item_id", ids))

    def _tested(self, parts: Sequence[Part]) -> frozenset[tuple]:
        """Returns locale and query of all test examples."""
        return frozenset(
            asked
            for part in parts
            for chunk in part()
            for split, asked in _asked(chunk.table)
            if split == b"test"
        )


def _asked(examples: pa.Table) -> Iterator[tuple[bytes | None, tuple]]:
    """Yields the split of each example, and its locale with its query, however spelt."""
    columns = (
        examples[name].cast(pa.large_binary()).to_pylist() for name in ("split", "locale", "query")
    )
    for split, locale, query in zip(*columns):
        yield split, (locale, _folded(query or b""))


@functools.lru_cache(maxsize=4096)
def _folded(query: bytes) -> str:
    return clean(query.decode("utf-8", "replace")).lower()


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

    def files(self) -> list[str]:
        return [
            posixpath.join(self.data_dir, f"{name}.csv") for name in ("product", "query", "label")
        ]

    def read(self) -> Source:
        product, query, label = self.files()
        items = formats.csv_parts(product, wanted=WANDS_ITEMS, delimiter="\t")
        queries = _wands_queries(query)
        judgements = formats.csv_parts(label, wanted=WANDS_JUDGEMENTS, delimiter="\t")
        return Source(
            items=[functools.partial(_wands_items, part) for part in items],
            judgements=[functools.partial(_wands_judgements, part, queries) for part in judgements],
            extras=WANDS_EXTRAS,
            if_empty=f"bind Wands.data_dir (now {self.data_dir}) to the official files",
        )


def _wands_items(part: Part) -> Iterator[Chunk]:
    for chunk in part():
        features = chunk.table["colour"]
        colour = pc.extract_regex(features, r"(?:^|\|)\s*color\s*:\s*(?P<colour>[^|]*)")
        table = replaced(chunk.table, "colour", pc.struct_field(colour, "colour"))
        yield split_category(dataclasses.replace(chunk, table=table), separator=" / ")


def _wands_queries(file: str) -> pa.Table:
    (part,) = formats.csv_parts(file, wanted=WANDS_QUERIES, delimiter="\t")
    chunks = list(part())
    for chunk in chunks:
        for position, (_, reason) in chunk.unreadable.items():
            raise InputError(f"{file}: row {chunk.row_numbers()[position]}: {reason}")
    if not chunks:
        raise InputError(f"{file}: no data rows; bind Wands.data_dir to the official files")
    return pa.concat_tables(chunk.table for chunk in chunks)


def _wands_judgements(part: Part, queries: pa.Table) -> Iterator[Chunk]:
    """Puts the text of the query in the place of its id."""
    for chunk in part():
        ids = chunk.table["query"]
        rows = pc.index_in(ids, queries["query_id"], skip_nulls=True)
        unknown = {
            position: (_text(ids[position].as_py()), "unknown query_id")
            for position, row in enumerate(rows.to_pylist())
            if row is None
        }
        yield dataclasses.replace(
            chunk,
            table=replaced(chunk.table, "query", queries["text"].take(rows)),
            unreadable=unknown | dict(chunk.unreadable),
        )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "backslashreplace")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Your own tables: Parquet, CSV, TSV or JSONL by suffix, each plain or with `.gz`.

    Our columns are those of `schema.RAW_ITEMS` and `schema.RAW_JUDGEMENTS`. A column that is not
    mapped is looked for under our own name. CSV and TSV have a header row and are UTF-8.

    Attributes:
      items: file, glob pattern, or several of them; local, or a URL that fsspec knows (gs://,
        s3://, https://), whose file system package must be installed.
      judgements: likewise.
      item_columns: our column name to yours.
      judgement_columns: likewise.
      extra_columns: further item columns to keep under your name, each with its Arrow type
        ("string", "float64", "int64", "bool", …), say as numeric features.
      category_separator: between the levels of a category path that is one text; a list column
        needs none.
    """

    items: str | Sequence[str]
    judgements: str | Sequence[str]
    item_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    judgement_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    category_separator: str = " > "

    def files(self) -> list[str]:
        return [*storage.matching(self.items), *storage.matching(self.judgements)]

    def read(self) -> Source:
        extras = extras_schema(self.extra_columns, binding="Tables.extra_columns")
        of_items = wanted_items(self.item_columns, extras.names, binding="Tables.item_columns")
        of_judgements = wanted_judgements(
            self.judgement_columns, binding="Tables.judgement_columns"
        )
        items = formats.parts(storage.matching(self.items), wanted=of_items)
        judgements = formats.parts(storage.matching(self.judgements), wanted=of_judgements)
        return Source(
            items=split_categories(items, separator=self.category_separator),
            judgements=judgements,
            extras=extras,
            if_empty=(
                f"bind Tables.items (now {self.items!r}) and Tables.judgements (now "
                f"{self.judgements!r}) to files with data rows"
            ),
        )


def read_pairs(
    file: str, *, item_ids: pa.ChunkedArray
) -> tuple[pa.Table, Int[np.ndarray, " pair"], pa.Table]:
    """Reads a table of (query, item_id), cleaned as `prepare` does.

    Args:
      file: Parquet, CSV, TSV or JSON lines with columns `query` and `item_id`, plain or with `.gz`.
      item_ids: those that there are.

    Returns:
      The pairs, columns of `validate.CHECKED_PAIRS`; the place of each one's item among `item_ids`;
      and the rows that can be no pair, columns of `schema.REJECTED`.

    Raises:
      InputError: the file cannot be read.
    """
    wanted = Wanted(
        columns={"query": "query", "item_id": "item_id"}, required=frozenset({"query", "item_id"})
    )
    checked = [
        checked_pairs(chunk) for part in formats.parts([file], wanted=wanted) for chunk in part()
    ]
    kept = pa.concat_tables([CHECKED_PAIRS.empty_table(), *(passed for passed, _ in checked)])
    items = pc.index_in(kept["item_id"], item_ids.combine_chunks())
    unknown = kept.filter(items.is_null())
    rejected = [
        {
            "table": "pairs",
            "file": row["_file"],
            "row": row["_row"],
            "query": row["query"],
            "item_id": row["item_id"],
            "column": "item_id",
            "value": row["item_id"],
            "reason": "unknown item_id",
        }
        for row in unknown.to_pylist()
    ]
    unfit = [*(failed for _, failed in checked), pa.Table.from_pylist(rejected, REJECTED)]
    return (
        kept.filter(items.is_valid()),
        items.drop_null().to_numpy(),
        pa.concat_tables(unfit).sort_by("row"),
    )


def read_queries(file: str) -> Iterator[list[str]]:
    """Yields the texts of a table of queries, cleaned as `prepare` does, some at a time.

    Args:
      file: Parquet, CSV, TSV or JSON lines with a column `query`, plain or with `.gz`.

    Raises:
      InputError: the file cannot be read, or a row has no text.
    """
    wanted = Wanted(columns={"query": "query"}, required=frozenset({"query"}))
    for part in formats.parts([file], wanted=wanted):
        for chunk in part():
            texts = []
            column = chunk.table["query"].to_pylist()
            for row, value in zip(chunk.row_numbers(), column, strict=True):
                # Text files are read as bytes; a replaced one stands for no text.
                text = value.decode(errors="replace") if isinstance(value, bytes) else value
                texts.append(clean(str(text or "")))
                if not texts[-1] or "\N{REPLACEMENT CHARACTER}" in texts[-1]:
                    raise InputError(
                        f"{file} row {row}: column query has no text in UTF-8; leave the row out"
                    )
            yield texts
