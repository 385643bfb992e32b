import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from dsirm_jax.generator import losses
from dsirm_jax.io.errors import InputError


def random_case(seed=0):
    rng = np.random.default_rng(seed)
    sizes = (3, 1, 5)
    logits = tuple(jnp.asarray(rng.normal(size=(6, size)), jnp.float32) for size in sizes)
    sids = rng.integers(0, sizes, (6, 3))
    weights = rng.uniform(0, 2, (6, 3)).astype(np.float32)
    return logits, sids, weights


def test_by_hand():
    logits = (jnp.log(jnp.array([[0.5, 0.25, 0.25]])), jnp.array([[0.0, 0.0]]))
    total = losses.cross_entropy(logits, jnp.array([[1, 0]]), jnp.array([[2.0, 2.0]]))
    np.testing.assert_allclose(total.loss, [2 * np.log(4), 2 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(losses.mean_per_level(total), [np.log(4), np.log(2)], rtol=1e-6)


def test_against_scipy():
    logits, sids, weights = random_case()
    total = losses.cross_entropy(logits, sids, weights)
    for level in range(3):
        log_probs = scipy.special.log_softmax(np.asarray(logits[level], np.float64), axis=-1)
        expected = -(weights[:, level] * log_probs[np.arange(6), sids[:, level]]).sum()
        np.testing.assert_allclose(total.loss[level], expected, rtol=1e-5, atol=1e-6)


def test_gradient_is_weighted_softmax_minus_one_hot():
    logits, sids, weights = random_case(1)

    def loss(logits):
        return jnp.sum(losses.mean_per_level(losses.cross_entropy(logits, sids, weights)))

    for level, gradient in enumerate(jax.grad(loss)(logits)):
        probabilities = scipy.special.softmax(np.asarray(logits[level], np.float64), axis=-1)
        one_hot = np.eye(probabilities.shape[1])[sids[:, level]]
        share = weights[:, level, None] / weights[:, level].sum()
        np.testing.assert_allclose(gradient, share * (probabilities - one_hot), atol=1e-6)


def test_parts_add_up_to_the_whole():
    logits, sids, weights = random_case(2)
    whole = losses.cross_entropy(logits, sids, weights)
    parts = [
        losses.cross_entropy(tuple(level[rows] for level in logits), sids[rows], weights[rows])
        for rows in (slice(0, 1), slice(1, 6))
    ]
    summed = jax.tree.map(lambda a, b: a + b, *parts)
    np.testing.assert_allclose(
        losses.mean_per_level(summed), losses.mean_per_level(whole), rtol=1e-5
    )


def test_no_weight_gives_zero_and_finite_gradients():
    logits, sids, weights = random_case(3)

    def loss(logits):
        return jnp.sum(losses.mean_per_level(losses.cross_entropy(logits, sids, 0 * weights)))

    value, gradient = jax.value_and_grad(loss)(logits)
    assert value == 0
    assert not any(np.asarray(level).any() for level in gradient)


def test_label_smoothing_and_z_loss_against_scipy():
    logits, sids, weights = random_case(4)
    objective = losses.GeneratorObjective(label_smoothing=0.1, z_loss=0.01)
    total = losses.cross_entropy(logits, sids, weights, objective=objective)
    for level, values in enumerate(logits):
        values = np.asarray(values, np.float64)
        target = 0.9 * np.eye(values.shape[1])[sids[:, level]] + 0.1 / values.shape[1]
        entropy = -(target * scipy.special.log_softmax(values, axis=-1)).sum(axis=-1)
        z = scipy.special.logsumexp(values, axis=-1) ** 2
        expected = (weights[:, level] * (entropy + 0.01 * z)).sum()
        np.testing.assert_allclose(total.loss[level], expected, rtol=1e-5)
    np.testing.assert_allclose(total.weight, weights.sum(axis=0), rtol=1e-6)


def test_smoothed_loss_is_least_at_the_smoothed_target():
    objective = losses.GeneratorObjective(label_smoothing=0.2)
    sids, weights = jnp.array([[1]]), jnp.ones((1, 1))

    def slope(logits):
        return jax.grad(
            lambda x: losses.cross_entropy((x,), sids, weights, objective=objective).loss.sum()
        )(logits)

    at_target = jnp.log(jnp.array([[0.05, 0.85, 0.05, 0.05]]))
    np.testing.assert_allclose(slope(at_target), 0, atol=1e-6)
    assert np.abs(slope(jnp.log(jnp.array([[0.01, 0.97, 0.01, 0.01]])))).max() > 0.01


@pytest.mark.parametrize(
    "values",
    [
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"label_smoothing": np.nan},
        {"z_loss": -1e-4},
        {"z_loss": np.inf},
        {"z_loss": np.nan},
    ],
    ids=str,
)
def test_an_objective_that_cannot_be_is_named(values):
    ((name, _),) = values.items()
    with pytest.raises(InputError, match=f"gin binding GeneratorObjective.{name} is .*; bind a"):
        losses.GeneratorObjective(**values)


def several(seed=0, *, rows=4, sids=3):
    rng = np.random.default_rng(seed)
    sizes = (3, 2, 5)
    logits = tuple(jnp.asarray(rng.normal(size=(rows, sids, n)), jnp.float32) for n in sizes)
    return logits, rng.integers(0, sizes, (rows, sids, 3)), rng.uniform(0.1, 2, (rows, sids))


def test_marginal_by_hand():
    """Two SIDs of one query, 0-0 of probability 1/8 and 1-0 of 1/3, weighing 3 and 1."""
    first = jnp.log(jnp.array([[[0.25, 0.75], [1 / 3, 2 / 3]]]))
    second = jnp.log(jnp.array([[[0.5, 0.5], [0.5, 0.5]]]))
    sids, weights = jnp.array([[[0, 0], [1, 0]]]), jnp.array([[3.0, 1.0]])
    total = losses.marginal_cross_entropy((first, second), sids, weights)
    np.testing.assert_allclose(total.weight, [4.0, 4.0])
    reached = 0.75 * 0.25 + 0.25 * 2 / 3, 0.75 * 0.125 + 0.25 / 3
    expected = -np.log([reached[0], reached[1] / reached[0]])
    np.testing.assert_allclose(losses.mean_per_level(total), expected, rtol=1e-6)


def test_marginal_against_scipy_and_less_than_the_mean():
    logits, sids, weights = several()
    total = losses.marginal_cross_entropy(logits, sids, jnp.asarray(weights, jnp.float32))
    expected = 0.0
    for row in range(4):
        of_sids = np.zeros(3)
        for level in range(3):
            log_probs = scipy.special.log_softmax(np.asarray(logits[level][row], np.float64), -1)
            of_sids += log_probs[np.arange(3), sids[row, :, level]]
        share = weights[row] / weights[row].sum()
        expected -= weights[row].sum() * scipy.special.logsumexp(of_sids, b=share)
    np.testing.assert_allclose(np.sum(total.loss), expected, rtol=1e-5)
    np.testing.assert_allclose(total.weight, weights.sum(), rtol=1e-6)
    each = np.broadcast_to(weights[..., None], sids.shape).astype(np.float32)
    assert np.sum(total.loss) < np.sum(losses.cross_entropy(logits, sids, each).loss)


ADDED = losses.GeneratorObjective(label_smoothing=0.2, z_loss=0.01)


@pytest.mark.parametrize("objective", [losses.GeneratorObjective(), ADDED], ids=["bare", "added"])
def test_the_marginal_of_one_sid_is_its_loss(objective):
    logits, sids, weights = several(1, sids=1)
    weights = jnp.asarray(weights, jnp.float32)
    each = np.broadcast_to(weights[..., None], sids.shape)
    one = losses.cross_entropy(logits, sids, each, objective=objective)
    several_ = losses.marginal_cross_entropy(logits, sids, weights, objective=objective)
    np.testing.assert_allclose(several_.loss, one.loss, rtol=1e-5)
    np.testing.assert_allclose(several_.weight, one.weight, rtol=1e-6)


def test_the_marginal_knows_no_order_and_no_sids_without_weight():
    logits, sids, weights = several(2)
    weights[:, 2], weights[3] = 0.0, 0.0
    weights = jnp.asarray(weights, jnp.float32)

    def loss(logits, sids, weights):
        total = losses.marginal_cross_entropy(logits, sids, weights, objective=ADDED)
        return jnp.sum(losses.mean_per_level(total))

    whole, gradient = jax.value_and_grad(loss)(logits, sids, weights)
    order = np.array([2, 1, 0])
    other = loss([level[:, order] for level in logits], sids[:, order], weights[:, order])
    fewer = loss([level[:3, :2] for level in logits], sids[:3, :2], weights[:3, :2])
    np.testing.assert_allclose([other, fewer], [whole, whole], rtol=1e-6)
    for level in gradient:
        assert np.isfinite(level).all() and np.any(level[:3, :2])
        assert not np.any(level[:, 2]) and not np.any(level[3])


def test_the_marginal_pulls_at_sids_by_their_share_of_it():
    logits, sids, weights = several(3)
    weights = jnp.asarray(weights, jnp.float32)

    def loss(logits):
        return jnp.sum(losses.marginal_cross_entropy(logits, sids, weights).loss)

    def log_probs(logits):
        return jnp.sum(losses.level_log_probs(logits, sids), axis=-1)

    value, pull = jax.vjp(log_probs, logits)
    responsible = weights * np.exp(value)
    responsible *= (weights.sum(1) / responsible.sum(1))[:, None]
    for one, other in zip(jax.grad(loss)(logits), pull(-responsible)[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_another_loss_of_several_is_refused():
    with pytest.raises(InputError, match="GeneratorObjective.of_several is 'max'; bind 'mean' or"):
        losses.GeneratorObjective(of_several="max")
