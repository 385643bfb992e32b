import jax
import jax.numpy as jnp
import numpy as np

from dsirm_jax.generator.architectures.layers import linear


def test_gradients_of_linear_are_those_of_a_matrix_product():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 3)), rng.normal(size=(3, 4))
    weights = rng.normal(size=(2, 5, 4))
    to_x, to_kernel = jax.grad(lambda *pair: jnp.sum(linear(*pair) * weights), argnums=(0, 1))(
        jnp.asarray(x), jnp.asarray(kernel)
    )
    np.testing.assert_allclose(to_x, weights @ kernel.T, rtol=1e-5)
    flat = x.reshape(-1, 3).T @ weights.reshape(-1, 4)
    np.testing.assert_allclose(to_kernel, flat, rtol=1e-5)
