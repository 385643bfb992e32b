from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics

from dsirm_jax.metrics import codebook

SIZES = (2, 3)
CODES = np.array([[0, 0], [0, 0], [0, 1], [1, 2]])


def test_figures_of_one_level_by_hand():
    counts = codebook.code_counts(CODES[:, 0], 4)
    assert counts.tolist() == [3, 1, 0, 0]
    assert codebook.utilisation(counts) == 0.5
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert codebook.perplexity(counts) == pytest.approx(np.exp(entropy))
    # Mean absolute difference over all pairs of codes, over twice the mean.
    differences = np.abs(counts[:, None] - counts[None, :]).mean()
    assert codebook.gini(counts) == pytest.approx(differences / (2 * counts.mean()))


def test_even_use_is_the_best_and_one_code_the_worst():
    even, single = np.full(8, 5), np.eye(8, dtype=int)[0] * 40
    assert codebook.perplexity(even) == pytest.approx(8)
    assert codebook.gini(even) == 0
    assert codebook.perplexity(single) == 1
    assert codebook.gini(single) == pytest.approx(7 / 8)


def test_collisions_by_hand():
    buckets = codebook.bucket_sizes(CODES, SIZES)
    assert sorted(buckets.tolist()) == [1, 1, 2]
    assert codebook.collision_rate(buckets) == 0.5


def test_purity_by_hand():
    labels = np.array(["shoe", "bag", "bag", None], object)
    # First level: prefix (0) holds shoe, bag, bag. Both levels: (0, 0) shoe, bag; (0, 1) bag.
    assert codebook.prefix_purity(CODES, SIZES, labels, length=1) == pytest.approx(2 / 3)
    assert codebook.prefix_purity(CODES, SIZES, labels, length=2) == pytest.approx(2 / 3)
    assert np.isnan(codebook.prefix_purity(CODES, SIZES, np.array([None] * 4), length=1))


def test_health_holds_all_of_it_and_is_json():
    labels = {"category": np.array(["a", "a", "a", "b"]), "brand": np.array([None] * 4)}
    health = json.loads(json.dumps(codebook.codebook_health(CODES, SIZES, labels)))
    assert [level["size"] for level in health["levels"]] == [2, 3]
    assert health["unique_sids"] == 3
    assert health["largest_bucket"] == 2
    assert health["collision_rate"] == 0.5
    assert health["purity"] == {"category": [1.0, 1.0]}


def test_a_code_outside_its_level_is_an_error():
    with pytest.raises(ValueError, match="level of 2"):
        codebook.code_counts(np.array([0, 2]), 2)


def test_prefix_agreement_by_hand():
    query = np.array([[0, 1, 2], [0, 1, 2], [3, 1, 2], [0, 0, 0]])
    item = np.array([[0, 1, 2], [0, 2, 2], [0, 1, 2], [0, 0, 1]])
    found = codebook.prefix_agreement(query, item, np.array([True, True, False, False]))
    assert found["relevant"] == [1.0, 0.5, 0.5]
    assert found["irrelevant"] == [0.5, 0.5, 0.0]  # the third pair agrees only after it has parted
    assert found["ratio"] == [2.0, 1.0, float("inf")]


def test_prefix_agreement_without_a_kind_of_pairs_is_nan():
    codes = np.zeros((2, 1), int)
    found = codebook.prefix_agreement(codes, codes, np.array([True, True]))
    assert found["relevant"] == [1.0]
    assert np.isnan(found["irrelevant"]).all()
    assert np.isnan(found["ratio"]).all()


def test_agreement_ratio_by_hand_and_when_a_query_is_drawn_twice():
    queries = np.array(["a", "a", "b", "b", "b"])
    query = np.array([[0, 1], [0, 1], [2, 2], [2, 2], [2, 2]])
    item = np.array([[0, 1], [0, 2], [2, 0], [1, 2], [2, 2]])
    relevant = np.array([True, False, True, False, False])
    counts = np.array([[1, 2, 0], [1, 1, 1]])  # how often a and b are drawn, three resamples
    first = codebook.agreement_ratio(queries, query, item, relevant, length=1)(counts)
    # Level 1 of a: relevant 1 of 1, irrelevant 1 of 1; of b: relevant 1 of 1, irrelevant 1 of 2.
    np.testing.assert_allclose(first, [1 / (2 / 3), 1 / (3 / 4), 1 / (1 / 2)])
    both = codebook.agreement_ratio(queries, query, item, relevant, length=2)(counts)
    # To level 2 of a: relevant 1 of 1, irrelevant 0 of 1; of b: relevant 0 of 1, irrelevant 1 of 2.
    np.testing.assert_allclose(both, [(1 / 2) / (1 / 3), (2 / 3) / (1 / 4), 0])
    found = codebook.prefix_agreement(query, item, relevant)
    np.testing.assert_allclose([first[0], both[0]], found["ratio"])


def test_agreement_ratio_is_nan_where_no_irrelevant_pair_agrees():
    codes = np.array([[0], [1]])
    relevant = np.array([True, False])
    ratio = codebook.agreement_ratio(np.array([0, 0]), codes, codes * 2, relevant, length=1)
    assert np.isnan(ratio(np.array([[1]]))).all()


def test_shared_information_by_hand():
    # Within group 0 codes are the labels, ln 2 each; within group 1 they are independent of them.
    codes = np.array([0, 1, 0, 1, 0, 0, 1, 1])
    labels = np.array([5, 6, 5, 6, 5, 6, 5, 6])
    given = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = codebook.shared_information(codes, labels, groups=given)
    assert found.nmi == pytest.approx(0.5)
    # Two of four in either: the cells are 2 0 0 2, 1 1 1 1 or 0 2 2 0 with chances 1/6, 4/6, 1/6.
    chance = np.log(2) / 3
    expected = (0.5 * np.log(2) - chance) / (np.log(2) - chance)
    assert found.ami == pytest.approx(expected)


def test_shared_information_of_one_group_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, 300)
    codes = (labels + random.integers(0, 3, 300)) * 7 % 20
    found = codebook.shared_information(codes, labels.astype(str))
    assert found.nmi == pytest.approx(metrics.normalized_mutual_info_score(labels, codes))
    assert found.ami == pytest.approx(metrics.adjusted_mutual_info_score(labels, codes))
    shuffled = random.permutation(300)
    again = codebook.shared_information(codes[shuffled], labels[shuffled], groups=np.full(300, "x"))
    assert again == pytest.approx(found)


def test_shared_information_where_nothing_differs_is_nan():
    found = codebook.shared_information(np.zeros(4, int), np.array(["a", "a", "b", "b"]))
    assert found == (0.0, 0.0)
    groups = np.array([0, 0, 1, 1])
    assert np.isnan(codebook.shared_information(groups, groups, groups=groups)).all()
    # Codes of one item each tell everything of any label of one item each.
    found = codebook.shared_information(np.arange(4), np.arange(4))
    assert found.nmi == pytest.approx(1)
    assert np.isnan(found.ami)


def test_without_items_no_figure_is_a_number():
    none = np.zeros(0, int)
    for figure in (
        codebook.utilisation(none),
        codebook.perplexity(np.zeros(4, int)),
        codebook.gini(np.zeros(4, int)),
        codebook.collision_rate(none),
        *codebook.shared_information(none, none),
    ):
        assert np.isnan(figure)
    with pytest.raises(ValueError, match="at least one item"):
        codebook.codebook_health(np.zeros((0, 2), int), (4, 4))
