from __future__ import annotations

import json

import numpy as np
import pytest

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
    health = json.loads(json.dumps(codebook.health(CODES, SIZES, labels)))
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
