import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax.errors import InputError
from dsirm_jax.training.loop import TrainState, fit
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh, pmapped, sharded
from dsirm_jax.training.settings import Training

TRAINING = Training(epochs=1, batch_size=8, learning_rate=0.1, checkpoint_every=3, log_every=2)


def batches(start, *, stop=None, poison=None):
    """Batch s holds the numbers s*8 .. s*8+7, so that the state tells which batches it saw."""
    for index in itertools.count(start):
        if index == stop:
            raise KeyboardInterrupt
        rows = np.arange(index * 8, index * 8 + 8, dtype=np.float32)
        yield {"x": rows * np.nan if index == poison else rows}


@jax.jit
def step(state, batch):
    total = state.params + jnp.sum(batch["x"]) * (state.step + 1)
    return state.replace(step=state.step + 1, params=total), {"loss": jnp.mean(batch["x"])}


def run(directory, *, num_steps=10, source=batches, placement=None):
    return fit(
        name="test",
        state=TrainState(step=jnp.zeros((), jnp.int32), params=jnp.zeros(()), opt_state=()),
        step=step,
        batches=source,
        num_steps=num_steps,
        directory=directory,
        training=TRAINING,
        placement=placement or sharded(data_mesh()),
    )


EXPECTED = sum((s + 1) * sum(range(s * 8, s * 8 + 8)) for s in range(10))


def test_every_step_sees_its_own_batch_once(tmp_path):
    state = run(tmp_path)
    assert int(state.step) == 10
    assert float(state.params) == EXPECTED


def test_a_run_that_is_stopped_twice_ends_where_an_uninterrupted_one_does(tmp_path):
    for stop in (5, 8):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, source=lambda start, stop=stop: batches(start, stop=stop))
    assert float(run(tmp_path).params) == EXPECTED


def test_a_finished_run_is_restored_and_not_run_again(tmp_path):
    run(tmp_path)

    def none_left(start):
        raise AssertionError("no batch is needed")

    assert float(run(tmp_path, source=none_left).params) == EXPECTED


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match="test: the loss is nan at step 5"):
        run(tmp_path, source=lambda start: batches(start, poison=4))
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")) == [3]
    assert float(run(tmp_path).params) == EXPECTED


@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path, content, caplog):
    run(tmp_path, num_steps=6)
    for path in (tmp_path / "checkpoints" / "6").rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    assert float(run(tmp_path).params) == EXPECTED


def test_a_batch_that_devices_cannot_share_names_the_binding():
    with pytest.raises(InputError, match="batch_size 7 is not divisible by the 8 devices"):
        pmapped().put_batch({"x": np.zeros((7, 2))})
    with pytest.raises(InputError, match="batch_size 7 is not divisible by the 8 devices"):
        sharded(data_mesh()).put_batch({"x": np.zeros((7, 2))})


@pytest.mark.parametrize("devices", [1, 8])
def test_a_pmapped_step_finds_its_arguments_where_it_leaves_its_results(devices):
    # A step whose arguments moved would be compiled once more.
    devices = jax.devices()[:devices]
    state = pmapped(devices).put_state({"a": np.arange(4.0)})
    after = jax.pmap(lambda state: state, axis_name=DATA_AXIS, devices=devices)(state)
    assert state["a"].sharding == after["a"].sharding


@pytest.mark.parametrize("devices", [1, 8])
def test_state_survives_the_way_to_pmapped_devices_and_back(devices):
    placement = pmapped(jax.devices()[:devices])
    state = {"a": np.float32(3), "b": np.arange(4.0)}
    back = placement.get_state(placement.put_state(state))
    jax.tree.map(np.testing.assert_array_equal, state, back)
    assert back["a"].shape == ()
