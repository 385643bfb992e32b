from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from dsirm_jax.data.schema import Chunk
from dsirm_jax.ingestion.grading.labels import LabelTable
from dsirm_jax.ingestion.numbers import plain_numbers, without_nan
from dsirm_jax.ingestion.validation.oddities import Oddities, oddity_findings
from dsirm_jax.ingestion.validation.validate import checked_items, checked_judgements


def plain(texts, decimal=None):
    column = pa.array([text and text.encode() for text in texts], pa.binary())
    numbers, commas = plain_numbers(column, missing=("NULL",), decimal=decimal)
    return numbers.to_pylist(), [bool(comma) for comma in commas.to_pylist()]


def test_a_comma_is_decimal_where_it_can_be_nothing_else():
    texts = {"0,5": "0.5", "-1,25": "-1.25", ",5": ".5", "1204,500": "1204.500", "0,125": "0.125"}
    assert plain(list(texts)) == (list(texts.values()), [True] * 5)
    texts = {"1.204,5": "1204.5", "1.204.000,25": "1204000.25"}
    assert plain(list(texts)) == (list(texts.values()), [True] * 2)


def test_points_and_commas_between_thousands():
    texts = {"1,204,000": "1204000", "1,204.5": "1204.5", "1.204.000": "1204000", "12.0": "12.0"}
    assert plain(list(texts)) == (list(texts.values()), [False] * 4)


def test_what_can_be_read_in_two_ways_stays_unless_it_is_bound():
    assert plain(["1,204", "12,000"]) == (["1,204", "12,000"], [False] * 2)
    assert plain(["1,204", "12,000", "0.5"], ".") == (["1204", "12000", "0.5"], [False] * 3)
    assert plain(["1,204", "12,000", "1.204"], ",") == (["1.204", "12.000", "1204"], [False] * 3)


def test_spaces_and_markers():
    assert plain([" 2 ", "  ", "NULL", None, "many"])[0] == ["2", None, None, None, "many"]


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_nan_is_null(name):
    values = np.array([1, math.nan, math.inf], name)
    assert without_nan(pa.array(values)).to_pylist() == [1, None, math.inf]


LABELS = LabelTable(gains={"0": 0.0, "1": 1.0}, relevant=("1",))


def judgements(values, **chunk):
    oddities = Oddities()
    table = pa.table({"query": ["NULL"] * 4, "item_id": list("abcd"), "label": ["1"] * 4, **values})
    kept, rejected = checked_judgements(
        Chunk(table=table, file="f", **chunk), labels=LABELS, seed=0, oddities=oddities
    )
    return kept, rejected.to_pylist(), oddities


def test_numbers_of_judgements():
    values = {
        "split": ["NULL", "\\N", "test", None],
        "weight": ["0,5", "\\N", " 2", "1"],
        "clicks": ["1,204", "1,000", "NA", "1,000,000"],
    }
    kept, (rejected,), oddities = judgements(values)
    assert kept["query"].to_pylist() == ["NULL"] * 3
    assert kept["split"].to_pylist() == [None, "test", None]
    assert kept["weight"].to_pylist() == [0.5, 2, 1]
    assert kept["clicks"].to_pylist() == [1204, None, 1_000_000]
    assert (rejected["column"], rejected["value"]) == ("clicks", "1,000")
    assert rejected["reason"].startswith("a comma for thousands or for decimals: bind")
    finding, *others = oddity_findings(
        oddities, table="judgements", rows=4, columns={"weight": "w"}
    )
    assert [other.text.partition(":")[0] for other in others] == [
        "split is 'NULL' in 1 of 4 rows",
        "split is '\\\\N' in 1 of 4 rows",
    ]
    assert "w has a decimal comma in 1 of 4 rows (such as '0,5')" in finding.text
    _, (rejected,), _ = judgements({"clicks": ["1.204", "1", "2", "3"]})
    assert rejected["reason"].startswith("a point for thousands or for decimals: bind judgements/")
    kept, (rejected,), _ = judgements(values, decimal=".")
    assert kept["clicks"].to_pylist() == [1000, None, 1_000_000]
    assert (rejected["column"], rejected["value"]) == ("weight", "0,5")


def test_nan_of_parquet_is_null_everywhere():
    kept, rejected, _ = judgements({"weight": [math.nan, 1.0, 2.0, 3.0], "clicks": [math.nan] * 4})
    assert (rejected, kept["weight"].to_pylist()) == ([], [None, 1, 2, 3])
    assert kept["clicks"].null_count == 4
    table = {
        "item_id": [1.0, 2.0, math.nan],
        "title": pa.array(["a", None, "c"]),
        "brand": [math.nan] * 3,
        "price": [math.nan, 1.0, 2.0],
    }
    kept, rejected = checked_items(
        Chunk(table=pa.table(table), file="f"), extras=pa.schema([("price", pa.float64())])
    )
    (row,) = kept.to_pylist()
    assert [row[name] for name in ("brand", "price", "text")] == [None, None, "a"]
    assert [row["reason"] for row in rejected.to_pylist()] == ["empty title", "empty item_id"]
