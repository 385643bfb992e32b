"""A look at a sample: what it shows is what `prepare` makes of it, and nothing is missed."""

from __future__ import annotations

import dataclasses
import functools
import os

import pyarrow as pa
import pytest

from dsirm_jax.data.findings import Finding
from dsirm_jax.data.identity import PLAIN
from dsirm_jax.data.schema import Chunk, Source
from dsirm_jax.ingestion import check
from dsirm_jax.ingestion.grading.clicks import ClickModel
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.rules import Rules
from dsirm_jax.ingestion.validation.missing import MISSING
from tests.ingestion.shop_rows import GAINS, SETTINGS, Rows, read, shop

RULES = Rules(
    label_gains=GAINS,
    relevant_labels=("E",),
    judgement_aggregation="majority",
    clicks=ClickModel(),
    test_share=0.2,
    head_share=0.4,
    fold=None,
    exchanged=False,
    identity=PLAIN,
    parted_queries="merge",
    max_rejected_share=0.05,
    missing=MISSING,
    item_copies=None,
    seed=5,
)


def look(rows, *, number=1000, **changes):
    return check.look(rows.read(), rules=dataclasses.replace(RULES, **changes), rows=number)


def test_a_look_shows_what_prepare_makes(tmp_path):
    items, judgements = shop()
    judgements[7]["item_id"] = "gone"
    items[3]["brand"] = "NULL"
    rows = Rows(items, judgements, parts=3)
    seen = look(rows)
    summary = prepare(source=rows, out_dir=tmp_path, **SETTINGS)
    assert seen.stop is None
    for table in ("items", "judgements", "queries"):
        assert seen.summary[table] == summary[table]
    for table in ("items", "judgements"):
        assert seen.rows[table] == read(tmp_path, table)[:3]
    assert seen.rejected == read(tmp_path, "rejected")
    assert [dataclasses.asdict(finding) for finding in seen.findings] == [
        finding | {"text": finding["text"].replace("; all are in rejected.parquet", "")}
        for finding in summary["findings"]
    ]
    assert len(seen.findings) == 3  # the brand, the unknown id, the row that is rejected


def test_where_prepare_would_stop_the_look_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    items, judgements = shop()
    for row in judgements[::4]:
        row["item_id"] = "gone"
    for row in judgements[1::4]:
        row["label"] = "X"
    rows = Rows(items, judgements)
    bad = len(judgements[::4]) + len(judgements[1::4])
    seen = look(rows)
    assert seen.stop.startswith(f"{bad} of {len(judgements)} judgements rejected (")
    assert seen.stop.endswith("raise prepare.run.max_rejected_share (0.05)")
    assert str(tmp_path) not in seen.stop and "rejected.parquet" not in seen.stop
    assert seen.summary["judgements"]["kept"] == len(judgements) - bad
    reasons = [row["reason"] for row in seen.rejected]
    assert sorted(reasons) == ["unknown item_id"] * 3 + ["unknown label"] * 3
    assert any(finding.text.startswith(f"{bad} of") for finding in seen.findings)
    assert os.listdir(tmp_path) == []


def test_a_stop_for_another_reason_has_no_summary():
    items, judgements = shop()
    seen = look(Rows(items, [row | {"label": "E"} for row in judgements]))
    assert seen.stop.startswith("split train has ") and "no irrelevant one" in seen.stop
    assert seen.summary == {} and seen.rejected == []
    assert len(seen.rows["items"]) == 3


def test_nothing_left_to_judge_is_said():
    items, judgements = shop()
    gone = [row | {"item_id": "gone"} for row in judgements]
    seen = look(Rows(items, gone))
    assert seen.stop.startswith(f"{len(gone)} of {len(gone)} judgements rejected")
    assert {row["reason"] for row in seen.rejected} == {"unknown item_id"}
    seen = look(Rows(items, gone), max_rejected_share=1.0)
    assert seen.stop == f"judgements: none of {len(gone)} is left to learn from"


@pytest.mark.parametrize("parts", [1, 4], ids=["one part", "four parts"])
def test_judged_items_are_found_wherever_they_are(parts):
    items, judgements = shop(items=400)
    judged = {row["item_id"] for row in judgements}
    seen = look(Rows(items, judgements, parts=parts), number=80)
    assert seen.stop is None
    # As many judgements of each part as of another, rounded up.
    assert seen.summary["judgements"]["read"] == 80 == seen.summary["judgements"]["kept"]
    assert 80 <= seen.summary["items"]["read"] < 80 + len(judged)


def test_ids_of_another_notation_are_found_too():
    items, judgements = shop(items=400)
    for row in items:
        row["item_id"] = str(1000 + int(row["item_id"][1:]))
    for row in judgements:
        row["item_id"] = f"{1000 + int(row['item_id'][1:])}.0"
    seen = look(Rows(items, judgements), number=len(judgements))
    assert seen.stop is None and seen.summary["judgements"]["rejected"] == 0
    zeros = [row | {"item_id": f"00{row['item_id'][:-2]}"} for row in judgements]
    seen = look(Rows(items, zeros), number=10)
    first = min(row["item_id"] for row in zeros[:10])
    assert f"{first!r}: the catalogue has {first[2:]!r}" in seen.stop


def test_no_row_before_the_end_of_the_sample_is_left_out():
    """Rows that could not be parsed stay among the items, and are rejected as such."""
    items, judgements = shop()
    source = Rows(items, judgements).read()
    damaged = functools.partial(broken, source.items[0])
    sample = dataclasses.replace(source, items=[damaged])
    rules = dataclasses.replace(RULES, max_rejected_share=1.0)
    seen = check.look(sample, rules=rules, rows=1)
    assert [(row["row"], row["reason"]) for row in seen.rejected if row["table"] == "items"] == [
        (2, "odd")
    ]


def broken(part):
    """Yields chunks whose second row could not be parsed."""
    for chunk in part():
        rows = chunk.table.to_pylist()
        rows[1] = dict.fromkeys(rows[1])
        table = pa.Table.from_pylist(rows, chunk.table.schema)
        yield dataclasses.replace(chunk, table=table, unreadable={1: ("<<", "odd")})


def three_chunks(calls):
    for start in (0, 3, 6):
        calls.append(start)
        yield Chunk(table=pa.table({"label": ["E", "I", None]}), file="f", first_row=start + 1)


def test_labels_are_counted_as_they_are_written_in_the_first_rows_alone():
    calls: list[int] = []
    part = functools.partial(three_chunks, calls)
    source = Source(items=[], judgements=[part])
    assert check.labels(source, rows=4) == {"E": 2, "I": 1}
    assert calls == [0, 3]  # the third chunk is never read


def test_values_are_counted_of_any_type():
    columns = [
        pa.array([1.0, 2.5, None]),
        pa.array([b"caf\xe9", b"E"]),
        pa.array([True, True]),
        pa.array([["a"], ["a"]]),
    ]
    parts = [functools.partial(one, pa.table({"label": column})) for column in columns]
    parts.append(functools.partial(one, pa.table({"other": [1]})))
    expected = {"1.0": 1, "2.5": 1, "caf\ufffd": 1, "E": 1, "True": 2, "['a']": 2}
    assert check.values(parts, "label") == expected


def one(table):
    yield Chunk(table=table, file="f")


def test_of_many_parts_some_from_the_first_to_the_last_are_read():
    tables = [pa.table({"label": [str(number)] * 10}) for number in range(40)]
    source = Source(items=[], judgements=[functools.partial(one, table) for table in tables])
    counts = check.labels(source, rows=28)
    # Every third part, so that at most 16 are read.
    assert counts == {str(number): 2 for number in range(0, 40, 3)}


def test_findings_of_the_reader_come_first():
    source = Rows(*shop()).read()
    said = Finding(table="items", text="read upside down", is_fault=False)
    seen = check.look(dataclasses.replace(source, findings=[said]), rules=RULES, rows=1000)
    assert seen.findings[0] == said
