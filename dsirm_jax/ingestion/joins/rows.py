"""Rows of an engine, streamed to Parquet."""

from __future__ import annotations

import shutil
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 65_536


def stored(database: ibis.BaseBackend, rows: ibis.Table, path: Path) -> ibis.Table:
    """Returns rows as they lie in a file, so that the engine computes them once.

    Args:
      database: where they are.
      rows: in any order.
      path: where to.
    """
    rows.to_parquet(str(path))
    return database.read_parquet(str(path))


def write_rows(
    rows: ibis.Table, path: Path, columns: pa.Schema, *, index: str | None = None
) -> None:
    """Streams rows to Parquet in the columns and types of a schema, perhaps numbering them.

    Args:
      rows: in the order in which they are to be written.
      path: where to.
      columns: of the file.
      index: the column of these that numbers the rows from 0; None where there is none.
    """
    rows = rows.select([name for name in columns.names if name != index])
    ordered = path.with_name(f"{path.stem}.ordered")
    rows.to_parquet(str(ordered))
    # Distributed engines write a folder of files, whose names sort as the rows do.
    files = sorted(ordered.glob("*.parquet")) if ordered.is_dir() else [ordered]
    first = 0
    with pq.ParquetWriter(path, columns) as writer:
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS):
                table = pa.Table.from_batches([batch])
                if index:
                    numbers = pa.array(range(first, first + len(table)), pa.int64())
                    table = table.append_column(index, numbers)
                writer.write_table(table.select(columns.names).cast(columns))
                first += len(table)
    shutil.rmtree(ordered) if ordered.is_dir() else ordered.unlink()
