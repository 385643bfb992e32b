"""What needs whole tables: the frequencies and segments of queries."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest

from dsirm_jax.ingestion.prepare import prepare
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop


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
        {"query": query, "item_id": item, "label": label, "query_frequency": frequency}
        for query, frequency in drawn.items()
        for item, label in (("i000", "E"), ("i001", "I"))
    ]
    for row in judgements:
        row["split"] = "test" if row["query"] == "d" else "train"
    # Half of the traffic comes before "b", 80 % before "c" and "d", which tie.
    folder = tmp_path / "out"
    prepare(source=Rows(items, judgements), out_dir=folder, **(SETTINGS | {"seed": 1}))
    segments = {row["query"]: row["segment"] for row in read(folder, "queries")}
    assert segments == {"a": "head", "b": "torso", "c": "tail", "d": "tail"}
