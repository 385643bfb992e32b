"""Which item a judgement is of, where its id is not written as the catalogue writes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.joins.rows import write_rows
from dsirm_jax.ingestion.validation import ids

UNKNOWN = "unknown item_id"
"""Reason of a judgement whose item there is not."""

_NAMES = pa.schema([("written", pa.string()), ("name", pa.string())])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joined:
    """Judgements under the ids of the items.

    Attributes:
      judgements: with the ids that the items have, where they are the same number.
      items: with those that the judgements have, where these are whole numbers and the items'
        were written as floats.
      findings: what was read otherwise than it is written, and what could not be.
      hint: what to do about ids that no item has; perhaps empty.
    """

    judgements: ibis.Table
    items: ibis.Table
    findings: list[Finding]
    hint: str


def join_ids(
    database: ibis.BaseBackend,
    judgements: ibis.Table,
    items: ibis.Table,
    *,
    path: Path,
    folder: Path,
) -> Joined:
    """Reads ids that are written as floats or with an exponent as what the other table has.

    Args:
      database: where both tables are.
      judgements: checked ones.
      items: the prepared ones.
      path: their file, which is written anew where items get other ids.
      folder: for intermediate files.
    """
    findings: list[Finding] = []
    hint = ""
    unknown = judgements.anti_join(items, "item_id").select("item_id").distinct().to_pyarrow()
    if len(unknown):
        found = ids.match(unknown["item_id"].to_pylist(), known=lambda: ids.stored_ids(path))
        hint = found.hint()
        of_items = _numbered(path) if _has_floats(found) else {}
        of_judgements = of_items | {
            written: of_items.get(name, name) for written, name in found.same.items()
        }
        of_judgements = {old: new for old, new in of_judgements.items() if old != new}
        findings += _said(found, of_items, hint)
        if of_items:
            columns = pq.read_schema(path)
            named = _renamed(database, items, of_items, folder / "item_names.parquet")
            write_rows(
                named.order_by("item_id"),
                folder / "items_named.parquet",
                columns,
                index="item_index",
            )
            (folder / "items_named.parquet").replace(path)
            items = database.read_parquet(str(path))
        if of_judgements:
            judgements = _renamed(
                database, judgements, of_judgements, folder / "judged_names.parquet"
            )
    findings += _twins(judgements, path)
    return Joined(judgements=judgements, items=items, findings=findings, hint=hint)


def _has_floats(found: ids.Matches) -> bool:
    """Returns whether a judgement has a whole number for an item that is written as a float."""
    return any(
        ids.number_form(written) is None and name != written for written, name in found.same.items()
    )


def _numbered(path: Path) -> dict[str, str]:
    """Returns the whole number of every item whose id is a float, where no other item has it."""
    numbers: dict[str, list[str]] = {}
    for text in ids.stored_ids(path):
        numbers.setdefault(ids.number_form(text) or text, []).append(text)
    return {
        texts[0]: number
        for number, texts in numbers.items()
        if len(texts) == 1 and texts[0] != number
    }


def _renamed(
    database: ibis.BaseBackend, rows: ibis.Table, names: Mapping[str, str], path: Path
) -> ibis.Table:
    pq.write_table(pa.table([list(names), list(names.values())], schema=_NAMES), path)
    table = database.read_parquet(str(path))
    # DataFusion cannot sort by a name that two columns had.
    kept = rows.rename(written_id="item_id")
    joined = kept.left_join(table, kept.written_id == table.written)
    joined = joined.mutate(item_id=ibis.coalesce(joined.name, joined.written_id))
    return joined.select(rows.columns)


def _said(found: ids.Matches, of_items: Mapping[str, str], hint: str) -> list[Finding]:
    findings = []
    if of_items:
        written, name = next(iter(of_items.items()))
        findings.append(
            Finding(
                table="items",
                text=f"item_id: {len(of_items)} ids written as numbers, such as {written!r}, are "
                f"read as the judgements write them, {name!r}",
                is_fault=False,
            )
        )
    elif found.same:
        written, name = next(iter(found.same.items()))
        findings.append(
            Finding(
                table="judgements",
                text=f"item_id: {len(found.same)} ids written as numbers, such as {written!r}, "
                f"are read as the catalogue writes them, {name!r}",
                is_fault=False,
            )
        )
    left = len(found.near) + len(found.unknown)
    if left:
        findings.append(
            Finding(table="judgements", text=f"item_id: {left} ids are no item's; {hint}")
        )
    return findings


def _twins(judgements: ibis.Table, path: Path) -> list[Finding]:
    """Returns what is to be said of items whose ids all but agree."""
    groups = ids.alike(path)
    if not groups:
        return []
    others = {text: group for group in groups for text in group}
    texts = " and ".join(map(repr, groups[0][:2]))
    findings = [
        Finding(
            table="items",
            text=f"item_id: {len(others)} ids are another's but for leading zeros, case or "
            f"notation, such as {texts}; each is an item of its own",
        )
    ]
    twins = ibis.memtable(pa.table({"item_id": list(others)}))
    judged = judgements.semi_join(twins, "item_id").select("item_id").distinct().to_pyarrow()
    if len(judged):
        text = min(judged["item_id"].to_pylist())
        other = next(other for other in others[text] if other != text)
        findings.append(
            Finding(
                table="judgements",
                text=f"item_id: {len(judged)} judged ids also exist otherwise written, such as "
                f"{text!r} and {other!r}; each is taken as it stands: if zeros or case were lost, "
                "wrong items are judged, and the ids must be exported as text",
            )
        )
    return findings
