"""Reads files of the user's own, whatever their columns are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Part, Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.categories import paths_of
from dsirm_jax.ingestion.columns.mapping import (
    check_column_settings,
    extras_schema,
    item_mapping,
    judgement_mapping,
    split_categories,
)
from dsirm_jax.ingestion.columns.variants import filled_down
from dsirm_jax.ingestion.dialect import Dialect
from dsirm_jax.ingestion.judgement_files.kind import JudgementKind
from dsirm_jax.ingestion.judgement_files.recognition import recognised
from dsirm_jax.ingestion.topics import named_queries, read_topics
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
      judgements: likewise; or files in a layout of `judgement_files`, which are recognised where
        no `judgement_columns` are bound.
      judgements_kind: the layout of the judgements, such as `@qrels.Qrels()`; None: recognised.
      queries: file of the queries' texts by their ids, or several, where the judgements have ids
        of queries for queries; `data.topics` says in which layouts.
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
    category_separator: str | None = None
    category_list_separator: str | None = None
    variant_group: str | None = None
    items_dialect: Dialect = dataclasses.field(default_factory=Dialect)
    judgements_dialect: Dialect = dataclasses.field(default_factory=Dialect)
    judgements_kind: JudgementKind | None = None
    queries: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in ("items", "judgements", "queries"):
            patterns = getattr(self, name)
            if name == "queries" and patterns is None:
                continue
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
        if self.variant_group is not None:
            check_text("Tables.variant_group", self.variant_group)
        kind = self.judgements_kind
        if kind is None:
            return
        if isinstance(kind, type) or not isinstance(kind, JudgementKind):
            raise InputError(
                f"gin binding Tables.judgements_kind is {kind!r}; bind a kind of judgement file, "
                "such as @qrels.Qrels()"
            )
        if self.judgement_columns:
            raise InputError(
                f"gin binding Tables.judgement_columns is {dict(self.judgement_columns)!r}, but a "
                f"{kind.title} has no columns to map; bind one of it and Tables.judgements_kind"
            )

    def files(self) -> list[str]:
        patterns = (self.items, self.judgements, self.queries or ())
        return [file for pattern in patterns for file in storage.list_files(pattern)]

    def read(self) -> Source:
        extras = extras_schema(self.extra_columns, binding="Tables.extra_columns")
        items, findings = self._items(extras.names)
        paths, seen = paths_of(
            items,
            separator=self.category_separator,
            several=self.category_list_separator,
            binding="Tables.",
        )
        judgements, more = self._judgements()
        return Source(
            items=split_categories(items, separator=paths.separator, several=paths.several),
            judgements=judgements,
            extras=extras,
            if_empty=(
                f"bind Tables.items (now {self.items!r}) and Tables.judgements (now "
                f"{self.judgements!r}) to files with data rows"
            ),
            findings=[*findings, *seen, *more],
        )

    def _items(self, extras: Sequence[str]) -> tuple[list[Part], list[Finding]]:
        mapping = item_mapping(self.item_columns, extras, binding="Tables.item_columns")
        if self.variant_group is not None:
            mapping = mapping.with_group(self.variant_group)
        files, findings = formats.opened(
            storage.list_files(self.items),
            mapping=mapping,
            dialect=self.items_dialect,
            binding="items/dialect.Dialect",
        )
        if self.variant_group is not None:
            return [filled_down(file.parts) for file in files], findings
        return [part for file in files for part in file.parts], findings

    def _judgements(self) -> tuple[list[Part], list[Finding]]:
        names = storage.list_files(self.judgements)
        queries = storage.list_files(self.queries or ())
        kind = self.judgements_kind
        findings: list[Finding] = []
        if kind is None and not self.judgement_columns:
            kind, findings = recognised(names)
        if kind is not None:
            parts, seen = kind.read(names, queries=queries)
            return parts, [*findings, *seen]
        files, seen = formats.opened(
            names,
            mapping=judgement_mapping(self.judgement_columns, binding="Tables.judgement_columns"),
            dialect=self.judgements_dialect,
            binding="judgements/dialect.Dialect",
        )
        parts = [part for file in files for part in file.parts]
        if queries:
            parts = named_queries(parts, read_topics(queries))
        return parts, [*findings, *seen]
