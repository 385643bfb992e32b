"""Reads files of the user's own, whatever their columns are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dsirm_jax.data import formats
from dsirm_jax.data.categories import paths_of
from dsirm_jax.data.columns import (
    ColumnMap,
    check_column_settings,
    extras_schema,
    item_mapping,
    judgement_mapping,
    split_categories,
)
from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Part, Source
from dsirm_jax.data.variants import filled_down
from dsirm_jax.io import storage
from dsirm_jax.io.checks import check_text


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
      category_separator: between the levels of a category path that is one text; "[]" where it is
        a list of Python or JSON; a column of lists needs none. None: " > " where any category has
        it, else what parts most of them, and a line of the log says so.
      category_list_separator: between several paths of one item that are one text, of which the
        deepest is read, the first of equals. None: ", " where one path is the beginning of another
        (WooCommerce), or many different ones end alike.
      variant_group: a column of yours that the rows of one product share (Shopify: "Handle"), in
        whose later rows an empty cell is that of the row before. `item_id` may be the same column,
        and a product is one item, or another, and each variant is one.
    """

    items: str | Sequence[str]
    judgements: str | Sequence[str]
    item_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    judgement_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    category_separator: str | None = None
    category_list_separator: str | None = None
    variant_group: str | None = None

    def __post_init__(self) -> None:
        for name in ("items", "judgements"):
            patterns = getattr(self, name)
            several = isinstance(patterns, Sequence) and not isinstance(patterns, str)
            for pattern in patterns if several and patterns else [patterns]:
                check_text(f"Tables.{name}", pattern)
        check_column_settings(self)
        if self.variant_group is not None:
            check_text("Tables.variant_group", self.variant_group)

    def files(self) -> list[str]:
        return [*storage.list_files(self.items), *storage.list_files(self.judgements)]

    def read(self) -> Source:
        extras = extras_schema(self.extra_columns, binding="Tables.extra_columns")
        item_map = item_mapping(self.item_columns, extras.names, binding="Tables.item_columns")
        judgement_map = judgement_mapping(
            self.judgement_columns, binding="Tables.judgement_columns"
        )
        item_files = storage.list_files(self.items)
        judgement_files = storage.list_files(self.judgements)
        items = self._items(item_files, item_map)
        judgements = formats.parts(judgement_files, mapping=judgement_map)
        findings = [*_columns(item_files, item_map), *_columns(judgement_files, judgement_map)]
        paths, more = paths_of(
            items,
            separator=self.category_separator,
            several=self.category_list_separator,
            binding="Tables.",
        )
        return Source(
            items=split_categories(items, separator=paths.separator, several=paths.several),
            judgements=judgements,
            extras=extras,
            if_empty=(
                f"bind Tables.items (now {self.items!r}) and Tables.judgements (now "
                f"{self.judgements!r}) to files with data rows"
            ),
            findings=[*findings, *more],
        )

    def _items(self, files: Sequence[str], mapping: ColumnMap) -> list[Part]:
        if self.variant_group is None:
            return formats.parts(files, mapping=mapping)
        mapping = mapping.with_group(self.variant_group)
        return [filled_down(formats.parts([file], mapping=mapping)) for file in files]


def _columns(files: Sequence[str], mapping: ColumnMap) -> list[Finding]:
    """Returns what is to be said of the columns of some files."""
    headers = formats.headers(files)
    return [*mapping.findings(headers[0]), *mapping.differences(dict(zip(files, headers)))]
