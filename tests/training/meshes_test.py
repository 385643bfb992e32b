import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from dsirm_jax.io.errors import InputError
from dsirm_jax.training.meshes import data_mesh, optimizer_shardings, param_shardings

AXES = {"kernel": PartitionSpec("embed", "mlp"), "scale": PartitionSpec("embed")}
SHAPES = {
    "kernel": jax.ShapeDtypeStruct((256, 512), jnp.float32),
    "scale": jax.ShapeDtypeStruct((256,), jnp.float32),
}


def test_parameters_are_split_over_the_model_axis():
    mesh = data_mesh(model_parallel=4)
    assert mesh.shape == {"data": 2, "model": 4}
    places = param_shardings(mesh, axes=AXES, shapes=SHAPES)
    assert places["kernel"].shard_shape((256, 512)) == (256, 128)
    assert places["scale"].shard_shape((256,)) == (256,)


@pytest.mark.parametrize("make, split", [(optax.adamw, 2), (optax.adafactor, 0)])
def test_moments_lie_as_their_parameters(make, split):
    mesh, optimizer = data_mesh(model_parallel=4), make(1e-3)
    places = param_shardings(mesh, axes=AXES, shapes=SHAPES)
    shardings = optimizer_shardings(mesh, optimizer=optimizer, params=SHAPES, shardings=places)
    state = jax.eval_shape(optimizer.init, SHAPES)
    shard_shapes = jax.tree.map(lambda leaf, place: place.shard_shape(leaf.shape), state, shardings)
    tuples = jax.tree.leaves(shard_shapes, is_leaf=lambda x: x in ((256, 128), (256, 512)))
    assert tuples.count((256, 128)) == split and tuples.count((256, 512)) == 0


def test_an_axis_that_cannot_be_split_is_named():
    shapes = SHAPES | {"kernel": jax.ShapeDtypeStruct((256, 510), jnp.float32)}
    with pytest.raises(InputError, match="model_parallel 4 does not divide axis mlp of size 510"):
        param_shardings(data_mesh(model_parallel=4), axes=AXES, shapes=shapes)
    with pytest.raises(InputError, match="model_parallel 3 does not divide the 8 devices"):
        data_mesh(model_parallel=3)


@pytest.mark.parametrize("model_parallel", [0, -1, 1.5])
def test_a_model_axis_of_no_size_is_named(model_parallel):
    with pytest.raises(InputError, match=f"generate.run.model_parallel is {model_parallel}; bind"):
        data_mesh(model_parallel=model_parallel)
