from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data import readers
from dsirm_jax.data.readers import Esci, Tables
from dsirm_jax.data.validate import checked_items, checked_judgements
from dsirm_jax.errors import InputError

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


def write(rows, path):
    """Writes rows in the format that the suffix names, with other means than the reader's."""
    table = pa.Table.from_pylist(rows)
    plain = path.with_name(path.name.removesuffix(".gz"))
    if plain.suffix == ".parquet":
        pq.write_table(table, plain)
    elif plain.suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        delimiter = "\t" if plain.suffix == ".tsv" else ","
        options = pa.csv.WriteOptions(delimiter=delimiter)
        pa.csv.write_csv(table, plain, options)
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return str(path)


def items_of(source, table=None):
    parts = [checked_items(chunk, extras=source.extras) for chunk in source.items]
    return tuple([row for part in parts for row in part[place].to_pylist()] for place in (0, 1))


def judgements_of(source, labels=("0", "3")):
    parts = [checked_judgements(chunk, labels=labels) for chunk in source.judgements]
    return tuple([row for part in parts for row in part[place].to_pylist()] for place in (0, 1))


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
    judged, rejected = judgements_of(source)
    assert rejected == []
    assert [(row["query"], row["item_id"], row["label"]) for row in judged] == [
        ("red", "1", "3"),
        ("blue", "2", "0"),
    ]
    assert reader.files() == [reader.items, reader.judgements]


def test_shards_are_read_in_order_and_rows_counted_by_file(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "ROWS", 2)
    for number in range(3):
        rows = [{"sku": f"{number}{row}", "name": "t"} for row in range(5)]
        write(rows, tmp_path / f"items-{number}.csv")
    reader = Tables(
        items=[str(tmp_path / "items-*.csv"), str(tmp_path / "items-1.csv")],
        judgements=write(JUDGED, tmp_path / "judged.csv"),
        item_columns={"item_id": "sku", "title": "name"},
    )
    items, _ = items_of(reader.read())
    assert [(row["item_id"], row["_row"], row["_file"]) for row in items] == [
        (f"{number}{row}", row + 1, str(tmp_path / f"items-{number}.csv"))
        for number in range(3)
        for row in range(5)
    ]
    assert len(reader.files()) == 4


def test_csv_rows_of_a_wrong_width_or_encoding_are_rejected_with_their_number(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(readers, "ROWS", 2)
    (tmp_path / "items.csv").write_bytes(
        b"\xef\xbb\xbfitem_id,title,brand\n"
        b"1,one,x\n2,two,x,y\n3\n4,four,x\n5,f\xffve,x\n"
        b"6,six,\xff\n7,NULL,\n8,eight,x\n9\n"
    )
    path = write([{"query": "q", "item_id": "1", "label": "3"}], tmp_path / "judged.csv")
    items, rejected = items_of(Tables(items=str(tmp_path / "items.csv"), judgements=path).read())
    assert [(row["item_id"], row["title"], row["_row"]) for row in items] == [
        ("1", "one", 1),
        ("4", "four", 4),
        ("7", "NULL", 7),
        ("8", "eight", 8),
    ]
    assert [(row["row"], row["column"], row["reason"]) for row in rejected] == [
        (2, None, "4 values where the header has 3"),
        (3, None, "1 values where the header has 3"),
        (5, "title", "invalid UTF-8"),
        (6, "brand", "invalid UTF-8"),
        (9, None, "1 values where the header has 3"),
    ]
    assert rejected[0]["value"] == "2,two,x,y"


def test_csv_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BYTES", 64)
    lines = [f"{row},title {row}" if row % 3 else f"{row}" for row in range(1, 40)]
    (tmp_path / "items.csv").write_text("\n".join(["item_id,title", *lines]))
    path = write([{"query": "q", "item_id": "1", "label": "3"}], tmp_path / "judged.csv")
    items, rejected = items_of(Tables(items=str(tmp_path / "items.csv"), judgements=path).read())
    assert all(int(row["item_id"]) == row["_row"] for row in items)
    assert [row["row"] for row in rejected] == list(range(3, 40, 3))
    assert len(items) + len(rejected) == 39


def test_jsonl_with_mixed_types_missing_keys_and_broken_lines(tmp_path):
    (tmp_path / "items.jsonl").write_bytes(
        b'{"item_id": 1, "title": "one", "category": ["a", 2]}\n'
        b"\n"
        b'{"item_id": "2", "title": 2.50, "category": "a > b"}\n'
        b'{"item_id": 3.0, "title": "three", "brand": null}\n'
        b"{half\n"
        b"[1]\n"
        b'{"item_id": "7", "title": "s\xffven"}\n'
        b'{"item_id": "8", "title": "\\ud800"}\n'
        b'{"title": "nine"}\n'
        b'{"item_id": "10", "title": true}\n'
    )
    path = write([{"query": "q", "item_id": "1", "label": "3"}], tmp_path / "judged.csv")
    items, rejected = items_of(Tables(items=str(tmp_path / "items.jsonl"), judgements=path).read())
    assert [(row["item_id"], row["title"], row["category"], row["_row"]) for row in items] == [
        ("1", "one", ["a", "2"], 1),
        ("2", "2.5", ["a > b"], 3),
        ("3", "three", None, 4),
        ("10", "true", None, 10),
    ]
    assert [(row["row"], row["column"], row["reason"]) for row in rejected] == [
        (5, None, "not valid JSON"),
        (6, None, "not a JSON object"),
        (7, "title", "invalid UTF-8"),
        (8, "title", "invalid UTF-8"),
        (9, "item_id", "empty item_id"),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {}, optional={name: JSON for name in ("title", "brand", "category", "price")}
        )
        | JSON,
        max_size=8,
    )
)
def test_no_line_of_json_is_lost(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("jsonl")
    rows.append({"item_id": "x", "title": "t", "price": 1})
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write([{"query": "q", "item_id": "1", "label": "3"}], folder / "judged.csv")
    reader = Tables(
        items=str(folder / "items.jsonl"), judgements=path, extra_columns={"price": "float64"}
    )
    items, rejected = items_of(reader.read())
    assert sorted([row["_row"] for row in items] + [row["row"] for row in rejected]) == list(
        range(1, len(rows) + 1)
    )


def bad_file(folder, name, content):
    (folder / name).write_bytes(content)
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items.csv", b"", "the file is empty"),
        ("items.jsonl", b"", "the file is empty"),
        ("items.parquet", b"", "the file is empty"),
        ("items.parquet", b"item_id,title\n1,one\n", "not a readable Parquet file"),
        ("items.csv", b"item_id,title\n", "no data rows"),
        ("items.jsonl", b"\n \n", "no data rows"),
        ("items.csv", b"item_id,name\n1,one\n", "column 'title' .* the file has: item_id, name"),
        ("items.tsv", b"item_id,title\n1,one\n", "column 'item_id' .* missing"),
        ("items.jsonl", b'{"item_id": 1, "name": "one"}\n', "column 'title' .* missing"),
        ("items.csv", b"item_id,title,title\n1,one,two\n", "'title' .* there more than once"),
        ("items.csv.gz", b"item_id,title\n1,one\n", "not a readable CSV file"),
        ("items.jsonl.gz", gzip.compress(b'{"item_id": 1}\n' * 99)[:-9], "not readable"),
        ("items.xlsx", b"PK", "unknown suffix '.xlsx'"),
        ("items.csv", b'item_id,title\n1,"' + b"x\n" * 60, "not a readable CSV file"),
    ],
)
def test_unusable_files_are_named(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(readers, "BYTES", 64)
    path = bad_file(tmp_path, name, content)
    judged = write([{"query": "q", "item_id": "1", "label": "3"}], tmp_path / "judged.csv")
    with pytest.raises(InputError, match=message) as error:
        list(Tables(items=path, judgements=judged).read().items)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_unusable_bindings_are_named(tmp_path):
    good = {
        "items": write(ITEMS, tmp_path / "items.csv"),
        "judgements": write(JUDGED, tmp_path / "judged.csv"),
    }
    for bindings, message in [
        ({"items": str(tmp_path / "none*.csv")}, "no such file"),
        ({"item_columns": {"titel": "name"}}, "maps 'titel'"),
        ({"judgement_columns": {"grade": "grade"}}, "maps 'grade'"),
        ({"extra_columns": {"price": "money"}}, "no Arrow type"),
        ({"extra_columns": {"Title": "string"}}, "is taken"),
        ({"extra_columns": {"weight": "float64"}, **COLUMNS}, None),
    ]:
        if message:
            with pytest.raises(InputError, match=message):
                Tables(**(good | bindings)).read()
    for bindings, message in [
        ({"item_columns": {"item_id": "sku", "title": "nom"}}, "column 'nom'"),
        (COLUMNS | {"extra_columns": {"cost": "float64"}}, "column 'cost'"),
    ]:
        with pytest.raises(InputError, match=message):
            list(Tables(**(good | bindings)).read().items)
    with pytest.raises(InputError, match="no column for label, clicks or purchases"):
        list(Tables(**good, judgement_columns={"item_id": "sku"}).read().judgements)


def esci(folder):
    """Files in the official release's schema, with three locales and both versions."""
    products = [
        {
            "product_id": f"B{number}",
            "product_title": f"title {number}",
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
    assert items[1]["item_id"] == "es:B0"
    with pytest.raises(InputError, match="locale 'de'"):
        list(Esci(data_dir=folder, locale="de").read().items)
    with pytest.raises(InputError, match="'tiny'"):
        Esci(data_dir=folder, version="tiny").read()
    with pytest.raises(InputError, match="no such file"):
        Esci(data_dir=str(tmp_path / "none")).read()


def test_esci_without_an_official_column(tmp_path):
    folder = Path(esci(tmp_path))
    path = folder / "shopping_queries_dataset_examples.parquet"
    pq.write_table(pq.read_table(path).drop(["esci_label"]), path)
    with pytest.raises(InputError, match=r"examples.parquet: column 'esci_label'"):
        list(Esci(data_dir=str(folder)).read().judgements)


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
