"""Reads the official ESCI release."""

from __future__ import annotations

import dataclasses
import functools
import posixpath
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.identity import PLAIN
from dsirm_jax.data.schema import Chunk, Part, Source
from dsirm_jax.data.text import clean
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import (
    ColumnMap,
    filter_rows,
    replace_column,
    split_category,
)
from dsirm_jax.ingestion.topics import as_binary
from dsirm_jax.io.checks import check_choice, check_text

ESCI_ITEMS = ColumnMap(
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
        the version, a test example has too, so that task 1's training examples teach nothing
        about the tests of tasks 2 and 3, and the test examples are the official ones. Otherwise
        `prepare` puts all examples of such a query into the test split. (The release's own figures
        for the large version count 130,652 queries, 99,684 of them in training examples and 30,969
        in test examples: there is an overlap, if a small one.)
    """

    data_dir: str
    locale: str | None = "us"
    version: str | None = None
    drop_task_overlap: bool = False

    def __post_init__(self) -> None:
        check_text("Esci.data_dir", self.data_dir)
        check_choice("Esci.version", self.version, ("small", "large", None))
        check_choice("Esci.drop_task_overlap", self.drop_task_overlap, (True, False))
        if self.locale is not None:
            check_text("Esci.locale", self.locale)

    def files(self) -> list[str]:
        return [
            posixpath.join(self.data_dir, f"shopping_queries_dataset_{name}.parquet")
            for name in ("products", "examples")
        ]

    def read(self) -> Source:
        products, examples = self.files()
        items = formats.parquet_parts(products, mapping=ESCI_ITEMS)
        judgements = formats.parquet_parts(examples, mapping=self._judgement_mapping())
        test_queries = self._test_queries(judgements) if self.drop_task_overlap else frozenset()
        return Source(
            items=[functools.partial(self._items, part) for part in items],
            judgements=[
                functools.partial(self._judgements, part, test_queries) for part in judgements
            ],
            if_empty=(
                f"bind Esci.locale (now {self.locale!r}) and Esci.version (now {self.version!r}) "
                f"to what the files of {self.data_dir} hold"
            ),
        )

    def _judgement_mapping(self) -> ColumnMap:
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
        return ColumnMap(columns=columns, required=frozenset(columns).difference(optional))

    def _items(self, part: Part) -> Iterator[Chunk]:
        for chunk in map(self._in_locale, part()):
            # A column without any text has another type in some writers' files.
            columns = (chunk.table[name] for name in ("description", "bullet_points"))
            texts = (as_binary(column).fill_null(b"") for column in columns)
            description = pc.binary_join_element_wise(*texts, b" ")
            table = replace_column(chunk.table, "description", description)
            yield split_category(dataclasses.replace(chunk, table=table), separator=" > ")

    def _judgements(self, part: Part, test_queries: frozenset[tuple]) -> Iterator[Chunk]:
        for chunk in map(self._in_locale, part()):
            if self.version:
                chunk = filter_rows(chunk, pc.equal(chunk.table["version"], 1))
            if test_queries:
                keep = [
                    split != b"train" or query not in test_queries
                    for split, query in _queries(chunk.table)
                ]
                chunk = filter_rows(chunk, pa.array(keep, pa.bool_()))
            yield chunk

    def _in_locale(self, chunk: Chunk) -> Chunk:
        if self.locale:
            return filter_rows(chunk, pc.equal(chunk.table["locale"], self.locale))
        parts = (as_binary(chunk.table[name]) for name in ("locale", "item_id"))
        ids = pc.binary_join_element_wise(*parts, b":")
        return dataclasses.replace(chunk, table=replace_column(chunk.table, "item_id", ids))

    def _test_queries(self, parts: Sequence[Part]) -> frozenset[tuple]:
        """Returns locale and query of all test examples."""
        return frozenset(
            query
            for part in parts
            for chunk in part()
            for split, query in _queries(chunk.table)
            if split == b"test"
        )


def _queries(examples: pa.Table) -> Iterator[tuple[bytes | None, tuple]]:
    """Yields the split of each example, and its locale with its query, however spelt."""
    columns = (
        examples[name].cast(pa.large_binary()).to_pylist() for name in ("split", "locale", "query")
    )
    for split, locale, query in zip(*columns):
        yield split, (locale, _identity(query or b""))


@functools.lru_cache(maxsize=4096)
def _identity(query: bytes) -> str:
    return PLAIN.of(clean(query.decode("utf-8", "replace")))
