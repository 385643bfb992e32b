"""Raw rows in, checked rows out: every part of a table through the row checks, to Parquet."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.schema import REJECTED, Chunk, Part
from dsirm_jax.ingestion.validation.oddities import Oddities
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.progress import progress

log = logging.getLogger(__name__)
PART = "_part"
"""Column of the rows that passed: the number of their part, in the order that the reader gave."""


class Check(Protocol):
    """Checks single rows; it travels to the workers."""

    def __call__(self, chunk: Chunk, *, oddities: Oddities) -> tuple[pa.Table, pa.Table]:
        """Returns the rows that pass and those that do not, and adds what is odd to `oddities`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Staged:
    """A raw table after the checks of single rows.

    Attributes:
      name: items or judgements.
      read: number of rows read.
      kept: pattern of the Parquet files of the rows that passed, which have a column `PART` more.
      rejected: pattern of those of the rows that did not.
      columns: our column name to the user's.
      oddities: what is odd in its values.
    """

    name: str
    read: int
    kept: str
    rejected: str
    columns: Mapping[str, str]
    oddities: Oddities


def stage(
    name: str,
    *,
    parts: Sequence[Part],
    check: Check,
    columns: pa.Schema,
    folder: Path,
    workers: int,
    if_empty: str,
) -> Staged:
    """Checks all rows of a table, one chunk of each worker in memory at a time.

    Args:
      name: items or judgements.
      parts: the table.
      check: turns a chunk into the rows that pass, in `columns`, and those that do not, in
        `schema.REJECTED`; it travels to the workers.
      columns: see `check`.
      folder: where the Parquet files go.
      workers: most parts that are read at a time, each in a process of its own.
      if_empty: what to do about a table without rows.

    Raises:
      InputError: a part cannot be read, or there are no rows.
    """
    kept, rejected = folder / name, folder / f"{name}_unfit"
    kept.mkdir()
    rejected.mkdir()
    jobs = [
        (
            *(part, number, check, columns.append(pa.field(PART, pa.int32()))),
            *(side / f"part-{number:05d}.parquet" for side in (kept, rejected)),
        )
        for number, part in enumerate(parts)
    ]
    results = progress(
        _run(jobs, workers=min(workers, len(jobs))),
        total=len(jobs),
        name=f"prepare {name}",
        unit="part",
    )
    read = 0
    users_names: dict[str, str] = {}
    oddities = Oddities()
    for rows, names, odd in results:
        read += rows
        users_names |= names
        oddities.update(odd)
    if not read:
        raise InputError(f"the source has no {name}; {if_empty}")
    log.info("prepare: %d %s read", read, name)
    return Staged(
        name=name,
        read=read,
        kept=str(kept / "*.parquet"),
        rejected=str(rejected / "*.parquet"),
        columns=users_names,
        oddities=oddities,
    )


def _run(jobs: Sequence[tuple], *, workers: int) -> Iterator[tuple[int, dict[str, str], Oddities]]:
    if workers <= 1:
        yield from (_stage_part(*job) for job in jobs)
        return
    # Forking a process that has JAX's or TensorFlow's threads may deadlock.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = [pool.submit(_stage_part, *job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _stage_part(
    part: Part, number: int, check: Check, columns: pa.Schema, kept: Path, rejected: Path
) -> tuple[int, dict[str, str], Oddities]:
    """Returns the number of rows read, the user's names of the columns, and what is odd."""
    rows = 0
    names: dict[str, str] = {}
    oddities = Oddities()
    with pq.ParquetWriter(kept, columns) as passed, pq.ParquetWriter(rejected, REJECTED) as failed:
        for chunk in part():
            rows_passed, rows_failed = check(chunk, oddities=oddities)
            if rows_passed.num_rows + rows_failed.num_rows != chunk.table.num_rows:
                raise InputError(
                    f"{chunk.file}: of {chunk.table.num_rows} rows from row "
                    f"{chunk.row_numbers()[0]}, {rows_passed.num_rows} were kept and "
                    f"{rows_failed.num_rows} rejected"
                )
            if rows_passed.num_rows:
                numbers = pa.repeat(pa.scalar(number, pa.int32()), rows_passed.num_rows)
                passed.write_table(rows_passed.append_column(columns.field(PART), numbers))
            if rows_failed.num_rows:
                failed.write_table(rows_failed)
            rows += chunk.table.num_rows
            names |= chunk.columns
    return rows, names, oddities
