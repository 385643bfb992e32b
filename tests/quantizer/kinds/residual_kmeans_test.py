import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from dsirm_jax.metrics.codebook import code_counts, perplexity
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitting import train
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.model import residual_quantize
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.training.settings import Training

KIND = ResidualKmeans()


def nested(*, rows=600, dim=6, seed=0):
    """Four far groups of five clusters each."""
    rng = np.random.default_rng(seed)
    groups, clusters = 20 * rng.normal(size=(4, dim)), 3 * rng.normal(size=(20, dim))
    cluster = rng.integers(0, 20, rows)
    rows = groups[cluster % 4] + clusters[cluster] + 0.3 * rng.normal(size=(rows, dim))
    return rows.astype("f4"), cluster


def fit(directory, rows, *, sizes, kind=KIND, pinned=None, devices=1, epochs=20, **changed):
    upkeep = {"decay": 0.9, "restart_below": 0.1, "init_rows": 600, "init_iterations": 10}
    return train(
        config=QuantizerConfig(codebook_sizes=sizes, kind=kind),
        upkeep=Upkeep(**upkeep | changed),
        training=Training(epochs=epochs, batch_size=128, learning_rate=1.0),
        items=TrainingItems(items=rows, pinned=pinned),
        directory=directory,
        seed=1,
        devices=jax.devices()[:devices],
    )


def test_residual_kmeans_comes_near_to_scikit_learn_level_by_level(tmp_path):
    rows, _ = nested()
    nearest_codes = {"restart_below": 0.0, "balance": 0.0}
    state = fit(tmp_path, rows, sizes=(4, 8), **nearest_codes)
    assert state.params == {}
    quantized = residual_quantize(jnp.asarray(rows), state.codebooks)
    residual = rows
    for level, size in enumerate((4, 8)):
        theirs = KMeans(size, n_init=10, random_state=0).fit(residual)
        residual = rows - np.asarray(quantized.prefixes[:, level])
        assert np.sum(residual**2) <= 1.05 * theirs.inertia_


def test_balance_spreads_rows_that_have_far_ones_among_them(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 24)) * rng.lognormal(sigma=1.0, size=(600, 1))
    rows = rows.astype("f4")
    used = {}
    for balance in (0.0, 0.3):
        directory = tmp_path / str(balance)
        state = fit(directory, rows, sizes=(16, 16), balance=balance)
        codes = np.asarray(residual_quantize(jnp.asarray(rows), state.codebooks).codes)
        used[balance] = [perplexity(code_counts(level, 16)) / 16 for level in codes.T]
    # The far rows take codes of their own: with the nearest codes most rows share a few.
    assert max(used[0.0]) < 0.4
    assert min(used[0.3]) > 0.5


def test_mini_batches_reach_the_means_from_a_start_that_saw_few_rows(tmp_path):
    rows, _ = nested()
    few = {"sizes": (4,), "init_rows": 8, "init_iterations": 0}
    errors = []
    for name, epochs in (("start", 0.0), ("end", 20)):
        state = fit(tmp_path / name, rows, epochs=epochs, **few)
        prefix = residual_quantize(jnp.asarray(rows), state.codebooks).prefixes[:, -1]
        errors.append(np.sum((rows - np.asarray(prefix)) ** 2))
    best = KMeans(4, n_init=10, random_state=0).fit(rows).inertia_
    assert errors[1] <= 1.05 * best < 1.2 * best < errors[0]


@pytest.mark.parametrize("devices", [2, 4, 8])
def test_residual_kmeans_does_not_depend_on_the_devices(tmp_path, devices):
    rows, _ = nested()
    shared = {"sizes": (4, 8), "epochs": 4}
    one = fit(tmp_path / "one", rows, **shared)
    many = fit(tmp_path / "many", rows, **shared, devices=devices)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        one.codebooks,
        many.codebooks,
    )
