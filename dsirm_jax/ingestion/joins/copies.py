"""Rows that share an id: which of them is the item, and what is said of the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import ibis
import pyarrow as pa
from ibis import _

from dsirm_jax.data.findings import Finding
from dsirm_jax.ingestion.columns import variants
from dsirm_jax.ingestion.joins import relations
from dsirm_jax.ingestion.joins.rows import write_rows
from dsirm_jax.ingestion.validation import ids
from dsirm_jax.ingestion.validation.staging import PART
from dsirm_jax.ingestion.validation.validate import ORIGIN
from dsirm_jax.io.errors import InputError

EQUAL, OTHER = "equal copy of an item", "duplicate item_id"
"""Reasons of rows that share their id with the one that is the item: of equal contents, or not."""

_COLUMNS = pa.schema(
    [("item_id", pa.string()), *ORIGIN, (PART, pa.int32()), ("reason", pa.string())]
)
_VARIANTS = (
    "where rows without a title belong to the product above (Shopify), bind Tables.variant_group "
    "to the column that they share, such as 'Handle'"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """Rows that share their id with the one that is the item.

    Attributes:
      rows: columns of `_COLUMNS`.
      equal: how many have the same contents.
      other: how many have not.
      example: id of one of these, or of those.
      item_copies: see `prepare.prepare`.
    """

    rows: ibis.Table
    equal: int
    other: int
    example: str
    item_copies: str | None

    @property
    def harmless(self) -> set[str]:
        """Reasons that are no faults."""
        chosen = {OTHER} if self.item_copies else set()
        return {EQUAL, variants.NO_ID} | chosen

    @property
    def hints(self) -> Mapping[str, str]:
        """What to do about a reason."""
        lost = (
            f"ids such as {self.example!r} are in scientific notation, which has lost digits: "
            "export the column of ids as text"
        )
        chosen = (
            "bind prepare.run.item_copies to 'first' or 'last' to say which row is the item, or "
            "map item_id to a column of ids"
        )
        return {"empty title": _VARIANTS, OTHER: lost if ids.is_rounded(self.example) else chosen}

    @property
    def findings(self) -> list[Finding]:
        """What is to be said of them."""
        findings = []
        if self.equal:
            findings.append(
                Finding(
                    table="items",
                    text=f"{self.equal} rows are equal copies of an item in the columns read",
                    is_fault=False,
                )
            )
        if self.other and self.item_copies != "error":
            kept = "first" if self.item_copies == "first" else "last"
            findings.append(
                Finding(
                    table="items",
                    text=f"{self.other} rows share their item_id with one of other contents, such "
                    f"as {self.example!r}; the {kept} of each, in the order of files and rows, is "
                    "the item: see prepare.run.item_copies",
                    is_fault=not self.item_copies,
                )
            )
        return findings

    def check(self) -> None:
        """Raises InputError where there may be no others and there are."""
        if self.item_copies == "error" and self.other:
            raise InputError(
                f"{self.other} rows of the items share their item_id with one of other contents, "
                f"such as {self.example!r}; leave one of each, or bind prepare.run.item_copies to "
                "'first' or 'last'"
            )


def found_copies(
    database: ibis.BaseBackend,
    rows: ibis.Table,
    *,
    extras: Sequence[str],
    item_copies: str | None,
    folder: Path,
) -> Copies:
    """Finds the rows that share an id with the item.

    Args:
      database: where the rows are.
      rows: checked items, with their parts.
      extras: further columns of theirs.
      item_copies: see `prepare.prepare`.
      folder: for intermediate files.
    """
    found = _copies(rows, extras=extras, is_last=item_copies != "first")
    path = folder / "copies.parquet"
    write_rows(found, path, _COLUMNS)
    found = database.read_parquet(str(path))
    counts = relations.counts(found, "reason")
    reason = OTHER if OTHER in counts else EQUAL
    example = found.filter(_.reason == reason).order_by("item_id").limit(1).to_pyarrow()
    return Copies(
        rows=found,
        equal=counts.get(EQUAL, 0),
        other=counts.get(OTHER, 0),
        example="".join(example["item_id"].to_pylist()),
        item_copies=item_copies,
    )


def _copies(items: ibis.Table, *, extras: Sequence[str], is_last: bool) -> ibis.Table:
    """Returns all but one of the items that share an id, with the `reason` for each.

    Args:
      items: checked ones, with their parts.
      extras: further columns of theirs.
      is_last: whether the last one is the item, in the order of parts and rows, or the first.
    """
    repeated = items.group_by("item_id").agg(rows=_.count()).filter(_.rows > 1)
    contents = ["title", "description", "brand", "colour", "category", *extras]
    order = [PART, "_row"]
    by_place = ibis.window(
        group_by="item_id", order_by=[ibis.desc(name) for name in order] if is_last else order
    )
    by_contents = ibis.window(group_by="item_id", order_by=contents)
    rows = items.semi_join(repeated, "item_id").mutate(
        _place=ibis.row_number().over(by_place), _contents=ibis.dense_rank().over(by_contents)
    )
    winners = rows.filter(_["_place"] == 0).select("item_id", _winner=_["_contents"])
    rows = rows.filter(_["_place"] > 0).join(winners, "item_id")
    return rows.mutate(reason=ibis.ifelse(rows["_contents"] == rows["_winner"], EQUAL, OTHER))
