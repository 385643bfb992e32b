import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans, hierarchical_codebooks
from dsirm_jax.quantizer.model import UNPINNED, residual_quantize
from tests.quantizer.kinds.residual_kmeans_test import fit, nested


def test_hierarchical_children_are_the_clusters_of_their_own_node(tmp_path):
    rows, cluster = nested()
    state = fit(tmp_path, rows, kind=HierarchicalKmeans(), sizes=(4, 5))
    quantized = residual_quantize(jnp.asarray(rows), state.codebooks)
    codes = np.asarray(quantized.codes)
    # Groups are far apart and clusters well apart in them, so SID and cluster are the same thing.
    assert len(np.unique(codes, axis=0)) == 20
    for sid in np.unique(codes, axis=0):
        assert len(np.unique(cluster[(codes == sid).all(axis=1)])) == 1
    for node in range(4):
        members = rows[codes[:, 0] == node]
        inertia = np.sum((members - np.asarray(quantized.prefixes)[codes[:, 0] == node, 1]) ** 2)
        assert inertia <= 1.01 * KMeans(5, n_init=10, random_state=0).fit(members).inertia_


def test_a_node_of_few_rows_has_a_child_for_each_of_them(tmp_path):
    rows = np.repeat(nested(rows=40)[0], 2, axis=0)  # every row twice
    state = fit(tmp_path, rows, kind=HierarchicalKmeans(), sizes=(4, 3, 64))
    quantized = residual_quantize(jnp.asarray(rows), state.codebooks)
    np.testing.assert_allclose(quantized.prefixes[:, -1], rows, atol=1e-4)
    sids = np.unique(np.asarray(quantized.codes), axis=0, return_counts=True)[1]
    np.testing.assert_array_equal(sids, np.full(40, 2))


def test_a_pinned_first_level_keeps_its_codes_and_an_empty_one_its_place():
    rows, cluster = nested()
    # The second category has no row.
    known = (cluster == 0) | (cluster == 2)
    pinned = np.where(known, cluster, UNPINNED).astype(np.int32)
    codebooks = hierarchical_codebooks(
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
    quantized = residual_quantize(
        jnp.asarray(rows), codebooks, pinned=jnp.full(len(rows), 1, jnp.int32)
    )
    np.testing.assert_array_equal(quantized.codes, np.tile([1, 0], (len(rows), 1)))


def test_no_rows_to_fit_to_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"Upkeep.init_rows is 0; .* bind 1 or more"):
        fit(tmp_path, nested()[0], kind=HierarchicalKmeans(), sizes=(4, 5), init_rows=0)
