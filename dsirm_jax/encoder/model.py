"""The from-scratch text tower: pieces, weighed and pooled, through one residual layer."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dsirm_jax.data import vocabulary


class TextTower(nn.Module):
    """Embeds pieces, pools them by learnt importance and refines the sum; length 1 comes out.

    A bag of pieces rather than a transformer: on catalogues small enough to start from scratch it
    ranks as well and costs a hundredth.
    """

    vocab_size: int
    dim: int
    hidden_dim: int

    @nn.compact
    def __call__(self, pieces: Int[Array, "row piece"]) -> Float[Array, "row dim"]:
        """Returns float32 `[row, dim]`.

        Args:
          pieces: SentencePiece ids, 0 beyond the text.
        """
        present = (pieces != vocabulary.PAD)[..., None]  # [row, piece, 1]
        embedded = nn.Embed(self.vocab_size, self.dim, name="embedding")(pieces)
        importance = nn.Embed(
            self.vocab_size, 1, embedding_init=nn.initializers.zeros, name="importance"
        )(pieces)
        weights = nn.softmax(jnp.where(present, importance, -1e9), axis=1)
        pooled = jnp.sum(weights * embedded, axis=1)  # [row, dim]
        hidden = nn.gelu(nn.Dense(self.hidden_dim, name="hidden")(pooled))
        refined = pooled + nn.Dense(self.dim, kernel_init=nn.initializers.zeros, name="out")(hidden)
        return refined / jnp.maximum(jnp.linalg.norm(refined, axis=-1, keepdims=True), 1e-6)
