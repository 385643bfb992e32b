"""Maps the columns of a user's table to ours."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.schema import ITEMS, RAW_ITEMS, RAW_JUDGEMENTS, Chunk, Part
from dsirm_jax.ingestion.columns import suggestions
from dsirm_jax.ingestion.columns.categories import (
    DEFAULT,
    Paths,
    has_whole_paths,
    is_list,
    is_text,
    path_of,
)
from dsirm_jax.ingestion.columns.variants import GROUP
from dsirm_jax.io.checks import check_text
from dsirm_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnMap:
    """The columns to read of a table.

    Attributes:
      columns: our column name to the user's.
      required: our names of those that must be there.
      table: items or judgements, where the user may map columns by gin; None where not.
      remedy: how else the user may map columns.
    """

    columns: Mapping[str, str]
    required: frozenset[str]
    table: str | None = None
    remedy: str = "map your own column to it"

    def with_group(self, users: str) -> ColumnMap:
        """Returns the mapping with the column that rows of one product share."""
        columns = {**self.columns, GROUP: users}
        return dataclasses.replace(self, columns=columns, required=self.required | {GROUP})

    def findings(self, names: Sequence[str]) -> list[Finding]:
        """Returns what is to be said of a table's columns, whose names these are."""
        if self.table is None or not names:
            return []
        return suggestions.column_findings(names, table=self.table, columns=self.columns)

    def differences(self, headers: Mapping[str, Sequence[str]]) -> list[Finding]:
        """Returns what is to be said of files that lack columns of others, by their names."""
        read = {
            file: [users for users in self.columns.values() if users in names]
            for file, names in headers.items()
        }
        every = {users for columns in read.values() for users in columns}
        lacking = {file: every.difference(columns) for file, columns in read.items()}
        poor = [file for file, columns in lacking.items() if columns]
        if self.table is None or not poor:
            return []
        missing = ", ".join(users for users in self.columns.values() if users in lacking[poor[0]])
        text = (
            f"{len(poor)} of {len(read)} files lack columns of others: {poor[0]} has no {missing}"
        )
        return [Finding(table=self.table, text=text)]


def item_mapping(
    item_columns: Mapping[str, str], extras: Sequence[str], *, binding: str
) -> ColumnMap:
    """Returns the columns of items; a column that is not mapped has our own name.

    Args:
      item_columns: our column name to the user's.
      extras: further columns to keep under the user's name.
      binding: what the user calls `item_columns`, for messages.

    Raises:
      InputError: `item_columns` maps a column that we do not have.
    """
    _check_names(item_columns, RAW_ITEMS, binding)
    return ColumnMap(
        columns={name: name for name in (*RAW_ITEMS.names, *extras)} | dict(item_columns),
        required=frozenset({"item_id", "title", *extras, *item_columns}),
        table="items",
    )


def judgement_mapping(judgement_columns: Mapping[str, str], *, binding: str) -> ColumnMap:
    """Returns the columns of judgements, likewise."""
    _check_names(judgement_columns, RAW_JUDGEMENTS, binding)
    return ColumnMap(
        columns={name: name for name in RAW_JUDGEMENTS.names} | dict(judgement_columns),
        required=frozenset({"query", "item_id", *judgement_columns}),
        table="judgements",
    )


def check_column_settings(reader: Any) -> None:
    """Checks what readers of a user's own tables share.

    Args:
      reader: has `item_columns`, `judgement_columns`, `extra_columns`, `category_separator`, and
        perhaps `category_list_separator`.

    Raises:
      InputError: one of them is not legal; the message names its gin binding.
    """
    kind = type(reader).__name__
    for name in ("item_columns", "judgement_columns", "extra_columns"):
        _check_texts(f"{kind}.{name}", getattr(reader, name))
    _check_names(reader.item_columns, RAW_ITEMS, f"{kind}.item_columns")
    _check_names(reader.judgement_columns, RAW_JUDGEMENTS, f"{kind}.judgement_columns")
    extras_schema(reader.extra_columns, binding=f"{kind}.extra_columns")
    for name, example in (
        ("category_separator", "levels of a path, such as ' > '"),
        ("category_list_separator", "paths of an item, such as ', '"),
    ):
        text = getattr(reader, name, None)
        if text is not None and (not isinstance(text, str) or not text):
            raise InputError(
                f"gin binding {kind}.{name} is {text!r}; bind the text between the {example}, or "
                "None"
            )


def _check_texts(binding: str, columns: Mapping[str, str]) -> None:
    if not isinstance(columns, Mapping):
        raise InputError(
            f"gin binding {binding} is {columns!r}; bind a dictionary, such as {{'title': 'name'}}"
        )
    for name, text in columns.items():
        check_text(f"{binding}[{name!r}]", text)


def _check_names(columns: Mapping[str, str], schema: pa.Schema, binding: str) -> None:
    for name in columns:
        if name not in schema.names:
            raise InputError(
                f"gin binding {binding} maps {name!r}, which is none of our columns; bind some of "
                f"{', '.join(schema.names)}"
            )


def extras_schema(extra_columns: Mapping[str, str], *, binding: str) -> pa.Schema:
    """Returns the further item columns of a user with their types.

    Args:
      extra_columns: the user's name to the name of an Arrow type.
      binding: what the user calls `extra_columns`, for messages.

    Raises:
      InputError: a name is one of ours, or a type is none of Arrow's.
    """
    taken = set(ITEMS.names)
    fields = []
    for name, type_ in extra_columns.items():
        if name.casefold() in taken:
            raise InputError(
                f"gin binding {binding} names {name!r}, which is taken; rename it in your table"
            )
        taken.add(name.casefold())
        try:
            fields.append(pa.field(name, pa.type_for_alias(type_)))
        except ValueError as error:
            raise InputError(
                f"gin binding {binding}[{name!r}] is {type_!r}, which is no Arrow type; "
                "bind 'string', 'float64', 'int64' or 'bool'"
            ) from error
    return pa.schema(fields)


def present_columns(table: str, names: Sequence[str], mapping: ColumnMap) -> dict[str, str]:
    """Returns our name to the user's for the columns of a mapping that a table has.

    Args:
      table: file or database table, as messages name it.
      names: its columns.
      mapping: the columns to read.

    Raises:
      InputError: a required column is missing or ambiguous, or judgements have neither labels nor
        counts.
    """
    for ours, users in mapping.columns.items():
        times = names.count(users)
        if times > 1 or (not times and ours in mapping.required):
            fault = "in it more than once" if times else "missing"
            shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise InputError(
                f"{table}: column {users!r} (our {ours!r}) is {fault}; it has: {shown}; "
                + _how_to_map(names, mapping)
            )
    evidence = {name: mapping.columns.get(name) for name in ("label", "clicks", "purchases")}
    is_judgements = {"query", "item_id", "label"} <= mapping.columns.keys()
    if is_judgements and not any(name in names for name in evidence.values()):
        raise InputError(
            f"{table}: no column for label, clicks or purchases; {_how_to_map(names, mapping)}"
        )
    return {ours: users for ours, users in mapping.columns.items() if users in names}


def _how_to_map(names: Sequence[str], mapping: ColumnMap) -> str:
    """Returns the end of a message on columns that are missing: what they may be called."""
    if mapping.table is None:
        return mapping.remedy
    needed = {*mapping.required, "label"}.intersection(suggestions.COMMON_NAMES[mapping.table])
    columns = {ours: users for ours, users in mapping.columns.items() if ours in needed}
    missing = [ours for ours, users in columns.items() if users not in names]
    present = {ours: users for ours, users in columns.items() if users in names}
    found = suggestions.suggest(names, table=mapping.table, wanted=missing, used=present.values())
    mapped = {ours: users for ours, users in present.items() if users != ours}
    if found:
        return f"perhaps {suggestions.binding(mapping.table, mapped | found)}"
    example = {ours: "your column" for ours in missing[:1]}
    return f"map your own column to it: {suggestions.binding(mapping.table, mapped | example)}"


def replace_column(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    """Returns the table with another column of that name."""
    return table.set_column(table.column_names.index(name), name, column)


def split_category(chunk: Chunk, *, separator: str, several: str | None = None) -> Chunk:
    """Turns category paths that are one text into lists; other types stay as they are.

    Of a list of whole paths, each with `categories.DEFAULT` in it, the deepest is taken.

    Args:
      chunk: raw items.
      separator: see `categories.Paths`.
      several: likewise.
    """
    if "category" not in chunk.table.column_names:
        return chunk
    cells = chunk.table["category"]
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if is_list(cells.type):
        if separator != DEFAULT or not has_whole_paths(cells):
            return chunk
        cells = cells.cast(pa.list_(pa.large_binary()))
        levels = pa.array(
            [
                None if cell is None else path_of(list(filter(None, cell)))
                for cell in cells.to_pylist()
            ],
            cells.type,
        )
        return dataclasses.replace(chunk, table=replace_column(chunk.table, "category", levels))
    if not is_text(cells.type):
        return chunk
    # Text may be no UTF-8, whatever its type says.
    cells = cells.cast(pa.large_binary())
    paths = Paths(separator=separator, several=several)
    if paths.is_plain:
        levels = pc.split_pattern(cells, paths.separator)
    else:
        levels = pa.array(
            [None if cell is None else paths.levels(cell) for cell in cells.to_pylist()],
            pa.list_(pa.large_binary()),
        )
    return dataclasses.replace(chunk, table=replace_column(chunk.table, "category", levels))


def split_categories(
    parts: Sequence[Part], *, separator: str, several: str | None = None
) -> list[Part]:
    """Returns the parts with `split_category` for each chunk."""
    return [functools.partial(_split_categories, part, separator, several) for part in parts]


def _split_categories(part: Part, separator: str, several: str | None) -> Iterator[Chunk]:
    for chunk in part():
        yield split_category(chunk, separator=separator, several=several)


def filter_rows(chunk: Chunk, keep: pa.Array | pa.ChunkedArray) -> Chunk:
    """Returns the rows of a chunk where `keep` is true; all its rows must be readable."""
    keep = pc.fill_null(keep, False)
    rows = pc.filter(pa.array(chunk.row_numbers(), pa.int64()), keep)
    return dataclasses.replace(chunk, table=chunk.table.filter(keep), rows=rows.to_pylist())
