import jax
import numpy as np
import optax
import pytest

from dsirm_jax.quantizer import train as quantizer_train
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.losses import Objective
from dsirm_jax.quantizer.model import UNPINNED, QuantizerConfig
from dsirm_jax.training.meshes import pmapped
from dsirm_jax.training.settings import Training

SIZES = (4, 8, 8)


def make_catalogue(*, pinned=True, items=96, queries=24, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    category = rng.integers(0, SIZES[0], items)
    centres = rng.normal(size=(SIZES[0], dim))
    vectors = (centres[category] + 0.4 * rng.normal(size=(items, dim))).astype(np.float32)
    asked = rng.integers(0, items, (queries, 2))
    query_vectors = (vectors[asked[:, 0]] + 0.1 * rng.normal(size=(queries, dim))).astype("f4")
    pairs = np.concatenate([np.stack([np.arange(queries), asked[:, i]], 1) for i in range(2)])
    codes = np.where(rng.random(items) < 0.2, UNPINNED, category).astype(np.int32)
    return quantizer_train.Catalogue(
        items=vectors,
        queries=query_vectors,
        pairs=np.unique(pairs, axis=0),
        pinned=codes if pinned else None,
    )


def fit_quantizer(directory, *, devices=1, seed=3, pinned=True, contrastive=0.5, epochs=4.0):
    return quantizer_train.train(
        config=QuantizerConfig(
            codebook_sizes=SIZES, latent_dim=6, hidden_dim=16, pin_depth=int(pinned)
        ),
        objective=Objective(commitment=1.0, contrastive=contrastive, temperature=0.1),
        upkeep=Upkeep(decay=0.9, restart_below=0.1, init_rows=96, init_iterations=3),
        training=Training(epochs=epochs, batch_size=32, learning_rate=3e-3, log_every=5),
        catalogue=make_catalogue(pinned=pinned),
        sizes=SIZES,
        directory=directory,
        seed=seed,
        devices=jax.devices()[:devices],
    )


@pytest.mark.parametrize("pinned", [True, False])
def test_eight_devices_give_the_result_of_one(tmp_path, pinned):
    one = fit_quantizer(tmp_path / "one", devices=1, pinned=pinned)
    eight = fit_quantizer(tmp_path / "eight", devices=8, pinned=pinned)
    assert int(one.step) == int(eight.step) > 4
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        (one.params, one.codebooks),
        (eight.params, eight.codebooks),
    )


def test_the_terms_of_one_step_do_not_depend_on_the_number_of_devices():
    catalogue = make_catalogue()
    config = QuantizerConfig(codebook_sizes=SIZES, latent_dim=6, hidden_dim=16, pin_depth=1)
    upkeep = Upkeep(decay=0.9, restart_below=0.1, init_rows=96, init_iterations=3)
    model = quantizer_train.autoencoder(config, dim=12)
    optimizer = optax.adam(1e-3)
    state = quantizer_train.initial_state(
        catalogue=catalogue,
        sizes=SIZES,
        upkeep=upkeep,
        model=model,
        optimizer=optimizer,
        seed=0,
    )
    batch = next(quantizer_train.batches_of(catalogue, batch_size=32, seed=0)(0))
    found = []
    for devices in (jax.devices()[:1], jax.devices()):
        step = quantizer_train.make_step(
            model=model,
            optimizer=optimizer,
            objective=Objective(commitment=1.0, contrastive=0.5, temperature=0.1),
            upkeep=upkeep,
            pinned=True,
            seed=0,
            devices=devices,
        )
        placement = pmapped(devices)
        _, terms = step(placement.put_state(jax.device_get(state)), placement.put_batch(batch))
        found.append({name: float(np.asarray(value)[0]) for name, value in terms.items()})
    one, eight = found
    assert set(one) == {"loss", "reconstruction", "commitment", "contrastive", "restarts"}
    for name, value in one.items():
        np.testing.assert_allclose(eight[name], value, rtol=1e-5, err_msg=name)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path):
    first = fit_quantizer(tmp_path / "a", epochs=1.0)
    again = fit_quantizer(tmp_path / "b", epochs=1.0)
    other = fit_quantizer(tmp_path / "c", epochs=1.0, seed=4)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.codebooks[1].codewords, other.codebooks[1].codewords)


def test_rows_are_all_pairs_and_the_items_without_a_query():
    catalogue = make_catalogue()
    rows = catalogue.rows()
    assert set(rows[:, 1]) == set(range(len(catalogue.items)))
    alone = rows[rows[:, 0] == quantizer_train.NO_QUERY, 1]
    assert not set(alone) & set(catalogue.pairs[:, 1])
    assert len(rows) == len(catalogue.pairs) + len(alone)


def test_a_batch_that_is_not_finite_stops_the_run_and_changes_nothing(tmp_path):
    catalogue = make_catalogue()
    catalogue.items[7] = np.nan
    with pytest.raises(FloatingPointError, match="quantize: the loss is nan at step"):
        quantizer_train.train(
            config=QuantizerConfig(codebook_sizes=SIZES, latent_dim=6, hidden_dim=16, pin_depth=0),
            objective=Objective(commitment=1.0, contrastive=0.5, temperature=0.1),
            upkeep=Upkeep(decay=0.9, restart_below=0.1, init_rows=5, init_iterations=2),
            training=Training(epochs=4, batch_size=32, learning_rate=3e-3, log_every=5),
            catalogue=catalogue,
            sizes=SIZES,
            directory=tmp_path,
            seed=0,
            devices=jax.devices()[:1],
        )
    assert not list((tmp_path / "checkpoints").glob("[0-9]*"))
