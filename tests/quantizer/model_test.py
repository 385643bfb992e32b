import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.quantizer.model import UNPINNED, Codebook, nearest, residual_quantize


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
    found = residual_quantize(jnp.asarray(latents), books_of(words), pinned=jnp.asarray(pinned))
    for row, latent in enumerate(latents):
        residual, prefix = latent, np.zeros(3)
        for level, codewords in enumerate(words):
            code = int(np.argmin(np.sum((residual - codewords) ** 2, axis=1)))
            if level == 0 and pinned[row] != UNPINNED:
                code = pinned[row]
            assert found.codes[row, level] == code
            np.testing.assert_allclose(found.residuals[row, level], residual, atol=1e-5)
            residual, prefix = residual - codewords[code], prefix + codewords[code]
            np.testing.assert_allclose(found.prefixes[row, level], prefix, atol=1e-5)


def test_a_tie_goes_to_the_lowest_code():
    codewords = jnp.array([[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_array_equal(nearest(jnp.array([[0.9, 0.0], [0.0, 0.0]]), codewords), [1, 1])
