import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from dsirm_jax.generator.alignment.losses import advantages, divergence, policy_loss


def test_advantages_by_hand():
    """Group 1, 0, 0, 0: mean 1/4, deviation sqrt(3)/4."""
    rewards = np.array([[1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]], np.float32)
    found = np.asarray(advantages(rewards, least_deviation=0.1))
    np.testing.assert_allclose(found[0], [3**0.5, *[-(3**-0.5)] * 3], rtol=1e-6)
    assert (found[1] == 0).all()
    found = np.asarray(advantages(rewards, least_deviation=0.5))
    np.testing.assert_allclose(found[0], [1.5, -0.5, -0.5, -0.5], rtol=1e-6)


@given(value=st.floats(0, 1, width=32), members=st.sampled_from([2, 3, 7]))
def test_equal_rewards_have_no_advantage_at_all(value, members):
    found = advantages(np.full((1, members), value, np.float32), least_deviation=1e-4)
    assert (np.asarray(found) == 0).all()


@given(rewards=arrays(np.float32, (3, 5), elements=st.floats(0, 1, width=32)))
def test_advantages_are_those_of_numpy(rewards):
    of = rewards.astype(np.float64)
    deviation = np.maximum(of.std(axis=1, keepdims=True), 0.1)
    expected = (of - of.mean(axis=1, keepdims=True)) / deviation
    np.testing.assert_allclose(advantages(rewards, least_deviation=0.1), expected, atol=1e-5)


def test_the_loss_by_hand():
    """Ratios 2, 1/2 and 1.1, clipped at 0.2; one SID better than the other by two."""
    ratios = np.array([[[2.0, 0.5, 1.1], [2.0, 0.5, 1.1]]], np.float32)
    zeros = np.zeros_like(ratios)
    found = policy_loss(np.log(ratios), zeros, np.array([[1.0, -1.0]], np.float32), clip=0.2)
    better = 1.2 + 0.5 + 1.1
    worse = -2.0 - 0.8 - 1.1
    np.testing.assert_allclose(found, -(better + worse) / 2, rtol=1e-6)


@pytest.mark.parametrize("missing", [(), (2,), (0, 3)], ids=["none", "one", "two"])
def test_divergence_by_enumeration(missing):
    rng = np.random.default_rng(len(missing))
    logits = rng.normal(size=(2, 4, 5))  # own and reference
    logits[..., [*missing]] = -1e9
    own, other = special.log_softmax(logits, axis=-1).astype(np.float32)
    found = divergence((own,), (other,))
    kept = [code for code in range(5) if code not in missing]
    shares = special.softmax(logits[..., kept], axis=-1)
    expected = special.rel_entr(*shares).sum(axis=-1)
    np.testing.assert_allclose(found[..., 0], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(divergence((own,), (own,)), 0)
