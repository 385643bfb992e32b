"""What every quantizer is once fitted: an encoder and codebooks, and the codes they give.

With encoder output `r_0 = enc(z)`, level `l` picks `c_l = argmin_k |r_{l-1} - e_{l,k}|²` and hands
on `r_l = r_{l-1} - e_{l,c_l}`. The sum of the codewords down to level `l` is the prefix vector. The
kinds (`quantizer/kinds`) differ in the encoder and in what a level's codebook is: one `Codebook`
for all rows, or another one for every prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any, ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.sids.arrays import AnyArray

UNPINNED = -1


class LevelCodebook(Protocol):
    """A level's codewords: a dataclass and pytree whose fields are arrays, or static.

    Attributes:
      codewords: float32 `[entry, dim]`, all that the level has.
      size: codes of the level.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def codewords(self) -> Float[Array, "entry dim"]: ...

    @property
    def size(self) -> int: ...

    def costs(
        self, residual: Float[Array, "row dim"], node: Int[Array, " row"]
    ) -> Float[Array, "row code"]:
        """Returns `|e|²/2 - r·e` of every code, infinite for one that is missing.

        Args:
          residual: what the level is to code.
          node: entry of the level before that each row has; 0 at the first level.
        """
        ...

    def children(self, node: Int[Array, "*rows"], code: Int[Array, "*rows"]) -> Int[Array, "*rows"]:
        """Returns the entries of `codewords` that codes stand for."""
        ...

    def identity(self) -> tuple[Array, ...]:
        """Returns the arrays that decide what a code means."""
        ...


Codebooks = tuple[LevelCodebook, ...]


class Codebook(struct.PyTreeNode):
    """One level's codewords and the moving averages that they are the quotient of."""

    codewords: Float[Array, "code dim"]
    count: Float[Array, " code"]
    total: Float[Array, "code dim"]

    @property
    def size(self) -> int:
        """Codes of the level."""
        return self.codewords.shape[0]

    def costs(
        self, residual: Float[Array, "row dim"], node: Int[Array, " row"]
    ) -> Float[Array, "row code"]:
        """Returns `|e|²/2 - r·e`: half the squared distance but for a term all codes share."""
        del node  # all prefixes share these codewords
        return 0.5 * jnp.sum(self.codewords**2, axis=-1) - residual @ self.codewords.T

    def children(self, node: Int[Array, "*rows"], code: Int[Array, "*rows"]) -> Int[Array, "*rows"]:
        """Returns the entries of `codewords` that codes stand for."""
        del node
        return code

    def identity(self) -> tuple[Array, ...]:
        """Returns the arrays that decide what a code means."""
        return (self.codewords,)


def encode(
    module: nn.Module, params: Any, vectors: Float[AnyArray, "row dim"]
) -> Float[Array, "row latent"]:
    """Returns the latents that a module of `Kind.module` makes of vectors."""
    return jnp.asarray(module.apply(params, vectors, method="encode"))


def decode(
    module: nn.Module, params: Any, latents: Float[AnyArray, "row latent"]
) -> Float[Array, "row dim"]:
    """Returns the vectors that a module of `Kind.module` makes of latents."""
    return jnp.asarray(module.apply(params, latents, method="decode"))


class Identity(nn.Module):
    """The encoder of k-means: the quantized space is that of the vectors. It has no parameters."""

    def encode(self, vectors: Float[Array, "row dim"]) -> Float[Array, "row dim"]:
        """Returns the vectors."""
        return vectors

    def decode(self, latents: Float[Array, "row dim"]) -> Float[Array, "row dim"]:
        """Returns the latents."""
        return latents

    def __call__(self, vectors: Float[Array, "row dim"]) -> Float[Array, "row dim"]:
        return vectors


def lowest(costs: Float[Array, "row code"]) -> Int[Array, " row"]:
    """Returns the code of the lowest cost, the first one on a tie.

    The minimum is located by a comparison and a floating-point maximum: XLA's CPU `argmin` is
    several times slower, and so are its minima of whole numbers.
    """
    size = costs.shape[1]
    smallest = jnp.min(costs, axis=-1, keepdims=True)
    from_the_end = size - jnp.arange(size, dtype=jnp.float32)
    is_lowest = jnp.where(costs <= smallest, from_the_end, 1.0)
    return size - jnp.max(is_lowest, axis=-1).astype(jnp.int32)


@exact
def nearest_code(
    residual: Float[Array, "row dim"], codewords: Float[Array, "code dim"]
) -> Int[Array, " row"]:
    """Returns the index of the nearest codeword, the lowest one on a tie."""
    return lowest(0.5 * jnp.sum(codewords**2, axis=-1) - residual @ codewords.T)


class Quantized(struct.PyTreeNode):
    """What the quantizing functions return, for every level."""

    codes: Int[Array, "row level"]
    residuals: Float[Array, "row level dim"]  # what each level codes: r_0 .. r_{L-1}
    prefixes: Float[Array, "row level dim"]  # sum of the codewords down to each level


@exact
def residual_quantize(
    latents: Float[Array, "row dim"],
    codebooks: Codebooks,
    *,
    pinned: Int[Array, " row"] | None = None,
    pick: Callable[[Float[Array, "row code"]], Int[Array, " row"]] = lowest,
) -> Quantized:
    """Quantizes latents level by level, each level the residual of the one before.

    Args:
      latents: float32 `[row, dim]`.
      codebooks: one per level, coarse to fine.
      pinned: int32 `[row]`: the code of the first level where the item's category decides it,
        `UNPINNED` where it is picked. None pins nothing.
      pick: takes codes by their costs; see `codebooks.balanced` for another one.

    Returns:
      Codes, residuals and prefix vectors; no gradient flows through the codewords. Source: residual
      quantization as in RQ-VAE (Lee et al. 2022, arXiv 2203.01941); pinned first level: secondary
      note on DSIRM.
    """

    def choose(
        level: int, residual: Float[Array, "row dim"], node: Int[Array, " row"]
    ) -> Int[Array, " row"]:
        code = pick(codebooks[level].costs(residual, node))
        if level == 0 and pinned is not None:
            code = jnp.where(pinned == UNPINNED, code, pinned)
        return code

    return _descend(latents, codebooks, choose)


@exact
def beam_quantize(
    latents: Float[Array, "row dim"],
    codebooks: Codebooks,
    *,
    beams: int,
    pinned: Int[Array, " row"] | None = None,
) -> Quantized:
    """Quantizes latents by a search that keeps the `beams` best partial SIDs at every level.

    Args:
      latents: float32 `[row, dim]`.
      codebooks: one per level, coarse to fine.
      beams: partial SIDs kept; with as many as there are prefixes the search is exhaustive.
      pinned: see `residual_quantize`.

    Returns:
      Codes, residuals and prefix vectors of the SID that is nearest to the latent, never farther
      than that of `residual_quantize`: a beam alone may lose the greedy path. Source: multi-path
      encoding (Liu et al. 2015, improved residual vector quantization).
    """
    rows, dim = latents.shape
    residual = latents[:, None]  # [row, beam, dim]
    error = jnp.sum(residual**2, axis=-1)  # [row, beam]
    node = jnp.zeros((rows, 1), jnp.int32)  # [row, beam]
    codes = jnp.zeros((rows, 1, 0), jnp.int32)  # [row, beam, level]
    for level, codebook in enumerate(codebooks):
        kept = residual.shape[1]
        cost = codebook.costs(residual.reshape(-1, dim), node.ravel())
        size = cost.shape[1]
        cost = cost.reshape(rows, kept, size)
        if level == 0 and pinned is not None:
            free = (pinned == UNPINNED)[:, None, None]
            cost = jnp.where(free | (jnp.arange(size) == pinned[:, None, None]), cost, jnp.inf)
        total = (error[:, :, None] + 2 * cost).reshape(rows, kept * size)
        best, place = jax.lax.top_k(-total, min(beams, kept * size))
        parent, code = place // size, (place % size).astype(jnp.int32)
        node = codebook.children(jnp.take_along_axis(node, parent, axis=1), code)
        node = jnp.minimum(node, codebook.codewords.shape[0] - 1)  # of a child that is missing
        residual = jnp.take_along_axis(residual, parent[:, :, None], axis=1)
        residual = residual - codebook.codewords[node]
        error = jnp.where(jnp.isinf(best), jnp.inf, jnp.sum(residual**2, axis=-1))
        codes = jnp.take_along_axis(codes, parent[:, :, None], axis=1)
        codes = jnp.concatenate([codes, code[:, :, None]], axis=2)
    first = lowest(error)
    greedy = residual_quantize(latents, codebooks, pinned=pinned)
    greedy_error = jnp.sum((latents - greedy.prefixes[:, -1]) ** 2, axis=-1)
    is_better = jnp.min(error, axis=1) < greedy_error
    chosen = jnp.take_along_axis(codes, first[:, None, None], axis=1)[:, 0]
    chosen = jnp.where(is_better[:, None], chosen, greedy.codes)
    return quantized_by(chosen, latents, codebooks)


def quantized_by(
    codes: Int[Array, "row level"], latents: Float[Array, "row dim"], codebooks: Codebooks
) -> Quantized:
    """Returns what these codes, instead of the nearest ones, make of latents."""
    return _descend(latents, codebooks, lambda level, *_: codes[:, level])


def _descend(
    latents: Float[Array, "row dim"],
    codebooks: Codebooks,
    choose: Callable[[int, Float[Array, "row dim"], Int[Array, " row"]], Int[Array, " row"]],
) -> Quantized:
    """Goes down the levels by the codes that `choose(level, residual, node)` names."""
    residual, prefix = latents, jnp.zeros_like(latents)
    node = jnp.zeros(latents.shape[0], jnp.int32)
    codes, residuals, prefixes = [], [], []
    for level, codebook in enumerate(codebooks):
        code = choose(level, residual, node)
        node = codebook.children(node, code)
        codeword = jax.lax.stop_gradient(codebook.codewords[node])
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
    latents: Float[Array, "*rows dim"], quantized: Float[Array, "*rows dim"]
) -> Float[Array, "*rows dim"]:
    """Returns `quantized` with the gradient of `latents` (Bengio et al. 2013, arXiv 1308.3432)."""
    return latents + jax.lax.stop_gradient(quantized - latents)
