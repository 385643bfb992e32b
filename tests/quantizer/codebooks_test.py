import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest
from sklearn.cluster import KMeans

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import codebooks
from dsirm_jax.quantizer.model import UNPINNED, Codebook, nearest_code


def clustered(rows=400, clusters=6, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    centres = 6 * rng.normal(size=(clusters, dim))
    return (centres[rng.integers(0, clusters, rows)] + rng.normal(size=(rows, dim))).astype("f4")


def test_kmeans_is_as_good_as_scikit_learn():
    rows = clustered()
    ours = codebooks.kmeans(jnp.asarray(rows), key=jax.random.key(0), size=6, iterations=30)
    inertia = np.sum((rows - np.asarray(ours)[np.asarray(nearest_code(rows, ours))]) ** 2)
    theirs = KMeans(6, n_init=10, random_state=0).fit(rows)
    assert inertia <= 1.01 * theirs.inertia_


def test_rows_beyond_those_used_change_nothing():
    rows = clustered(rows=100)
    shared = {"key": jax.random.key(0), "size": 6, "iterations": 10, "used": 100}
    with_zeros = codebooks.kmeans(np.pad(rows, ((0, 28), (0, 0))), **shared)
    with_others = codebooks.kmeans(np.concatenate([rows, 9 + clustered(rows=28, seed=1)]), **shared)
    np.testing.assert_array_equal(with_zeros, with_others)
    theirs = KMeans(6, n_init=10, random_state=0).fit(rows)
    inertia = np.sum(
        (rows - np.asarray(with_zeros)[np.asarray(nearest_code(rows, with_zeros))]) ** 2
    )
    assert inertia <= 1.01 * theirs.inertia_


def test_a_lloyd_step_from_the_optimum_of_scikit_learn_stays_there():
    rows = clustered()
    theirs = KMeans(6, n_init=10, tol=0, random_state=0).fit(rows)
    codes = nearest_code(rows, jnp.asarray(theirs.cluster_centers_))
    np.testing.assert_array_equal(codes, theirs.predict(rows))
    count, total = codebooks.code_sums(rows, codes, size=6)
    np.testing.assert_array_equal(count, np.bincount(theirs.labels_, minlength=6))
    np.testing.assert_allclose(
        total / count[:, None], theirs.cluster_centers_, rtol=1e-4, atol=1e-4
    )


def test_kmeans_leaves_no_centroid_empty_where_distinct_rows_suffice():
    rows = jnp.asarray(np.repeat(np.eye(8, dtype="f4"), [50, 1, 1, 1, 1, 1, 1, 1], axis=0))
    result = codebooks.kmeans(rows, key=jax.random.key(1), size=8, iterations=8)
    assert len(np.unique(nearest_code(rows, result))) == 8


def test_moving_averages_follow_the_definition():
    book = Codebook(
        codewords=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
        count=jnp.array([1.0, 1.0]),
        total=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
    )
    moved = codebooks.follow(
        book, count=jnp.array([4.0, 0.0]), total=jnp.array([[8.0, 4.0], [0.0, 0.0]]), decay=0.5
    )
    # An even share of the batch of 4 rows over 2 codes is 2 rows, so counts are 2 and 0.
    np.testing.assert_allclose(moved.count, [1.5, 0.5])
    np.testing.assert_allclose(moved.total, [[2.5, 1.0], [0.0, 0.5]])
    np.testing.assert_allclose(moved.codewords[0], [2.5 / 1.5, 1.0 / 1.5], rtol=1e-3)
    np.testing.assert_allclose(moved.codewords[1], [0.0, 1.0], atol=1e-6)


def test_averages_of_a_fixed_batch_converge_to_the_means_of_its_codes():
    rows = clustered(rows=60, clusters=3)
    codes = np.arange(60) % 3
    count, total = codebooks.code_sums(jnp.asarray(rows), jnp.asarray(codes), size=3)
    book = Codebook(codewords=jnp.zeros((3, 5)), count=jnp.ones(3), total=jnp.zeros((3, 5)))
    for _ in range(200):
        book = codebooks.follow(book, count=count, total=total, decay=0.9)
    means = [rows[codes == code].mean(axis=0) for code in range(3)]
    np.testing.assert_allclose(book.codewords, means, rtol=1e-3, atol=1e-3)


def test_only_dead_codes_are_restarted():
    book = Codebook(
        codewords=jnp.zeros((3, 2)), count=jnp.array([1.0, 0.05, 0.3]), total=jnp.zeros((3, 2))
    )
    replacements = jnp.arange(6.0).reshape(3, 2)
    moved, dead = codebooks.restart_dead(book, replacements=replacements, below=0.1)
    np.testing.assert_array_equal(dead, [False, True, False])
    np.testing.assert_array_equal(moved.codewords, [[0, 0], [2, 3], [0, 0]])
    np.testing.assert_allclose(moved.count, [1.0, 1.0, 0.3])


def test_initial_codebooks_pin_the_first_level_to_the_means_of_categories():
    rows = clustered(rows=90, clusters=3)
    pinned = np.where(np.arange(90) < 80, np.arange(90) % 3, UNPINNED).astype(np.int32)
    books = codebooks.initial_codebooks(
        jnp.asarray(rows),
        sizes=(3, 4),
        pinned=jnp.asarray(pinned),
        key=jax.random.key(0),
        iterations=5,
    )
    means = [rows[pinned == code].mean(axis=0) for code in range(3)]
    np.testing.assert_allclose(books[0].codewords, means, rtol=1e-5, atol=1e-5)
    assert books[1].codewords.shape == (4, 5)


def test_category_codes_go_to_the_most_frequent_categories():
    categories = pa.chunked_array([["b", "a", None, "b"], ["c", "a", "b", "", "", "", ""]])
    codes, names = codebooks.category_codes(categories, most=2)
    assert names == ("b", "a")
    np.testing.assert_array_equal(codes, [0, 1, UNPINNED, 0, UNPINNED, 1, 0, *[UNPINNED] * 4])


def test_balanced_codes_move_the_rows_that_lose_least():
    # All rows are nearest to the first code; the last two lose least by the second one.
    costs = jnp.array([[0.0, 9.0], [0.0, 8.0], [0.0, 2.0], [0.0, 1.0]])
    np.testing.assert_array_equal(codebooks.balanced(costs, softness=0.3), [0, 0, 1, 1])


def test_balanced_codes_are_used_evenly_and_do_not_depend_on_the_devices():
    rows, words = clustered(rows=256, clusters=3, dim=4), clustered(rows=16, clusters=9, dim=4)
    costs = 0.5 * np.sum(words**2, axis=1) - rows @ words.T
    evenly = np.asarray(codebooks.balanced(costs, softness=0.1))
    share = np.bincount(evenly, minlength=16) / 16
    nearest_share = np.bincount(np.argmin(costs, axis=1), minlength=16) / 16
    assert share.std() < 0.5 * nearest_share.std()
    for devices in (1, 2, 4, 8):
        split = costs.reshape(devices, -1, 16)
        result = jax.pmap(
            lambda part: codebooks.balanced(part, softness=0.1, axis="data"),
            axis_name="data",
            devices=jax.devices()[:devices],
        )(split)
        np.testing.assert_array_equal(np.ravel(result), evenly)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("decay", (1.0, 1.5, -0.1, np.nan, None)),
        ("restart_below", (-0.1, np.nan, np.inf)),
        ("init_rows", (-1, 0.5, None)),
        ("init_iterations", (-1, 2.5, True)),
        ("balance", (-0.3, np.nan, "0.3")),
    ],
    ids=["decay", "restart_below", "init_rows", "init_iterations", "balance"],
)
def test_an_upkeep_that_cannot_be_is_refused(name, values):
    for value in values:
        with pytest.raises(InputError, match=rf"gin binding Upkeep.{name} is .*; bind a "):
            codebooks.Upkeep(**{name: value})
    with pytest.raises(InputError, match=r"decay is 1.5; bind a number of at least 0, below 1$"):
        codebooks.Upkeep(decay=1.5)
