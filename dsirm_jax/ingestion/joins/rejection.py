"""Rows that cannot be used: where they go, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow.parquet as pq

from dsirm_jax.data import schema
from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.joins import relations
from dsirm_jax.ingestion.joins.rows import write_rows
from dsirm_jax.ingestion.validation.staging import Staged
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing

FREQUENT_SHARE = 0.25
"""Share of the rejected rows from which on a reason's mend is told."""


def settle_rows(
    database: ibis.BaseBackend,
    staged: Staged,
    bad_rows: ibis.Table,
    *,
    folder: Path,
    rejected: Path,
    most: float,
    note: Callable[[Sequence[Finding]], None],
    harmless: Collection[str] = (),
    hints: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Rejects the rows that only whole tables show to be bad, writes them out and counts.

    Unrated judgements are written out with the others, and counted apart.

    Args:
      database: where `bad_rows` lives.
      staged: the raw table.
      bad_rows: rows of it that are to be rejected for their item_id, each with its `reason`.
      folder: for intermediate files.
      rejected: the user's table of rejected rows, to which those of this table are added.
      most: share of the rows that may be rejected.
      note: is called with the finding that some are.
      harmless: reasons that do not count against it, nor as faults.
      hints: what to do about a reason, where it is a frequent one.

    Returns:
      Number of rows read, kept and rejected, the latter by reason, and of judgements those unrated.

    Raises:
      InputError: too many are rejected.
    """
    bad_rows = bad_rows.select(
        table=ibis.literal(staged.name),
        file=bad_rows._file,
        row=bad_rows._row,
        query=bad_rows.query if "query" in bad_rows.columns else ibis.null("string"),
        item_id=bad_rows.item_id,
        column=ibis.literal(staged.columns.get("item_id", "item_id")),
        value=bad_rows.item_id,
        reason=bad_rows.reason,
    )
    unreadable = database.read_parquet(staged.rejected)
    rejected_rows = unreadable.union(bad_rows.cast(unreadable.schema()))
    path = folder / f"rejected_{staged.name}.parquet"
    write_rows(rejected_rows.order_by("file", "row"), path, schema.REJECTED)
    rejected_rows = database.read_parquet(str(path))
    with replacing(rejected) as partial, pq.ParquetWriter(partial, schema.REJECTED) as writer:
        for part in sorted(path.parent.glob("rejected_*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches():
                writer.write_batch(batch)
    reasons = relations.counts(rejected_rows, "reason")
    unrated = reasons.pop(schema.UNRATED, 0)
    if empty := reasons.get(schema.EMPTY_ROW, 0):
        text = f"{empty} rows are empty in the columns read, and left out"
        note([Finding(table=staged.name, text=text, is_fault=False)])
    harmless = {schema.EMPTY_ROW, *harmless}
    faults = {reason: count for reason, count in reasons.items() if reason not in harmless}
    bad = sum(faults.values())
    if bad:
        faulty = rejected_rows.filter(rejected_rows.reason.isin(list(faults)))
        first = faulty.order_by("file", "row").limit(1).to_pyarrow().to_pylist()[0]
        where = f"{first['file']} row {first['row']}"
        where += f" column {first['column']}" if first["column"] else ""
        where += f" = {first['value']!r}" if first["value"] else ""
        keys = [f"{name} {first[name]!r}" for name in ("query", "item_id") if first[name]]
        message = (
            f"{bad} of {staged.read} {staged.name} rejected ("
            + ", ".join(_counted(count, name) for name, count in faults.items())
            + f"), the first: {where} ({', '.join([first['reason'], *keys])}); all are in "
        )
        frequent = [name for name, count in faults.items() if count >= FREQUENT_SHARE * bad]
        told = "".join(f"; {hints[name]}" for name in frequent if hints and hints.get(name))
        if bad > most * staged.read:
            raise InputError(
                f"{message}{rejected}{told}; fix them or raise prepare.run.max_rejected_share "
                f"({most})"
            )
        # Where the run lies is no part of what is said of its tables.
        note([Finding(table=staged.name, text=f"{message}{rejected.name}{told}")])
    out = sum(reasons.values())
    return {
        "read": staged.read,
        "kept": staged.read - out - unrated,
        "rejected": out,
        "reasons": reasons,
        **({"unrated": unrated} if staged.name == "judgements" else {}),
    }


def _counted(count: int, reason: str) -> str:
    return f"{count} with {reason}" if reason[:1].isdigit() else f"{count} {reason}"
