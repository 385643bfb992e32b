import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from dsirm_jax.io.errors import InputError
from dsirm_jax.training.meshes import data_mesh, optimizer_shardings, param_shardings
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
    with pytest.raises(InputError, match="Training.optimizer is 'sgd'; bind 'adamw' or"):
        Training(**{**vars(TRAINING), "optimizer": "sgd"})
    with pytest.raises(
        InputError, match="precision is 'bf16'; bind 'default', 'high' or 'highest'"
    ):
        Training(**{**vars(TRAINING), "matmul_precision": "bf16"})
    with pytest.raises(InputError, match="Training.weight_decay"):
        Training(**{**vars(TRAINING), "optimizer": "adafactor", "weight_decay": 0.1})


@pytest.mark.parametrize(
    "name, value, rule",
    [
        ("epochs", -0.5, "of at least 0, finite"),
        ("epochs", float("nan"), "of at least 0, finite"),
        ("epochs", float("inf"), "of at least 0, finite"),
        ("batch_size", 0, "a whole number of at least 1"),
        ("batch_size", 2.5, "a whole number of at least 1"),
        ("learning_rate", -1e-3, "of at least 0, finite"),
        ("learning_rate", float("nan"), "of at least 0, finite"),
        ("learning_rate", "0.1", "of at least 0, finite"),
        ("weight_decay", -0.1, "of at least 0, finite"),
        ("warmup_share", 1.5, "of at least 0, of at most 1"),
        ("warmup_share", float("nan"), "of at least 0, of at most 1"),
        ("clip_norm", 0.0, "above 0"),
        ("checkpoint_every", 0, "a whole number of at least 1"),
        ("log_every", 0, "a whole number of at least 1"),
        ("accumulate_steps", True, "a whole number of at least 1"),
        ("max_skipped_steps", -1, "a whole number of at least 0"),
        ("held_out", 1, "of at least 0, below 1"),
        ("held_out", float("nan"), "of at least 0, below 1"),
    ],
)
def test_numbers_out_of_range_are_named(name, value, rule):
    message = f"gin binding Training.{name} is {value!r}; bind.*{rule}"
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TRAINING, **{name: value})


def test_numbers_at_the_bounds_are_taken():
    bounds = {"epochs": 0, "learning_rate": 0.0, "warmup_share": 1, "clip_norm": float("inf")}
    assert dataclasses.replace(TRAINING, **bounds).num_steps(100) == 0


def test_accumulated_steps_make_the_update_of_one_large_batch():
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
    rng = np.random.default_rng(0)
    small = [jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params) for _ in "abcd"]
    large = [jax.tree.map(lambda *parts: sum(parts) / 2, *small[i : i + 2]) for i in (0, 2)]
    accumulating = dataclasses.replace(TRAINING, accumulate_steps=2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        updated(accumulating, params, small),
        updated(TRAINING, params, large),
    )
    jax.tree.map(np.testing.assert_array_equal, updated(accumulating, params, small[:1]), params)
    with pytest.raises(
        InputError, match="accumulate_steps is 0; bind a whole number of at least 1"
    ):
        dataclasses.replace(TRAINING, accumulate_steps=0)


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param({"accumulate_steps": 2}, id="accumulated"),
        pytest.param({"max_skipped_steps": 1}, id="skipping"),
    ],
)
def test_wrapped_optimizers_lie_on_a_mesh_as_their_parameters(wrapped):
    optimizer = make_optimizer(dataclasses.replace(TRAINING, **wrapped), num_steps=10)
    mesh = data_mesh(model_parallel=4)
    params = {"kernel": jax.ShapeDtypeStruct((8, 16), jnp.float32)}
    places = param_shardings(mesh, axes={"kernel": PartitionSpec("embed", "mlp")}, shapes=params)
    found = optimizer_shardings(mesh, optimizer=optimizer, params=params, shardings=places)
    shapes = jax.tree.map(
        lambda leaf, place: (leaf.shape, place.shard_shape(leaf.shape)),
        jax.eval_shape(optimizer.init, params),
        found,
    )
    split = jax.tree.leaves(shapes, is_leaf=lambda x: x == ((8, 16), (8, 4)))
    assert split.count(((8, 16), (8, 4))) == 2 + ("accumulate_steps" in wrapped)
