import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.training import memory
from dsirm_jax.training.loop import TrainState, fit
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh, pmapped, sharded
from dsirm_jax.training.settings import Training

TRAINING = Training(epochs=1, batch_size=16, learning_rate=0.1, checkpoint_every=9)


def one_step(state, batch):
    return state.replace(step=state.step + 1, params=state.params + batch["x"].sum()), {
        "loss": batch["x"].mean()
    }


def batches(start):
    while True:
        yield {"x": np.ones((16, 4), np.float32)}


def huge_step(state, batch):
    """The same, with 16 terabytes of temporaries."""
    column = jnp.resize(batch["x"], 2**21)
    largest = jnp.sort(jnp.outer(column, column), axis=0)[-1]
    return one_step(state, batch | {"x": batch["x"] + largest.sum()})


STEPS = {
    "jit": lambda step: (jax.jit(step, donate_argnums=0), sharded(data_mesh())),
    "pmap": lambda step: (
        jax.pmap(step, axis_name=DATA_AXIS, donate_argnums=0),
        pmapped(jax.devices()),
    ),
}


def run(directory, kind, step=one_step):
    step, placement = STEPS[kind](step)
    return run_compiled(directory, step, placement)


def run_compiled(directory, step, placement):
    return fit(
        name="test",
        state=TrainState(step=np.zeros((), "i4"), params=np.zeros(32, "f4"), opt_state=()),
        step=step,
        batches=batches,
        num_steps=3,
        directory=directory,
        training=TRAINING,
        placement=placement,
    )


@pytest.mark.parametrize("kind", STEPS)
def test_what_a_step_takes_is_logged_and_it_is_compiled_once(tmp_path, kind, caplog):
    with jax.log_compiles(), caplog.at_level(logging.INFO):
        run(tmp_path, kind)
    assert "test: a step takes 0.00 GB of a device's" in caplog.text
    assert "the host's" in caplog.text
    compiled = "Finished XLA compilation of jit(" + {"jit": "one_step)", "pmap": "_fun)"}[kind]
    assert caplog.text.count(compiled) == 1


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_that_does_not_fit_is_refused_before_training(tmp_path, kind):
    with pytest.raises(InputError, match=r"test: a step takes .* Training.batch_size"):
        run(tmp_path, kind, huge_step)
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))


def test_a_compiler_that_has_no_room_says_so_as_well(tmp_path):
    class Step:
        def lower(self, state, batch):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM\nmore")

    with pytest.raises(InputError, match=r"test: RESOURCE_EXHAUSTED: Ran out .* on HBM; bind"):
        run_compiled(tmp_path, Step(), sharded(data_mesh()))


def test_memory_of_devices_that_the_host_gives():
    assert memory.device_memory() == memory.host_memory() // 8
    assert 2**20 < memory.host_memory_used() < memory.host_memory()
