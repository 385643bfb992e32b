"""What is said of labels that nobody knows, and of rows that nobody rated."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from dsirm_jax.data.schema import UNRATED, Chunk
from dsirm_jax.ingestion.grading.labels import Grades, LabelTable
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.validation.validate import checked_judgements
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop

NUMBERS = {"label_gains": {"0": 0.0, "1": 0.3, "2": 1.0}, "relevant_labels": ("2",)}


def graded(means):
    """Returns a shop whose labels are these, in turn."""
    items, judgements = shop()
    return items, [
        row | {"label": means[number % len(means)]} for number, row in enumerate(judgements)
    ]


def texts(summary):
    return [finding["text"] for finding in summary["findings"] if finding["table"] == "judgements"]


def test_unknown_labels_are_listed_with_their_counts_beside_those_expected(tmp_path):
    items, judgements = graded(["0", "2.33", "2.0", "1.67", "1.67"])
    number = len(judgements) // 5
    with pytest.raises(InputError) as error:
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS | NUMBERS)
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "'1.67' (",
        f"'2.33' ({number + (len(judgements) % 5 > 1)})",
        "beside '0' (",
        "'2.0' (",
        "expected '0', '1', '2'",
        "LABEL_GAINS (prepare.run.label_gains)",
        "RELEVANT_LABELS (prepare.run.relevant_labels)",
        "labels.Grades.relevant_from",
    ):
        assert part in message, part
    words = [row | {"label": "good"} for row in judgements]
    with pytest.raises(InputError, match="expected '0', '1', '2'") as error:
        prepare(source=Rows(items, words), out_dir=tmp_path, **SETTINGS | NUMBERS)
    assert "Grades" not in str(error.value)  # no numbers were found


def test_a_few_unknown_labels_are_a_finding(tmp_path):
    items, judgements = graded(["0", "1", "2"])
    judgements[3]["label"] = "x" * 300
    summary = prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS | NUMBERS)
    assert summary["judgements"]["rejected"] == 1
    text, rejected = texts(summary)
    assert text.startswith(f"column label: 1 of {len(judgements)} labels are unknown; found 'xxx")
    assert len(text) < 400
    assert rejected.startswith(f"1 of {len(judgements)} judgements rejected (1 unknown label)")
    assert rejected.endswith(f"; {text}")


def test_numeric_grades_take_a_threshold(tmp_path):
    items, judgements = graded(["1.33", "2,33", "2.67", "3.00", "3", "2"])
    bound = {"label_gains": Grades(relevant_from=2.33, least=1, most=3)}
    summary = prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS | bound)
    pairs = read(tmp_path, "judgements")
    assert {row["label"] for row in pairs} == {"1.33", "2", "2.33", "2.67", "3"}
    for row in pairs:
        assert row["gain"] == pytest.approx((float(row["label"]) - 1) / 2)
        assert row["relevant"] == (row["label"] in ("2.33", "2.67", "3"))
    assert sum(summary["judgements"]["labels"].values()) == len(pairs)
    [text] = texts(summary)
    assert "prepare.run.relevant_labels (('E',)) is not used" in text


def test_unrated_rows_are_counted_apart_and_are_no_fault(tmp_path):
    items, judgements = shop()
    judgements += [row | {"label": None} for row in judgements[:50]]
    judgements += [row | {"label": "NaN"} for row in judgements[:20]]
    judgements.append(judgements[0] | {"label": " ", "impressions": 0, "clicks": 0})
    summary = prepare(
        source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS, max_rejected_share=0.0
    )
    found = summary["judgements"]
    assert (found["unrated"], found["rejected"], found["reasons"]) == (71, 0, {})
    assert found["read"] == found["kept"] + 71
    [text] = texts(summary)
    assert text.startswith(f"71 of {len(judgements)} rows are unrated")
    assert "label is '' (51), 'NaN' (20)" in text
    assert {row["reason"] for row in read(tmp_path, "rejected")} == {UNRATED}


def test_a_table_that_nobody_rated_stops_the_run(tmp_path):
    items, judgements = shop()
    judgements = [row | {"label": None} for row in judgements]
    with pytest.raises(InputError, match=r"all \d+ rows are unrated: column label has '' \("):
        prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)


def checked(columns, **needs):
    rows = len(next(iter(columns.values())))
    table = pa.table({"query": ["q"] * rows, "item_id": ["i"] * rows} | columns)
    labels = LabelTable(gains={"0": 0.0, "1": 1.0}, relevant=("1",))
    return checked_judgements(Chunk(table=table, file="f"), labels=labels, seed=0, **needs)


def test_labels_of_any_type():
    for column in (
        pa.array([True, False, None]),
        pa.array([1.0, 0.0, math.nan]),
        pa.array(["1,0", "False", "n/a"]),
        pa.array(["1.000", "0", None]).dictionary_encode(),
    ):
        kept, rejected = checked({"label": column})
        assert kept["_grade"].to_pylist() == [1.0, 0.0]
        assert rejected["reason"].to_pylist() == [UNRATED]


def test_columns_that_nothing_reads_reject_no_row():
    columns = {"label": ["1", "0"], "position": ["top", "2"], "judged_at": ["yesterday", "5"]}
    kept, _ = checked(columns)
    assert kept.num_rows == 2
    assert kept["position"].to_pylist() == kept["_judged_at"].to_pylist() == [None, None]
    kept, rejected = checked(columns, is_placed=True)
    assert rejected["reason"].to_pylist() == ["not a value of type int64"]
    kept, rejected = checked(columns, is_timed=True)
    assert (kept["_judged_at"].to_pylist(), rejected.num_rows) == ([5.0], 1)
    _, rejected = checked({"label": ["1", "0"], "position": [0, 1]}, is_placed=True)
    assert rejected["reason"].to_pylist() == ["no place from 1"]


def test_counts_with_grouped_thousands_are_counts():
    kept, rejected = checked(
        {"impressions": ["1,204", "12.0", "1,5", "7"], "clicks": ["3", "3", "3", "1,000,000"]}
    )
    assert kept["impressions"].to_pylist() == [1204, 12, 7]
    assert kept["clicks"].to_pylist() == [3, 3, 1_000_000]
    assert rejected["value"].to_pylist() == ["1,5"]
