import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsirm_jax.errors import InputError
from dsirm_jax.training.settings import Training, make_optimizer

TRAINING = Training(epochs=1, batch_size=1, learning_rate=0.1, warmup_share=0.0)


def updated(training, params, gradients):
    """Parameters after one step with each gradient, of a schedule far from its end."""
    optimizer = make_optimizer(training, num_steps=10**6)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adafactor_against_its_equations():
    training = Training(**{**vars(TRAINING), "optimizer": "adafactor", "clip_norm": 1e9})
    rng = np.random.default_rng(0)
    x = rng.normal(size=(128, 130)) * 3
    gradients = rng.normal(size=(3, *x.shape))
    found = updated(training, jnp.asarray(x, jnp.float32), jnp.asarray(gradients, jnp.float32))
    rows, columns = np.zeros(128), np.zeros(130)
    for step, gradient in enumerate(gradients, start=1):
        decay = 1 - step**-0.8
        rows = decay * rows + (1 - decay) * (gradient**2).mean(axis=1)
        columns = decay * columns + (1 - decay) * (gradient**2).mean(axis=0)
        update = gradient / np.sqrt(np.outer(rows, columns) / rows.mean())
        update /= max(1.0, np.sqrt((update**2).mean()))
        x = x - 0.1 * max(1e-3, np.sqrt((x**2).mean())) * update
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-4)


def test_adamw_moves_by_the_learning_rate_and_decays():
    training = Training(**{**vars(TRAINING), "weight_decay": 0.5})
    found = updated(training, jnp.array([2.0, -4.0]), [jnp.array([0.3, -0.1])])
    np.testing.assert_allclose(found, [2 - 0.1 - 0.1, -4 + 0.1 + 0.2], rtol=1e-5)


def test_adafactor_keeps_less_than_adamw():
    params = jnp.zeros((512, 512))
    sizes = {
        name: sum(
            leaf.size
            for leaf in jax.tree.leaves(
                make_optimizer(Training(**{**vars(TRAINING), "optimizer": name}), num_steps=1).init(
                    params
                )
            )
        )
        for name in ("adamw", "adafactor")
    }
    assert sizes["adamw"] > 2 * 512**2 > 100 * sizes["adafactor"]


def test_wrong_settings_are_named():
    with pytest.raises(InputError, match="Training.optimizer = 'sgd'"):
        Training(**{**vars(TRAINING), "optimizer": "sgd"})
    with pytest.raises(InputError, match="Training.weight_decay"):
        Training(**{**vars(TRAINING), "optimizer": "adafactor", "weight_decay": 0.1})
