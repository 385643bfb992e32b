import itertools
import types

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import BranchingCodebook
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.model import (
    UNPINNED,
    Codebook,
    beam_quantize,
    nearest_code,
    residual_quantize,
)


def books_of(arrays):
    return tuple(
        Codebook(codewords=jnp.asarray(a), count=jnp.ones(len(a)), total=jnp.asarray(a))
        for a in arrays
    )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_codes_equal_a_search_over_squared_distances(seed):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(7, 3)).astype("f4")
    words = [rng.normal(size=(5, 3)).astype("f4") for _ in range(3)]
    pinned = np.array([UNPINNED, 0, 1, 2, 3, 4, UNPINNED], np.int32)
    quantized = residual_quantize(jnp.asarray(latents), books_of(words), pinned=jnp.asarray(pinned))
    for row, latent in enumerate(latents):
        residual, prefix = latent, np.zeros(3)
        for level, codewords in enumerate(words):
            code = int(np.argmin(np.sum((residual - codewords) ** 2, axis=1)))
            if level == 0 and pinned[row] != UNPINNED:
                code = pinned[row]
            assert quantized.codes[row, level] == code
            np.testing.assert_allclose(quantized.residuals[row, level], residual, atol=1e-5)
            residual, prefix = residual - codewords[code], prefix + codewords[code]
            np.testing.assert_allclose(quantized.prefixes[row, level], prefix, atol=1e-5)


def test_a_tie_goes_to_the_lowest_code():
    codewords = jnp.array([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(
        nearest_code(jnp.array([[0.9, 0.0], [0.0, 0.0]]), codewords), [1, 1]
    )


def error_of(latents, words, codes):
    return np.sum((latents - sum(w[c] for w, c in zip(words, codes.T, strict=True))) ** 2, axis=1)


def random_problem(seed, *, rows=6, dim=3, size=4, levels=3):
    rng = np.random.default_rng(seed)
    words = [rng.normal(size=(size, dim)).astype("f4") for _ in range(levels)]
    return rng.normal(size=(rows, dim)).astype("f4"), words


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), beams=st.sampled_from([2, 3, 5]))
def test_a_beam_is_never_farther_than_the_greedy_code(seed, beams):
    latents, words = random_problem(seed)
    greedy = residual_quantize(latents, books_of(words)).codes
    quantized = beam_quantize(latents, books_of(words), beams=beams)
    error = error_of(latents, words, np.asarray(quantized.codes))
    assert (error <= error_of(latents, words, np.asarray(greedy)) + 1e-6).all()
    np.testing.assert_allclose(
        np.sum((latents - quantized.prefixes[:, -1]) ** 2, axis=1), error, rtol=1e-4, atol=1e-6
    )


def test_a_wide_beam_is_an_exhaustive_search_that_keeps_pinned_codes():
    latents, words = random_problem(1)
    pinned = np.array([UNPINNED, 0, 3, UNPINNED, 2, 1], np.int32)
    quantized = beam_quantize(latents, books_of(words), beams=64, pinned=jnp.asarray(pinned))
    for row, latent in enumerate(latents):
        firsts = range(4) if pinned[row] == UNPINNED else [pinned[row]]
        every = np.array(list(itertools.product(firsts, range(4), range(4))))
        best = every[np.argmin(error_of(latent, words, every))]
        np.testing.assert_array_equal(quantized.codes[row], best)
    greedy = residual_quantize(latents, books_of(words), pinned=jnp.asarray(pinned)).codes
    assert not np.array_equal(quantized.codes, greedy)


def tree():
    """Returns two codes, the first with two children and the second with one."""
    top = books_of([np.array([[0.0, 0.0], [10.0, 0.0]], "f4")])
    below = jnp.array([[0.0, 1.0], [0.0, -1.0], [2.0, 0.0]])
    return *top, BranchingCodebook(codewords=below, first=jnp.array([0, 2, 3]), size=2)


def test_a_branch_takes_the_nearest_child_of_its_own_prefix():
    latents = jnp.array([[0.1, 0.9], [0.0, -3.0], [9.0, -1.0], [9.0, 1.0]])
    quantized = residual_quantize(latents, tree())
    np.testing.assert_array_equal(quantized.codes, [[0, 0], [0, 1], [1, 0], [1, 0]])
    np.testing.assert_allclose(quantized.prefixes[:, 1], [[0, 1], [0, -1], [12, 0], [12, 0]])


def test_a_beam_goes_through_branches_and_never_takes_a_child_that_is_not_there():
    latents = jnp.array([[5.5, 1.0], [5.5, -1.0], [4.0, 0.0]])
    # The first two rows are nearer to (10, 0) but its only child is at (12, 0).
    quantized = beam_quantize(latents, tree(), beams=4)
    np.testing.assert_array_equal(quantized.codes, [[0, 0], [0, 1], [0, 0]])
    np.testing.assert_array_equal(residual_quantize(latents, tree()).codes[:2], [[1, 0], [1, 0]])


MEMBERS = ("continues", "module", "codebook", "fit", "step")
NO_DATACLASS = types.SimpleNamespace(**dict.fromkeys(MEMBERS, print))


@pytest.mark.parametrize(
    "kind",
    ["residual_kmeans", None, ResidualKmeans, NO_DATACLASS],
    ids=["name", "none", "class", "no dataclass"],
)
def test_what_is_no_kind_is_refused(kind):
    with pytest.raises(
        InputError, match=r"QuantizerConfig.kind is .*; bind a kind, such as @rq_vae.RqVae\(\)"
    ):
        QuantizerConfig(codebook_sizes=(2,), kind=kind)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("codebook_sizes", (), id="no codebooks"),
        pytest.param("codebook_sizes", 8, id="codebook_sizes as number"),
        pytest.param("codebook_sizes", "88", id="codebook_sizes as text"),
        pytest.param("codebook_sizes", (4, 0), id="empty codebook"),
        pytest.param("codebook_sizes", (4, 2.5), id="fraction as codebook size"),
        pytest.param("codebook_sizes", (True,), id="bool as codebook size"),
        pytest.param("pin_depth", -1, id="negative pin_depth"),
        pytest.param("pin_depth", None, id="no pin_depth"),
        pytest.param("title_language", 3, id="title_language as number"),
        pytest.param("beams", 0, id="no beams"),
        pytest.param("bucket_cap", 0, id="bucket_cap of zero"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(name, value):
    shape = {"codebook_sizes": (4, 4), "kind": ResidualKmeans()}
    with pytest.raises(InputError, match=rf"gin binding QuantizerConfig.{name} is .*; bind"):
        QuantizerConfig(**shape | {name: value})
