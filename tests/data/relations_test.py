"""What needs whole tables: one row a pair, and the frequencies and segments of queries."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from dsirm_jax.data.prepare import prepare
from tests.data.shop_rows import SETTINGS, Rows, read, shop


def test_counts_become_labels_by_the_documented_rule(tmp_path):
    items, judgements = shop()
    known = {(row["query"], row["item_id"]) for row in judgements}
    free = [f"i{number:03}" for number in range(40) if ("query 0", f"i{number:03}") not in known]
    rows = [
        # Bought once in two rows of clicks: best label, log2(1 + 1).
        ({"impressions": 50, "clicks": 2, "purchases": 1}, "E", 1.0),
        ({"clicks": 7}, "S", 3.0),
        ({"impressions": 15, "clicks": 0, "purchases": 0}, "I", 4.0),
        ({"label": "C", "clicks": 9, "purchases": 9}, "C", 1.0),
        ({"clicks": 1, "weight": 0.25}, "S", 0.25),
    ]
    counted = [
        {"query": "query 0", "item_id": item, **counts} for item, (counts, *_) in zip(free, rows)
    ]
    # Counts of one pair are added before the rule: 15 clicks weigh log2(16).
    counted += [{"query": "query 0", "item_id": free[5], "clicks": clicks} for clicks in (7, 8)]
    prepare(source=Rows(items, judgements + counted), out_dir=tmp_path, **SETTINGS)
    pairs = {(row["query"], row["item_id"]): row for row in read(tmp_path, "judgements")}
    for item, (_, label, weight) in zip(free, [*rows, ({}, "S", 4.0)]):
        row = pairs["query 0", item]
        assert (row["label"], row["weight"]) == (label, weight)


def test_with_two_labels_a_click_counts_as_the_better_one(tmp_path):
    items, _ = shop()
    judgements = [
        {"query": f"q{query}", "item_id": f"i{item:03}", "impressions": 3, "clicks": item % 2}
        for query in range(40)
        for item in range(4)
    ]
    prepare(
        source=Rows(items, judgements),
        out_dir=tmp_path,
        **(SETTINGS | {"label_gains": {"no": 0, "yes": 1}, "relevant_labels": ("yes",)}),
    )
    for row in read(tmp_path, "judgements"):
        assert row["label"] == ("yes" if int(row["item_id"][1:]) % 2 else "no")
        assert row["weight"] == (1.0 if row["relevant"] else 2.0)


def test_of_several_labels_the_highest_gain_wins(tmp_path):
    items, judgements = shop()
    first = judgements[0]
    key = (first["query"], first["item_id"])
    judgements += [
        first | {"label": "S", "weight": 3.0},
        first | {"label": "E", "weight": 0.5},
        first | {"label": "I"},
    ]
    summary = prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    rows = [row for row in read(tmp_path, "judgements") if (row["query"], row["item_id"]) == key]
    assert [(row["label"], row["weight"]) for row in rows] == [("E", 3.0)]
    assert summary["judgements"]["pairs"] == summary["judgements"]["kept"] - 3


def expected_segments(frequencies):
    """The documented rule, by one pass over the queries."""
    total, before, segments = sum(frequencies.values()), 0.0, {}
    ordered = sorted(frequencies, key=lambda query: -frequencies[query])
    for _, group in itertools.groupby(ordered, key=frequencies.get):
        group = list(group)
        share = before / total
        segment = "head" if share < 0.5 else "torso" if share < 0.8 else "tail"
        segments |= dict.fromkeys(group, segment)
        before += sum(frequencies[query] for query in group)
    return segments


@pytest.mark.parametrize("signal", ["query_frequency", "impressions", "clicks", "judgements"])
def test_frequencies_and_segments(tmp_path, signal):
    items, judgements = shop()
    random = np.random.default_rng(2)
    frequencies = collections.defaultdict(float)
    drawn = {f"query {query}": float(random.zipf(1.5) % 50) for query in range(60)}
    for row in judgements:
        if signal == "query_frequency":
            row[signal] = frequencies[row["query"]] = drawn[row["query"]]
        elif signal == "judgements":
            frequencies[row["query"]] += 1
        else:
            row[signal] = int(random.integers(5))
            frequencies[row["query"]] += row[signal]
        if signal == "impressions":
            row["clicks"] = 1
    prepare(source=Rows(items, judgements), out_dir=tmp_path, **SETTINGS)
    queries = read(tmp_path, "queries")
    assert {row["query"]: row["frequency"] for row in queries} == frequencies
    assert {row["query"]: row["segment"] for row in queries} == expected_segments(frequencies)
    assert len({row["segment"] for row in queries}) > 1


def test_segments_at_their_boundaries(tmp_path):
    items, _ = shop()
    drawn = {"a": 50.0, "b": 30.0, "c": 10.0, "d": 10.0}
    judgements = [
        {"query": query, "item_id": "i000", "label": "E", "query_frequency": frequency}
        for query, frequency in drawn.items()
    ]
    for row, split in zip(judgements, ("train", "train", "train", "test")):
        row["split"] = split
    # Half of the traffic comes before "b", 80 % before "c" and "d", which tie.
    folder = tmp_path / "out"
    prepare(source=Rows(items, judgements), out_dir=folder, **(SETTINGS | {"seed": 1}))
    segments = {row["query"]: row["segment"] for row in read(folder, "queries")}
    assert segments == {"a": "head", "b": "torso", "c": "tail", "d": "tail"}
