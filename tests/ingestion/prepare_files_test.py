"""A whole `prepare` on files as other programs write them."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pytest

from dsirm_jax.data.item_text import ItemText, item_text_in
from dsirm_jax.data.schema import RAW_ITEMS, Chunk
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.ingestion.validation.staging import stage
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop


def write(rows, path, names, encoding="utf-8", **dialect):
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore", **dialect)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("floats", [False, True], ids=["ids agree", "ids are written anew"])
def test_every_table_has_the_attributes_in_the_items_texts(tmp_path, floats):
    items, judgements = shop()
    for number, row in enumerate(items):
        row |= {"brand": "Zed" if number % 2 else None, "fabric": "linen"}
    if floats:
        numbers = {row["item_id"]: f"{number + 10}" for number, row in enumerate(items)}
        items = [row | {"item_id": numbers[row["item_id"]]} for row in items]
        judgements = [row | {"item_id": f"{numbers[row['item_id']]}.0"} for row in judgements]
    text = ItemText(attributes=("fabric", "brand"))
    extras = pa.schema([("fabric", pa.string())])
    prepare(source=Rows(items, judgements, extras), out_dir=tmp_path, item_text=text, **SETTINGS)
    found = read(tmp_path, "items")
    assert {row["brand"] for row in found} == {"Zed", None}
    for row in found:
        brand = "brand: Zed; " if row["brand"] else ""
        behind = [row["colour"]] if row["colour"] else []
        behind = [name for name in behind if name not in row["title"]]
        assert row["text"] == f"fabric: linen; {brand}{' '.join([row['title'], *behind])}"
    texts = {row["item_id"]: row["text"] for row in found}
    of_pairs = zip(read(tmp_path, "judgements"), read(tmp_path, "examples"), strict=True)
    assert all(example["text"] == texts[pair["item_id"]] for pair, example in of_pairs)
    assert item_text_in(tmp_path / "items.parquet") == text


def test_an_attribute_without_a_column_is_refused_before_anything_is_read(tmp_path):
    items, judgements = shop()
    text = ItemText(attributes=("brand", "fabric"))
    with pytest.raises(InputError, match=r"no attribute 'fabric': .*table \(brand, colour, categ"):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, item_text=text, **SETTINGS)


def test_findings_of_files_and_rows_are_in_the_summary(tmp_path):
    items, judgements = shop(queries=200)
    items = [
        row | {"brand": "NULL" if at % 4 else "Müller", "colour": "rot"}
        for at, row in enumerate(items)
    ]
    for row in judgements:
        row["weight"] = "0,5"
    names = ("item_id", "title", "brand", "colour")
    source = Tables(
        items=write(items, tmp_path / "i.csv", names, "cp1252", delimiter=";"),
        judgements=write(
            judgements,
            tmp_path / "j.tsv",
            ("query", "item_id", "label", "weight"),
            delimiter="\t",
        ),
    )
    summary = prepare(source=source, out_dir=tmp_path / "out", **SETTINGS)
    found = [
        (each["table"], each["text"])
        for each in summary["findings"]
        if "columns read" not in each["text"]
    ]
    expected = [
        ("items", "the file is read as cp1252"),
        ("items", "values are separated by ';'"),
        ("items", "brand is 'NULL' in 30 of 40 rows: read as missing; bind prepare.run.missing"),
        (
            "judgements",
            f"weight has a decimal comma in {len(judgements)} of {len(judgements)} rows",
        ),
    ]
    assert [table for table, _ in found] == [table for table, _ in expected]
    for (_, text), (_, part) in zip(found, expected, strict=True):
        assert part in text
    assert json.loads((tmp_path / "out/summary.json").read_text()) == summary
    brands = [row["brand"] for row in read(tmp_path / "out", "items")]
    assert (brands.count("Müller"), brands.count(None)) == (10, 30)
    assert {row["weight"] for row in read(tmp_path / "out", "judgements")} == {0.5}


def test_markers_stay_where_that_is_bound(tmp_path):
    items, judgements = shop(queries=200)
    items = [row | {"brand": "NULL"} for row in items]
    source = Tables(
        items=write(items, tmp_path / "i.csv", ("item_id", "title", "brand")),
        judgements=write(judgements, tmp_path / "j.csv", ("query", "item_id", "label")),
    )
    summary = prepare(source=source, out_dir=tmp_path / "out", missing=(), **SETTINGS)
    assert all("columns read" in each["text"] for each in summary["findings"])
    assert {row["brand"] for row in read(tmp_path / "out", "items")} == {"NULL"}
    with pytest.raises(InputError, match=r"prepare.run.missing is 'NULL'; bind texts"):
        prepare(source=source, out_dir=tmp_path / "out", missing="NULL", **SETTINGS)


def one_row():
    yield Chunk(table=RAW_ITEMS.empty_table().from_pylist([{"item_id": "1"}]), file="f.csv")


def loses_rows(chunk, *, oddities):
    del chunk, oddities
    return RAW_ITEMS.empty_table(), RAW_ITEMS.empty_table()


def test_rows_that_are_neither_kept_nor_rejected_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"f.csv: of 1 rows from row 1, 0 were kept and 0 rejec"):
        stage(
            "items",
            parts=[one_row],
            check=loses_rows,
            columns=RAW_ITEMS,
            folder=tmp_path,
            workers=1,
            if_empty="",
        )
