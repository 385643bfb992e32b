"""Reads the tables of a database of the user's own, by an Ibis connection URL."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import Chunk, Source
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.categories import SAMPLE, Paths, detect
from dsirm_jax.ingestion.columns.mapping import (
    ColumnMap,
    check_column_settings,
    extras_schema,
    item_mapping,
    judgement_mapping,
    present_columns,
    split_category,
)
from dsirm_jax.ingestion.joins.connections import connect, naming_binding, only_read
from dsirm_jax.ingestion.joins.statements import is_select, regenerated, select_statement
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.secrets import check_public, public_url, resolved

if TYPE_CHECKING:
    import ibis


@dataclasses.dataclass(frozen=True, kw_only=True)
class Database:
    """Tables of your own database or warehouse, which Ibis reaches by a connection URL.

    The engine writes what it selects to a temporary Parquet file in the folder `TMPDIR`, which a
    cluster must share with this machine, and which is streamed from there. Rows have no numbers in
    a database: `row` in messages is the place in this reading, beside which query and item_id are
    named. Nothing tells when a table has changed: use --force then. Nothing is written to the
    database: statements that do so are refused, and where the engine has sessions that only read
    (DuckDB's files, PostgreSQL, MySQL, SQLite), it is one.

    Attributes:
      url: such as "duckdb://shop.ddb", "postgres://user:${PASSWORD}@host/shop", "bigquery://…" or
        "pyspark://…"; ${NAME} is taken from the environment, so that no password (percent-encoded)
        stands in a gin file. The engine's extra of ibis-framework must be installed.
      items: name of a table, as the engine's SQL writes it, or one SELECT (or WITH … SELECT)
        statement; ${NAME} likewise.
      judgements: likewise; a log of single events is counted by a SELECT.
      item_columns: our column name to yours, as in `tables.Tables`.
      judgement_columns: likewise.
      extra_columns: as in `tables.Tables`.
      category_separator: as in `tables.Tables`.
      category_list_separator: as in `tables.Tables`.
    """

    url: str
    items: str
    judgements: str
    item_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    judgement_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extra_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    category_separator: str | None = None
    category_list_separator: str | None = None

    def __post_init__(self) -> None:
        for name in ("url", "items", "judgements"):
            check_text(f"Database.{name}", getattr(self, name))
            check_public(f"Database.{name}", getattr(self, name))
        check_column_settings(self)

    def files(self) -> list[str]:
        return []

    def read(self) -> Source:
        extras = extras_schema(self.extra_columns, binding="Database.extra_columns")
        mappings = {
            "items": item_mapping(self.item_columns, extras.names, binding="Database.item_columns"),
            "judgements": judgement_mapping(
                self.judgement_columns, binding="Database.judgement_columns"
            ),
        }
        findings: list[Finding] = []
        with self._connected() as database:
            tables = {name: self._whole(database, name) for name in mappings}
            for name, mapping in mappings.items():
                self._mapped(tables[name], name, mapping)
                findings += mapping.findings(list(tables[name].columns))
            paths, more = detect(
                self._categories(database, tables["items"], mappings["items"]),
                separator=self.category_separator,
                several=self.category_list_separator,
                binding="Database.",
            )
        items, judgements = (
            functools.partial(self._rows, name, mapping, paths)
            for name, mapping in mappings.items()
        )
        return Source(
            items=[items],
            judgements=[judgements],
            extras=extras,
            if_empty="bind Database.items and Database.judgements to tables with rows",
            findings=[*findings, *more],
        )

    def _categories(self, database: Any, table: ibis.Table, mapping: ColumnMap) -> list[str]:
        """Returns some categories, where they are texts."""
        name = mapping.columns["category"]
        if name not in table.columns or not table[name].type().is_string():
            return []
        with self._naming("items"):
            only_read(database)
            rows = table.select(name).filter(table[name].notnull()).limit(SAMPLE).to_pyarrow()
        return [text for text in rows[name].to_pylist() if text and text.strip()]

    def _rows(self, name: str, mapping: ColumnMap, paths: Paths) -> Iterator[Chunk]:
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.parquet"
            with self._connected() as database:
                table = self._mapped(self._whole(database, name), name, mapping)
                with self._naming(name):
                    only_read(database)
                    table.to_parquet(rows)
            # Spark writes a folder of files.
            files = sorted(rows.glob("*.parquet")) if rows.is_dir() else [rows]
            parts = formats.parts(list(map(str, files)), mapping=mapping)
            first_row = 1
            for chunk in (chunk for part in parts for chunk in part()):
                chunk = dataclasses.replace(chunk, file=self._label(name), first_row=first_row)
                first_row += chunk.table.num_rows
                yield split_category(chunk, separator=paths.separator, several=paths.several)

    def _whole(self, database: Any, name: str) -> ibis.Table:
        """Returns a table, which the engine has not read yet."""
        binding = f"Database.{name}"
        query = select_statement(
            resolved(getattr(self, name), binding=binding),
            dialect=database.dialect,
            binding=binding,
        )
        with self._naming(name):
            if database.name in ("duckdb", "postgres"):
                # What DuckDB takes for statements is what counts.
                if database.name == "duckdb" and len(database.con.extract_statements(query)) != 1:
                    raise InputError(f"{binding} has several statements; bind one SELECT")
                if database.name == "postgres":
                    query = regenerated(query, dialect=database.dialect)
                # Ibis 12 asks either for the columns of a table, but cannot for those of a query.
                database.raw_sql(f"CREATE TEMPORARY VIEW dsirm_{name} AS {query}")
                return database.table(f"dsirm_{name}")
            return database.sql(query)

    def _mapped(self, table: ibis.Table, name: str, mapping: ColumnMap) -> ibis.Table:
        """Returns the columns of a table that are mapped."""
        columns = present_columns(self._label(name), list(table.columns), mapping)
        table = table.select(list(dict.fromkeys(columns.values())))
        # Arrow turns every other type of id into text.
        uuids = [column for column, type_ in table.schema().items() if type_.is_uuid()]
        return table.cast(dict.fromkeys(uuids, "string"))

    def _connected(self) -> AbstractContextManager[Any]:
        # Only so can several processes read a file of DuckDB at a time.
        is_file = self.url.startswith("duckdb://") and public_url(self.url) != "duckdb://"
        options = {"read_only": True} if is_file else {}
        return connect(self.url, binding="Database.url", **options)

    def _label(self, name: str) -> str:
        table = getattr(self, name)
        label = f"SELECT of Database.{name}" if is_select(table) else f"table {table}"
        return f"{public_url(self.url)} {label}"

    def _naming(self, name: str) -> AbstractContextManager[None]:
        return naming_binding(self.url, binding=f"Database.{name}", statement=getattr(self, name))
