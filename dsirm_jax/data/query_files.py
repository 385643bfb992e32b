"""Files of queries to predict for, or of pairs of query and item to score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from dsirm_jax.data import formats
from dsirm_jax.data.columns import ColumnMap
from dsirm_jax.data.schema import REJECTED
from dsirm_jax.data.text import clean
from dsirm_jax.data.validate import CHECKED_PAIRS, checked_pairs
from dsirm_jax.io.errors import InputError


def read_pair_file(
    file: str, *, item_ids: pa.ChunkedArray
) -> tuple[pa.Table, Int[np.ndarray, " pair"], pa.Table]:
    """Reads a table of (query, item_id), cleaned as `prepare` does.

    Args:
      file: Parquet, CSV, TSV or JSON lines with columns `query` and `item_id`, plain or with `.gz`.
      item_ids: those of all items.

    Returns:
      The pairs, columns of `validate.CHECKED_PAIRS`; the place of each one's item among `item_ids`;
      and the rows that can be no pair, columns of `schema.REJECTED`.

    Raises:
      InputError: the file cannot be read.
    """
    mapping = ColumnMap(
        columns={"query": "query", "item_id": "item_id"}, required=frozenset({"query", "item_id"})
    )
    checked = [
        checked_pairs(chunk) for part in formats.parts([file], mapping=mapping) for chunk in part()
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


def read_query_file(file: str) -> Iterator[list[str]]:
    """Yields the texts of a table of queries, cleaned as `prepare` does, some at a time.

    Args:
      file: Parquet, CSV, TSV or JSON lines with a column `query`, plain or with `.gz`.

    Raises:
      InputError: the file cannot be read, or a row has no text.
    """
    mapping = ColumnMap(columns={"query": "query"}, required=frozenset({"query"}))
    for part in formats.parts([file], mapping=mapping):
        for chunk in part():
            texts = []
            column = chunk.table["query"].to_pylist()
            for position, (_, reason) in sorted(chunk.unreadable.items()):
                row = chunk.row_numbers()[position]
                raise InputError(f"{file} row {row}: {reason}; mend the row or leave it out")
            for row, value in zip(chunk.row_numbers(), column, strict=True):
                # Text files are read as bytes; a replaced one stands for no text.
                text = value.decode(errors="replace") if isinstance(value, bytes) else value
                texts.append(clean(str(text or "")))
                if not texts[-1] or "\N{REPLACEMENT CHARACTER}" in texts[-1]:
                    raise InputError(
                        f"{file} row {row}: column query has no text in UTF-8; leave the row out"
                    )
            yield texts
