"""Readers of tables: the official ESCI files, and a user's own Parquet, CSV, TSV or JSONL."""

from __future__ import annotations

import dataclasses
import glob
import gzip
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from dsirm_jax.data.schema import ITEMS, RAW_ITEMS, RAW_JUDGEMENTS, Chunk, Source
from dsirm_jax.errors import InputError

ROWS = 16_384
"""Most rows of a chunk."""

BYTES = 1 << 24
"""Bytes of text read at a time; a longer single row of CSV is an error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Esci:
    """The files of Amazon's Shopping Queries data set (ESCI), as officially released.

    `description` is the product's description followed by its bullet points. The column
    `product_category`, which the official release lacks, becomes `category` where it is present
    (a path joined by " > ").

    Source: Reddy et al. 2022, arXiv 2206.06588; https://github.com/amazon-science/esci-data.

    Attributes:
      data_dir: folder of the two shopping_queries_dataset_{examples,products}.parquet files.
      locale: us, es or jp; None for all, in which case `item_id` is `LOCALE:PRODUCT_ID`, since
        locales share product ids.
      version: keep the examples of the "small" (task 1) or "large" (tasks 2 and 3) version; None
        for all.
    """

    data_dir: str
    locale: str | None = "us"
    version: str | None = None

    def files(self) -> list[str]:
        return [
            str(Path(self.data_dir) / f"shopping_queries_dataset_{name}.parquet")
            for name in ("products", "examples")
        ]

    def read(self) -> Source:
        if self.version not in (None, "small", "large"):
            raise InputError(f"Esci.version is {self.version!r}: bind 'small', 'large' or None")
        products, examples = map(_found, self.files())
        return Source(items=self._items(products), judgements=self._judgements(examples))

    def _items(self, file: str) -> Iterator[Chunk]:
        columns = {
            "item_id": "product_id",
            "title": "product_title",
            "description": "product_description",
            "brand": "product_brand",
            "colour": "product_color",
            "category": "product_category",
            "locale": "product_locale",
            "bullet_points": "product_bullet_point",
        }
        required = set(columns) - {"category"}
        for chunk in self._kept(_parquet(file, columns, required), file, "locale"):
            table = self._with_locale(chunk.table)
            parts = (table[name].fill_null("") for name in ("description", "bullet_points"))
            description = pc.binary_join_element_wise(*parts, " ")
            table = _set(table, "description", description)
            yield dataclasses.replace(chunk, table=_split_paths(table, " > "))

    def _judgements(self, file: str) -> Iterator[Chunk]:
        columns = {
            "query": "query",
            "item_id": "product_id",
            "label": "esci_label",
            "split": "split",
            "locale": "product_locale",
        }
        version = f"{self.version}_version"
        if self.version:
            columns[version] = version
        chunks = _parquet(file, columns, set(columns) - {"split"})
        if self.version:
            chunks = (_where(chunk, pc.equal(chunk.table[version], 1)) for chunk in chunks)
        for chunk in self._kept(chunks, file, "locale"):
            yield dataclasses.replace(chunk, table=self._with_locale(chunk.table))

    def _kept(self, chunks: Iterable[Chunk], file: str, column: str) -> Iterator[Chunk]:
        kept = 0
        for chunk in chunks:
            if self.locale:
                chunk = _where(chunk, pc.equal(chunk.table[column], self.locale))
            kept += chunk.table.num_rows
            if chunk.table.num_rows:
                yield chunk
        if not kept:
            raise InputError(
                f"{file}: no row has locale {self.locale!r} and version {self.version!r}; "
                "bind Esci.locale and Esci.version to what the file holds"
            )

    def _with_locale(self, table: pa.Table) -> pa.Table:
        if self.locale:
            return table
        ids = pc.binary_join_element_wise(table["locale"], table["item_id"], ":")
        return _set(table, "item_id", ids)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tables:
    """Your own tables: Parquet, CSV, TSV or JSONL by suffix, each plain or with `.gz`.

    Our columns are those of `schema.RAW_ITEMS` and `schema.RAW_JUDGEMENTS`. A column that is not
    mapped is looked for under our own name. CSV and TSV have a header row and are UTF-8.

    Attributes:
      items: file, glob pattern, or several of them.
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
        return [*_matching(self.items), *_matching(self.judgements)]

    def read(self) -> Source:
        _check_names("item_columns", self.item_columns, RAW_ITEMS)
        _check_names("judgement_columns", self.judgement_columns, RAW_JUDGEMENTS)
        extras = _extras(self.extra_columns)
        items, judgements = _matching(self.items), _matching(self.judgements)
        return Source(
            items=self._items(items, extras.names),
            judgements=self._judgements(judgements),
            extras=extras,
        )

    def _items(self, files: list[str], extras: list[str]) -> Iterator[Chunk]:
        columns = {name: name for name in (*RAW_ITEMS.names, *extras)} | dict(self.item_columns)
        required = {"item_id", "title", *extras, *self.item_columns}
        for chunk in _rows(files, columns, required):
            table = _split_paths(chunk.table, self.category_separator)
            yield dataclasses.replace(chunk, table=table)

    def _judgements(self, files: list[str]) -> Iterator[Chunk]:
        columns = {name: name for name in RAW_JUDGEMENTS.names} | dict(self.judgement_columns)
        yield from _rows(files, columns, {"query", "item_id", *self.judgement_columns})


def _check_names(binding: str, columns: Mapping[str, str], schema: pa.Schema) -> None:
    for name in columns:
        if name not in schema.names:
            raise InputError(
                f"Tables.{binding} maps {name!r}, which is none of our columns: "
                f"{', '.join(schema.names)}"
            )


def _extras(extra_columns: Mapping[str, str]) -> pa.Schema:
    taken = set(ITEMS.names)
    fields = []
    for name, type_ in extra_columns.items():
        if name.casefold() in taken:
            raise InputError(
                f"Tables.extra_columns names {name!r}, which is taken; rename it in your table"
            )
        taken.add(name.casefold())
        try:
            fields.append(pa.field(name, pa.type_for_alias(type_)))
        except ValueError as error:
            raise InputError(
                f"Tables.extra_columns[{name!r}] is {type_!r}, which is no Arrow type; "
                "say 'string', 'float64', 'int64' or 'bool'"
            ) from error
    return pa.schema(fields)


def _matching(patterns: str | Sequence[str]) -> list[str]:
    """Returns the files of some patterns, each once, in order."""
    files: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []
        files |= dict.fromkeys(matches or [_found(pattern)])
    return list(files)


def _found(file: str) -> str:
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file}: no such file; bind the path of an existing one")
    if path.stat().st_size == 0:
        raise InputError(f"{file}: the file is empty")
    return file


def _rows(files: list[str], columns: Mapping[str, str], required: set[str]) -> Iterator[Chunk]:
    """Yields the rows of all files, and complains when there are none."""
    rows = 0
    for file in files:
        for chunk in _format(file)(_found(file), columns, required):
            rows += chunk.table.num_rows
            yield chunk
    if not rows:
        raise InputError(f"{', '.join(files)}: no data rows")


def _format(file: str):
    formats = {".parquet": _parquet, ".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl}
    suffix = _suffix(file)
    if suffix not in formats:
        raise InputError(
            f"{file}: unknown suffix {suffix!r}; name the file .parquet, .csv, .tsv or .jsonl, "
            "each perhaps with .gz"
        )
    return formats[suffix]


def _suffix(file: str) -> str:
    return Path(file.removesuffix(".gz")).suffix.lower()


def _parquet(file: str, columns: Mapping[str, str], required: set[str]) -> Iterator[Chunk]:
    with tempfile.TemporaryFile() as plain:
        try:
            if file.endswith(".gz"):
                # Parquet is read from its end, gzip only from its start.
                with gzip.open(file) as packed:
                    shutil.copyfileobj(packed, plain)
                reader = pq.ParquetFile(plain)
            else:
                reader = pq.ParquetFile(file)
            names = _present(file, reader.schema_arrow.names, columns, required)
            first_row = 1
            for batch in reader.iter_batches(ROWS, columns=list(names.values())):
                table = pa.Table.from_batches([batch])
                table = table.select(list(names.values())).rename_columns(list(names))
                yield Chunk(table=table, file=file, first_row=first_row, columns=names)
                first_row += table.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file}: not a readable Parquet file: {_line(error)}") from error


def _csv(file: str, columns: Mapping[str, str], required: set[str]) -> Iterator[Chunk]:
    skipped: list[pa.csv.InvalidRow] = []

    def skip(row: pa.csv.InvalidRow) -> str:
        skipped.append(row)
        return "skip"

    parse = pa.csv.ParseOptions(
        delimiter="\t" if _suffix(file) == ".tsv" else ",",
        newlines_in_values=True,
        invalid_row_handler=skip,
    )
    # Only without threads do skipped rows come with their number.
    read = pa.csv.ReadOptions(use_threads=False, block_size=BYTES)
    convert = pa.csv.ConvertOptions(check_utf8=False)
    try:
        with pa.csv.open_csv(file, read, parse, convert) as header:
            names = _present(file, header.schema.names, columns, required)
        skipped.clear()
        convert = pa.csv.ConvertOptions(
            check_utf8=False,
            include_columns=list(names.values()),
            column_types={name: pa.binary() for name in names.values()},
            null_values=[""],
            strings_can_be_null=True,
        )
        with pa.csv.open_csv(file, read, parse, convert) as batches:
            yield from _numbered(batches, file, names, skipped)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{file}: not a readable CSV file: {_line(error)}") from error


def _numbered(
    batches: pa.csv.CSVStreamingReader,
    file: str,
    names: dict[str, str],
    skipped: list[pa.csv.InvalidRow],
) -> Iterator[Chunk]:
    """Yields the rows of CSV, with rows of nulls where the parser skipped one of a wrong width.

    Args:
      batches: the rows that were not skipped.
      file: name of the file.
      names: our column name to the user's, in the order of the batches' columns.
      skipped: the skipped rows; it grows as the batches are read, and may run ahead of them.
    """
    empty = pa.RecordBatch.from_pylist([], batches.schema)
    first_row = 1
    # The last rows of a file may all be skipped ones.
    for batch in itertools.chain(batches, [empty]):
        table = pa.Table.from_batches([batch]).rename_columns(list(names))
        order, unreadable = [], {}
        rows = iter(range(table.num_rows))
        while True:
            # The parser counts the header as row 1.
            if skipped and skipped[0].number == first_row + len(order) + 1:
                row = skipped.pop(0)
                reason = f"{row.actual_columns} values where the header has {row.expected_columns}"
                unreadable[len(order)] = (row.text, reason)
                order.append(None)
            elif (row := next(rows, None)) is not None:
                order.append(row)
            else:
                break
        if unreadable:
            table = table.take(pa.array(order, pa.int64()))
        for start in range(0, table.num_rows, ROWS):
            yield Chunk(
                table=table.slice(start, ROWS),
                file=file,
                first_row=first_row + start,
                columns=names,
                unreadable={
                    position - start: fault
                    for position, fault in unreadable.items()
                    if start <= position < start + ROWS
                },
            )
        first_row += table.num_rows


def _jsonl(file: str, columns: Mapping[str, str], required: set[str]) -> Iterator[Chunk]:
    seen: set[str] = set()
    try:
        with (gzip.open if file.endswith(".gz") else open)(file, "rb") as lines:
            for numbered in _blocks(lines):
                records, unreadable = [], {}
                for position, (_, line) in enumerate(numbered):
                    record, reason = _record(line)
                    if reason:
                        unreadable[position] = (line.decode("utf-8", "backslashreplace"), reason)
                    records.append(record)
                    seen.update(record)
                table = {
                    ours: _json_column([record.get(users) for record in records], ours)
                    for ours, users in columns.items()
                }
                yield Chunk(
                    table=pa.table(table),
                    file=file,
                    columns=columns,
                    unreadable=unreadable,
                    rows=[number for number, _ in numbered],
                )
    except (EOFError, OSError) as error:
        raise InputError(f"{file}: not readable: {_line(error)}") from error
    if seen:
        _present(file, sorted(seen), columns, required)


def _blocks(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Groups lines that are not blank, with their numbers from 1."""
    block, size = [], 0
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        block.append((number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line))
        size += len(line)
        if len(block) == ROWS or size >= BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _record(line: bytes) -> tuple[dict, str | None]:
    """Parses one line of JSON; bytes that are no UTF-8 stay to be found in their column."""
    try:
        record = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return {}, "not valid JSON"
    return (record, None) if isinstance(record, dict) else ({}, "not a JSON object")


def _json_column(values: list, name: str) -> pa.Array:
    if name != "category" or not any(isinstance(value, list) for value in values):
        return pa.array(map(_json_text, values), pa.binary())
    paths = [value if isinstance(value, list) or value is None else [value] for value in values]
    return pa.array(
        [None if path is None else [_json_text(part) for part in path] for path in paths],
        pa.list_(pa.binary()),
    )


def _json_text(value: object) -> bytes | None:
    """Returns a JSON value as text, whatever its type: ids may be numbers in some rows."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _present(
    file: str, names: Sequence[str], columns: Mapping[str, str], required: set[str]
) -> dict[str, str]:
    """Returns our name to the user's for the columns that a file has."""
    for ours, users in columns.items():
        if ours in required and names.count(users) != 1:
            fault = "missing" if users not in names else "there more than once"
            shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
            raise InputError(
                f"{file}: column {users!r} (our {ours!r}) is {fault}; the file has: {shown}; "
                "map your own column to it in gin"
            )
    if "query" in columns and not any(
        columns[name] in names for name in ("label", "clicks", "purchases") if name in columns
    ):
        raise InputError(
            f"{file}: no column for label, clicks or purchases; map one of them in gin"
        )
    return {ours: users for ours, users in columns.items() if users in names}


def _split_paths(table: pa.Table, separator: str) -> pa.Table:
    if "category" not in table.column_names or pa.types.is_nested(table["category"].type):
        return table
    paths = pc.split_pattern(table["category"].cast(pa.binary()), separator)
    return _set(table, "category", paths)


def _set(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _where(chunk: Chunk, mask: pa.ChunkedArray) -> Chunk:
    mask = pc.fill_null(mask, False)
    rows = pc.filter(pa.array(chunk.row_numbers(), pa.int64()), mask.combine_chunks())
    return dataclasses.replace(chunk, table=chunk.table.filter(mask), rows=rows.to_pylist())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
