from __future__ import annotations

import csv

import pytest

from dsirm_jax.ingestion.readers.wands import Wands
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import items_of, judgements_of

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
    judgements, rejected = judgements_of(source, ("Exact", "Partial", "Irrelevant"))
    assert [(row["query"], row["item_id"], row["label"], row["_row"]) for row in judgements] == [
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
