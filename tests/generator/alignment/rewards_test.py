import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.generator.alignment.rewards.judged import JudgedGains
from dsirm_jax.generator.alignment.rewards.reward import Reward
from dsirm_jax.generator.alignment.rewards.scored import ScoredPairs
from dsirm_jax.io.errors import InputError

SPLITS = ["train", "test", "head", "train"]


@pytest.fixture
def prepared(tmp_path):
    """Four queries, three items; gains of training queries are 3 at most."""
    tables = {
        "items": {"item_id": ["x", "y", "z"]},
        "queries": {"query": ["a", "b", "c", "d"], "split": SPLITS},
        "judgements": {
            "query_index": [0, 0, 1, 2, 3, 3],
            "item_index": [0, 1, 2, 0, 1, 2],
            "gain": pa.array([3.0, 0.0, 9.0, 9.0, 1.5, 0.3], pa.float32()),
            "split": [SPLITS[query] for query in (0, 0, 1, 2, 3, 3)],
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    return {name: tmp_path / f"{name}.parquet" for name in tables}


def as_dict(found):
    pairs = zip(found.query_index.tolist(), found.item_index.tolist(), strict=True)
    return dict(zip(pairs, np.round(found.reward, 6).tolist(), strict=True))


def test_gains_of_training_queries_count_in_units_of_the_largest(prepared):
    reward = JudgedGains()
    assert isinstance(reward, Reward) and reward.files() == []
    found = as_dict(reward.of_pairs(**prepared))
    assert found == {(0, 0): 1.0, (3, 1): 0.5, (3, 2): pytest.approx(0.1)}


def scores(path, **columns):
    table = {"query": ["a", "b", "d", "d", "e", "a"], "item_id": ["z", "x", "x", "w", "x", "y"]}
    table["score"] = [0.25, 0.5, 1.0, 0.5, 0.5, None]
    pq.write_table(pa.table(table | columns), path)
    return str(path)


def test_scores_of_training_queries_and_known_items_count(prepared, tmp_path):
    """Query b is no training query, item w and query e are unknown, a pair has no score."""
    reward = ScoredPairs(path=scores(tmp_path / "scores.parquet"))
    assert isinstance(reward, Reward) and reward.files() == [reward.path]
    assert as_dict(reward.of_pairs(**prepared)) == {(0, 2): 0.25, (3, 0): 1.0}


@pytest.mark.parametrize(
    ("columns", "column", "message"),
    [
        pytest.param({}, "full", "no column 'full'; bind ScoredPairs.path", id="no such column"),
        pytest.param({"score": [0.1, 1.5, *[0.0] * 4]}, "score", "has 1.5; scores are", id="1.5"),
        pytest.param({"score": [np.nan] * 6}, "score", "has nan; scores are", id="NaN"),
        pytest.param({"score": [0.0] * 6}, "score", "no row is a pair of a training", id="zeros"),
    ],
)
def test_a_table_without_scores_is_named(prepared, tmp_path, columns, column, message):
    path = scores(tmp_path / "scores.parquet", **columns)
    with pytest.raises(InputError, match=f"scores.parquet: .*{message}"):
        ScoredPairs(path=path, column=column).of_pairs(**prepared)
