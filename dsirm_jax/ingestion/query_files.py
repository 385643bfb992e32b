"""Files of queries to predict for, or of pairs of query and item to score."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from dsirm_jax.data.limits import cleaned_query
from dsirm_jax.data.schema import REJECTED
from dsirm_jax.data.text import clean
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns import suggestions
from dsirm_jax.ingestion.columns.mapping import ColumnMap
from dsirm_jax.ingestion.formats.file_starts import file_start
from dsirm_jax.ingestion.joins.joining import UNKNOWN
from dsirm_jax.ingestion.judgement_files import trec_run
from dsirm_jax.ingestion.topics import named_queries, read_topics
from dsirm_jax.ingestion.validation import ids
from dsirm_jax.ingestion.validation.validate import CHECKED_PAIRS, checked_pairs
from dsirm_jax.io.errors import InputError

FLAG = "--columns"


def given_columns(flags: Sequence[str]) -> dict[str, str]:
    """Returns our column name to the user's, of what `--columns` gives.

    Args:
      flags: such as `query=search`.

    Raises:
      InputError: one of them is not of that form, or names a column twice.

    Example:
      >>> given_columns(["query=search", "item_id=sku"])
      {'query': 'search', 'item_id': 'sku'}
    """
    columns: dict[str, str] = {}
    for text in flags:
        ours, equals, users = (part.strip() for part in text.partition("="))
        if not (ours and equals and users) or ours in columns:
            raise InputError(
                f"{FLAG} has {text!r}; give our column and yours once each, such as "
                f"{FLAG}=query=search,item_id=sku"
            )
        columns[ours] = users
    return columns


def file_mapping(
    file: str, *, wanted: Sequence[str], given: Mapping[str, str], of_run: Mapping[str, str]
) -> ColumnMap:
    """Returns the columns to read of a file, all of which must be there.

    Args:
      file: of the user's.
      wanted: our columns.
      given: our column to the user's, by flag; perhaps also of other files.
      of_run: what the tables of the run call them, which is taken where the file has it.
    """
    names = formats.header(file)
    columns = {
        ours: given.get(ours) or (of_run[ours] if of_run.get(ours) in names else ours)
        for ours in wanted
    }
    missing = [ours for ours, users in columns.items() if users not in names]
    found = suggestions.suggest(names, table="judgements", wanted=missing, used=columns.values())
    return ColumnMap(
        columns=columns, required=frozenset(columns), remedy=f"name yours: {_flag(found)}"
    )


def _flag(found: Mapping[str, str]) -> str:
    columns = found or {"query": "yours"}
    return f'{FLAG}="{",".join(f"{ours}={users}" for ours, users in columns.items())}"'


def check_given(given: Mapping[str, str], *, wanted: Sequence[str]) -> None:
    """Raises InputError for a column of `--columns` that is none of those wanted."""
    for name in given:
        if name not in wanted:
            raise InputError(
                f"{FLAG} names {name!r}, which is none of our columns; name some of "
                f"{', '.join(wanted)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """A table of pairs to be scored.

    Attributes:
      kept: the pairs, columns of `validate.CHECKED_PAIRS`, under the ids of the items.
      items: the place of each one's item among those of the run.
      rejected: the rows that can be no pair, columns of `schema.REJECTED`.
      hint: what to do about ids that no item has; perhaps empty.
    """

    kept: pa.Table
    items: Int[np.ndarray, " pair"]
    rejected: pa.Table
    hint: str


def read_pair_file(
    file: str,
    *,
    item_ids: pa.ChunkedArray,
    columns: Mapping[str, str] | None = None,
    of_run: Mapping[str, str] | None = None,
    queries: str | None = None,
) -> Pairs:
    """Reads a table of (query, item_id), cleaned as `prepare` does, or a TREC run.

    Args:
      file: Parquet, CSV, TSV or JSON lines with columns `query` and `item_id`, plain or with `.gz`;
        or lines of `topic Q0 docid rank score tag`.
      item_ids: those of all items.
      columns: our column name to the file's, where they differ.
      of_run: what the tables of the run call them, see `file_mapping`.
      queries: file of the queries' texts by their ids, where the file has ids; see `data.topics`.

    Raises:
      InputError: a file cannot be read.
    """
    run = trec_run.TrecRun()
    if run.recognises(file_start(file)):
        names: Mapping[str, str] = trec_run.COLUMNS
        parts = run.pairs(file, queries=queries)
    else:
        mapping = file_mapping(
            file, wanted=("query", "item_id"), given=columns or {}, of_run=of_run or {}
        )
        names, parts = mapping.columns, formats.told_parts(file, mapping=mapping)
        if queries:
            parts = named_queries(parts, read_topics([queries]))
    checked = [checked_pairs(chunk) for part in parts for chunk in part()]
    kept = pa.concat_tables([CHECKED_PAIRS.empty_table(), *(passed for passed, _ in checked)])
    known = item_ids.combine_chunks()
    items = pc.index_in(kept["item_id"], known)
    hint = ""
    if items.null_count:
        unknown = pc.unique(kept["item_id"].filter(items.is_null())).to_pylist()
        found = ids.match(unknown, known=known.to_pylist)
        hint = found.hint()
        if found.same:
            kept = _under_their_names(kept, found.same)
            items = pc.index_in(kept["item_id"], known)
    rejected = [
        {
            "table": "pairs",
            "file": row["_file"],
            "row": row["_row"],
            "query": row["query"],
            "item_id": row["item_id"],
            "column": names["item_id"],
            "value": row["item_id"],
            "reason": UNKNOWN,
        }
        for row in kept.filter(items.is_null()).to_pylist()
    ]
    unfit = [*(failed for _, failed in checked), pa.Table.from_pylist(rejected, REJECTED)]
    return Pairs(
        kept=kept.filter(items.is_valid()),
        items=items.drop_null().to_numpy(),
        rejected=pa.concat_tables(unfit).sort_by("row"),
        hint=hint,
    )


def _under_their_names(pairs: pa.Table, names: Mapping[str, str]) -> pa.Table:
    """Returns pairs whose items are called as the run calls them."""
    column = [names.get(text, text) for text in pairs["item_id"].to_pylist()]
    place = pairs.column_names.index("item_id")
    return pairs.set_column(place, pairs.schema.field(place), pa.array(column, pa.string()))


def read_query_file(
    file: str,
    *,
    columns: Mapping[str, str] | None = None,
    of_run: Mapping[str, str] | None = None,
) -> Iterator[list[str]]:
    """Yields the texts of a table of queries, cleaned as `prepare` does, some at a time.

    Args:
      file: Parquet, CSV, TSV or JSON lines with a column `query`, plain or with `.gz`.
      columns: our column name to the file's, where they differ.
      of_run: what the tables of the run call them, see `file_mapping`.

    Raises:
      InputError: the file cannot be read, or a row has no text or too long a one.
    """
    mapping = file_mapping(file, wanted=("query",), given=columns or {}, of_run=of_run or {})
    for part in formats.told_parts(file, mapping=mapping):
        for chunk in part():
            texts = []
            column = chunk.table["query"].to_pylist()
            for position, (_, reason) in sorted(chunk.unreadable.items()):
                row = chunk.row_numbers()[position]
                raise InputError(f"{file} row {row}: {reason}; mend the row or leave it out")
            for row, value in zip(chunk.row_numbers(), column, strict=True):
                # Text files are read as bytes; a replaced one stands for no text.
                text = value.decode(errors="replace") if isinstance(value, bytes) else value
                query = clean(str(text or ""))
                if not query or "\N{REPLACEMENT CHARACTER}" in query:
                    raise InputError(
                        f"{file} row {row}: column {mapping.columns['query']} has no text in "
                        "UTF-8; leave the row out"
                    )
                texts.append(cleaned_query(query, name=f"{file} row {row}: column query"))
            yield texts
