from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.ingestion.readers.esci import Esci
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, judgements_of

REAL = Path(__file__).parents[4] / "shared" / "data"
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
    judgements, _ = judgements_of(Esci(data_dir=str(tmp_path)).read(), labels="ESCI")
    assert [row["label"] for row in judgements] == list("ESCIES")
    assert [row["split"] for row in judgements] == ["train"] * 5 + ["test"]


def test_esci_locales_and_versions(tmp_path):
    folder = esci(tmp_path)
    judgements, _ = judgements_of(
        Esci(data_dir=folder, locale="jp", version="small").read(), "ESCI"
    )
    assert [(row["item_id"], row["_row"]) for row in judgements] == [
        ("B1", 6),
        ("B3", 12),
        ("B5", 18),
    ]
    every = Esci(data_dir=folder, locale=None, version="large").read()
    items, judgements = items_of(every)[0], judgements_of(every, "ESCI")[0]
    assert len(items) == len(judgements) == 18
    assert {row["item_id"] for row in judgements} == {row["item_id"] for row in items}
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
        judgements, rejected = judgements_of(Esci(data_dir=folder, **bindings).read(), "ESCI")
        assert ([row["_row"] for row in judgements], rejected) == (kept, [])


def test_esci_columns_without_any_text(tmp_path):
    folder = Path(esci(tmp_path))
    path = folder / "shopping_queries_dataset_products.parquet"
    products = pq.read_table(path)
    for name in ("product_description", "product_bullet_point", "product_brand", "product_color"):
        place = products.column_names.index(name)
        products = products.set_column(place, name, pa.nulls(len(products)))
    pq.write_table(products, path)
    for locale in ("us", None):
        items, rejected = items_of(Esci(data_dir=str(folder), locale=locale).read())
        assert rejected == []
        assert {(row["description"], row["brand"], row["colour"]) for row in items} == {
            (None, None, None)
        }


def test_esci_rows_that_name_no_locale_have_no_id_or_are_of_no_locale(tmp_path):
    folder = Path(esci(tmp_path))
    path = folder / "shopping_queries_dataset_products.parquet"
    products = pq.read_table(path)
    place = products.column_names.index("product_locale")
    pq.write_table(products.set_column(place, "product_locale", pa.nulls(len(products))), path)
    items, rejected = items_of(Esci(data_dir=str(folder), locale=None).read())
    assert items == [] and len(rejected) == len(products)
    items, rejected = items_of(Esci(data_dir=str(folder), locale="us").read())
    assert (items, rejected) == ([], [])


def test_esci_without_an_official_column(tmp_path):
    folder = Path(esci(tmp_path))
    path = folder / "shopping_queries_dataset_examples.parquet"
    pq.write_table(pq.read_table(path).drop(["esci_label"]), path)
    with pytest.raises(InputError, match=r"examples.parquet: column 'esci_label'"):
        Esci(data_dir=str(folder)).read()


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is missing")
def test_the_real_esci_slice():
    source = Esci(data_dir=str(REAL / "esci_us_slice")).read()
    items, rejected = items_of(source)
    assert (len(items), rejected) == (8462, [])
    assert sum(row["category"] is None for row in items) == 1950
    judgements, rejected = judgements_of(source, "ESCI")
    assert (len(judgements), rejected) == (8400, [])
    assert sum(row["label"] == "E" for row in judgements) == 4463
    assert sum(row["split"] == "test" for row in judgements) == 1489
