"""Query texts to dense vectors, one at a time, by the encoder of a bundle."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.devices.precision import exact
from dsirm_jax.encoder.kinds.protocol import FittedEncoder

SHORTEST_QUERY = 8


def query_encoder(
    encoder: FittedEncoder | None,
) -> Callable[[str], Float[np.ndarray, " dim"]] | None:
    """Returns what makes the vector of a query, which threads may share; None where nothing can.

    Args:
      encoder: of the bundle.
    """
    if encoder is None:
        return None
    apply, params = jax.jit(exact(encoder.module.apply)), jax.device_put(encoder.params)

    def vector(query: str) -> Float[np.ndarray, " dim"]:
        (pieces,) = encoder.pieces([query])
        # Few lengths, so that few programs are compiled.
        length = max(SHORTEST_QUERY, 1 << (len(pieces) - 1).bit_length())
        shape = (1, min(length, encoder.max_query_pieces))
        padded = rectangle([pieces], shape=shape, beyond=encoder.padding)
        return np.asarray(apply(params, padded))[0]

    return vector
