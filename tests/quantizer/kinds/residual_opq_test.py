import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.kinds.residual_opq import ResidualOpq, product_codebooks
from dsirm_jax.quantizer.model import UNPINNED, residual_quantize
from tests.quantizer.kinds.residual_kmeans_test import fit, nested

KIND = ResidualOpq(product_levels=2, iterations=8)


def correlated(*, rows=800, dim=8, seed=0):
    """Rows whose axes hang together: what a rotation can gain on."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(dim, dim)) * np.geomspace(3, 0.1, dim)[:, None]
    return (rng.normal(size=(rows, dim)) @ mixed).astype("f4")


def books_of(rows, *, sizes=(8, 8), iterations=8):
    return product_codebooks(
        rows, sizes=sizes, key=jax.random.key(0), kmeans_iterations=8, iterations=iterations
    )


def spanned(codewords):
    """An orthonormal basis of what codewords span, by their singular vectors."""
    _, strength, axes = np.linalg.svd(np.asarray(codewords, np.float64), full_matrices=False)
    return axes[strength > 1e-5 * strength[0]].T


def error_of(rows, books):
    left = rows - np.asarray(residual_quantize(jnp.asarray(rows), books).prefixes[:, -1])
    return np.mean(np.sum(left**2, axis=1))


@pytest.mark.parametrize(
    ("dim", "sizes"),
    [
        pytest.param(8, (8, 8), id="even parts"),
        pytest.param(7, (16, 4, 4), id="uneven parts of other sizes"),
    ],
)
def test_codes_are_those_of_a_product_quantizer(dim, sizes):
    rows = correlated(dim=dim)
    books = books_of(rows, sizes=sizes)
    found = np.asarray(residual_quantize(jnp.asarray(rows), books).codes)
    bases = [spanned(book.codewords) for book in books]
    # The levels' spaces have nothing in common.
    every = np.concatenate(bases, axis=1)
    np.testing.assert_allclose(every.T @ every, np.eye(every.shape[1]), atol=1e-5)
    for level, (book, basis) in enumerate(zip(books, bases, strict=True)):
        # Independently: the nearest codeword within the level's own space, of the row as it is.
        turned = rows.astype(np.float64) @ basis
        words = np.asarray(book.codewords, np.float64) @ basis
        squares = ((turned[:, None] - words) ** 2).sum(axis=-1)
        np.testing.assert_array_equal(found[:, level], squares.argmin(axis=1))


def test_levels_may_come_in_any_order():
    rows = correlated()
    books = books_of(rows, sizes=(8, 4, 4))
    there = residual_quantize(jnp.asarray(rows), books)
    back = residual_quantize(jnp.asarray(rows), books[::-1])
    np.testing.assert_array_equal(there.codes, np.asarray(back.codes)[:, ::-1])
    np.testing.assert_allclose(there.prefixes[:, -1], back.prefixes[:, -1], atol=1e-5)


def test_rotation_and_codewords_in_turns_never_make_the_error_larger():
    rows = correlated()
    errors = [error_of(rows, books_of(rows, iterations=count)) for count in (0, 1, 2, 4, 8, 16)]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.98 * errors[0]


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_a_product_of_two_clusterings_is_found_however_it_is_turned(seed):
    rng = np.random.default_rng(seed)
    words = [10 * rng.normal(size=(4, 3)), 10 * rng.normal(size=(4, 3))]
    codes = rng.integers(0, 4, (600, 2))
    rows = np.concatenate([of[code] for of, code in zip(words, codes.T, strict=True)], axis=1)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    rows = ((rows - rows.mean(axis=0)) @ turn).astype("f4")
    halves = np.split(rows, 2, axis=1)
    as_they_are = sum(KMeans(4, n_init=10, random_state=0).fit(of).inertia_ for of in halves)
    # 16 different rows of eight codewords, which on the axes as they are cannot be had.
    assert as_they_are / 600 > 0.1 * np.mean(np.sum(rows**2, axis=1))
    assert error_of(rows, books_of(rows, sizes=(4, 4), iterations=20)) < 1e-6


def test_the_last_levels_code_what_residual_kmeans_leaves(tmp_path):
    rows, _ = nested()
    state = fit(tmp_path, rows, kind=KIND, sizes=(4, 8, 8))
    assert state.sizes == (4, 8, 8)
    quantized = residual_quantize(jnp.asarray(rows), state.codebooks)
    left = rows - np.asarray(quantized.prefixes[:, 0])
    spaces = [spanned(book.codewords) for book in state.codebooks[1:]]
    np.testing.assert_allclose(spaces[0].T @ spaces[1], 0, atol=1e-5)
    assert np.mean((rows - np.asarray(quantized.prefixes[:, -1])) ** 2) < 0.2 * np.mean(left**2)


def test_its_file_and_assignment_are_as_those_of_any_kind(tmp_path):
    rows, cluster = nested()
    pinned = np.where(cluster % 4 < 3, cluster % 4, UNPINNED).astype("i4")
    fitted = fit(tmp_path / "run", rows, kind=KIND, sizes=(4, 8, 8), pinned=pinned, epochs=4)
    quantizers.save(tmp_path / "q.safetensors", fitted)
    read = quantizers.load(tmp_path / "q.safetensors")
    assert (read.config, read.version) == (fitted.config, fitted.version)
    one, other = (assign_vectors(fitted=of, vectors=rows, pinned=pinned) for of in (fitted, read))
    np.testing.assert_array_equal(one.codes, other.codes)
    known = pinned != UNPINNED
    np.testing.assert_array_equal(one.codes[known, 0], pinned[known])


@pytest.mark.parametrize("devices", [2, 8])
def test_it_does_not_depend_on_the_devices(tmp_path, devices):
    rows, _ = nested()
    shared = {"kind": KIND, "sizes": (4, 8, 8), "epochs": 4}
    one = fit(tmp_path / "one", rows, **shared)
    many = fit(tmp_path / "many", rows, **shared, devices=devices)
    for ours, theirs in zip(one.codebooks, many.codebooks, strict=True):
        np.testing.assert_allclose(ours.codewords, theirs.codewords, atol=2e-3)


def test_a_level_of_residual_kmeans_has_to_be_left(tmp_path):
    rows, _ = nested()
    message = r"ResidualOpq.product_levels is 2; bind fewer than the 2 levels .* most the 6"
    with pytest.raises(InputError, match=message):
        fit(tmp_path, rows, kind=KIND, sizes=(4, 8))
    with pytest.raises(InputError, match="ResidualOpq.product_levels is 0"):
        ResidualOpq(product_levels=0)
