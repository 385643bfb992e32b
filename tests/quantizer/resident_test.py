import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest

from dsirm_jax.quantizer.batchwise import fit_batches
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.resident import gathered, table_feed
from dsirm_jax.quantizer.training_items import TrainingItems, batches_of
from dsirm_jax.training.settings import Training
from tests.quantizer.fitting_test import KIND, SIZES, make_items, settings

ROOM = 10**9
DEVICE = jax.devices()[:1]


def feed_of(items, *, rows=None, batch_size=32, devices=DEVICE, room=ROOM):
    rows = items.rows() if rows is None else rows
    return table_feed(items, rows=rows, batch_size=batch_size, seed=3, devices=devices, room=room)


def without_queries():
    return TrainingItems(items=make_items().items)


@pytest.mark.parametrize(
    "items",
    [make_items(), make_items(pinned=False), without_queries()],
    ids=["pinned", "not pinned", "without queries"],
)
def test_a_device_gathers_the_batches_of_the_host(items):
    host = batches_of(items, rows=items.rows(), batch_size=32, seed=3)(2)
    sizes = [1, 3, 1, 2]  # beyond an epoch
    for tables, rows in feed_of(items).placed(sizes, start=2):
        for chosen in rows:
            batch = gathered(tables, chosen)
            expected = next(host)
            assert batch.keys() == expected.keys()
            for name, values in expected.items():
                found = np.asarray(batch[name])[0]  # of the only device
                np.testing.assert_array_equal(found, values, strict=True)


@pytest.mark.parametrize("kind", [KIND, ResidualKmeans()], ids=["rq_vae", "residual_kmeans"])
@pytest.mark.parametrize("devices", [1, 8])
def test_a_fit_from_tables_is_that_from_the_host_and_a_restart_has_its_bits(
    tmp_path, kind, devices
):
    items = make_items()
    training = Training(
        epochs=8, batch_size=32, learning_rate=3e-3, log_every=5, checkpoint_every=10
    )
    learning = Learning(
        **settings(), training=training, seed=3, devices=tuple(jax.devices()[:devices])
    )

    def fitted(name, room):
        return fit_batches(
            kind.learner(dim=12),
            items=items,
            rows=kind.epoch(items),
            sizes=SIZES,
            learning=learning,
            directory=tmp_path / name,
            start=None,
            room=room,
        )

    host, table = fitted("host", 0), fitted("table", ROOM)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), host, table)
    steps = sorted((tmp_path / "table" / "checkpoints").glob("[0-9]*"), key=lambda s: int(s.name))
    shutil.rmtree(steps[-1])  # as if it had stopped in the middle of an epoch
    assert int(steps[-2].name) * 32 % len(kind.epoch(items))
    jax.tree.map(np.testing.assert_array_equal, table, fitted("table", ROOM))


def test_vectors_without_room_stay_with_the_host():
    items = make_items()
    rows = items.rows()
    positives = (len(items.queries) + 1) * 2  # two of each query, and a row for none
    size = 4 * (2 * len(rows) + items.items.size + items.queries.size + positives + 96)
    assert feed_of(items, room=size) is not None
    assert feed_of(items, room=size - 1) is None
    # What is a CPU's is the host's: nothing is gained there.
    assert feed_of(items, room=None) is None


def test_queries_that_no_row_has_take_no_room():
    items = make_items()
    alone, both = (feed_of(items, rows=rows) for rows in (items.alone(), items.rows()))
    assert alone.tables.queries.shape == (1, 12)
    assert both.tables.queries.shape == items.queries.shape


def test_vectors_that_a_step_refuses_stay_with_the_host_which_names_it():
    items = dataclasses.replace(make_items(), pairs=make_items().pairs[:20])
    unused = np.setdiff1d(np.arange(24), items.pairs[:, 0])
    items.queries[unused] = np.nan
    assert feed_of(items) is not None
    items.items[40, 3] = 1e30
    assert feed_of(items) is None


def test_calls_are_of_some_milliseconds():
    items = make_items()
    assert feed_of(items, batch_size=4096).at_once == 32
    assert feed_of(items, batch_size=2**18).at_once == 1


def test_memory_mapped_vectors_go_to_every_device(tmp_path):
    items = make_items()
    np.save(tmp_path / "items.npy", items.items)
    mapped = dataclasses.replace(items, items=np.load(tmp_path / "items.npy", mmap_mode="r"))
    feed = feed_of(mapped, devices=jax.devices())
    ((tables, _),) = itertools.islice(feed.placed([1], start=0), 1)
    assert len(tables.items.addressable_shards) == 8
    for shard in tables.items.addressable_shards:
        np.testing.assert_array_equal(shard.data, items.items)
