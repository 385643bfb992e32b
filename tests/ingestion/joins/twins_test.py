"""Spellings of one query share a split, and what a table parts is said."""

from __future__ import annotations

import collections

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.identity import NEAR, PLAIN
from dsirm_jax.ingestion.joins.twins import near_twins
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop

WORDS = ("chair", "kettle", "lamp", "mug", "pot", "rug", "sofa", "vase")
COLOURS = ("red", "blue", "green", "black", "white")


def judged(*spellings, splits=(None,)):
    """Returns judgements of forty queries under spellings, which take turns with the splits."""
    items, _ = shop()
    rows = [
        {
            "query": spell(f"{colour} {word}"),
            "item_id": items[(place + number) % len(items)]["item_id"],
            "label": "E" if number % 2 else "I",
            "split": splits[number % len(splits)],
        }
        for place, (colour, word) in enumerate((c, w) for c in COLOURS for w in WORDS)
        for number, spell in enumerate(spellings)
    ]
    return Rows(items, rows)


def splits_of(folder):
    """Returns the splits of every identity."""
    found = collections.defaultdict(set)
    for row in read(folder, "queries"):
        assert row["identity"] == PLAIN.of(row["query"])
        found[row["identity"]].add(row["split"])
    return found


@pytest.mark.parametrize("fold", [None, (0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("exchanged", [False, True], ids=str)
def test_spellings_share_a_split_a_fold_and_a_half(tmp_path, fold, exchanged):
    source = judged(str, str.title, str.upper, "  {}  ".format)
    summary = prepare(source=source, out_dir=tmp_path, **SETTINGS, fold=fold, exchanged=exchanged)
    assert len(read(tmp_path, "queries")) == 120
    assert {len(splits) for splits in splits_of(tmp_path).values()} == {1}
    assert summary["findings"] == []


def test_a_given_split_that_parts_spellings_is_said_and_merged(tmp_path):
    source = judged(str, str.title, splits=("train", "test"))
    only = [
        row | {"query": f"only {row['query']}", "label": "EI"[place % 2]}
        for place, row in enumerate(source.judgements[::2])
    ]
    summary = prepare(
        source=Rows(source.items, source.judgements + only), out_dir=tmp_path, **SETTINGS
    )
    parted = splits_of(tmp_path)
    assert len(parted) == 80
    assert all((splits == {"test"}) == ("only" not in name) for name, splits in parted.items())
    (finding,) = summary["findings"]
    assert finding["table"] == "queries" and finding["is_fault"]
    assert finding["text"].startswith("40 of 80 queries are in both splits")
    assert "'black chair' in train and 'Black Chair' in test" in finding["text"]
    assert "prepare.run.parted_queries" in finding["text"]


def test_a_split_by_rows_is_said_and_may_stop(tmp_path):
    source = judged(str, str, str, splits=("train", "train", "test"))
    only = [
        row | {"query": f"only {row['query']}", "label": "EI"[place % 2]}
        for place, row in enumerate(source.judgements[::3])
    ]
    source = Rows(source.items, source.judgements + only)
    summary = prepare(source=source, out_dir=tmp_path, **SETTINGS)
    assert {len(splits) for splits in splits_of(tmp_path).values()} == {1}
    (finding,) = summary["findings"]
    assert finding["text"].startswith("40 of 80 queries have rows in both splits, train and test")
    with pytest.raises(InputError, match="^40 of 80 queries have rows in both splits"):
        prepare(source=source, out_dir=tmp_path, **SETTINGS, parted_queries="error")
    with pytest.raises(InputError, match="parted_queries is 'keep'; bind 'merge' or 'error'"):
        prepare(source=source, out_dir=tmp_path, **SETTINGS, parted_queries="keep")


def test_a_fold_takes_no_given_split_and_so_parts_none(tmp_path):
    source = judged(str, str.title, splits=("train", "test"))
    summary = prepare(
        source=source, out_dir=tmp_path, **SETTINGS, fold=(0, 3), parted_queries="error"
    )
    assert summary["findings"] == []


def other_order(text):
    return " ".join(reversed(text.split()))


def test_near_twins_across_splits_are_counted_and_said(tmp_path):
    source = judged(str, "{}.".format, other_order)
    summary = prepare(source=source, out_dir=tmp_path, **SETTINGS)
    groups = collections.defaultdict(set)
    rows = read(tmp_path, "queries")
    for row in rows:
        groups[NEAR.of(row["query"])].add(row["split"])
    expected = collections.Counter(
        row["split"] for row in rows if len(groups[NEAR.of(row["query"])]) > 1
    )
    assert summary["queries"]["near_twins"] == {
        name: expected[name] for name in ("train", "head", "test")
    }
    assert expected["test"] > 5
    (finding,) = summary["findings"]
    assert finding["is_fault"]
    tests = summary["queries"]["splits"]["test"]["queries"]
    assert finding["text"].startswith(
        f"{expected['test']} of {tests} test queries have a near-twin"
    )


def test_near_twins_that_are_bound_to_be_one_query_share_a_split(tmp_path):
    source = judged(str, "{}.".format, other_order)
    summary = prepare(source=source, out_dir=tmp_path, **SETTINGS, identity=NEAR)
    assert summary["queries"]["near_twins"] == {"train": 0, "head": 0, "test": 0}
    assert summary["findings"] == []
    found = collections.defaultdict(set)
    for row in read(tmp_path, "queries"):
        found[row["identity"]].add(row["split"])
    assert len(found) == 40 and {len(splits) for splits in found.values()} == {1}


def test_a_table_without_queries_has_no_twins(tmp_path):
    path = tmp_path / "queries.parquet"
    pq.write_table(
        pa.table({"query": pa.array([], pa.string()), "split": pa.array([], pa.string())}), path
    )
    assert near_twins(path, identity=PLAIN) == ({"train": 0, "head": 0, "test": 0}, [])
