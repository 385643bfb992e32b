"""Query texts to dense vectors, one at a time, by the encoder of a bundle."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.serving.bundle.manifest import EncoderSettings
from dsirm_jax.serving.bundle.models import BERT, Models, beyond, encoder_pieces

SHORTEST_QUERY = 8


def query_encoder(
    models: Models, *, encoder: EncoderSettings
) -> Callable[[str], Float[np.ndarray, " dim"]] | None:
    """Returns what makes the vector of a query, which threads may share; None where nothing can.

    Args:
      models: of the bundle.
      encoder: how its texts become vectors.
    """
    if models.encoder is None:
        return None
    apply, params = jax.jit(models.encoder.apply), jax.device_put(models.encoder_params)
    most = encoder.max_query_pieces
    # A BERT's tokenizer is told where to cut, and then cuts.
    reading = threading.Lock() if encoder.kind == BERT else contextlib.nullcontext()

    def vector(query: str) -> Float[np.ndarray, " dim"]:
        with reading:
            (found,) = encoder_pieces(models, encoder=encoder, texts=[query])
        # Few lengths, so that few programs are compiled.
        length = min(max(SHORTEST_QUERY, 1 << (len(found) - 1).bit_length()), most)
        padded = rectangle([found], shape=(1, length), beyond=beyond(encoder))
        return np.asarray(apply(params, padded))[0]

    return vector
