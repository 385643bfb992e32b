import dataclasses
import itertools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.training.feeds import HostFeed, TableFeed
from dsirm_jax.training.loop import TrainState, calls, fit, steps_at_once
from dsirm_jax.training.meshes import DATA_AXIS, pmapped
from dsirm_jax.training.settings import Training

TRAINING = Training(epochs=1, batch_size=8, learning_rate=0.1, checkpoint_every=6, log_every=3)
TABLE = np.arange(100, dtype=np.float32) ** 2


def order(position):
    """Rows 0, 7, 14, ... of the table, in pieces of nine."""
    numbers = (7 * n % 100 for n in itertools.count(position))
    while True:
        yield np.fromiter(itertools.islice(numbers, 9), np.int64)


def table_feed(devices, **changed):
    return TableFeed(
        tables={"squares": TABLE},
        gather=lambda tables, rows: {"x": tables["squares"][rows]},
        order=order,
        batch_size=8,
        devices=jax.devices()[:devices],
        **{"at_once": 4} | changed,
    )


def batches(start):
    for step in itertools.count(start):
        yield {"x": TABLE[7 * np.arange(step * 8, step * 8 + 8) % 100]}


def run(directory, feed, *, num_steps=10, devices=1, source=batches, training=TRAINING):
    def step(state, batch):
        total = jax.lax.psum(jnp.sum(batch["x"]), DATA_AXIS) * (state.step + 1)
        new = state.replace(step=state.step + 1, params=state.params + total)
        return new, {"loss": total}

    devices = jax.devices()[:devices]
    return fit(
        name="test",
        state=TrainState(step=np.zeros((), np.int32), params=np.zeros((), "f4"), opt_state=()),
        step=jax.pmap(step, axis_name=DATA_AXIS, devices=devices, donate_argnums=0),
        batches=source,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=pmapped(devices),
        feed=feed,
    )


EXPECTED = sum(
    (s + 1) * sum((7 * n % 100) ** 2 for n in range(s * 8, s * 8 + 8)) for s in range(10)
)


@pytest.mark.parametrize("devices", [1, 4])
def test_steps_from_tables_see_the_batches_of_the_host(tmp_path, devices):
    feed = table_feed(devices)
    assert float(run(tmp_path / "table", feed, devices=devices).params) == EXPECTED
    assert float(run(tmp_path / "host", None, devices=devices).params) == EXPECTED


def test_several_steps_go_to_the_device_at_once_as_numbers_of_rows():
    tables, rows = next(table_feed(4).placed([3], start=5))
    assert rows.shape == (3, 4, 2) and rows.dtype == np.int32
    assert rows.ravel().tolist() == [7 * n % 100 for n in range(40, 64)]
    assert [shard.data.shape for shard in rows.addressable_shards] == [(3, 1, 2)] * 4
    assert tables["squares"].is_fully_replicated


@pytest.mark.parametrize("stop", [1, 6, 7, 9])
def test_a_run_from_tables_goes_on_where_it_stopped(tmp_path, stop):
    run(tmp_path, table_feed(1), num_steps=stop)
    assert float(run(tmp_path, table_feed(1)).params) == EXPECTED


def test_a_loss_that_is_not_finite_is_of_its_step_within_a_call(tmp_path):
    spoilt = TABLE.copy()
    spoilt[7 * 35 % 100] = np.nan  # of the fifth step
    feed = dataclasses.replace(table_feed(1), tables={"squares": spoilt})
    with pytest.raises(FloatingPointError, match="the loss is nan at step 5"):
        run(tmp_path, feed)


def test_a_call_ends_wherever_a_log_line_or_checkpoint_is_due():
    assert steps_at_once(table_feed(1, at_once=4), TRAINING) == 3
    long = dataclasses.replace(TRAINING, log_every=50, checkpoint_every=500)
    assert [steps_at_once(table_feed(1, at_once=most), long) for most in (1, 32, 99)] == [1, 25, 50]
    assert [list(call) for call in calls(1, 10, at_once=3)] == [
        *([2], [3]),
        *([4, 5, 6], [7, 8, 9]),
        *([10],),
    ]
    assert list(calls(4, 4, at_once=3)) == []


def test_a_batch_that_devices_cannot_share_names_the_binding():
    with pytest.raises(InputError, match="batch_size 8 is not divisible by the 3 devices"):
        table_feed(3)


def input_threads():
    return [one for one in threading.enumerate() if one.name.startswith("made_ahead")]


def test_the_loop_takes_two_batches_ahead_and_leaves_no_thread(tmp_path):
    taken = []

    def source(start):
        for step, batch in enumerate(batches(start), start=start):
            taken.append(step)
            yield batch

    run(tmp_path, HostFeed(batches=source, placement=pmapped(jax.devices()[:1])))
    assert taken == list(range(10))
    assert not input_threads()


@pytest.mark.parametrize("raised", [InputError, KeyboardInterrupt])
def test_what_the_input_raises_comes_out_when_its_batch_is_due(tmp_path, raised):
    def source(start):
        yield from itertools.islice(batches(start), 7 - start)
        raise raised("shop/items.parquet: row 7 has no text")

    with pytest.raises(raised, match=r"items\.parquet: row 7"):
        run(tmp_path, None, source=source)
    # Of seven batches all steps are taken, and the sixth is saved.
    assert [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")] == ["6"]
    assert not input_threads()
