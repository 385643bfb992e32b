"""Reads files of the user's own, whatever their columns are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dsirm_jax.data import formats
from dsirm_jax.data.columns import (
    check_column_settings,
    extras_schema,
    item_mapping,
    judgement_mapping,
    split_categories,
)
from dsirm_jax.data.dialect import Dialect
from dsirm_jax.data.schema import Source
from dsirm_jax.io import storage
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Your own tables: Parquet, CSV, TSV or JSON by suffix, each plain or with `.gz`.

    Our columns are those of `schema.RAW_ITEMS` and `schema.RAW_JUDGEMENTS`. A column that is not
    mapped is looked for under our own name. CSV and TSV have a header row; JSON is an object a
    line, or an array of them.

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
      items_dialect: how the text files of `items` are written; what is None in it is sniffed by the
        head of each file, and said where it is not the plain way: commas in .csv and tabs in .tsv,
        values in quotes where needed, UTF-8. gin/runs/tables.gin binds it to
        `@items/dialect.Dialect()`, so that `items/dialect.Dialect.encoding` may be bound.
      judgements_dialect: likewise.
    """

    items: str | Sequence[str]
    judgements: str | Sequence[str]
    item_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    judgement_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    category_separator: str = " > "
    items_dialect: Dialect = dataclasses.field(default_factory=Dialect)
    judgements_dialect: Dialect = dataclasses.field(default_factory=Dialect)

    def __post_init__(self) -> None:
        for name in ("items", "judgements"):
            patterns = getattr(self, name)
            several = isinstance(patterns, Sequence) and not isinstance(patterns, str)
            for pattern in patterns if several and patterns else [patterns]:
                check_text(f"Tables.{name}", pattern)
        for name in ("items_dialect", "judgements_dialect"):
            if not isinstance(getattr(self, name), Dialect):
                raise InputError(
                    f"gin binding Tables.{name} is {getattr(self, name)!r}; bind "
                    f"@{name.partition('_')[0]}/dialect.Dialect()"
                )
        check_column_settings(self)

    def files(self) -> list[str]:
        return [*storage.list_files(self.items), *storage.list_files(self.judgements)]

    def read(self) -> Source:
        extras = extras_schema(self.extra_columns, binding="Tables.extra_columns")
        item_map = item_mapping(self.item_columns, extras.names, binding="Tables.item_columns")
        judgement_map = judgement_mapping(
            self.judgement_columns, binding="Tables.judgement_columns"
        )
        items, item_findings = formats.opened(
            storage.list_files(self.items),
            mapping=item_map,
            dialect=self.items_dialect,
            binding="items/dialect.Dialect",
            table="items",
        )
        judgements, judgement_findings = formats.opened(
            storage.list_files(self.judgements),
            mapping=judgement_map,
            dialect=self.judgements_dialect,
            binding="judgements/dialect.Dialect",
            table="judgements",
        )
        return Source(
            items=split_categories(items, separator=self.category_separator),
            judgements=judgements,
            extras=extras,
            if_empty=(
                f"bind Tables.items (now {self.items!r}) and Tables.judgements (now "
                f"{self.judgements!r}) to files with data rows"
            ),
            findings=[*item_findings, *judgement_findings],
        )
