"""`python -m tests.serving.formats.golden.make` writes `jax-VERSION.stablehlo`, of this JAX."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from dsirm_jax.serving.formats import portable


def ranked(weights, rows):
    """What a search and an encoder are made of: a product, the exact GELU, the greatest values."""
    values = jax.nn.gelu(rows @ weights, approximate=False)
    return jax.lax.top_k(values, 3), jnp.cumsum(jax.nn.softmax(values), axis=-1)


def program():
    """Returns `ranked` for any number of rows."""
    (rows,) = export.symbolic_shape("rows")
    weights = jax.ShapeDtypeStruct((4, 6), np.float32)
    return portable.exported(ranked, weights, jax.ShapeDtypeStruct((rows, 4), np.float32))


if __name__ == "__main__":
    path = Path(__file__).with_name(f"jax-{jax.__version__}.stablehlo")
    path.write_bytes(program().serialize())
