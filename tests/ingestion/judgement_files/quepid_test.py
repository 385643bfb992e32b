from __future__ import annotations

import json

import pytest

from dsirm_jax.ingestion.formats.file_starts import FileStart, file_start
from dsirm_jax.ingestion.judgement_files.quepid import Quepid
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import raw_rows, values

JUDGED = ("query", "item_id", "label")
DETAILED = (
    "Team Name,Case Name,Case ID,Query Text,Doc ID,Doc Position,Title,Rating,price\r\n"
    'Team,Shop,8,red shoe,A1,1,"Shoe, red",3,5\r\n'
    "Team,Shop,8,red shoe,A2,2,Shoe,,5\r\n"
)


def read(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    parts, findings = Quepid().read([str(path)], queries=[])
    return *raw_rows(parts), [finding.text for finding in findings]


@pytest.mark.parametrize("docid", ["docid", "doc_id"])
def test_the_basic_export(tmp_path, docid):
    text = (
        f"query,{docid},rating\n"
        "red shoe,A1,3\nred shoe,A2,\nblue mug,,\n -12v lamp,A3,2.0\nred shoe\n"
    )
    rows, unreadable, findings = read(tmp_path / "case_8_judgements.csv", text)
    assert values(rows, "row", *JUDGED) == [
        (1, "red shoe", "A1", "3"),
        (2, "red shoe", "A2", None),
        (4, " -12v lamp", "A3", "2.0"),
    ]
    assert [number for number, *_ in unreadable] == [5]
    assert findings == ["1 queries without a document, as Quepid writes unrated ones, are left out"]


def test_the_detailed_export(tmp_path):
    path = tmp_path / "Shop_detailed.csv"
    rows, unreadable, _ = read(path, DETAILED)
    assert Quepid().recognises(file_start(str(path)))
    assert values(rows, *JUDGED, "position") == [
        ("red shoe", "A1", "3", "1"),
        ("red shoe", "A2", None, "2"),
    ]
    assert unreadable == []


def test_every_rating_of_a_book_is_a_row(tmp_path):
    text = "query,docid,Ann Lee,Anonymous\nred shoe,A1,3,2\nred shoe,A2,,1\nred shoe,A3,,\n"
    rows, unreadable, _ = read(tmp_path / "book_1_judgements.csv", text)
    assert sorted(values(rows, "row", *JUDGED), key=str) == [
        (1, "red shoe", "A1", "2"),
        (1, "red shoe", "A1", "3"),
        (2, "red shoe", "A2", "1"),
        (3, "red shoe", "A3", None),
    ]
    assert unreadable == []


@pytest.mark.parametrize(
    "document",
    [
        {
            "queries": [
                {"query": "red shoe", "ratings": {"A1": 3.0, "A2": 0.0}},
                {"query": "mug", "ratings": {}},
            ]
        },
        {
            "id_field": "id",
            "index": "shop",
            "queries": [
                {
                    "placeholders": {"$query": "red shoe"},
                    "relevant_documents": {"A1": {"gain": 3}, "A2": {"gain": 0}},
                }
            ],
        },
        {
            "queries": [
                {
                    "placeholders": {"$query": "red shoe"},
                    "relevant_documents": {"3": ["A1"], "0": ["A2"]},
                }
            ]
        },
    ],
    ids=["Quepid", "RRE of Quepid", "RRE"],
)
def test_json(tmp_path, document):
    path = tmp_path / "case.json"
    rows, unreadable, _ = read(path, json.dumps(document, indent=1))
    assert Quepid().recognises(file_start(str(path)))
    assert values(rows, *JUDGED) == [("red shoe", "A1", "3"), ("red shoe", "A2", "0")]
    assert unreadable == []


def test_nothing_of_json_is_lost(tmp_path):
    odd = [{"query": "red shoe", "ratings": ["A1"]}, "mug", {"query": "mug", "ratings": {"A": 1}}]
    rows, unreadable, _ = read(tmp_path / "case.json", json.dumps({"queries": odd}))
    assert values(rows, "row", *JUDGED) == [(3, "mug", "A", "1")]
    assert [number for number, *_ in unreadable] == [1, 2]


def test_the_columns_of_a_plain_table_are_not_taken_unless_bound():
    start = FileStart(file="x", suffix=".csv", text="query,docid,rating\nred shoe,A1,3")
    assert not Quepid().recognises(start)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Snapshot Name,Snapshot Time,Case ID,Query Text,Doc ID,Doc Position", "no column Rating"),
        ("search,sku,grade", "no export of Quepid.*it has: search, sku, grade"),
    ],
    ids=["snapshot", "table"],
)
def test_a_file_without_ratings_is_refused(tmp_path, header, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path / "judged.csv", f"{header}\n")
