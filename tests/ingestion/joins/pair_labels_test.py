"""One row a pair: of several judgements, by each rule, whatever the engine and the order."""

from __future__ import annotations

import collections
import fractions
import itertools
import tempfile
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.ingestion.grading.clicks import ClickModel
from dsirm_jax.ingestion.grading.labels import Grades, LabelTable
from dsirm_jax.ingestion.joins.pair_labels import AGGREGATIONS, pair_labels
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.ingestion.validation.validate import CHECKED_JUDGEMENTS
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import SETTINGS, Rows, read, shop

GAINS = {"no": 0.0, "some": 0.25, "part": 0.25, "all": 1.0}
LABELS = LabelTable(gains=GAINS, relevant=("all",))


def checked(rows, labels=LABELS):
    """Returns judgements as the row checks leave them."""
    filled = [
        {name: row.get(name) for name in CHECKED_JUDGEMENTS.names}
        | {"query": row.get("query", "q"), "item_id": row.get("item_id", "i")}
        | {"_grade": None if row.get("label") is None else labels.grade(row["label"])}
        for row in rows
    ]
    return pa.Table.from_pylist(filled, CHECKED_JUDGEMENTS)


def pairs_of(rows, *, labels=LABELS, aggregation="majority", clicks=None, engine=ibis.duckdb):
    """Returns the rows of pairs by key, and what is said of them."""
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(checked(rows, labels), f"{folder}/judgements.parquet")
        database = engine.connect()
        found = pair_labels(
            database,
            database.read_parquet(f"{folder}/judgements.parquet"),
            labels=labels,
            aggregation=aggregation,
            clicks=clicks or ClickModel(),
            folder=Path(folder),
        )
        table = found.rows.to_pyarrow().to_pylist()
    pairs = {(row.pop("query"), row.pop("item_id")): row for row in table}
    assert len(pairs) == len(table)
    return pairs, found


def expected(ratings, aggregation):
    """The documented rules, for the (label, time) of one pair."""
    labels = [label for label, _ in ratings]
    place = ["no", "some", "part", "all"].index  # of the same gain, the first by name is above
    if aggregation == "majority":
        votes = collections.Counter(labels)
        return min(votes, key=lambda label: (-votes[label], place(label)))
    if aggregation == "latest":
        last = max(-1.0 if time is None else time for _, time in ratings)
        return min(
            (label for label, time in ratings if (-1.0 if time is None else time) == last),
            key=place,
        )
    if aggregation == "mean":
        mean = fractions.Fraction(sum(GAINS[label] for label in labels)) / len(labels)
        return min(GAINS, key=lambda label: (abs(GAINS[label] - mean), place(label)))
    return (max if aggregation == "highest" else min)(labels, key=place)


RATINGS = st.lists(
    st.tuples(st.sampled_from([*GAINS]), st.none() | st.sampled_from([0.0, 1.5, 9.0])),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@settings(deadline=None, max_examples=6)
@given(pairs=st.lists(RATINGS, min_size=1, max_size=6), random=st.randoms(use_true_random=False))
def test_each_rule_from_each_engine_in_any_order(aggregation, pairs, random):
    pairs.append([("no", 1.0), ("all", 2.0)])  # 'latest' needs a time
    rows = [
        {"item_id": f"i{number}", "label": label, "_judged_at": time}
        for number, ratings in enumerate(pairs)
        for label, time in ratings
    ]
    wanted = [expected(ratings, aggregation) for ratings in pairs]
    random.shuffle(rows)
    found = [
        pairs_of(rows, aggregation=aggregation, engine=engine)[0]
        for engine in (ibis.duckdb, ibis.datafusion)
    ]
    assert found[0] == found[1]
    ordered = [found[0]["q", f"i{number}"] for number in range(len(pairs))]
    same_gain = aggregation == "mean"  # one of two labels that are equally near, and alike
    assert [GAINS[row["label"]] if same_gain else row["label"] for row in ordered] == [
        GAINS[label] if same_gain else label for label in wanted
    ]
    for row, ratings in zip(ordered, pairs):
        mean = sum(GAINS[label] for label, _ in ratings) / len(ratings)
        disagree = len({label for label, _ in ratings}) > 1
        gain = mean if aggregation == "mean" and disagree else GAINS[row["label"]]
        assert row["gain"] == pytest.approx(gain, abs=1e-9)
        assert row["relevant"] == (row["label"] == "all")


def test_how_many_disagree_and_by_how_much():
    rows = [
        {"item_id": item, "label": label}
        for item, labels in {
            "agree": ["all", "all"],
            "alone": ["some"],
            "far": ["no", "all", "some"],  # by 1
            "near": ["some", "no", "no"],  # by .25
        }.items()
        for label in labels
    ]
    _, found = pairs_of(rows)
    assert found.summary["disagreement"] == {"pairs": 2, "mean_gain_range": 0.625}
    [finding] = found.findings
    assert "2 of 4 pairs have judgements that disagree, in gain by 0.625" in finding.text
    assert "prepare.run.judgement_aggregation is 'majority'" in finding.text


def test_grades_of_raters_have_their_mean():
    rows = [{"item_id": "a", "label": label} for label in ("2", "3", "2")]
    rows += [{"item_id": "b", "label": label} for label in ("1", "1.0", "3")]
    labels = Grades(relevant_from=2.33, least=1, most=3)
    pairs, _ = pairs_of(rows, labels=labels, aggregation="mean")
    assert {key: (row["label"], row["relevant"]) for key, row in pairs.items()} == {
        ("q", "a"): ("2.333333", True),
        ("q", "b"): ("1.666667", False),
    }
    assert [row["gain"] for row in pairs.values()] == pytest.approx([2 / 3, 1 / 3], abs=1e-6)


def test_the_highest_weight_counts_and_a_label_comes_before_counts():
    rows = [
        {"label": "no", "weight": 0.5, "clicks": 9, "impressions": 10},
        {"label": "all", "weight": 3.0},
        {"label": "no", "purchases": 5},
    ]
    pairs, _ = pairs_of(rows)
    assert pairs["q", "i"] == {"label": "no", "gain": 0.0, "relevant": False, "weight": 3.0}


def test_latest_needs_a_time():
    with pytest.raises(InputError, match="is 'latest', and no judgement says when"):
        pairs_of([{"label": "no"}, {"label": "all"}], aggregation="latest")


def test_times_are_compared_as_times_through_the_whole_stage(tmp_path):
    items, judgements = shop()
    first = judgements[0]
    times = {
        "E": "2024-03-01T12:00:00+02:00",
        "S": "2024-03-01T11:00:00Z",  # an hour later
        "C": "2024-02-29",
        "I": None,
    }
    judgements = [row for row in judgements if row["item_id"] != first["item_id"]]
    judgements += [
        first | {"label": label, "judged_at": time}
        for label, time in itertools.chain(times.items(), [("I", "2023-12-31 23:59:59.5")])
    ]
    judgements.append(judgements[1] | {"judged_at": "yesterday"})
    summary = prepare(
        source=Rows(items, judgements),
        out_dir=tmp_path,
        **SETTINGS,
        judgement_aggregation="latest",
    )
    key = (first["query"], first["item_id"])
    [row] = [row for row in read(tmp_path, "judgements") if (row["query"], row["item_id"]) == key]
    assert row["label"] == "S"
    assert summary["judgements"]["reasons"] == {"neither an ISO 8601 time nor a number": 1}
    assert summary["judgements"]["disagreement"]["pairs"] == 1


def test_same_rows_whatever_the_order_for_every_rule(tmp_path):
    items, judgements = shop()
    random = np.random.default_rng(3)
    judgements += [
        row | {"label": str(random.choice(["E", "S", "I"])), "judged_at": str(number % 7)}
        for number, row in enumerate(judgements * 2)
    ]
    for aggregation in AGGREGATIONS:
        contents = []
        for number in range(2):
            random.shuffle(judgements)
            folder = tmp_path / f"{aggregation}{number}"
            prepare(
                source=Rows(items, judgements, parts=1 + number),
                out_dir=folder,
                judgement_aggregation=aggregation,
                engine=(None, "datafusion://")[number],
                **SETTINGS,
            )
            contents.append([read(folder, name) for name in ("judgements", "queries")])
        assert contents[0] == contents[1]
