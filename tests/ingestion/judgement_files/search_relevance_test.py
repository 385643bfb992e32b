from __future__ import annotations

import json

import pytest

from dsirm_jax.ingestion.formats.file_starts import file_start
from dsirm_jax.ingestion.judgement_files.search_relevance import SearchRelevance
from tests.ingestion.reading import raw_rows, values

RATINGS = [
    {
        "query": "red shoe",
        "ratings": [{"docId": "A1", "rating": "1.000"}, {"rating": 0.5, "docId": "A2"}],
    },
    {"query": "blue mug", "ratings": [{"docId": "B1", "rating": "0.0"}]},
]
IMPORTED = {"name": "ours", "type": "IMPORT_JUDGMENT", "judgmentRatings": RATINGS}
INDEXED = {"id": "7", "status": "COMPLETED", "metadata": {}, **IMPORTED}
TEXTS = {
    "imported": json.dumps(IMPORTED),
    "indented": json.dumps(IMPORTED, indent=2),
    "answer": json.dumps({"took": 3, "hits": {"hits": [{"_id": "7", "_source": INDEXED}]}}),
    "indented answer": json.dumps({"hits": {"hits": [{"_source": INDEXED}]}}, indent=1),
    "dump": json.dumps({"_index": "judgment", "_id": "7", "_source": INDEXED}),
    "bulk": json.dumps({"index": {"_id": "7"}}) + "\n" + json.dumps(INDEXED),
    "array": json.dumps([IMPORTED]),
    "list a line": "\n".join(json.dumps({"judgmentRatings": [judged]}) for judged in RATINGS),
    "byte order mark": "\ufeff" + json.dumps(IMPORTED),
}


def read(path, text):
    path.write_text(text, encoding="utf-8")
    assert SearchRelevance().recognises(file_start(str(path)))
    parts, findings = SearchRelevance().read([str(path)], queries=[])
    assert findings == []
    return raw_rows(parts)


@pytest.mark.parametrize("layout", list(TEXTS))
def test_every_layout_has_the_same_ratings(tmp_path, layout):
    rows, unreadable = read(tmp_path / "judged.json", TEXTS[layout])
    assert values(rows, "row", "query", "item_id", "label") == [
        (1, "red shoe", "A1", "1.000"),
        (2, "red shoe", "A2", "0.5"),
        (3, "blue mug", "B1", "0.0"),
    ]
    assert unreadable == []


def test_queries_that_nothing_needs_are_said(tmp_path):
    _, (finding,) = SearchRelevance().read(["judged.json"], queries=["topics.tsv"])
    assert finding.is_fault and "Tables.queries is bound and not used" in finding.text


def test_nothing_is_lost(tmp_path):
    odd = [
        {"query": "red shoe", "ratings": [{"docId": 17, "rating": None}, "A2"]},
        {"query": "blue mug"},
        {"ratings": [{"docId": "A3", "rating": "1"}]},
    ]
    text = json.dumps({"judgmentRatings": odd}) + '\n{"name": "other"}\n'
    rows, unreadable = read(tmp_path / "judged.jsonl", text)
    assert values(rows, "row", "query", "item_id", "label") == [(1, "red shoe", "17", None)]
    assert [(number, contents) for number, contents, _ in unreadable] == [
        (2, "A2"),
        (3, '{"query": "blue mug"}'),
        (4, '{"docId": "A3", "rating": "1"}'),
        (5, '{"name": "other"}'),
    ]
