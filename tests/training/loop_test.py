import dataclasses
import itertools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.report.curves import read_curves
from dsirm_jax.training.loop import TrainState, fit
from dsirm_jax.training.meshes import DATA_AXIS, data_mesh, pmapped, sharded
from dsirm_jax.training.settings import Training, make_optimizer

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


class Terminating:
    """A compiled step in whose call SIGTERM comes, once."""

    def __init__(self, compiled, *, at):
        self.compiled, self.lower, self.at = compiled, compiled.lower, at

    def __call__(self, state, batch):
        if int(state.step) + 1 == self.at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.compiled(state, batch)


def run(
    directory,
    *,
    num_steps=10,
    source=batches,
    state=None,
    compiled=step,
    training=TRAINING,
    held_out=None,
):
    if state is None:
        state = TrainState(step=jnp.zeros((), jnp.int32), params=jnp.zeros(()), opt_state=())
    return fit(
        name="test",
        state=state,
        step=compiled,
        batches=source,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=sharded(data_mesh()),
        held_out=held_out,
    )


def committed(directory):
    return sorted(int(path.name) for path in (directory / "checkpoints").glob("[0-9]*"))


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


def far_from(best):
    """A loss of rows held out that is least at one step."""
    return lambda state: abs(float(state.step) - best)


@pytest.mark.parametrize(
    "best, kept",
    [(3, [3, 9, 10]), (6, [6, 9, 10]), (10, [9, 10])],
    ids=["early", "late", "last"],
)
def test_training_ends_with_the_step_that_is_best_on_rows_held_out(tmp_path, best, kept):
    state = run(tmp_path, held_out=far_from(best))
    assert int(state.step) == best
    seen = run(tmp_path / "other", num_steps=best)
    assert float(state.params) == float(seen.params)
    assert committed(tmp_path) == kept
    assert int(run(tmp_path, held_out=far_from(best)).step) == best
    (logged,) = [of for tag, of in read_curves(tmp_path / "logs").items() if "held_out" in tag]
    assert [(step, loss) for step, loss in logged] == [(s, abs(s - best)) for s in (3, 6, 9, 10)]


def test_what_is_best_does_not_hang_on_where_a_run_was_stopped(tmp_path):
    # Step 5 would be the best, but it is saved on SIGTERM alone and not measured.
    with pytest.raises(SystemExit):
        run(tmp_path, compiled=Terminating(step, at=5), held_out=far_from(5))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, source=lambda start: batches(start, stop=8), held_out=far_from(5))
    assert committed(tmp_path) == [5, 6]
    assert int(run(tmp_path, held_out=far_from(5)).step) == 6
    assert committed(tmp_path) == [6, 9, 10]


def test_a_loss_of_rows_held_out_that_is_not_finite_stops(tmp_path):
    with pytest.raises(FloatingPointError, match="held out is nan after step 3"):
        run(tmp_path, held_out=lambda state: float("nan"))
    assert committed(tmp_path) == []


def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(FloatingPointError, match="test: the loss is nan at step 5"):
        run(tmp_path, source=lambda start: batches(start, poison=4))
    assert committed(tmp_path) == [3]
    assert float(run(tmp_path).params) == EXPECTED


def test_rows_that_are_not_finite_are_named(tmp_path):
    def source(start):
        for index, batch in enumerate(batches(start), start=start):
            rows = batch["x"].copy()
            if index == 4:
                rows[[2, 5]] = np.inf
            yield {"x": rows, "item_index": np.arange(100, 108)}

    with pytest.raises(FloatingPointError, match=r"inf at step 5 \(item_index 102, 105\);"):
        run(tmp_path, source=source)


def test_a_gradient_that_is_not_finite_stops_where_it_happened(tmp_path):
    def source(start):
        for index, batch in enumerate(batches(start), start=start):
            yield batch | {"query_index": np.full(8, index)}

    @jax.jit
    def overflowing(state, batch):
        state, metrics = step(state, batch)
        bad = state.step == 6
        state = state.replace(params=jnp.where(bad, jnp.nan, state.params))
        return state, metrics | {"gradient_norm": jnp.where(bad, jnp.inf, 1.0)}

    with pytest.raises(FloatingPointError, match=r"gradient_norm is inf at step 6 \(query_index 5"):
        run(tmp_path, source=source, compiled=overflowing)
    assert committed(tmp_path) == [3]


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    @jax.jit
    def overflowing(state, batch):
        state, metrics = step(state, batch)
        return state.replace(params=jnp.where(state.step == 6, jnp.inf, state.params)), metrics

    with pytest.raises(FloatingPointError, match="the state after step 6 is not finite"):
        run(tmp_path, compiled=overflowing)
    assert committed(tmp_path) == [3]


def test_steps_that_are_not_finite_are_left_out_as_far_as_allowed(tmp_path, caplog):
    training = dataclasses.replace(TRAINING, max_skipped_steps=2)
    optimizer = make_optimizer(training, num_steps=100)
    params = jnp.zeros(())

    @jax.jit
    def descending(state, batch):
        loss, gradient = jax.value_and_grad(lambda w: jnp.mean((w - batch["x"]) ** 2))(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    def descend(directory, source, num_steps):
        state = TrainState(
            step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params)
        )
        return run(
            directory,
            state=state,
            compiled=descending,
            source=source,
            num_steps=num_steps,
            training=training,
        )

    def without(*left_out):
        def source(start):
            whole = enumerate(batches(0))
            return itertools.islice((b for i, b in whole if i not in left_out), start, None)

        return source

    def with_poison(*poisoned):
        def source(start):
            for index, batch in enumerate(batches(start), start=start):
                yield {"x": batch["x"] * np.nan if index in poisoned else batch["x"]}

        return source

    expected = descend(tmp_path / "a", without(2, 3), 7)
    found = descend(tmp_path / "b", with_poison(2, 3), 9)
    assert float(found.params) == float(expected.params)
    assert "the loss is nan at step 3 (row 0, 1, 2, 3, 4, 5, 6, 7); the step is left" in caplog.text
    with pytest.raises(FloatingPointError, match="at step 8"):
        descend(tmp_path / "c", with_poison(2, 3, 7), 9)


def test_sigterm_saves_the_step_under_way_and_the_next_run_goes_on(tmp_path, caplog):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, compiled=Terminating(step, at=5))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert "test: SIGTERM: step 5 of 10 is saved" in caplog.text
    assert committed(tmp_path) == [3, 5]
    assert float(run(tmp_path).params) == EXPECTED


@pytest.mark.parametrize("content", [b"", b"{"], ids=["empty", "cut off"])
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
    assert isinstance(back["a"], np.ndarray)  # Orbax does not take NumPy's scalars
