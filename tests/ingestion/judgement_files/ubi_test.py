from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.ingestion.formats.file_starts import FileStart, file_start
from dsirm_jax.ingestion.judgement_files.ubi import Ubi
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows, values

COUNTED = ("query", "item_id", "impressions", "clicks", "purchases", "position")


def event(action, item, *, place=None, query="red shoe", query_id="q-1"):
    attributes = {"object": {"object_id": item, "object_id_field": "sku"}}
    if place is not None:
        attributes["position"] = {"ordinal": place}
    return {
        "application": "shop",
        "action_name": action,
        "query_id": query_id,
        "user_query": query,
        "client_id": "c-1",
        "timestamp": "2026-01-01T00:00:00Z",
        "event_attributes": attributes,
    }


EVENTS = [
    event("impression", "A1", place=1),
    event("impression", "A2", place=2),
    event("click", "A2", place=2),
    event("purchase", "A2"),
    event("impression", 17, place=1, query="blue mug", query_id="q-2"),
]
ROWS = [
    ("red shoe", "A1", 1, None, None, 1),
    ("red shoe", "A2", 1, None, None, 2),
    ("red shoe", "A2", None, 1, None, 2),
    ("red shoe", "A2", None, None, 1, None),
    ("blue mug", "17", 1, None, None, 1),
]


def lines(documents):
    return "".join(json.dumps(document) + "\n" for document in documents)


def read(path, *, queries=(), kind=None):
    parts, findings = (kind or Ubi()).read([str(path)], queries=[str(file) for file in queries])
    (finding,) = findings
    return *raw_rows(parts), finding


def flat(document):
    attributes = document["event_attributes"]
    return {
        **{name: document[name] for name in ("action_name", "query_id", "user_query")},
        "event_attributes.object.object_id": str(attributes["object"]["object_id"]),
        "event_attributes.position.ordinal": attributes.get("position", {}).get("ordinal"),
    }


TEXTS = {
    "events.jsonl": lines(EVENTS),
    "events.json": json.dumps(EVENTS),
    "indented.json": json.dumps(EVENTS, indent=2),
    "answer.json": json.dumps({"hits": {"hits": [{"_source": found} for found in EVENTS]}}),
    "bulk.ndjson": "".join(
        json.dumps({"create": {"_index": "ubi_events"}}) + "\n" + json.dumps(found) + "\n"
        for found in EVENTS
    ),
    "flat.jsonl": lines(map(flat, EVENTS)),
    "flat.csv": "\n".join(
        ",".join("" if cell is None else str(cell) for cell in row)
        for row in [list(flat(EVENTS[0])), *(list(flat(found).values()) for found in EVENTS)]
    ),
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_every_text_has_the_same_events(tmp_path, name):
    path = tmp_path / name
    path.write_text(TEXTS[name], encoding="utf-8")
    assert Ubi().recognises(file_start(str(path)))
    rows, unreadable, finding = read(path)
    assert values(rows, *COUNTED) == ROWS
    assert unreadable == []
    assert finding.text.startswith(
        "5 UBI events: 3 impressions (impression), 1 clicks (click), 1 purchases (purchase)"
    )
    assert not finding.is_fault


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "JSON text"])
def test_parquet(tmp_path, nested):
    path = tmp_path / "events.parquet"
    rows = [event(*pair, place=place) for *pair, place in [("impression", "A1", 1)]]
    if not nested:
        rows = [{**row, "event_attributes": json.dumps(row["event_attributes"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert Ubi().recognises(file_start(str(path)))
    assert values(read(path)[0], "row", *COUNTED) == [(1, "red shoe", "A1", 1, None, None, 1)]


def test_places_are_counted_from_one(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(lines([event("impression", "A", place=0), event("click", "B", place=4)]))
    rows, *_ = read(path)
    assert values(rows, "item_id", "position") == [("A", 1), ("B", 5)]


def test_actions_are_counted_as_bound_and_others_named(tmp_path):
    path = tmp_path / "events.jsonl"
    actions = ["view", "view", "Click", "add_to_cart", "page_exit", "add_to_cart"]
    path.write_text(lines(event(action, "A") for action in actions), encoding="utf-8")
    rows, _, finding = read(path)
    assert values(rows, "impressions", "clicks") == [(1, None), (1, None), (None, 1)]
    assert "left out: 2 add_to_cart, 1 page_exit; bind Ubi.impressions" in finding.text
    rows, _, finding = read(path, kind=Ubi(clicks=("click", "add_to_cart")))
    assert sum(row["clicks"] or 0 for row in rows) == 3
    assert "3 clicks (click and add_to_cart)" in finding.text


def test_a_view_is_no_impression_where_there_are_such(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(lines([event("impression", "A"), event("view", "A")]), encoding="utf-8")
    rows, _, finding = read(path)
    assert len(rows) == 1 and "left out: 1 view" in finding.text


def test_texts_and_hits_of_the_queries(tmp_path):
    path, queries = tmp_path / "ubi_events.jsonl", tmp_path / "ubi_queries.jsonl"
    clicks = [
        event("click", "A2", query=None),
        event("click", "A9", query=None, query_id="q-9"),
        event("click", "A3", query="a text of its own", query_id="q-9"),
    ]
    path.write_text(lines(clicks), encoding="utf-8")
    asked = {"query_id": "q-1", "user_query": "red shoe", "query_response_hit_ids": ["A1", "A2"]}
    queries.write_text(lines([asked]), encoding="utf-8")
    rows, unreadable, finding = read(path, queries=[queries])
    assert values(rows, *COUNTED) == [
        ("red shoe", "A2", None, 1, None, None),
        ("a text of its own", "A3", None, 1, None, None),
        ("red shoe", "A1", 1, None, None, 1),
        ("red shoe", "A2", 1, None, None, 2),
    ]
    assert unreadable == [(2, "q-9", "neither a user_query nor a known query_id")]
    assert "query_response_hit_ids of the queries are" in finding.text and not finding.is_fault
    with pytest.raises(InputError, match="no event has a user_query; bind Tables.queries"):
        path.write_text(lines(clicks[:1]), encoding="utf-8")
        read(path)


def test_clicks_without_impressions_are_said(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(lines([event("click", "A")]), encoding="utf-8")
    *_, finding = read(path)
    assert finding.is_fault and "none is an impression: bind Ubi.impressions" in finding.text


def test_no_event_is_lost(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(f'{json.dumps(EVENTS[0])}\n{{"action_name": "click",\n[1]\n', encoding="utf-8")
    rows, unreadable, _ = read(path)
    assert len(rows) == 1
    assert unreadable == [
        (2, '{"action_name": "click",', "not an event"),
        (3, "[1]", "not an event"),
    ]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ('{"query": "red shoe", "item_id": "A1", "clicks": 1, "action_name": "click"}', False),
        ('{"judgmentRatings": []}', False),
        ("action_name,query,item_id\nclick,red shoe,A1", False),
    ],
    ids=["table", "ratings", "CSV"],
)
def test_what_is_not_recognised(text, known):
    assert Ubi().recognises(FileStart(file="x", suffix=".jsonl", text=text)) == known


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clicks": "click"}, "Ubi.clicks is 'click'; bind a tuple"),
        ({"impressions": ("",)}, "Ubi.impressions is ''"),
        ({"purchases": ("click",)}, "share an action"),
    ],
    ids=["text", "empty", "twice"],
)
def test_settings(settings, message):
    with pytest.raises(InputError, match=message):
        Ubi(**settings)
