import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.data.sid_sets import SidSets, sid_sets

SIDS = np.array([[0, 1], [2, 0], [0, 1], [1, 1], [0, 2]], np.int32)
# query, item, gain, weight, relevant, split
JUDGED = [
    (0, 3, 0.5, 2.0, True, "train"),
    (0, 0, 1.0, 1.0, True, "train"),
    (0, 2, 0.25, 1.0, True, "train"),
    (0, 4, 1.0, 3.0, True, "train"),
    (0, 1, 1.0, 9.0, False, "train"),
    (1, 1, 1.0, 1.0, True, "test"),
    (2, 1, 0.5, 1.0, True, "train"),
]
NAMES = ("query_index", "item_index", "gain", "weight", "relevant", "split")
TYPES = (pa.int64(), pa.int64(), pa.float32(), pa.float32(), pa.bool_(), pa.string())


def written(path, judged):
    columns = zip(*judged, strict=True) if judged else [()] * 6
    arrays = [pa.array(column, kind) for column, kind in zip(columns, TYPES, strict=True)]
    pq.write_table(pa.table(arrays, names=NAMES), path)
    return path


def test_a_query_has_its_sids_by_what_they_weigh(tmp_path):
    path = written(tmp_path / "judgements.parquet", JUDGED)
    sets = sid_sets(path, sids=SIDS, queries=3, most=4)
    # Items 0 and 2 share a SID: 1 and 0.25. Query 0 has one SID less than there is room for.
    np.testing.assert_array_equal(SIDS[sets.items[0]], [[0, 2], [0, 1], [1, 1], [0, 2]])
    np.testing.assert_allclose(sets.weights[0], [3.0, 1.25, 1.0, 0.0])
    assert sets.items[1].tolist() == [-1] * 4 and sets.weights[1].tolist() == [0.0] * 4
    assert sets.items[2].tolist() == [1] * 4 and sets.weights[2].tolist() == [0.5, 0.0, 0.0, 0.0]
    assert sets.rows(None).tolist() == [4, -1, 1]
    assert sets.rows(np.array([False, True, True])).tolist() == [-1, -1, 1]
    fewer = sid_sets(path, sids=SIDS, queries=3, most=2)
    np.testing.assert_array_equal(fewer.items, sets.items[:, :2])
    np.testing.assert_array_equal(fewer.weights, sets.weights[:, :2])


def test_nothing_to_learn_is_no_fault_here(tmp_path):
    sets = sid_sets(written(tmp_path / "none.parquet", []), sids=SIDS, queries=2, most=3)
    assert sets.rows(None).tolist() == [-1, -1] and not sets.weights.any()


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 8), st.booleans()),
        unique_by=lambda pair: pair[:2],
        max_size=20,
    ),
    st.integers(2, 4),
)
def test_against_dictionaries(tmp_path_factory, pairs, most):
    judged = [(query, item, gain / 8, 1.0, ok, "train") for query, item, gain, ok in pairs]
    path = written(tmp_path_factory.mktemp("pairs") / "judgements.parquet", judged)
    sets = sid_sets(path, sids=SIDS, queries=4, most=most)
    for query in range(4):
        expected = {}
        for other, item, gain, _, ok, _ in judged:
            if other == query and ok:
                sid = tuple(SIDS[item].tolist())
                expected[sid] = expected.get(sid, 0.0) + gain
        best = sorted(expected.values(), reverse=True)[:most]
        assert sets.weights[query].tolist() == best + [0.0] * (most - len(best))
        there = sets.items[query] >= 0
        assert there.all() if expected else not there.any()
        found = [tuple(SIDS[item].tolist()) for item in sets.items[query][: len(best)]]
        assert len({*found}) == len(found)
        assert [expected[sid] for sid in found] == best


@pytest.mark.parametrize("query", [2, [0, 2]], ids=["a row", "rows"])
def test_features_of_rows_and_of_chunks_of_them(query):
    sets = SidSets(
        items=np.array([[4, 3], [-1, -1], [1, 1]]),
        weights=np.array([[3.0, 1.0], [0.0, 0.0], [0.5, 0.0]], np.float32),
    )
    tokens = tf.constant(SIDS + np.array([10, 20], np.int32))
    found = sets.features(lambda items: tf.gather(tokens, items))(tf.constant(query))
    expected = np.array([[10, 22, 11, 21], [0] * 4, [12, 20, 12, 20]])
    np.testing.assert_array_equal(found["targets"], expected[query])
    np.testing.assert_array_equal(found["weight"], sets.weights[query])
    row = {"targets": tf.gather(tokens, query), "weight": tf.ones_like(query, tf.float32)}
    alone = sets.one(row)
    np.testing.assert_array_equal(alone["targets"], np.concatenate([row["targets"]] * 2, axis=-1))
    np.testing.assert_array_equal(alone["weight"][..., 0], np.ones_like(query))
    assert not np.any(alone["weight"][..., 1])
