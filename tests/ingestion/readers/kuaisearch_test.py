from __future__ import annotations

import json

import pytest

from dsirm_jax.ingestion.readers.kuaisearch import KuaiSearch
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows, values


def item(item_id, title, *, brand="GUARCI", levels=("鞋", "女鞋", "舞蹈鞋")):
    names = {f"category_level{place}_name": name for place, name in enumerate(levels, 1)}
    ids = {f"category_level{place}_id": place for place in range(1, 4)}
    return {
        "item_id": item_id,
        "item_title": title,
        "brand_id": 3,
        "brand_name": brand,
        "seller_id": 3,
        "seller_name": "舞鞋店",
        **names,
        **ids,
    }


ITEMS = [
    item(58, "广场舞鞋"),
    item(63, "珍珠项链", brand="无品牌", levels=("珠宝", "UNKNOWN", "UNKNOWN")),
    item(76, "地毯", brand="其他/other", levels=("UNKNOWN", "UNKNOWN", "UNKNOWN")),
]
RECALL = [
    {
        "user_id": 1,
        "session_id": 1,
        "time_index": 384565,
        "query": "舞鞋",
        "split": "train",
        "impressed_item_ids": [58, 63],
        "clicked_item_ids": [63],
        "purchased_item_ids": [],
    },
    {
        "user_id": 2,
        "session_id": 2,
        "time_index": 279492,
        "query": "地毯",
        "split": "test",
        "impressed_item_ids": [76],
        "clicked_item_ids": [76],
        "purchased_item_ids": [76, 58],
    },
]
RANK = [
    {"query": "舞鞋", "target_item_id": 58, "is_clicked": 1, "is_purchased": 0, "split": "train"},
    {"query": "舞鞋", "target_item_id": 63, "is_clicked": 0, "is_purchased": 0, "split": "train"},
]
SHOE = {"item_title": "广场舞鞋", "brand": "无品牌", "seller_name": "舞鞋店", "attr_value": "\\N"}
RUG = {"item_title": "地毯", "brand": "GUARCI", "seller_name": "地毯店", "attr_value": "圆形,绒"}
RELEVANCE = [
    {"query": "舞鞋", **SHOE, "score": 3},
    {"query": "舞鞋", **RUG, "score": 0},
    {"query": "地毯", **RUG, "score": 2},
]


def read(folder, table, **tables):
    for name, rows in tables.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    reader = KuaiSearch(data_dir=str(folder), table=table)
    return reader, reader.read()


def test_items_have_paths_of_known_levels(tmp_path):
    reader, source = read(tmp_path, "recall", items=ITEMS, recall=RECALL)
    rows, unreadable = raw_rows(source.items)
    assert values(rows, "item_id", "title", "brand", "seller") == [
        ("58", "广场舞鞋", "GUARCI", "舞鞋店"),
        ("63", "珍珠项链", None, "舞鞋店"),
        ("76", "地毯", None, "舞鞋店"),
    ]
    assert [row["category"] for row in rows] == [["鞋", "女鞋", "舞蹈鞋"], ["珠宝"], []]
    assert unreadable == []
    assert reader.files() == [str(tmp_path / name) for name in ("items.jsonl", "recall.jsonl")]


def test_sessions_are_impressions_clicks_and_purchases(tmp_path):
    _, source = read(tmp_path, "recall", items=ITEMS, recall=RECALL)
    rows, unreadable = raw_rows(source.judgements)
    counts = ("impressions", "clicks", "purchases")
    assert values(rows, "row", "query", "item_id", *counts, "split") == [
        (1, "舞鞋", "58", 1, 0, 0, "train"),
        (1, "舞鞋", "63", 1, 1, 0, "train"),
        (2, "地毯", "76", 1, 1, 1, "test"),
        (2, "地毯", "58", 0, 0, 1, "test"),
    ]
    assert unreadable == []


def test_impressions_of_ranking(tmp_path):
    _, source = read(tmp_path, "rank", items=ITEMS, rank=RANK)
    rows, _ = raw_rows(source.judgements)
    assert values(rows, "query", "item_id", "impressions", "clicks", "purchases") == [
        ("舞鞋", "58", 1, "1", "0"),
        ("舞鞋", "63", 1, "0", "0"),
    ]


def test_grades_without_ids_have_items_of_their_own(tmp_path):
    reader, source = read(tmp_path, "relevance", relevance=RELEVANCE)
    items, _ = raw_rows(source.items)
    assert values(items, "title", "brand", "description", "seller") == [
        ("广场舞鞋", None, None, "舞鞋店"),
        ("地毯", "GUARCI", "圆形,绒", "地毯店"),
    ]
    ids = {row["title"]: row["item_id"] for row in items}
    rows, _ = raw_rows(source.judgements)
    assert values(rows, "query", "item_id", "label") == [
        ("舞鞋", ids["广场舞鞋"], "3"),
        ("舞鞋", ids["地毯"], "0"),
        ("地毯", ids["地毯"], "2"),
    ]
    assert reader.files() == [str(tmp_path / "relevance.jsonl")]
    assert "relevance.jsonl has no item_id" in source.findings[0].text


def test_grades_with_ids_are_those_of_the_catalogue(tmp_path):
    judged = [{"item_id": 58, **row} for row in RELEVANCE[:1]]
    _, source = read(tmp_path, "relevance", items=ITEMS, relevance=judged)
    assert len(raw_rows(source.items)[0]) == 3
    rows, _ = raw_rows(source.judgements)
    assert values(rows, "query", "item_id", "label") == [("舞鞋", "58", "3")]
    assert source.findings == []


def test_a_line_that_is_no_session_is_kept_as_such(tmp_path):
    _, source = read(tmp_path, "recall", items=ITEMS, recall=RECALL)
    with (tmp_path / "recall.jsonl").open("a") as file:
        file.write("{\n")
    _, unreadable = raw_rows(source.judgements)
    assert [(number, reason) for number, _, reason in unreadable] == [(3, "not valid JSON")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"data_dir": ""}, "KuaiSearch.data_dir"), ({"table": "users"}, "KuaiSearch.table")],
    ids=["folder", "table"],
)
def test_settings(settings, message):
    with pytest.raises(InputError, match=message):
        KuaiSearch(**({"data_dir": "x"} | settings))
