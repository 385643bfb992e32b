from __future__ import annotations

from pathlib import Path

import pytest

from dsirm_jax.ingestion.judgement_files.letor import Letor
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, judgements_of, raw_rows, values, write

REAL = Path(__file__).parents[4] / "shared" / "data"
ITEMS = [
    {"sku": "1", "name": "Red, shoe", "path": "Shoes/Men", "price": 1.5},
    {"sku": "2", "name": 'Blue "shoe"\nwide', "path": None, "price": None},
    {"sku": "3", "name": "日本 📚", "path": "Books", "price": 3.0},
]
JUDGED = [{"query": "red", "sku": "1", "grade": "3"}, {"query": "blue", "sku": "2", "grade": "0"}]
COLUMNS = {
    "item_columns": {"item_id": "sku", "title": "name", "category": "path"},
    "judgement_columns": {"item_id": "sku", "label": "grade"},
    "extra_columns": {"price": "float64"},
    "category_separator": "/",
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_every_format_gives_the_same_rows(tmp_path, suffix, packed):
    reader = Tables(
        items=write(ITEMS, tmp_path / f"items{suffix}{packed}"),
        judgements=write(JUDGED, tmp_path / f"judgements{suffix}{packed}"),
        **COLUMNS,
    )
    source = reader.read()
    items, rejected = items_of(source)
    assert rejected == []
    assert [row["item_id"] for row in items] == ["1", "2", "3"]
    assert [row["title"] for row in items] == ["Red, shoe", 'Blue "shoe" wide', "日本 📚"]
    assert [row["category"] for row in items] == [["Shoes", "Men"], None, ["Books"]]
    assert [row["price"] for row in items] == [1.5, None, 3.0]
    assert [row["_row"] for row in items] == [1, 2, 3]
    judgements, rejected = judgements_of(source, "03")
    assert rejected == []
    assert [(row["query"], row["item_id"], row["label"]) for row in judgements] == [
        ("red", "1", "3"),
        ("blue", "2", "0"),
    ]
    assert reader.files() == [reader.items, reader.judgements]


def test_shards_are_read_in_order_and_each_once(tmp_path):
    for number in range(3):
        rows = [{"sku": f"{number}{row}", "name": "t"} for row in range(5)]
        write(rows, tmp_path / f"items-{number}.csv")
    reader = Tables(
        items=[str(tmp_path / "items-*.csv"), str(tmp_path / "items-1.csv")],
        judgements=write(JUDGED, tmp_path / "judged.csv"),
        item_columns={"item_id": "sku", "title": "name"},
        judgement_columns={"item_id": "sku", "label": "grade"},
    )
    items, _ = items_of(reader.read())
    assert [(row["item_id"], row["_row"]) for row in items] == [
        (f"{number}{row}", row + 1) for number in range(3) for row in range(5)
    ]
    assert len(reader.files()) == 4


def test_unusable_bindings_are_named(tmp_path):
    good = COLUMNS | {
        "items": write(ITEMS, tmp_path / "items.csv"),
        "judgements": write(JUDGED, tmp_path / "judged.csv"),
    }
    Tables(**good).read()
    for bindings, message in [
        ({"items": str(tmp_path / "none*.csv")}, "no such file"),
        ({"item_columns": {"titel": "name"}}, "Tables.item_columns maps 'titel'"),
        ({"judgement_columns": {"grade": "grade"}}, "Tables.judgement_columns maps 'grade'"),
        ({"extra_columns": {"price": "money"}}, "no Arrow type"),
        ({"extra_columns": {"Title": "string"}}, "is taken"),
        ({"extra_columns": {"cost": "float64"}}, "column 'cost'"),
        ({"item_columns": {"item_id": "sku", "title": "nom"}}, "column 'nom'"),
        ({"judgement_columns": {"item_id": "sku"}}, "no column for label, clicks or purchases"),
    ]:
        with pytest.raises(InputError, match=message):
            Tables(**(good | bindings)).read()


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is missing")
def test_a_real_shops_own_tables():
    folder = REAL / "chorus_electronics"
    source = Tables(
        items=str(folder / "products.jsonl.gz"),
        judgements=str(folder / "judgments.csv"),
        item_columns={"item_id": "id", "brand": "supplier", "category": "attr_t_product_type"},
        judgement_columns={"item_id": "docid", "label": "rating"},
        extra_columns={"price": "float64"},
    ).read()
    items, rejected = items_of(source)
    assert (len(items), rejected) == (19406, [])
    judgements, rejected = judgements_of(source, "0123")
    assert (len(judgements), rejected) == (3668, [])
    counts = [sum(row["label"] == label for row in judgements) for label in "0123"]
    assert counts == [1853, 238, 105, 1472]


def test_a_recognised_layout_needs_no_columns(tmp_path):
    items = write(ITEMS, tmp_path / "items.csv")
    judged, topics = tmp_path / "judged.qrels", tmp_path / "topics.tsv"
    judged.write_text("7 0 1 3\n8 0 2 0\n", encoding="utf-8")
    topics.write_text("7\tred shoe\n8\tblue shoe\n", encoding="utf-8")
    columns = {"item_columns": COLUMNS["item_columns"]}
    reader = Tables(items=items, judgements=str(judged), queries=str(topics), **columns)
    assert reader.files() == [items, str(judged), str(topics)]
    source = reader.read()
    (said,) = (finding for finding in source.findings if finding.table == "judgements")
    assert said.text.startswith(f"{judged} read as TREC qrels;")
    rows, _ = raw_rows(source.judgements)
    assert values(rows, "query", "item_id", "label") == [
        ("red shoe", "1", "3"),
        ("blue shoe", "2", "0"),
    ]
    bound = Tables(items=items, judgements=str(judged), judgements_kind=Letor(), **columns)
    rows, unreadable = raw_rows(bound.read().judgements)
    assert rows == [] and len(unreadable) == 2


def test_a_table_may_name_queries_by_id(tmp_path):
    items = write(ITEMS, tmp_path / "items.csv")
    judged = write([{"qid": 7, "sku": "1", "grade": "3"}], tmp_path / "judged.parquet")
    topics = write([{"query_id": 7, "query": "red shoe"}], tmp_path / "topics.csv")
    columns = COLUMNS | {"judgement_columns": {"query": "qid", **COLUMNS["judgement_columns"]}}
    reader = Tables(items=items, judgements=judged, queries=topics, **columns)
    rows, _ = raw_rows(reader.read().judgements)
    assert values(rows, "query", "item_id", "label") == [("red shoe", "1", "3")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judgements_kind": "qrels"}, "Tables.judgements_kind is 'qrels'; bind a kind of"),
        ({"judgements_kind": Letor}, "Tables.judgements_kind is .*; bind a kind of"),
        (
            {"judgements_kind": Letor(), "judgement_columns": {"label": "grade"}},
            "LETOR or SVMrank has no columns to map",
        ),
        ({"queries": ""}, "Tables.queries is ''"),
    ],
    ids=["text", "class", "columns", "no queries"],
)
def test_settings_of_layouts(settings, message):
    with pytest.raises(InputError, match=message):
        Tables(items="items.csv", judgements="judged.txt", **settings)


def test_what_the_tables_columns_are_is_told(tmp_path):
    rich = [row | {"brand": "Arvo", "color": "red", "path": "a|b"} for row in ITEMS]
    write(rich, tmp_path / "items-1.csv")
    write(ITEMS, tmp_path / "items-2.csv")
    source = Tables(
        items=str(tmp_path / "items-*.csv"),
        judgements=write(JUDGED, tmp_path / "judged.jsonl"),
        item_columns={"item_id": "sku", "title": "name", "category": "path"},
        judgement_columns={"item_id": "sku", "label": "grade"},
    ).read()
    said = [(finding.table, finding.is_fault, finding.text) for finding in source.findings]
    assert [finding[:2] for finding in said] == [
        *(("items", is_fault) for is_fault in (False, True, True, False)),
        ("judgements", False),
    ]
    read, unread, lacking, categories, judged = (text for *_, text in said)
    assert read.endswith(
        "sku as item_id, name as title, brand, path as category; not read: price, color"
    )
    assert "'color' may be our colour" in unread and "'category': 'path'" in unread
    assert f"1 of 2 files lack columns of others: {tmp_path}/items-2.csv has no brand" == lacking
    assert judged.endswith("query, sku as item_id, grade as label; not read: none")
    assert "have '|'" in categories
