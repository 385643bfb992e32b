import numpy as np
import pytest

from dsirm_jax.generator.alignment.queries import rewarded_queries, rewards_of
from dsirm_jax.generator.alignment.rewards.reward import PairRewards

SIDS = np.array([[0, 1], [0, 1], [1, 2], [0, 2], [1, 0]], np.int32)
PIECES = [[1], [2, 3], [4], [5]]


def rewarded(*triples):
    query, item, reward = zip(*triples, strict=True)
    pairs = PairRewards(np.array(query), np.array(item), np.array(reward, np.float32))
    return rewarded_queries(pairs, sids=SIDS, sizes=(2, 3), pieces=PIECES)


def test_a_sid_is_worth_what_its_best_item_is():
    found = rewarded((3, 0, 0.1), (1, 2, 0.5), (3, 1, 0.6), (3, 3, 0.2), (3, 4, 1.0), (0, 0, 0.0))
    assert found.numbers.tolist() == [1, 3]
    assert found.pieces == [[2, 3], [5]]
    assert found.sids.tolist() == [[[1, 2], [-1, -1], [-1, -1]], [[1, 0], [0, 1], [0, 2]]]
    np.testing.assert_allclose(found.rewards, [[0.5, 0, 0], [1.0, 0.6, 0.2]], rtol=1e-6)
    only = found.only(np.array([False, True]))
    assert only.numbers.tolist() == [3] and only.sids.shape == (1, 3, 2)


@pytest.mark.parametrize(
    ("prefix_share", "expected"),
    [
        pytest.param(0.0, [1.0, 0.6, 0.2, 0.0, 0.0], id="whole SIDs alone"),
        pytest.param(0.5, [1.0, 0.6, 0.3, 0.5, 0.5], id="half for the first code"),
        pytest.param(1.0, [1.0, 0.6, 0.6, 1.0, 1.0], id="all for the first code"),
    ],
)
def test_what_is_written_is_worth_as_much_of_a_sid_as_it_shares(prefix_share, expected):
    """[0, 2] is worth .2, but half of [0, 1] is worth more."""
    found = rewarded((3, 1, 0.6), (3, 3, 0.2), (3, 4, 1.0))
    written = np.array([[[1, 0], [0, 1], [0, 2], [1, 2], [1, 1]]], np.int32)
    worth = rewards_of(written, sids=found.sids, rewards=found.rewards, prefix_share=prefix_share)
    np.testing.assert_allclose(worth, [expected], rtol=1e-6)


def test_what_is_no_code_is_worth_nothing():
    found = rewarded((3, 1, 0.6), (3, 4, 1.0), (1, 2, 0.5))
    written = np.full((2, 1, 2), -1, np.int32)
    worth = rewards_of(written, sids=found.sids, rewards=found.rewards, prefix_share=1.0)
    np.testing.assert_array_equal(worth, 0)


def test_batches_go_on_where_they_stopped():
    found = rewarded((3, 1, 0.6), (1, 2, 0.5), (0, 4, 1.0))
    arguments = {"batch_size": 2, "max_pieces": 3, "seed": 4}
    stream = found.batches(0, **arguments)
    first = [next(stream) for _ in range(5)]
    seen = np.concatenate([batch["query_index"] for batch in first[:3]])
    assert sorted(seen.tolist()) == [0, 0, 1, 1, 3, 3]
    tokens = {
        number: row
        for batch in first
        for number, row in zip(batch["query_index"], batch["tokens"].tolist(), strict=True)
    }
    assert tokens == {0: [1, 0, 0], 1: [2, 3, 0], 3: [5, 0, 0]}
    later = found.batches(3, **arguments)
    for batch in first[3:]:
        for name, values in next(later).items():
            np.testing.assert_array_equal(values, batch[name])
