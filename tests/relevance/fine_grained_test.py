"""Which pairs differ in one attribute, from texts and from truth; their figures, by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.identity import PLAIN
from dsirm_jax.metrics.fine_grained import Preferences
from dsirm_jax.relevance.fine_grained import (
    ALL,
    TEXTS,
    TRUTH,
    Fine,
    Judged,
    evaluate_fine,
    find,
    measure,
)
from dsirm_jax.run.layout import Layout

ITEMS = [  # title, brand, colour
    ("Zorvik Coffee Mug 12 oz", "Zorvik", "Red"),
    ("Zorvik Coffee Mug 12 oz", "Zorvik", "Blue"),
    ("Norvik Coffee Mug 12 oz", "Norvik", "Red"),
    ("Zorvik Desk Lamp 12 oz", "Zorvik", "Blue"),
    ("Zorvik Coffee Mug with Lid", "Zorvik", None),
]
QUERY_TEXTS = ["coffee mug", "mug without lid", "red zorvik mug", "red zorvik mugs"]


def write(layout, *, paths=None, truth=None):
    layout.stage("prepare").mkdir(parents=True, exist_ok=True)
    title, brand, colour = zip(*ITEMS)
    text = [" ".join(filter(None, row[::2])) for row in ITEMS]
    columns = {
        "title": title,
        "brand": brand,
        "colour": colour,
        "text": text,
        "category": pa.array(paths or [None] * len(ITEMS), pa.list_(pa.string())),
    }
    pq.write_table(pa.table(columns | (truth or {})), layout.items)
    table = pa.table({"query": QUERY_TEXTS, "identity": [PLAIN.of(text) for text in QUERY_TEXTS]})
    pq.write_table(table.replace_schema_metadata(PLAIN.metadata()), layout.queries)


def judged(*rows):
    query, item, gain = zip(*rows)
    return Judged(np.array(query), np.array(item), np.array(gain, np.float32))


def found(layout, rows, *, language="en-x-rules2"):
    fine = find(
        judged(*rows),
        items=layout.items,
        queries=pa.chunked_array([pa.array(QUERY_TEXTS)]),
        identity=np.arange(len(QUERY_TEXTS)),
        language=language,
    )
    if fine is None:
        return []
    right, wrong, _ = fine.preferences
    return list(zip(right, wrong, fine.kind, fine.identity[fine.query]))


# The rows are not in the order of queries.
ROWS = [(2, 0, 1.0), (1, 4, 0.0), (2, 1, 0.1), (2, 2, 0.1), (2, 3, 0.0), (1, 0, 1.0), (0, 0, 1.0)]


def test_pairs_of_texts_by_hand(tmp_path):
    layout = Layout(model_dir=tmp_path)
    write(layout)
    # Both "mug" queries; the lamp is of another type, and nothing is asked of query 0.
    assert found(layout, ROWS) == [
        (5, 1, "negation", 1),
        (0, 2, "colour", 2),
        (0, 3, "brand", 2),
    ]


def test_without_types_any_two_items_may_differ(tmp_path):
    layout = Layout(model_dir=tmp_path)
    write(layout)
    assert (0, 4, "colour", 2) in found(layout, ROWS, language=None)


def test_categories_are_types_where_there_are_any(tmp_path):
    layout = Layout(model_dir=tmp_path)
    write(layout, paths=[["Mugs"], ["Mugs"], ["Cups"], ["Mugs"], None])
    # The lamp is filed under mugs; the mug of the other brand is not, and one is nowhere.
    assert found(layout, ROWS) == [(0, 2, "colour", 2), (0, 4, "colour", 2)]


def test_pairs_of_the_shops_truth(tmp_path):
    layout = Layout(model_dir=tmp_path)
    facts = [
        ["brand=Zorvik", "colour=black"],
        ["brand=Zorvik", "colour=blue"],
        ["brand=Zorvik", "colour=blue"],
        ["brand=Zorvik", "colour=blue"],
        ["brand=Zorvik"],
    ]
    types = ["t-shirt", "t-shirt", "t-shirt", "lamp", "t-shirt"]
    write(layout, truth={"truth_type": types, "truth_attributes": facts})
    fine = find(
        judged((0, 0, 1.0), (0, 1, 0.1), (0, 2, 1.0), (0, 3, 0.0), (0, 4, 0.0), (1, 0, 1.0)),
        items=layout.items,
        queries=pa.chunked_array([["jet tee", "tee"]]),
        identity=np.arange(2),
        language=None,
    )
    assert fine.source == TRUTH
    # Item 2 is judged as good as item 0; item 3 is of another type; of item 4 nobody knows.
    assert [part.tolist() for part in fine.preferences] == [[0], [1], [0]]
    assert fine.kind.tolist() == ["colour"]


def example(seed=0, queries=60):
    random = np.random.default_rng(seed)
    query = np.sort(np.concatenate([np.arange(queries), random.integers(queries, size=200)]))
    right, wrong = random.integers(500, size=(2, len(query)))
    fine = Fine(
        source=TEXTS,
        preferences=Preferences(right, wrong, 0 * right),
        kind=random.choice(["brand", "colour", "negation"], len(query)).astype(object),
        query=query,
        identity=np.arange(queries),
    )
    scores = {name: random.integers(10, size=500) / 10 for name in ("no_sid", "full")}
    return fine, scores


def by_hand(fine, scores, kind):
    shares = []
    for number in range(len(fine.identity)):
        won = [
            float(scores[a] > scores[b]) + 0.5 * float(scores[a] == scores[b])
            for a, b, of, named in zip(*fine.preferences[:2], fine.query, fine.kind)
            if of == number and kind in (ALL, named)
        ]
        shares += [np.mean(won)] if won else []
    return np.mean(shares)


def test_figures_are_means_over_queries():
    fine, scores = example()
    result = evaluate_fine(fine, scores, lifts=[("full", "no_sid")], resamples=50, seed=0)
    assert (result["source"], result["queries"], result["pairs"]) == (TEXTS, 60, len(fine.query))
    for kind in (ALL, "brand", "colour", "negation"):
        values = {}
        for rung, of_rung in scores.items():
            interval = result["rungs"][rung][kind]
            values[rung] = by_hand(fine, of_rung, kind)
            assert interval["value"] == pytest.approx(values[rung])
            assert interval["low"] <= interval["value"] <= interval["high"]
        lift = result["lifts"]["full"][kind]
        assert lift["value"] == pytest.approx(values["full"] - values["no_sid"])
    assert sum(counts["pairs"] for counts in result["kinds"].values()) == result["pairs"]
    assert "size" not in result["kinds"]


def test_the_interval_of_a_lift_is_paired():
    fine, scores = example()
    scores["full"] = scores["no_sid"] ** 2  # the same order
    result = evaluate_fine(fine, scores, lifts=[("full", "no_sid")], resamples=50, seed=0)
    assert result["lifts"]["full"][ALL] == {"value": 0, "low": 0, "high": 0}
    assert result["rungs"]["full"][ALL]["low"] < result["rungs"]["full"][ALL]["high"]


def test_scores_of_several_seeds_are_averaged():
    fine, scores = example()
    both = {"full": np.stack(list(scores.values()))}
    result = evaluate_fine(fine, both, lifts=[], resamples=5, seed=0)
    expected = np.mean([by_hand(fine, of_seed, ALL) for of_seed in scores.values()])
    assert result["rungs"]["full"][ALL]["value"] == pytest.approx(expected)


def test_what_is_written_of_a_run(tmp_path):
    layout = Layout(model_dir=tmp_path)
    write(layout)
    scores = {"no_sid": np.array([0.5, 0.9, 0.4, 0.5, 0.9, 0.1, 0.0])}
    settings = {"at": layout, "language": "en-x-rules2", "lifts": [], "resamples": 20}
    result = measure(judged(*ROWS), scores, **settings)
    of = result["rungs"]["no_sid"]
    # Query 1: wrong; query 2: colour right, brand a tie.
    assert of[ALL]["value"] == pytest.approx((0 + 0.75) / 2)
    assert (of["colour"]["value"], of["brand"]["value"], of["negation"]["value"]) == (1, 0.5, 0)
    assert result["kinds"]["brand"] == {"queries": 1, "pairs": 1}
    assert measure(judged((0, 0, 1.0)), {"no_sid": np.array([0.5])}, **settings) == {}
