"""A catalogue that changes is as if it had been made of the tables of what is left."""

import dataclasses
import tempfile
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.serving import changed_items
from dsirm_jax.serving.bundle import catalogue, digested, item_parts, store
from dsirm_jax.serving.bundle.contents import open_bundle
from dsirm_jax.serving.bundle.stored_items import UNKNOWN
from dsirm_jax.serving.changes import Changes, NewItems

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("item_id", "title", "text", "brand", "colour")),
        ("category", pa.list_(pa.string())),
        ("price", pa.float64()),
    ]
)
# Names of brands and colours are words of titles, alone and side by side.
WORDS = st.sampled_from(["red", "zebra", "print", "garden", "lamp", "no", "free", "7", "ruž"])
ITEMS = st.fixed_dictionaries(
    {
        "title": st.lists(WORDS, min_size=1, max_size=5).map(" ".join),
        "brand": st.sampled_from([None, "Zebra Print", "Garden", "Ruž", "print"]),
        "colour": st.sampled_from([None, "red", "Lamp"]),
        "category": st.sampled_from([None, ["home"], ["home", "lamp"], ["garden"]]),
        "price": st.none() | st.floats(0, 99),
    }
)
KEPT, CHANGED, REMOVED = "kept", "changed", "removed"
FATES = st.sampled_from([KEPT, KEPT, CHANGED, REMOVED])


def table_of(rows):
    return pa.Table.from_pylist([row | {"text": row["title"]} for row in rows], SCHEMA)


def parts_of(rows, opened):
    blocks = [table_of(rows[:3]), table_of(rows[3:])]
    return item_parts.of_tables(
        lambda: iter(blocks),
        numbers=("price",),
        processor=opened.models.vocabulary,
        language="en",
    )


def catalogue_of(parts, base, folder):
    """Writes parts, and opens what was written."""
    folder.mkdir()
    catalogue.write_stores(folder, parts)
    digested.write_digests(folder / "digests", parts.digests)
    return dataclasses.replace(
        base,
        folder=folder,
        ids=store.open_store(folder / "ids.mdb"),
        stored=store.open_store(folder / "items.mdb"),
        digests=digested.read_digests(folder / "digests"),
        numbers=np.concatenate(list(parts.numbers)),
        categories=parts.categories,
        statistics=parts.statistics,
        vectors=np.zeros((len(parts.categories), 2), np.float32),
        sids=np.zeros((len(parts.categories), 3), np.int32),
    )


@pytest.fixture(scope="module")
def opened(made):
    return open_bundle(made)


@settings(max_examples=150)
@given(
    before=st.lists(st.tuples(ITEMS, FATES, ITEMS), min_size=1, max_size=8),
    further=st.lists(ITEMS, max_size=3),
)
def test_parts_are_those_of_the_tables_of_what_is_left(opened, before, further):
    rows = [item | {"item_id": f"{7 * n % 10} {n}"} for n, (item, _, _) in enumerate(before)]
    fates = [fate for _, fate, _ in before]
    kept = np.array([fate == KEPT for fate in fates])
    changed = [n for n, fate in enumerate(fates) if fate == CHANGED]
    new = [before[n][2] | {"item_id": rows[n]["item_id"]} for n in changed]
    new += [item | {"item_id": f"{n} new"} for n, item in enumerate(further)]
    left = [row for row, stays in zip(rows, kept, strict=True) if stays]
    number = np.where(kept, np.cumsum(kept) - 1, UNKNOWN)
    number[changed] = kept.sum() + np.arange(len(changed))
    some = NewItems(table_of(new), np.zeros((len(new), 2), "f4"), np.zeros((len(new), 3), "i4"))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        base = opened.catalogue
        old = catalogue_of(parts_of(rows, opened), base, scratch / "old")
        found = changed_items.parts(
            old,
            Changes(kept=kept, number=number, new=some),
            numbers=("price",),
            processor=opened.models.vocabulary,
            language="en",
        )
        found = catalogue_of(found, base, scratch / "found")
        expected = catalogue_of(parts_of(left + new, opened), base, scratch / "expected")
        for name in ("ids", "stored"):
            assert list(getattr(found, name)) == list(getattr(expected, name))
        assert found.statistics.names == expected.statistics.names
        for name in ("digests", "numbers", "categories"):
            jax.tree.map(
                np.testing.assert_array_equal, getattr(found, name), getattr(expected, name)
            )
        pieces = [of.statistics.pieces for of in (found, expected)]
        jax.tree.map(np.testing.assert_array_equal, *pieces)
