"""The residual quantizer: an autoencoder around a stack of codebooks.

With encoder output `r_0 = enc(z)`, level `l` picks `c_l = argmin_k |r_{l-1} - e_{l,k}|²` and hands
on `r_l = r_{l-1} - e_{l,c_l}`. The sum of the codewords down to level `l` is the prefix vector.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

UNPINNED = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Shape of the quantizer.

    Attributes:
      codebook_sizes: codes per level, coarse to fine. DSIRM uses 216/512/512 (secondary note).
      latent_dim: width of the space that is quantized.
      hidden_dim: width of the one hidden layer of encoder and decoder.
      pin_depth: levels of the category path that name an item's first code, where it has one. The
        first codebook then has one code per category, at most `codebook_sizes[0]`; 0 pins nothing.
    """

    codebook_sizes: tuple[int, ...]
    latent_dim: int
    hidden_dim: int
    pin_depth: int


class Codebook(struct.PyTreeNode):
    """One level's codewords and the moving averages that they are the quotient of."""

    codewords: Float[Array, "code dim"]
    count: Float[Array, " code"]
    total: Float[Array, "code dim"]


class Autoencoder(nn.Module):
    """Maps dense vectors to the quantized space and back; a hidden layer beside a linear path."""

    dim: int
    latent_dim: int
    hidden_dim: int

    def setup(self):
        self.encoder_hidden = nn.Dense(self.hidden_dim)
        self.encoder_out = nn.Dense(self.latent_dim)
        self.encoder_linear = nn.Dense(self.latent_dim, use_bias=False)
        self.decoder_hidden = nn.Dense(self.hidden_dim)
        self.decoder_out = nn.Dense(self.dim)
        self.decoder_linear = nn.Dense(self.dim, use_bias=False)

    def encode(self, vectors: Float[Array, "row dim"]) -> Float[Array, "row latent"]:
        """Returns the latent vectors that are quantized."""
        return self.encoder_linear(vectors) + self.encoder_out(
            nn.gelu(self.encoder_hidden(vectors))
        )

    def decode(self, latents: Float[Array, "row latent"]) -> Float[Array, "row dim"]:
        """Returns the dense vectors that quantized latents stand for."""
        return self.decoder_linear(latents) + self.decoder_out(
            nn.gelu(self.decoder_hidden(latents))
        )

    def __call__(self, vectors: Float[Array, "row dim"]) -> Float[Array, "row dim"]:
        return self.decode(self.encode(vectors))


def nearest(
    residual: Float[Array, "row dim"], codewords: Float[Array, "code dim"]
) -> Int[Array, " row"]:
    """Returns the index of the nearest codeword, the lowest one on a tie.

    Distances are taken as `|e|²/2 - r·e`, which differs from half the squared distance by a term
    that is the same for every code. The minimum is located by a comparison because XLA's CPU
    `argmin` is several times slower.
    """
    distance = 0.5 * jnp.sum(codewords**2, axis=-1) - residual @ codewords.T  # [row, code]
    smallest = jnp.min(distance, axis=-1, keepdims=True)
    index = jnp.arange(codewords.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(distance <= smallest, index, codewords.shape[0] - 1), axis=-1)


class Quantized(struct.PyTreeNode):
    """What `residual_quantize` returns, for every level."""

    codes: Int[Array, "row level"]
    residuals: Float[Array, "row level dim"]  # what each level was given: r_0 .. r_{L-1}
    prefixes: Float[Array, "row level dim"]  # sum of the codewords down to each level


def residual_quantize(
    latents: Float[Array, "row dim"],
    codebooks: tuple[Codebook, ...],
    *,
    pinned: Int[Array, " row"] | None = None,
) -> Quantized:
    """Quantizes latents level by level, each level the residual of the one before.

    Args:
      latents: float32 `[row, dim]`.
      codebooks: one per level, coarse to fine.
      pinned: int32 `[row]`: the code of the first level where it is given by the item's category,
        `UNPINNED` where the nearest is taken. None pins nothing.

    Returns:
      Codes, residuals and prefix vectors; no gradient flows through the codewords. Source: residual
      quantization as in RQ-VAE (Lee et al. 2022, arXiv 2203.01941); pinned first level: secondary
      note on DSIRM.
    """
    residual, prefix = latents, jnp.zeros_like(latents)
    codes, residuals, prefixes = [], [], []
    for level, codebook in enumerate(codebooks):
        code = nearest(residual, codebook.codewords)
        if level == 0 and pinned is not None:
            code = jnp.where(pinned == UNPINNED, code, pinned)
        codeword = jax.lax.stop_gradient(codebook.codewords[code])
        codes.append(code)
        residuals.append(residual)
        residual, prefix = residual - codeword, prefix + codeword
        prefixes.append(prefix)
    return Quantized(
        codes=jnp.stack(codes, axis=1),
        residuals=jnp.stack(residuals, axis=1),
        prefixes=jnp.stack(prefixes, axis=1),
    )


def straight_through(
    latents: Float[Array, "row dim"], quantized: Float[Array, "row dim"]
) -> Float[Array, "row dim"]:
    """Returns `quantized` with the gradient of `latents` (Bengio et al. 2013, arXiv 1308.3432)."""
    return latents + jax.lax.stop_gradient(quantized - latents)
