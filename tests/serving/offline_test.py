"""A bundle over tables: each row as the scorer itself has it, however rows are handed out."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.offline import score_batches, scored_schema, sid_batches
from tests.serving import tiny

KNOWN, LIVE = tiny.QUERIES[0], "green phone case without stand"
ROWS = [
    (KNOWN, "item 1"),
    (LIVE, "item 7"),
    (KNOWN, "item 9"),
    (KNOWN, "no such item"),
    (KNOWN, "item 1"),
    (LIVE, "item 0"),
    ("   ", "item 1"),
    (None, "item 2"),
    (KNOWN.upper(), None),
]


def table(rows):
    queries, ids = zip(*rows, strict=True)
    return pa.table(
        {
            "row": range(len(rows)),
            "query": pa.array(queries, pa.string()),
            "item_id": pa.array(ids, pa.string()),
        }
    )


@pytest.fixture(scope="module")
def scorer(made):
    with Scorer.open(made, settings=ScorerSettings(deadline=600.0, warm=())) as scorer:
        yield scorer


@pytest.fixture(scope="module")
def whole(made):
    return pa.Table.from_batches(
        score_batches(table(ROWS).to_batches(), bundle=made, features=True)
    )


def test_rows_are_as_the_scorer_has_them(scorer, whole):
    assert whole.column_names[:5] == ["row", "query", "item_id", "score", "reason"]
    assert whole.column_names[5:] == [column.name for column in scorer.schema]
    for row in whole.to_pylist()[:6]:
        expected = scorer.score(row["query"], [row["item_id"]])
        if row["item_id"] == "no such item":
            assert row["score"] is None and row["reason"] == "unknown item_id"
            continue
        assert row["reason"] is None
        np.testing.assert_allclose(row["score"], expected.probabilities[0], atol=2e-6)
        features = [row[column.name] for column in scorer.schema]
        np.testing.assert_allclose(features, expected.features[0], atol=1e-5)


def test_what_is_no_pair_has_a_reason_in_place_of_a_score(whole):
    empty, absent, no_id = whole.slice(6).to_pylist()
    assert [row["score"] for row in (empty, absent, no_id)] == [None] * 3
    assert "empty" in empty["reason"]
    assert absent["reason"].startswith("query is None")
    assert no_id["reason"] == "unknown item_id"
    assert all(value is None for value in list(empty.values())[5:])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15
)
@given(order=st.permutations(range(len(ROWS))), size=st.integers(1, len(ROWS)))
def test_order_and_batches_change_nothing(made, whole, order, size):
    given_rows = table(ROWS).take(order)
    found = pa.Table.from_batches(
        score_batches(given_rows.to_batches(max_chunksize=size), bundle=made, features=True)
    ).sort_by("row")
    assert found["reason"].to_pylist() == whole["reason"].to_pylist()
    for name in [*whole.column_names[5:], "score"]:
        ours, other = (each[name].to_numpy() for each in (found, whole))
        np.testing.assert_allclose(ours, other, atol=1e-5, equal_nan=True)


def test_more_items_than_a_call_may_have(made, scorer):
    ids = [f"item {number % 60}" for number in range(1500)]
    rows = table([(KNOWN, item) for item in ids])
    (batch,) = score_batches(rows.to_batches(), bundle=made)
    expected = scorer.score(KNOWN, ids[:60]).probabilities
    np.testing.assert_allclose(batch["score"], np.tile(expected, 25), atol=2e-6)


def test_items_that_a_head_compares_are_scored_together(tmp_path):
    bundle = tiny.make(tmp_path / "bundle", in_lists=("cosine",))
    rows = table([(KNOWN, "item 1"), (LIVE, "item 7"), (KNOWN, "item 9")])
    (batch,) = score_batches(rows.to_batches(), bundle=bundle)
    with Scorer.open(bundle, settings=ScorerSettings(deadline=600.0, warm=())) as scorer:
        together = scorer.score(KNOWN, ["item 1", "item 9"]).probabilities
        alone = scorer.score(KNOWN, ["item 1"]).probabilities
    np.testing.assert_allclose([batch["score"][0].as_py(), batch["score"][2].as_py()], together)
    assert abs(together[0] - alone[0]) > 1e-4
    with pytest.raises(InputError, match="'red shoe' has items in two batches"):
        [*score_batches(rows.to_batches(max_chunksize=2), bundle=bundle)]
    with pytest.raises(InputError, match="'red shoe' has 1025 items"):
        [*score_batches(table([(KNOWN, "item 1")] * 1025).to_batches(), bundle=bundle)]


def test_sids_are_as_the_scorer_has_them(made, scorer):
    rows = table(ROWS).select(["row", "query"])
    found = pa.Table.from_batches(sid_batches(rows.to_batches(max_chunksize=4), bundle=made))
    for row in found.to_pylist()[:6]:
        expected = scorer.query_sids(row["query"])
        assert row["sids"] == expected.sids.tolist()
        np.testing.assert_allclose(row["probabilities"], expected.probabilities, atol=2e-6)
    assert found["sids"].null_count == found["probabilities"].null_count == 2
    assert found["reason"].is_valid().to_pylist() == [False] * 6 + [True, True, False]


@pytest.mark.parametrize("features", [False, True], ids=["scores", "features"])
def test_the_schema_is_known_before(made, features):
    rows = table(ROWS[:2])
    (batch,) = score_batches(rows.to_batches(), bundle=made, features=features)
    assert batch.schema == scored_schema(rows.schema, bundle=made if features else None)


def test_columns_that_lack_or_clash_are_named(made):
    (batch,) = table(ROWS[:1]).to_batches()
    with pytest.raises(InputError, match="row, query and no 'item_id'"):
        next(score_batches([batch.drop_columns("item_id")], bundle=made))
    clash = batch.rename_columns(["score", "query", "item_id"])
    with pytest.raises(InputError, match="has a column 'score' already"):
        next(score_batches([clash], bundle=made))


def test_dictionaries_of_texts_are_texts(made, whole):
    (batch,) = table(ROWS[:3]).to_batches()
    encoded = batch.set_column(1, "query", batch.column("query").dictionary_encode())
    (found,) = score_batches([encoded], bundle=made)
    np.testing.assert_allclose(found["score"], whole["score"].slice(0, 3), atol=2e-6)
