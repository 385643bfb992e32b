import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dsirm_jax.generator.alignment.sampling import (
    allowed_codes,
    draw_keys,
    drawn_experts,
    drawn_sids,
    policy_log_probs,
)
from dsirm_jax.generator.decoding import sample
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.losses import level_log_probs
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.sids import trie as tries
from dsirm_jax.training.meshes import data_mesh, sharded
from tests.generator.alignment.tiny import (
    CONFIG,
    EXISTING,
    SIZES,
    TOKENS,
    TRIE,
    policy,
    sharp_params,
)


@functools.partial(jax.jit, static_argnames=("draws", "seed", "temperature"))
def drawn(params, tokens, numbers, *, draws, seed=0, step=0, temperature=1.0):
    keys = draw_keys(seed, step=jnp.asarray(step, jnp.int32), queries=numbers, draws=draws)
    return drawn_sids(params, TRIE, tokens, keys, config=CONFIG, temperature=temperature)


NUMBERS = np.array([11, 5], np.int32)


def places(sids):
    """The number of each SID among those that exist; fails where there is none."""
    same = (np.asarray(sids)[..., None, :] == EXISTING).all(axis=-1)
    assert same.any(axis=-1).all()
    return same.argmax(axis=-1)


@pytest.mark.parametrize("temperature", [1.0, 2.5], ids=["plain", "warm"])
def test_frequencies_are_the_renormalised_probabilities(temperature):
    params, draws = sharp_params(seed=4), 6000
    found = places(drawn(params, TOKENS, NUMBERS, draws=draws, temperature=temperature))
    exact, _, _ = policy(params, temperature=temperature)
    np.testing.assert_allclose(exact.sum(axis=1), 1, rtol=1e-12)
    for row in range(2):
        counts, expected = np.bincount(found[row], minlength=6), draws * exact[row]
        rare = expected < 5  # too few for the test's approximation: pooled
        if rare.sum() > 1:
            counts = np.append(counts[~rare], counts[rare].sum())
            expected = np.append(expected[~rare], expected[rare].sum())
        assert stats.chisquare(counts, expected).pvalue > 1e-3
        other = draws * exact[1 - row]
        assert stats.chisquare(np.bincount(found[row], minlength=6), other).pvalue < 1e-9


def test_they_are_those_of_the_sampler_of_the_search():
    """Two programs: teacher-forced passes with a key a draw here, cached decoding there."""
    params = sharp_params(seed=4)
    found = places(drawn(params, TOKENS, NUMBERS, draws=6000))
    key = jax.random.key(1)
    others = sample(params, TRIE, TOKENS, config=CONFIG, samples=6000, key=key)
    for ours, theirs in zip(found, places(others.sids), strict=True):
        table = np.stack([np.bincount(of, minlength=6) for of in (ours, theirs)])
        assert stats.chi2_contingency(table[:, table.sum(axis=0) > 10]).pvalue > 1e-3


def test_a_draw_hangs_on_its_seed_step_query_and_number_alone():
    params = sharp_params(seed=1)
    found = np.asarray(drawn(params, TOKENS, NUMBERS, draws=40, temperature=9.0))
    turned = drawn(params, TOKENS[::-1], NUMBERS[::-1], draws=40, temperature=9.0)
    np.testing.assert_array_equal(np.asarray(turned)[::-1], found)
    fewer = drawn(params, TOKENS[1:], NUMBERS[1:], draws=7, temperature=9.0)
    np.testing.assert_array_equal(fewer, found[1:, :7])
    for change in ({"seed": 1}, {"step": 1}):
        other = drawn(params, TOKENS, NUMBERS, draws=40, temperature=9.0, **change)
        assert (np.asarray(other) != found).any(axis=-1).mean() > 0.5
    other = drawn(params, TOKENS, NUMBERS + 1, draws=40, temperature=9.0)
    assert (np.asarray(other) != found).any(axis=-1).mean() > 0.5


def test_draws_are_the_same_on_eight_devices():
    params, tokens = sharp_params(seed=1), np.tile(TOKENS, (4, 1))
    numbers = np.arange(8, dtype=np.int32)
    one = drawn(params, tokens, numbers, draws=16, temperature=4.0)
    placed = sharded(data_mesh()).put_batch((tokens, numbers))
    many = drawn(params, *placed, draws=16, temperature=4.0)
    assert len(many.sharding.device_set) == 8
    np.testing.assert_array_equal(one, many)


def test_log_probabilities_are_those_of_exact_scores():
    """In a catalogue of all SIDs nothing is renormalised: the policy is the generator."""
    params = sharp_params(seed=2)
    everything = np.argwhere(np.ones(SIZES, bool)).astype(np.int32)
    trie = jax.device_put(tries.build(everything, sizes=SIZES))
    sids = np.stack([EXISTING, EXISTING[::-1]])
    allowed = allowed_codes(trie, sids)
    of_codes = policy_log_probs(*(params, TOKENS, sids, allowed), config=CONFIG, temperature=1.0)
    found = np.cumsum(np.asarray(level_log_probs(of_codes, sids)), axis=-1)
    fitted = FittedGenerator(config=CONFIG, params=params, max_pieces=4, sid_version="")
    exact = score_pairs(
        fitted=fitted,
        pieces=[[3, 9, 4], [7]],
        query_index=np.repeat([0, 1], 6),
        sids=sids.reshape(-1, 3),
    )
    np.testing.assert_allclose(found.reshape(-1, 3), exact, rtol=1e-4, atol=1e-5)


def test_log_probabilities_are_renormalised_over_codes_that_exist():
    params = sharp_params(seed=2)
    sids = np.stack([EXISTING, EXISTING])
    of_codes = policy_log_probs(
        *(params, TOKENS, sids, allowed_codes(TRIE, sids)), config=CONFIG, temperature=1.7
    )
    _, codes, levels = policy(params, temperature=1.7)
    np.testing.assert_allclose(np.exp(level_log_probs(of_codes, sids)), codes, rtol=1e-4)
    for found, exact in zip(of_codes, levels, strict=True):
        np.testing.assert_allclose(np.exp(found), exact, rtol=1e-4, atol=1e-7)


def test_experts_are_drawn_in_proportion_to_what_they_are_worth():
    sids = np.array([[[0, 1, 2], [2, 3, 4], [-1, -1, -1]], [[2, 0, 3], [-1] * 3, [-1] * 3]])
    rewards = np.array([[0.75, 0.25, 0.0], [0.1, 0.0, 0.0]], np.float32)
    keys = draw_keys(0, step=jnp.int32(0), queries=NUMBERS, draws=4000)
    found = np.asarray(drawn_experts(sids.astype(np.int32), rewards, keys))
    first = (found[0] == sids[0, 0]).all(axis=-1)
    assert (found[0][~first] == sids[0, 1]).all()
    assert stats.binomtest(int(first.sum()), 4000, 0.75).pvalue > 1e-3
    assert (found[1] == sids[1, 0]).all()
