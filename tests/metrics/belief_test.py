import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as entropy_of_scipy

from dsirm_jax.metrics import belief

SEEDS = st.integers(0, 2**31)


def search(seed, *, queries=4, beams=6, levels=3, codes=3):
    """Returns distinct beams of each query, their log-probs and which there are, and pairs."""
    rng = np.random.default_rng(seed)
    every = np.stack(np.meshgrid(*[np.arange(codes)] * levels), axis=-1).reshape(-1, levels)
    sids = np.stack([rng.permutation(every)[:beams] for _ in range(queries)])
    shares = rng.dirichlet(np.ones(beams + 1), queries)[:, :beams]
    valid = rng.random((queries, beams)) < 0.8
    pairs = rng.integers(queries, size=9), rng.integers(codes, size=(9, levels))
    return sids, np.log(shares), valid, *pairs


def found(sids, log_probs, valid, query, relevant):
    return belief.beam_prefixes(sids, log_probs, valid, query_index=query, relevant_sids=relevant)


def test_prefixes_by_hand():
    sids = np.array([[[0, 1], [0, 2], [3, 4]], [[0, 1], [5, 5], [9, 9]]])
    log_probs = np.log([[0.5, 0.25, 0.125], [0.25, 0.5, 1.0]])
    valid = np.array([[True, True, True], [True, True, False]])
    # Query 0: (0, 2) and (0, 7); query 1: (5, 1). The invalid beam (9, 9) is nowhere.
    first, whole = found(
        sids, log_probs, valid, np.array([0, 0, 1]), np.array([[0, 2], [0, 7], [5, 1]])
    )
    assert first.query.tolist() == [0, 0, 1, 1]
    assert first.mass == pytest.approx([0.75, 0.125, 0.25, 0.5])
    assert first.right.tolist() == [True, False, False, True]
    assert whole.query.tolist() == [0, 0, 0, 1, 1]
    assert whole.mass == pytest.approx([0.5, 0.25, 0.125, 0.25, 0.5])
    assert whole.right.tolist() == [False, True, False, False, False]
    assert belief.right_mass(first, queries=2) == pytest.approx([0.75, 0.5])
    assert belief.right_mass(whole, queries=3) == pytest.approx([0.25, 0, 0])
    shares = np.array([0.75, 0.125]) / 0.875
    assert belief.beam_entropy(first, queries=2) == pytest.approx(
        [-(shares * np.log(shares)).sum(), entropy_of_scipy([1 / 3, 2 / 3])]
    )


@settings(max_examples=60)
@given(SEEDS)
def test_prefixes_against_loops(seed):
    sids, log_probs, valid, query, relevant = search(seed)
    for level, prefixes in enumerate(found(sids, log_probs, valid, query, relevant)):
        rows = iter(zip(*prefixes, strict=True))
        for row in range(len(sids)):
            masses = {}
            for beam in np.flatnonzero(valid[row]):
                prefix = tuple(sids[row, beam, : level + 1].tolist())
                masses[prefix] = masses.get(prefix, 0) + np.exp(log_probs[row, beam])
            wanted = {tuple(sid[: level + 1]) for sid in relevant[query == row].tolist()}
            for prefix in sorted(masses):
                assert next(rows) == (row, pytest.approx(masses[prefix]), prefix in wanted)
        assert next(rows, None) is None


@settings(max_examples=60)
@given(SEEDS)
def test_belief_depends_neither_on_the_order_of_beams_nor_on_the_names_of_codes(seed):
    sids, log_probs, valid, query, relevant = search(seed)
    rng = np.random.default_rng(seed)
    order = np.argsort(rng.random(valid.shape), axis=1)
    names = np.stack([rng.permutation(3) for _ in range(3)])  # [level, code]
    renamed, wanted = (names[np.arange(3), codes] for codes in (sids, relevant))
    moved = [np.take_along_axis(values, order, axis=1) for values in (log_probs, valid)]
    other = found(np.take_along_axis(renamed, order[..., None], axis=1), *moved, query, wanted)
    for one, two in zip(found(sids, log_probs, valid, query, relevant), other, strict=True):
        for figure in (belief.right_mass, belief.beam_entropy):
            np.testing.assert_allclose(figure(one, queries=4), figure(two, queries=4), atol=1e-12)


@settings(max_examples=60)
@given(SEEDS)
def test_from_level_to_level_mass_stays_less_is_right_and_entropy_grows(seed):
    sids, log_probs, valid, query, relevant = search(seed)
    levels = found(sids, log_probs, valid, query, relevant)
    total = np.where(valid, np.exp(log_probs), 0).sum(axis=1)
    for prefixes in levels:
        mass = np.bincount(prefixes.query, prefixes.mass, minlength=4)
        np.testing.assert_allclose(mass, total, atol=1e-12)
        most = np.log(np.maximum(np.bincount(prefixes.query, minlength=4), 1))
        undecided = belief.beam_entropy(prefixes, queries=4)
        assert np.array_equal(np.isnan(undecided), ~valid.any(axis=1))
        assert (np.nan_to_num(undecided) <= most + 1e-12).all()
    for coarse, fine in itertools.pairwise(levels):
        right = [belief.right_mass(of, queries=4) for of in (coarse, fine)]
        assert (right[1] <= right[0] + 1e-12).all()
        # What is split further is known less: H(c1, c2) = H(c1) + H(c2 | c1).
        entropies = [np.nan_to_num(belief.beam_entropy(of, queries=4)) for of in (coarse, fine)]
        assert (entropies[1] >= entropies[0] - 1e-12).all()


def test_masses_that_round_to_more_than_one_are_one():
    log_probs = np.log(np.float32([[0.6, 0.4000002]]))
    (first,) = found(
        np.array([[[0], [0]]]), log_probs, np.array([[True, True]]), np.array([0]), np.array([[0]])
    )
    assert np.exp(log_probs.astype(np.float64)).sum() > 1 and first.mass.tolist() == [1.0]


def test_branches_count_every_prefix_once():
    log_probs = np.log([[0.5, 0.25], [0.5, 0.25], [0.5, 0.125], [0.25, 0.0625], [1.0, 0.5]])
    branch = belief.branch_probability(
        log_probs,
        query_index=np.array([0, 0, 0, 0, 2]),
        relevant_sids=np.array([[3, 1], [3, 1], [3, 2], [4, 1], [3, 1]]),
        queries=3,
    )
    # (3, 1) twice, (3, 2) and (4, 1); query 1 has none.
    np.testing.assert_allclose(branch, [[0.75, 0.4375], [0, 0], [1, 0.5]])


@settings(max_examples=60)
@given(SEEDS)
def test_beams_that_are_all_sids_have_the_probability_of_the_branches(seed):
    rng = np.random.default_rng(seed)
    sids = np.stack(np.meshgrid(np.arange(3), np.arange(4), indexing="ij"), -1).reshape(-1, 2)
    shares = rng.dirichlet(np.ones(12), 2)
    query, item = rng.integers(2, size=5), rng.integers(12, size=5)
    first = shares.reshape(2, 3, 4).sum(axis=-1)
    exact = np.stack([first[query, sids[item, 0]], shares[query, item]], axis=1)
    right = {"query_index": query, "relevant_sids": sids[item]}
    branch = belief.branch_probability(np.log(exact), **right, queries=2)
    prefixes = belief.beam_prefixes(
        np.stack([sids, sids]), np.log(shares), np.ones((2, 12), bool), **right
    )
    masses = [belief.right_mass(of, queries=2) for of in prefixes]
    np.testing.assert_allclose(branch, np.stack(masses, axis=1), atol=1e-12)
    # Without the prefix's share of what is not found, a beam's entropy is that of the softmax.
    np.testing.assert_allclose(
        belief.beam_entropy(prefixes[0], queries=2), belief.entropy(np.log(first)), atol=1e-12
    )


def test_entropy_of_certainty_of_evenness_and_of_what_cannot_be():
    with np.errstate(divide="ignore"):
        log_probs = np.log([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.25, 0.25, 0]])
    assert belief.entropy(log_probs) == pytest.approx(
        [0, np.log(4), entropy_of_scipy([0.5, 0.25, 0.25])]
    )


def test_kinds_are_counted_once_and_unknown_ones_not_at_all():
    query, kinds = np.array([0, 0, 0, 2, 2, 3]), np.array([4, 4, 6, -1, 4, -1])
    assert belief.kinds_per_query(query, kinds, queries=5).tolist() == [2, 0, 1, 0, 0]


def test_without_queries_there_is_nothing():
    nothing = np.zeros(0, np.int64)
    levels = found(
        np.zeros((0, 5, 2), int),
        np.zeros((0, 5)),
        np.zeros((0, 5), bool),
        nothing,
        nothing[:, None] + [[0, 0]],
    )
    assert [len(of.mass) for of in levels] == [0, 0]
    assert belief.beam_entropy(levels[0], queries=0).shape == (0,)
