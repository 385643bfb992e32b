"""What `prepare` makes of a layout is what it makes of a plain table of the same judgements."""

from __future__ import annotations

import json

import pytest

from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers.tables import Tables
from tests.ingestion.reading import write
from tests.ingestion.shop_rows import SETTINGS, read, shop

GRADES = {"E": "3", "S": "2", "C": "1", "I": "0"}
GAINS = {"0": 0.0, "1": 0.1, "2": 0.4, "3": 1.0}


@pytest.fixture(scope="module")
def rows():
    items, judgements = shop()
    items = [row | {"category": " > ".join(row["category"])} for row in items]
    return items, [row | {"label": GRADES[row["label"]]} for row in judgements]


def prepared(folder, *, items, gains=None, relevant=("3",), **judgements):
    """Returns the prepared judgements, and the summary."""
    source = Tables(items=write(items, folder / "items.csv"), **judgements)
    own = {"label_gains": gains or GAINS, "relevant_labels": relevant}
    out = folder / "out"
    summary = prepare(source=source, out_dir=out, **SETTINGS | own)
    return read(out, "judgements"), summary


def test_qrels_are_a_table_of_grades(tmp_path, rows):
    items, judged = rows
    plain, table = tmp_path / "plain", tmp_path / "table"
    plain.mkdir(), table.mkdir()
    expected, _ = prepared(table, items=items, judgements=write(judged, table / "judged.csv"))
    queries = list({row["query"]: None for row in judged})
    qrels, topics = plain / "judged.qrels", plain / "topics.tsv"
    topics.write_text("".join(f"{number}\t{query}\n" for number, query in enumerate(queries)))
    qrels.write_text(
        "".join(f"{queries.index(r['query'])} 0 {r['item_id']} {r['label']}\n" for r in judged)
    )
    found, summary = prepared(plain, items=items, judgements=str(qrels), queries=str(topics))
    assert found == expected and len(found) == len(judged)
    said = [finding["text"] for finding in summary["findings"]]
    assert any(text.startswith(f"{qrels} read as TREC qrels") for text in said)


def test_events_add_up_to_counts(tmp_path, rows):
    items, judged = rows
    events, table = tmp_path / "events", tmp_path / "table"
    events.mkdir(), table.mkdir()
    gains = {"0": 0.0, "1": 1.0}
    counts = [
        {name: row[name] for name in ("query", "item_id")}
        | {"impressions": 40 + place % 3, "clicks": 20 * (row["label"] == "3")}
        for place, row in enumerate(judged)
    ]
    bound = {"items": items, "gains": gains, "relevant": ("1",)}
    expected, _ = prepared(table, **bound, judgements=write(counts, table / "judged.parquet"))
    path = events / "ubi_events.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in counts:
            thing = {"object": {"object_id": row["item_id"]}}
            event = {
                "query_id": row["query"],
                "user_query": row["query"],
                "event_attributes": thing,
            }
            actions = ["impression"] * row["impressions"] + ["click"] * row["clicks"]
            for action in actions:
                file.write(json.dumps({"action_name": action, **event}) + "\n")
    found, summary = prepared(events, **bound, judgements=str(path))
    assert found == expected and len(found) == len(judged)
    total = sum(row["impressions"] + row["clicks"] for row in counts)
    assert summary["judgements"]["read"] == total
