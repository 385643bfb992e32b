from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax.relevance import losses


def test_binary_loss_by_hand():
    value = losses.binary_loss(
        np.float32([0.0, np.log(3), 50.0]),
        np.array([True, False, False]),
        np.float32([1.0, 3.0, 0.0]),
    )
    assert value == pytest.approx((np.log(2) + 3 * np.log(4)) / 4)
    assert (
        losses.binary_loss(np.zeros(2, np.float32), np.zeros(2, bool), np.zeros(2, np.float32)) == 0
    )


def test_graded_loss_by_hand():
    value = losses.graded_loss(
        np.log(np.float32([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [1, 1, 1]])),
        np.array([0, 2, 1]),
        np.float32([1.0, 2.0, 0.0]),
    )
    assert value == pytest.approx(-(np.log(0.5) + 2 * np.log(0.8)) / 3)


def test_listwise_loss_by_hand():
    # Query 0 has the pairs 0, 2 and, without weight, 4; query 1 the pairs 1 and 3, with no gain.
    value = losses.listwise_loss(
        np.log(np.float32([1, 5, 3, 7, 100])),
        np.float32([1.0, 0.0, 0.5, 0.0, 9.0]),
        np.float32([1, 1, 2, 1, 0]),
        np.array([0, 1, 0, 1, 0]),
    )
    assert value == pytest.approx(-(0.5 * np.log(1 / 4) + 0.5 * np.log(3 / 4)))


def test_listwise_loss_does_not_depend_on_a_querys_level_and_has_finite_gradients():
    logits = np.float32([0.3, -1, 2, 500, 90])
    gains, weights = np.float32([1, 0, 0.1, 0, 0.5]), np.float32([1, 1, 2, 0, 1])
    queries = np.array([0, 0, 0, 0, 1])
    slope = jax.grad(losses.listwise_loss)
    one = float(losses.listwise_loss(logits, gains, weights, queries))
    shifted = logits + np.float32([7, 7, 7, 7, -3])
    again = losses.listwise_loss(shifted, gains, weights, queries)
    assert again == pytest.approx(one, rel=1e-5)
    found = slope(logits, gains, weights, queries)
    assert jnp.isfinite(found).all()
    assert found[3:].tolist() == [0, 0]
    nothing = slope(logits, 0 * gains, 0 * weights, queries)
    assert nothing.tolist() == [0] * 5


def test_pairwise_loss_by_hand():
    # Query 0 has the pairs 0, 2 and, without weight, 4; query 1 the pairs 1 and 3, of one gain.
    value = losses.pairwise_loss(
        np.log(np.float32([1, 5, 3, 7, 100])),
        np.float32([1.0, 0.5, 0.5, 0.5, 9.0]),
        np.float32([1, 1, 2, 1, 0]),
        np.array([0, 1, 0, 1, 0]),
    )
    assert value == pytest.approx(-np.log(1 / 4))
    both = losses.pairwise_loss(
        np.log(np.float32([1, 5, 3, 7, 2])),
        np.float32([1.0, 1.0, 0.5, 0.5, 0.0]),
        np.float32([1, 1, 2, 1, 3]),
        np.array([0, 1, 0, 1, 0]),
    )
    # Contests of query 0: 0 over 2 (counts 2), 0 over 4 (3), 2 over 4 (6); of query 1: 1 over 3.
    of_query = -(2 * np.log(1 / 4) + 3 * np.log(1 / 3) + 6 * np.log(3 / 5)) / 11
    assert both == pytest.approx((of_query - np.log(5 / 12)) / 2, rel=1e-6)
