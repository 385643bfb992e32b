import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from dsirm_jax.metrics.codebook import code_counts, perplexity
from dsirm_jax.quantizer import kmeans, train
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.model import UNPINNED, QuantizerConfig, residual_quantize
from dsirm_jax.training.settings import Training

NO_TERMS = QuantizerObjective(commitment=0.0, contrastive=0.0, temperature=1.0)


def nested(*, rows=600, dim=6, seed=0):
    """Four far groups of five clusters each."""
    rng = np.random.default_rng(seed)
    groups, clusters = 20 * rng.normal(size=(4, dim)), 3 * rng.normal(size=(20, dim))
    cluster = rng.integers(0, 20, rows)
    rows = groups[cluster % 4] + clusters[cluster] + 0.3 * rng.normal(size=(rows, dim))
    return rows.astype("f4"), cluster


def fit(directory, rows, *, kind, sizes, pinned=None, devices=1, epochs=20, **changed):
    upkeep = {"decay": 0.9, "restart_below": 0.1, "init_rows": 600, "init_iterations": 10}
    return train.train(
        config=QuantizerConfig(
            codebook_sizes=sizes, latent_dim=0, hidden_dim=0, pin_depth=0, kind=kind
        ),
        objective=NO_TERMS,
        upkeep=Upkeep(**upkeep | changed),
        training=Training(epochs=epochs, batch_size=128, learning_rate=1.0),
        catalogue=train.Catalogue(
            items=rows,
            queries=np.zeros((1, rows.shape[1]), "f4"),
            pairs=np.zeros((0, 2), np.int64),
            pinned=pinned,
        ),
        directory=directory,
        seed=1,
        devices=jax.devices()[:devices],
    )


def test_residual_kmeans_comes_near_to_scikit_learn_level_by_level(tmp_path):
    rows, _ = nested()
    nearest_codes = {"restart_below": 0.0, "balance": 0.0}
    state = fit(tmp_path, rows, kind="residual_kmeans", sizes=(4, 8), **nearest_codes)
    assert state.params == {}
    found = residual_quantize(jnp.asarray(rows), state.codebooks)
    residual = rows
    for level, size in enumerate((4, 8)):
        theirs = KMeans(size, n_init=10, random_state=0).fit(residual)
        residual = rows - np.asarray(found.prefixes[:, level])
        assert np.sum(residual**2) <= 1.05 * theirs.inertia_


def test_balance_spreads_rows_that_have_far_ones_among_them(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 24)) * rng.lognormal(sigma=1.0, size=(600, 1))
    rows = rows.astype("f4")
    used = {}
    for balance in (0.0, 0.3):
        directory = tmp_path / str(balance)
        state = fit(directory, rows, kind="residual_kmeans", sizes=(16, 16), balance=balance)
        codes = np.asarray(residual_quantize(jnp.asarray(rows), state.codebooks).codes)
        used[balance] = [perplexity(code_counts(level, 16)) / 16 for level in codes.T]
    # The far rows take codes of their own: with the nearest codes most rows share a few.
    assert max(used[0.0]) < 0.4
    assert min(used[0.3]) > 0.5


def test_mini_batches_reach_the_means_from_a_start_that_saw_few_rows(tmp_path):
    rows, _ = nested()
    few = {"kind": "residual_kmeans", "sizes": (4,), "init_rows": 8, "init_iterations": 0}
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
    shared = {"kind": "residual_kmeans", "sizes": (4, 8), "epochs": 4}
    one = fit(tmp_path / "one", rows, **shared)
    many = fit(tmp_path / "many", rows, **shared, devices=devices)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        one.codebooks,
        many.codebooks,
    )


def test_hierarchical_children_are_the_clusters_of_their_own_node(tmp_path):
    rows, cluster = nested()
    state = fit(tmp_path, rows, kind="hierarchical_kmeans", sizes=(4, 5))
    found = residual_quantize(jnp.asarray(rows), state.codebooks)
    codes = np.asarray(found.codes)
    # Groups are far apart and clusters well apart in them, so SID and cluster are the same thing.
    assert len(np.unique(codes, axis=0)) == 20
    for sid in np.unique(codes, axis=0):
        assert len(np.unique(cluster[(codes == sid).all(axis=1)])) == 1
    for node in range(4):
        members = rows[codes[:, 0] == node]
        inertia = np.sum((members - np.asarray(found.prefixes)[codes[:, 0] == node, 1]) ** 2)
        assert inertia <= 1.01 * KMeans(5, n_init=10, random_state=0).fit(members).inertia_


def test_a_node_of_few_rows_has_a_child_for_each_of_them(tmp_path):
    rows = np.repeat(nested(rows=40)[0], 2, axis=0)  # every row twice
    state = fit(tmp_path, rows, kind="hierarchical_kmeans", sizes=(4, 3, 64))
    found = residual_quantize(jnp.asarray(rows), state.codebooks)
    np.testing.assert_allclose(found.prefixes[:, -1], rows, atol=1e-4)
    sids = np.unique(np.asarray(found.codes), axis=0, return_counts=True)[1]
    np.testing.assert_array_equal(sids, np.full(40, 2))


def test_a_pinned_first_level_keeps_its_codes_and_an_empty_one_its_place():
    rows, cluster = nested()
    # The second category has no row.
    known = (cluster == 0) | (cluster == 2)
    pinned = np.where(known, cluster, UNPINNED).astype(np.int32)
    codebooks = kmeans.hierarchical_codebooks(
        rows[known],
        sizes=(3, 4),
        pinned=pinned[known],
        key=jax.random.key(0),
        iterations=5,
    )
    np.testing.assert_allclose(
        codebooks[0].codewords[2], rows[cluster == 2].mean(axis=0), rtol=1e-4, atol=1e-4
    )
    assert codebooks[1].first[2] - codebooks[1].first[1] == 1
    np.testing.assert_array_equal(codebooks[1].codewords[codebooks[1].first[1]], np.zeros(6))
    found = residual_quantize(
        jnp.asarray(rows), codebooks, pinned=jnp.full(len(rows), 1, jnp.int32)
    )
    np.testing.assert_array_equal(found.codes, np.tile([1, 0], (len(rows), 1)))
