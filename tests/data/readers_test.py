from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.readers import Esci, Tables, Wands, read_queries
from dsirm_jax.io.errors import InputError
from tests.data.reading import items_of, judgements_of, write

REAL = Path(__file__).parents[3] / "shared" / "data"
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
        judgements=write(JUDGED, tmp_path / f"judged{suffix}{packed}"),
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
    judged, rejected = judgements_of(source, "03")
    assert rejected == []
    assert [(row["query"], row["item_id"], row["label"]) for row in judged] == [
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


TITLES = {
    "us": "camera bag {}",
    "es": "bolsa para cámara, niño {}",
    "jp": "カメラバッグ　【防水】{}",
}


def esci(folder):
    """Files in the official release's schema, with three locales and both versions."""
    products = [
        {
            "product_id": f"B{number}",
            "product_title": TITLES[locale].format(number),
            "product_description": [None, "<p>About</p>"][number % 2],
            "product_bullet_point": [None, "first\nsecond", None][number % 3],
            "product_brand": "Brand",
            "product_color": "Red",
            "product_locale": locale,
        }
        for number in range(6)
        for locale in ("us", "es", "jp")
    ]
    examples = [
        {
            "example_id": 10 * number + place,
            "query": f"query {number}",
            "query_id": number,
            "product_id": f"B{number}",
            "product_locale": locale,
            "esci_label": "ESCI"[number % 4],
            "small_version": number % 2,
            "large_version": 1,
            "split": "test" if number == 5 else "train",
        }
        for number in range(6)
        for place, locale in enumerate(("us", "es", "jp"))
    ]
    for name, rows in (("products", products), ("examples", examples)):
        pq.write_table(
            pa.Table.from_pylist(rows), folder / f"shopping_queries_dataset_{name}.parquet"
        )
    return str(folder)


def test_esci_reads_the_official_layout(tmp_path):
    items, rejected = items_of(Esci(data_dir=esci(tmp_path)).read())
    assert rejected == []
    assert [row["item_id"] for row in items] == [f"B{number}" for number in range(6)]
    assert [row["_row"] for row in items] == [1, 4, 7, 10, 13, 16]
    assert [row["description"] for row in items] == [
        None,
        "About first second",
        None,
        "About",
        "first second",
        "About",
    ]
    assert (items[0]["brand"], items[0]["colour"], items[0]["category"]) == ("Brand", "Red", None)
    judged, _ = judgements_of(Esci(data_dir=str(tmp_path)).read(), labels="ESCI")
    assert [row["label"] for row in judged] == list("ESCIES")
    assert [row["split"] for row in judged] == ["train"] * 5 + ["test"]


def test_esci_locales_and_versions(tmp_path):
    folder = esci(tmp_path)
    judged, _ = judgements_of(Esci(data_dir=folder, locale="jp", version="small").read(), "ESCI")
    assert [(row["item_id"], row["_row"]) for row in judged] == [("B1", 6), ("B3", 12), ("B5", 18)]
    every = Esci(data_dir=folder, locale=None, version="large").read()
    items, judged = items_of(every)[0], judgements_of(every, "ESCI")[0]
    assert len(items) == len(judged) == 18
    assert {row["item_id"] for row in judged} == {row["item_id"] for row in items}
    assert [(row["item_id"], row["title"]) for row in items[:3]] == [
        ("us:B0", "camera bag 0"),
        ("es:B0", "bolsa para cámara, niño 0"),
        ("jp:B0", "カメラバッグ 【防水】0"),
    ]
    for locale, title in TITLES.items():
        items, _ = items_of(Esci(data_dir=folder, locale=locale).read())
        assert items[5]["title"] == " ".join(title.format(5).split())
    nothing = Esci(data_dir=folder, locale="de").read()
    assert (items_of(nothing), judgements_of(nothing, "ESCI")) == (([], []), ([], []))
    assert "bind Esci.locale (now 'de')" in nothing.if_empty
    with pytest.raises(InputError, match="'tiny'"):
        Esci(data_dir=folder, version="tiny").read()
    with pytest.raises(InputError, match="no such file"):
        Esci(data_dir=str(tmp_path / "none")).read()


def test_esci_training_examples_of_tested_queries_are_dropped(tmp_path):
    rows = [
        ("running shoes", "B1", "us", "E", 1, 1, "train"),
        ("Running  shoes", "B2", "us", "S", 0, 1, "train"),
        ("usb cable", "B3", "us", "E", 1, 1, "train"),
        ("running shoes", "B4", "us", "I", 0, 1, "test"),
        ("zapatillas niño", "B5", "es", "E", 1, 1, "train"),
        ("zapatillas niño", "B5", "us", "I", 1, 0, "test"),
        ("ランニングシューズ　白", "B1", "jp", "C", 1, 1, "train"),
        ("ランニングシューズ 白", "B2", "jp", "S", 1, 1, "test"),
        ("お茶", "B6", "jp", "E", 0, 1, "train"),
    ]
    names = ("query", "product_id", "product_locale", "esci_label")
    names += ("small_version", "large_version", "split")
    examples = [
        {"example_id": number, "query_id": number} | dict(zip(names, row))
        for number, row in enumerate(rows)
    ]
    folder = esci(tmp_path)
    pq.write_table(
        pa.Table.from_pylist(examples), tmp_path / "shopping_queries_dataset_examples.parquet"
    )
    for bindings, kept in [
        ({"locale": None}, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"locale": None, "drop_task_overlap": True}, [3, 4, 5, 6, 8, 9]),
        ({"locale": "us"}, [1, 2, 3, 4, 6]),
        ({"locale": "us", "drop_task_overlap": True}, [3, 4, 6]),
        # The test example that asks for running shoes is of the large version only.
        ({"locale": "us", "version": "small"}, [1, 3, 6]),
        ({"locale": "us", "version": "small", "drop_task_overlap": True}, [3, 6]),
        ({"locale": "us", "version": "large", "drop_task_overlap": True}, [3, 4]),
        ({"locale": "es", "drop_task_overlap": True}, [5]),
        ({"locale": "jp", "drop_task_overlap": True}, [8, 9]),
    ]:
        judged, rejected = judgements_of(Esci(data_dir=folder, **bindings).read(), "ESCI")
        assert ([row["_row"] for row in judged], rejected) == (kept, [])


def test_esci_without_an_official_column(tmp_path):
    folder = Path(esci(tmp_path))
    path = folder / "shopping_queries_dataset_examples.parquet"
    pq.write_table(pq.read_table(path).drop(["esci_label"]), path)
    with pytest.raises(InputError, match=r"examples.parquet: column 'esci_label'"):
        Esci(data_dir=str(folder)).read()


WANDS = {
    "product.csv": [
        [
            "product_id",
            "product_name",
            "product_class",
            "category hierarchy",
            "product_description",
            "product_features",
            "rating_count",
            "average_rating",
            "review_count",
        ],
        [
            "0",
            "solid wood platform bed",
            "Beds",
            "Furniture / Bedroom Furniture / Beds & Headboards",
            'a 14.7 "" high bed ,\twith "good" slats',
            "overallwidth-sidetoside:64.7|legcolor : black|color : caramel|color : red| : no",
            "15.0",
            "4.5",
            "15.0",
        ],
        ["1", "all-clad 7 qt . slow cooker", "Slow Cookers|Pots", "", "", "", "", "", ""],
        [
            "2",
            "",
            "Beds",
            "Browse By Brand / All-Clad",
            "",
            "color : |style : modern",
            "3",
            "",
            "0",
        ],
    ],
    "query.csv": [
        ["query_id", "query", "query_class"],
        ["0", "salon chair", "Massage Chairs"],
        ["7", 'fawkes 36" blue\tvanity', ""],
    ],
    "label.csv": [
        ["id", "query_id", "product_id", "label"],
        ["0", "7", "0", "Exact"],
        ["1", "0", "1", "Irrelevant"],
        ["2", "70", "1", "Partial"],
        ["3", "0", "2", "Partial"],
        ["4", "", "2", "Partial"],
        ["5", "0", "2"],
    ],
}


def wands(folder):
    """Files in the official release's layout, tab-separated and quoted where need be."""
    for name, rows in WANDS.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows(rows)
    return str(folder)


def test_wands_reads_the_official_layout(tmp_path):
    reader = Wands(data_dir=wands(tmp_path))
    source = reader.read()
    items, rejected = items_of(source)
    features = ("average_rating", "rating_count", "review_count")
    assert [[row[name] for name in ("item_id", "colour", *features)] for row in items] == [
        ["0", "caramel", 4.5, 15, 15],
        ["1", None, None, None, None],
    ]
    assert [row["category"] for row in items] == [
        ["Furniture", "Bedroom Furniture", "Beds & Headboards"],
        None,
    ]
    assert items[0]["description"] == 'a 14.7 "" high bed , with "good" slats'
    assert [(row["row"], row["column"]) for row in rejected] == [(3, "product_name")]
    judged, rejected = judgements_of(source, ("Exact", "Partial", "Irrelevant"))
    assert [(row["query"], row["item_id"], row["label"], row["_row"]) for row in judged] == [
        ('fawkes 36" blue vanity', "0", "Exact", 1),
        ("salon chair", "1", "Irrelevant", 2),
        ("salon chair", "2", "Partial", 4),
    ]
    assert [(row["row"], row["item_id"], row["value"], row["reason"]) for row in rejected] == [
        (3, "1", "70", "unknown query_id"),
        (5, "2", "", "unknown query_id"),
        (6, None, "5\t0\t2", "3 values where the header has 4"),
    ]
    assert reader.files() == [str(tmp_path / name) for name in WANDS]


def test_wands_without_its_queries(tmp_path):
    wands(tmp_path)
    for content, message in [
        ("query_id\tquery\n", "no data rows"),
        ("query_id\tquery\n0\tchair\tchairs\n", "row 1: 3 values where the header has 2"),
        ("query_id,query\n0,chair\n", "column 'query_id' .* missing"),
    ]:
        (tmp_path / "query.csv").write_text(content)
        with pytest.raises(InputError, match=f"query.csv: {message}"):
            Wands(data_dir=str(tmp_path)).read()


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is missing")
def test_the_real_esci_slice():
    source = Esci(data_dir=str(REAL / "esci_us_slice")).read()
    items, rejected = items_of(source)
    assert (len(items), rejected) == (8462, [])
    assert sum(row["category"] is None for row in items) == 1950
    judged, rejected = judgements_of(source, "ESCI")
    assert (len(judged), rejected) == (8400, [])
    assert sum(row["label"] == "E" for row in judged) == 4463
    assert sum(row["split"] == "test" for row in judged) == 1489


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
    judged, rejected = judgements_of(source, "0123")
    assert (len(judged), rejected) == (3668, [])
    counts = [sum(row["label"] == label for row in judged) for label in "0123"]
    assert counts == [1853, 238, 105, 1472]


def test_queries_are_cleaned_and_a_row_without_text_is_named(tmp_path):
    file = tmp_path / "queries.tsv"
    file.write_text("id\tquery\n1\t red&nbsp; <b>shoe</b>\n2\tkettle\n")
    assert list(read_queries(str(file))) == [["red shoe", "kettle"]]
    file.write_text("query\nkettle\n<b></b>\n")
    with pytest.raises(InputError, match=r"queries.tsv row 2: column query has no text"):
        list(read_queries(str(file)))
    file.write_bytes(b"query\nkettle\nth\xe9\n")
    with pytest.raises(InputError, match=r"queries.tsv row 2: .* UTF-8"):
        list(read_queries(str(file)))
    file.write_text("text\nkettle\n")
    with pytest.raises(InputError, match=r"column 'query' \(our 'query'\) is missing"):
        list(read_queries(str(file)))
