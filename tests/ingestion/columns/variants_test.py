from __future__ import annotations

import functools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion import formats
from dsirm_jax.ingestion.columns.mapping import item_mapping
from dsirm_jax.ingestion.columns.variants import GROUP, NO_ID, filled_down
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.ingestion.validation.validate import checked_items
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, write
from tests.ingestion.shop_rows import SETTINGS, read, shop

ROWS = [
    ("kettle", "Red kettle", "Arvo", "k-S"),
    ("kettle", "", "", "k-M"),
    ("kettle", "", "", ""),
    ("mug", "Mug", "", "m-S"),
    ("mug", " ", "", "m-L"),
    ("", "", "", "x"),
    ("", "No group", "", "y"),
    ("kettle", "", "", "k-L"),
]
TITLES = ["Red kettle", "Red kettle", "Red kettle", "Mug", "Mug", None, "No group", None]
BRANDS = ["Arvo", "Arvo", "Arvo", *5 * [None]]


def chunks(size):
    for start in range(0, len(ROWS), size):
        columns = zip(*ROWS[start : start + size], strict=True)
        names = (GROUP, "title", "brand", "item_id")
        cells = {name: [cell or None for cell in column] for name, column in zip(names, columns)}
        yield Chunk(table=pa.table(cells), file="f", first_row=start + 1)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("parts", [1, 2])
def test_cells_are_filled_down_within_a_product_whatever_the_chunks(size, parts):
    pieces = list(chunks(size))
    middle = len(pieces) // parts
    shared = [functools.partial(iter, pieces[:middle]), functools.partial(iter, pieces[middle:])]
    found = list(filled_down(shared)())
    tables = [chunk.table for chunk in found]
    assert [len(table) for table in tables] == [len(chunk.table) for chunk in pieces]
    assert all(GROUP not in table.column_names for table in tables)
    cells = {
        name: [(cell or "").strip() or None for table in tables for cell in table[name].to_pylist()]
        for name in ("title", "brand", "item_id")
    }
    assert cells["title"] == TITLES
    assert cells["brand"] == BRANDS
    assert cells["item_id"] == [row[3] or None for row in ROWS]
    unreadable = [
        (chunk.row_numbers()[row], fault)
        for chunk in found
        for row, fault in chunk.unreadable.items()
    ]
    assert unreadable == [(3, ("kettle", NO_ID))]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_in_several_parts_is_one(tmp_path, suffix):
    table = pa.table(
        {"Handle": ["a"] * 5 + ["b"], "Title": ["A", *4 * [None], "B"], "SKU": list("123456")}
    )
    file = tmp_path / f"items.{suffix}"
    if suffix == "parquet":
        pq.write_table(table, file, row_group_size=2)
    else:
        file.write_text(
            "Handle,Title,SKU\n"
            + "".join(
                f"{handle},{title or ''},{sku}\n"
                for handle, title, sku in zip(*table.to_pydict().values())
            )
        )
    mapping = item_mapping({"item_id": "SKU", "title": "Title"}, (), binding="b")
    limits = formats.Limits(rows=2, part_rows=1)
    parts = formats.parts([str(file)], mapping=mapping.with_group("Handle"), limits=limits)
    assert len(parts) == (3 if suffix == "parquet" else 1)
    rows = [
        row
        for chunk in filled_down(parts)()
        for row in checked_items(chunk, extras=pa.schema([]))[0].to_pylist()
    ]
    assert [(row["item_id"], row["title"]) for row in rows] == [*zip("12345", "AAAAA"), ("6", "B")]


def test_products_or_their_variants_are_items(tmp_path):
    file = tmp_path / "items.csv"
    file.write_text("Handle,Title,SKU\na,A,1\na,,2\nb,B,3\n")
    (tmp_path / "judged.csv").write_text("query,item_id,label\nq,a,1\n")
    reader = functools.partial(
        Tables, items=str(file), judgements=str(tmp_path / "judged.csv"), variant_group="Handle"
    )
    kept, _ = items_of(reader(item_columns={"item_id": "Handle", "title": "Title"}).read())
    assert [(row["item_id"], row["title"]) for row in kept] == [("a", "A"), ("a", "A"), ("b", "B")]
    kept, _ = items_of(reader(item_columns={"item_id": "SKU", "title": "Title"}).read())
    assert [(row["item_id"], row["title"]) for row in kept] == [("1", "A"), ("2", "A"), ("3", "B")]


def test_rows_of_pictures_are_no_faults(tmp_path):
    items, judgements = shop()
    rows = [
        row
        for item in items
        for row in (
            {"Handle": item["title"], "Title": item["title"], "SKU": item["item_id"]},
            {"Handle": item["title"], "Title": None, "SKU": f"{item['item_id']}-L"},
            {"Handle": item["title"], "Title": None, "SKU": None},
        )
    ]
    reader = functools.partial(
        Tables,
        items=write(rows, tmp_path / "items.csv"),
        judgements=write(judgements, tmp_path / "judged.jsonl"),
        item_columns={"item_id": "SKU", "title": "Title"},
    )
    ready = functools.partial(prepare, out_dir=tmp_path / "out", **SETTINGS)
    with pytest.raises(InputError, match=r"40 of 120 items .*Tables\.variant_group .*'Handle'"):
        ready(source=reader())
    summary = ready(source=reader(variant_group="Handle"))
    assert summary["items"]["kept"] == 80
    assert summary["items"]["reasons"] == {NO_ID: 40}
    titles = {row["item_id"]: row["title"] for row in read(tmp_path / "out", "items")}
    assert titles == {
        f"{item['item_id']}{size}": item["title"] for item in items for size in ("", "-L")
    }
