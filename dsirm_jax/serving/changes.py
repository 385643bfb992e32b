"""What tables of items change in the catalogue of a bundle."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from dsirm_jax.data import vectors
from dsirm_jax.data.schema import EMPTY_ROW
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.categories import paths_of
from dsirm_jax.ingestion.columns.mapping import item_mapping, split_categories
from dsirm_jax.ingestion.query_files import FLAG, file_mapping
from dsirm_jax.ingestion.validation.validate import ID_COLUMNS, checked_ids, checked_items
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.codebooks import category_codes
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.relevance.neighbours import Judged
from dsirm_jax.relevance.rows import run_of
from dsirm_jax.serving import caching
from dsirm_jax.serving.bundle import models
from dsirm_jax.serving.bundle.catalogue import ROWS_PER_BLOCK, BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.stored_items import UNKNOWN, StoredItem, item_to_json

log = logging.getLogger(__name__)
_Row = TypeVar("_Row")
ITEM_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("item_id", "title", "text", "brand", "colour")),
        ("category", pa.list_(pa.string())),
    ]
)
MAY_LACK = ("brand", "colour", "category")
"""Columns that a table of items need not have."""
SAME = 1e-6
"""The most by which a number of a vector is another and the vector still the same."""


class NewItems(NamedTuple):
    """Items that a catalogue lacks, or has otherwise.

    Attributes:
      table: columns of `ITEM_COLUMNS` and the run's own.
      vectors: of length 1, float32 `[item, dim]`.
      sids: int32 `[item, level]`.
    """

    table: pa.Table
    vectors: Float[np.ndarray, "item dim"]
    sids: Int[np.ndarray, "item level"]


class Changes(NamedTuple):
    """What becomes of the items of a catalogue: those that stay, in their order, then new rows.

    Attributes:
      kept: whether each item stays as it is, bool `[item]`.
      number: that it has afterwards, that of its new row where it changes, int64 likewise;
        `UNKNOWN` where it is removed.
      new: rows of items that are new or not what they were.
    """

    kept: Bool[np.ndarray, " item"]
    number: Int[np.ndarray, " item"]
    new: NewItems

    @property
    def are_none(self) -> bool:
        """Whether the catalogue stays what it is."""
        return bool(self.kept.all()) and not len(self.new.sids)

    def staying(self) -> Iterator[Int[np.ndarray, " row"]]:
        """Yields the numbers that the items which stay had, rising, some at a time."""
        for start in range(0, len(self.kept), ROWS_PER_BLOCK):
            yield start + np.flatnonzero(self.kept[start : start + ROWS_PER_BLOCK])

    def vectors(self, old: BundleCatalogue) -> Iterator[Float[np.ndarray, "row dim"]]:
        """Yields the vectors of all items, of the catalogue and then of the new rows."""
        for rows in self.staying():
            yield old.vectors[run_of(rows) or rows]
        yield self.new.vectors

    def sids(self, old: BundleCatalogue) -> Int[np.ndarray, "item level"]:
        """Returns their SIDs, int32."""
        return np.concatenate([np.asarray(old.sids, np.int32)[self.kept], self.new.sids])

    def judged(self, judged: Judged) -> Judged:
        """Returns judgements, of which those of items that are removed are none."""
        items = self.number[judged.items]
        gone = (items == UNKNOWN) | (judged.verdicts == 0)
        return Judged(
            items=np.where(gone, 0, items).astype(np.int32),
            verdicts=np.where(gone, np.float32(0), judged.verdicts),
        )

    def near(self, near: Neighbours) -> Neighbours:
        """Returns neighbours under their new numbers, `UNKNOWN` where one does not stay."""
        row = np.where(self.kept, self.number, UNKNOWN)[near.row]
        return Neighbours(row.astype(np.int32), near.cosine)


class GivenItems(NamedTuple):
    """A table of items.

    Attributes:
      rows: columns of `ITEM_COLUMNS` and the run's own, each item once.
      file: that they come from; "" where there is none.
      id_column: what the file calls `item_id`.
      lacking: columns that the file does not have, by our names.
    """

    rows: pa.Table
    file: str
    id_column: str
    lacking: tuple[str, ...]


def read_changes(
    bundle: Bundle,
    *,
    items: str | None,
    removed: str | None,
    columns: Mapping[str, str],
    separators: Mapping[str, str | None],
) -> Changes:
    """Returns what tables change; arguments and errors as `update.update` has them.

    Args:
      bundle: that is to be changed.
      items: as in `update`.
      removed: likewise.
      columns: likewise, of items.
      separators: between the levels of a category path, and between several of one item.
    """
    old = bundle.catalogue
    given = _read_table(bundle, items, columns=columns, separators=separators)
    gone = _read_removed(removed, columns=columns)
    if both := sorted(gone & set(given.rows["item_id"].to_pylist())):
        raise InputError(f"item_id {both[0]} is in {items} and in {removed}; give it in one")
    new, stale = _new_items(bundle, given)
    of_gone = old.numbers_of(gone)
    if lacking := int((of_gone == UNKNOWN).sum()):
        log.warning("%s: %s of its %s ids are those of no item", removed, lacking, len(gone))
    of_gone = of_gone[of_gone != UNKNOWN]
    kept = np.ones(len(old), bool)
    kept[of_gone] = kept[stale] = False
    if not kept.any() and not len(new.sids):
        raise InputError(f"{removed} removes all items of {bundle.path}; leave some")
    number = np.where(kept, np.cumsum(kept) - 1, UNKNOWN)
    if len(stale):
        of_new = old.numbers_of(new.table["item_id"].to_pylist())
        (row,) = np.nonzero(of_new != UNKNOWN)
        number[of_new[row]] = kept.sum() + row
    log.info(
        "%s: %s items are new, %s change, %s go",
        *(bundle.path, len(new.sids) - len(stale), len(stale), len(of_gone)),
    )
    return Changes(kept=kept, number=number, new=new)


def in_blocks(rows_of: Iterable[_Row], *, rows: int) -> Iterator[list[_Row]]:
    """Yields some rows at a time."""
    left = iter(rows_of)
    while block := list(itertools.islice(left, rows)):
        yield block


def _read_removed(file: str | None, *, columns: Mapping[str, str]) -> set[str]:
    """Returns the ids of items that a table names."""
    if not file:
        return set()
    mapping = file_mapping(file, wanted=("item_id",), given=columns, of_run={})
    parts = formats.told_parts(file, mapping=mapping)
    checked = (checked_ids(chunk) for part in parts for chunk in part())
    return set(_accepted(file, checked, schema=ID_COLUMNS)["item_id"].to_pylist())


def _accepted(
    file: str, chunks: Iterable[tuple[pa.Table, pa.Table]], *, schema: pa.Schema
) -> pa.Table:
    """Returns the rows that passed a check, and says how many others have nothing in them.

    Raises:
      InputError: another one did not pass.
    """
    passed, empty = [schema.empty_table()], 0
    for rows, rejected in chunks:
        for row in rejected.to_pylist():
            if row["reason"] != EMPTY_ROW:
                raise InputError(
                    f"{file} row {row['row']}: column {row['column']} = {row['value']!r} "
                    f"({row['reason']}); correct the row or leave it out"
                )
        passed.append(rows.select(schema.names).cast(schema))
        empty += len(rejected)
    if empty:
        log.warning("%s: %s rows are empty", file, empty)
    return pa.concat_tables(passed)


def _new_items(bundle: Bundle, given: GivenItems) -> tuple[NewItems, Int[np.ndarray, " changed"]]:
    """Returns the items that are not in the catalogue as they are, and the numbers that some have.

    They get vectors and SIDs.
    """
    catalogue, encoder = bundle.catalogue, bundle.models.encoder
    table, file = given.rows, given.file
    nothing = NewItems(table.slice(0, 0), catalogue.vectors[:0], catalogue.sids[:0])
    if not len(table):
        return nothing, np.empty(0, np.int64)
    numbers = catalogue.numbers_of(table["item_id"].to_pylist())
    (known,) = np.nonzero(numbers != UNKNOWN)
    is_same = np.zeros(len(table), bool)
    is_same[known] = _are_stored(catalogue, given._replace(rows=table.take(known)), numbers[known])
    own = None
    if encoder is None:
        own = vectors.read_vectors(file, ids=table["item_id"], id_column=given.id_column)
        caching.check_width(file, own, dim=bundle.manifest.settings.encoder.dim)
        stored = catalogue.vectors[numbers[known]]
        is_same[known] &= np.isclose(unit(own[known]), stored, rtol=0, atol=SAME).all(axis=1)
    if same := int(is_same.sum()):
        log.info("%s: %s of its items are there already, as they are", file, same)
    (other,) = np.nonzero(~is_same)
    if not len(other):
        return nothing, np.empty(0, np.int64)
    table, numbers = table.take(other), numbers[other]
    if encoder is None:
        assert own is not None
        found = own[other]
    else:
        found = encoder.embed(table["text"].to_pylist(), of_items=True)
    quantizer = quantizers.load(bundle.model / models.QUANTIZER)
    pinned = _pinned(table, quantizer, from_titles=bundle.manifest.settings.types_from_titles)
    assigned = assign_vectors(fitted=quantizer, vectors=found, pinned=pinned)
    return NewItems(table, unit(found), assigned.codes), numbers[numbers != UNKNOWN]


def _read_table(
    bundle: Bundle,
    file: str | None,
    *,
    columns: Mapping[str, str],
    separators: Mapping[str, str | None],
) -> GivenItems:
    """Returns the items of a table, of several rows of one the last."""
    settings = bundle.manifest.settings
    extras = pa.schema(
        [(name, pa.type_for_alias(alias)) for name, alias in settings.extras.items()]
    )
    schema = pa.schema([*ITEM_COLUMNS, *extras])
    if not file:
        return GivenItems(schema.empty_table(), "", "", ())
    mapping = dataclasses.replace(
        item_mapping(columns, extras.names, binding=FLAG),
        table=None,
        remedy=f"name yours: {FLAG}=item_id=sku,title=name",
    )
    parts = formats.told_parts(file, mapping=mapping)
    paths, findings = paths_of(parts, **separators, binding="--")
    for finding in findings:
        log.log(finding.level, "%s: %s", file, finding.text)
    parts = split_categories(parts, separator=paths.separator, several=paths.several)
    read = functools.partial(checked_items, extras=extras, item_text=settings.item_text)
    checked = (read(chunk) for part in parts for chunk in part())
    table = _accepted(file, checked, schema=schema)
    ids = table["item_id"].to_pylist()
    rows = sorted({item_id: row for row, item_id in enumerate(ids)}.values())
    if copies := len(ids) - len(rows):
        log.info(
            "%s: %s rows share their item_id with a later one, which is the item", file, copies
        )
    names = formats.header(file)
    return GivenItems(
        rows=table.take(pa.array(rows, pa.int64())),
        file=file,
        id_column=mapping.columns["item_id"],
        lacking=tuple(name for name in MAY_LACK if mapping.columns[name] not in names),
    )


def _are_stored(
    old: BundleCatalogue, given: GivenItems, numbers: Int[np.ndarray, " row"]
) -> list[bool]:
    """Returns whether each row is what a catalogue has of the item of a number.

    Raises:
      InputError: the file lacks a column that one of these items has.
    """
    found = []
    for start in range(0, len(given.rows), ROWS_PER_BLOCK):
        rows = given.rows.slice(start, ROWS_PER_BLOCK)
        items = old.items(numbers[start : start + ROWS_PER_BLOCK].tolist())
        before = _table_of(items, rows.schema).to_pylist()
        for name, row in itertools.product(given.lacking, before):
            if row[name]:
                raise InputError(
                    f"{given.file} has no column {name}, which item {row['item_id']} of the "
                    f"bundle has; add it, for what is there already becomes what its row says"
                )
        pairs = zip(rows.to_pylist(), before, strict=True)
        found += [_spelt(one) == _spelt(other) for one, other in pairs]
    return found


def _spelt(row: dict) -> bytes:
    """Returns an item as it is stored, in which no path is none and NaN equals NaN."""
    return item_to_json(row | {"category": row["category"] or []})


def _table_of(items: Sequence[StoredItem], schema: pa.Schema) -> pa.Table:
    """Returns items as the table that they came from."""
    return pa.Table.from_pylist([vars(item) | dict(item.attributes) for item in items], schema)


def _pinned(
    table: pa.Table, quantizer: FittedQuantizer, *, from_titles: bool
) -> Int[np.ndarray, " item"] | None:
    """Returns the first codes that the items' categories pin."""
    if not quantizer.names:
        return None
    if from_titles or not quantizer.config.pin_depth:
        types = [quantizer.title_types.of(title) for title in table["title"].to_pylist()]
        categories = pa.chunked_array([pa.array(types, pa.string())])
    else:
        paths = pc.list_slice(table["category"], 0, quantizer.config.pin_depth)
        categories = pc.binary_join(paths, " > ")
    codes, _ = category_codes(categories, most=len(quantizer.names), known=quantizer.names)
    return codes
