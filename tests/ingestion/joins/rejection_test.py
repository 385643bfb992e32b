"""Rows that are rejected are a finding, with the mend, which stays the same wherever a run lies."""

from __future__ import annotations

import collections
import logging

import pytest

from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.readers.tables import Tables
from dsirm_jax.io.errors import InputError
from tests.ingestion.reading import write
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop


def messy(number=8):
    """Returns a shop in which some judgements cannot be used, for three reasons in turn."""
    items, judgements = shop()
    items = [row | {"item_id": f"00{row['item_id']}"} for row in items]
    faults = ({"label": "perfect"}, {"item_id": "i001"}, {"query": " "})
    rows = [
        row
        | {"item_id": f"00{row['item_id']}"}
        | (faults[place // 9 % 3] if place % 9 == 0 and place // 9 < number else {})
        for place, row in enumerate(judgements)
    ]
    return Rows(items, rows)


def rejection(summary, table):
    (finding,) = (
        finding
        for finding in summary["findings"]
        if finding["table"] == table and " rejected (" in finding["text"]
    )
    return finding


def test_rejected_rows_are_a_finding_with_counts_the_first_and_the_mends(tmp_path):
    rows = messy()
    summary = prepare(source=rows, out_dir=tmp_path, **SETTINGS, max_rejected_share=0.2)
    reasons = collections.Counter(row["reason"] for row in read(tmp_path, "rejected"))
    assert sorted(reasons.values()) == [2, 3, 3]
    finding = rejection(summary, "judgements")
    assert finding["is_fault"]
    text = finding["text"]
    assert text.startswith(f"8 of {len(rows.judgements)} judgements rejected (")
    for reason, count in reasons.items():
        assert f"{count} {reason}" in text.partition("the first: ")[0]
    assert "the first: judgements-0.csv row 1 column label = 'perfect' (unknown label" in text
    assert "all are in rejected.parquet" in text
    # Of what is frequent, how to mend it.
    assert "LABEL_GAINS" in text and "the catalogue has '00i001'" in text
    assert "\n" not in text


def test_a_reason_that_begins_with_a_number_is_told_from_its_count(tmp_path):
    items, judgements = shop()
    write(items, tmp_path / "items.jsonl")
    lines = [",".join(row.values()) for row in judgements]
    lines[3:5] = ["too,few", "too,few"]
    (tmp_path / "judged.csv").write_text("\n".join(["query,item_id,label", *lines]))
    source = Tables(items=f"{tmp_path}/items.jsonl", judgements=f"{tmp_path}/judged.csv")
    summary = prepare(source=source, out_dir=tmp_path / "out", **SETTINGS)
    text = rejection(summary, "judgements")["text"]
    assert " rejected (2 with 2 values where the header has 3), the first: " in text


def test_an_equal_copy_is_no_fault(tmp_path):
    items, judgements = shop()
    summary = prepare(source=Rows([*items, items[0]], judgements), out_dir=tmp_path, **SETTINGS)
    assert summary["items"]["rejected"] == 1
    assert not any(finding["is_fault"] for finding in summary["findings"])
    assert not any(" rejected (" in finding["text"] for finding in summary["findings"])


def test_what_is_said_of_tables_does_not_depend_on_where_the_run_lies(tmp_path):
    texts = []
    for name in ("one", "another/place"):
        out = tmp_path / name
        out.mkdir(parents=True)
        prepare(source=messy(), out_dir=out, **SETTINGS, max_rejected_share=0.2)
        texts.append((out / "summary.json").read_bytes())
        assert str(tmp_path).encode() not in texts[-1]
    assert texts[0] == texts[1]


def test_findings_are_logged_as_warnings_once(tmp_path):
    said = []
    keeper = logging.Handler()
    keeper.emit = said.append
    log = logging.getLogger("dsirm_jax.data.findings")
    level = log.level
    log.addHandler(keeper)
    log.setLevel(logging.INFO)
    try:
        summary = prepare(source=messy(), out_dir=tmp_path, **SETTINGS, max_rejected_share=0.2)
    finally:
        log.removeHandler(keeper)
        log.setLevel(level)
    assert [
        (record.levelname, record.getMessage())
        for record in said
        if " rejected (" in record.getMessage()
    ] == [("WARNING", f"prepare: judgements: {rejection(summary, 'judgements')['text']}")]


def test_too_many_stop_with_the_place_of_all_of_them(tmp_path):
    with pytest.raises(InputError) as error:
        prepare(source=messy(), out_dir=tmp_path, **SETTINGS, max_rejected_share=0.0)
    message = str(error.value)
    assert f"all are in {tmp_path}/rejected.parquet; " in message
    assert message.endswith("; fix them or raise prepare.run.max_rejected_share (0.0)")
    assert len(read(tmp_path, "rejected")) == 8


@pytest.mark.parametrize("fault", ["label", "item_id", "query"])
def test_nothing_left_to_learn_from_is_said(tmp_path, fault):
    items, judgements = shop()
    bad = [row | {fault: "" if fault == "query" else "gone"} for row in judgements]
    with pytest.raises(InputError) as error:
        prepare(source=Rows(items, bad), out_dir=tmp_path, **SETTINGS, max_rejected_share=1.0)
    assert str(error.value) == (
        f"judgements: none of {len(bad)} is left to learn from; all are in rejected.parquet"
    )
    assert len(read(tmp_path, "rejected")) == len(bad)


def test_no_item_is_left(tmp_path):
    items, judgements = shop()
    bad = [row | {"title": ""} for row in items]
    with pytest.raises(InputError, match="^judgements: none of .* is left to learn from"):
        prepare(source=Rows(bad, judgements), out_dir=tmp_path, **SETTINGS, max_rejected_share=1.0)


def test_rows_without_any_value_are_counted_and_no_fault(tmp_path):
    items, judgements = shop()
    blank = dict.fromkeys(judgements[0]) | {"query": " ", "item_id": ""}
    rows = Rows([*items, *[dict.fromkeys(items[0])] * 30], [*judgements, *[blank] * 200])
    summary = prepare(source=rows, out_dir=tmp_path, **SETTINGS, max_rejected_share=0.0)
    assert summary["items"]["reasons"] == {"empty row": 30}
    counts = summary["judgements"]
    assert counts["reasons"] == {"empty row": 200}
    assert counts["read"] == counts["kept"] + counts["rejected"]
    said = [finding for finding in summary["findings"] if "empty in the columns" in finding["text"]]
    assert [(finding["table"], finding["is_fault"]) for finding in said] == [
        ("items", False),
        ("judgements", False),
    ]


def test_a_row_with_any_value_is_no_empty_row(tmp_path):
    items, judgements = shop()
    odd = dict.fromkeys(judgements[0]) | {"impressions": 0}
    rows = Rows(items, [*judgements, odd])
    summary = prepare(source=rows, out_dir=tmp_path, **SETTINGS)
    assert summary["judgements"]["reasons"] == {"empty query": 1}


def test_splits_are_compared_without_case_and_others_are_told_what_to_write(tmp_path):
    items, judgements = shop()
    queries = sorted({row["query"] for row in judgements})
    spelling = {query: ("TEST", " Train ")[place % 2] for place, query in enumerate(queries)}
    rows = [row | {"split": spelling[row["query"]]} for row in judgements]
    prepare(source=Rows(items, rows), out_dir=tmp_path, **SETTINGS)
    tested = {row["query"] for row in read(tmp_path, "queries") if row["split"] == "test"}
    assert tested == set(queries[::2])
    rows = [row | {"split": "valid"} for row in judgements]
    with pytest.raises(InputError, match="write one of these for dev or valid"):
        prepare(source=Rows(items, rows), out_dir=tmp_path, **SETTINGS)
