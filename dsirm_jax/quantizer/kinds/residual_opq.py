"""Residual k-means, then an optimised product quantization of what it leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.io.checks import check_holds, check_whole
from dsirm_jax.quantizer.batchwise import START_ROWS
from dsirm_jax.quantizer.codebooks import kmeans
from dsirm_jax.quantizer.kinds.kind import BatchStep, Fit
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.model import Codebook, Codebooks, residual_quantize
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.sids.arrays import AnyArray

FLATTEST = 1e-9
"""Share of the greatest variance that an axis counts for at least."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResidualOpq(ResidualKmeans):
    """Residual k-means whose last levels share the residual among them, each a part of its axes.

    A residual is turned by a learnt rotation, and each of the last levels codes some of its axes.
    Turned back, its codewords have as many axes as any others, and no part in those of the other
    levels: the nearest codeword of the residual is that of the level's own axes, whatever these
    levels have picked before. So they are levels as all are, in no order of coarse and fine.

    Attributes:
      product_levels: the last levels that share the residual; those before are of residual k-means.
      iterations: of rotation and codewords in turns.

    Raises:
      InputError: a number is too small.
    """

    product_levels: int = 2
    iterations: int = 20

    continues = False

    def __post_init__(self) -> None:
        check_whole("ResidualOpq.product_levels", self.product_levels, least=1)
        check_whole("ResidualOpq.iterations", self.iterations, least=0)

    def fit(
        self,
        items: TrainingItems,
        *,
        sizes: tuple[int, ...],
        learning: Learning,
        directory: Path,
        start: Fit | None,
    ) -> Fit:
        """See `Kind.fit`: the product levels of `Upkeep.init_rows` items, at once."""
        coarse = self._coarse(sizes, dim=items.dim)
        fitted = super().fit(
            items, sizes=sizes[:coarse], learning=learning, directory=directory, start=start
        )
        upkeep = learning.upkeep
        sample = items.sample(most=upkeep.init_rows or START_ROWS, seed=learning.seed)
        pinned = None if items.pinned is None else jnp.asarray(items.pinned[sample])
        books = product_codebooks(
            _residual(items.items[sample], fitted.codebooks, pinned),
            sizes=sizes[coarse:],
            key=jax.random.fold_in(jax.random.key(learning.seed), coarse),
            kmeans_iterations=upkeep.init_iterations,
            iterations=self.iterations,
        )
        return Fit(fitted.params, (*fitted.codebooks, *multihost_utils.broadcast_one_to_all(books)))

    def step(
        self, *, dim: int, sizes: tuple[int, ...], pinned: bool, learning: Learning, rows: int
    ) -> BatchStep:
        """See `Kind.step`: that of the levels before the product levels."""
        coarse = self._coarse(sizes, dim=dim)
        return super().step(
            dim=dim, sizes=sizes[:coarse], pinned=pinned, learning=learning, rows=rows
        )

    def _coarse(self, sizes: tuple[int, ...], *, dim: int) -> int:
        """Returns how many levels precede the product levels."""
        check_holds(
            self.product_levels < len(sizes) and self.product_levels <= dim,
            binding="ResidualOpq.product_levels",
            value=self.product_levels,
            remedy=f"fewer than the {len(sizes)} levels of QuantizerConfig.codebook_sizes, and at "
            f"most the {dim} numbers of a vector",
        )
        return len(sizes) - self.product_levels


@jax.jit
@exact
def _residual(
    rows: Float[Array, "row dim"],
    codebooks: Codebooks,
    pinned: Int[Array, " row"] | None,
) -> Float[Array, "row dim"]:
    """Returns what codebooks leave of rows."""
    return rows - residual_quantize(rows, codebooks, pinned=pinned).prefixes[:, -1]


def product_codebooks(
    rows: Float[AnyArray, "row dim"],
    *,
    sizes: tuple[int, ...],
    key: jax.Array,
    kmeans_iterations: int,
    iterations: int,
) -> tuple[Codebook, ...]:
    """Returns an optimised product quantization of rows as codebooks of residual levels.

    Args:
      rows: float32 `[row, dim]`.
      sizes: codes per level; a level has as even a share of the axes as there is.
      key: random key of the first codewords.
      kmeans_iterations: Lloyd iterations of the first codewords.
      iterations: of rotation and codewords in turns.

    Returns:
      A codebook a level, whose codewords lie in as many orthogonal parts of the space. Source: the
      non-parametric optimised product quantization of Ge et al. 2013 (CVPR), with axes dealt out by
      variance as there in section 3.3; of the residual, OneSearch (arXiv 2509.03236).
    """
    vectors = np.asarray(rows, np.float64)
    rotation = _dealt_axes(vectors, parts=len(sizes))
    axes = np.array_split(np.arange(vectors.shape[1]), len(sizes))
    turned = vectors @ rotation
    words = [
        np.asarray(
            kmeans(
                jnp.asarray(turned[:, own], jnp.float32),
                key=jax.random.fold_in(key, part),
                size=size,
                iterations=kmeans_iterations,
            ),
            np.float64,
        )
        for part, (own, size) in enumerate(zip(axes, sizes, strict=True))
    ]
    for _ in range(iterations):
        codes = [_nearest(turned[:, own], of) for own, of in zip(axes, words, strict=True)]
        words = [
            _means(turned[:, own], code, of)
            for own, code, of in zip(axes, codes, words, strict=True)
        ]
        coded = np.concatenate([of[code] for of, code in zip(words, codes, strict=True)], axis=1)
        # The rotation that takes rows nearest to what codes them (Schönemann 1966).
        left, _, right = np.linalg.svd(vectors.T @ coded)
        rotation = left @ right
        turned = vectors @ rotation
    codebooks = []
    for own, of in zip(axes, words, strict=True):
        codewords = jnp.asarray(of @ rotation[:, own].T, jnp.float32)
        codebooks.append(Codebook(codewords=codewords, count=jnp.ones(len(of)), total=codewords))
    return tuple(codebooks)


def _dealt_axes(
    vectors: Float[np.ndarray, "row dim"], *, parts: int
) -> Float[np.ndarray, "dim dim"]:
    """Returns principal axes, dealt out so that the parts' variances have alike products."""
    variances, axes = np.linalg.eigh(vectors.T @ vectors)  # ascending
    least = max(FLATTEST * variances[-1], np.finfo(np.float64).tiny)
    room = [len(own) for own in np.array_split(np.arange(len(axes)), parts)]
    dealt: list[list[int]] = [[] for _ in room]
    logs = np.zeros(parts)
    for axis in range(len(axes))[::-1]:
        part = min(
            (part for part in range(parts) if len(dealt[part]) < room[part]),
            key=lambda part: logs[part],
        )
        dealt[part].append(axis)
        logs[part] += np.log(max(variances[axis] / least, 1.0))
    return axes[:, [axis for part in dealt for axis in part]]


def _nearest(
    rows: Float[np.ndarray, "row axis"], words: Float[np.ndarray, "code axis"]
) -> Int[np.ndarray, " row"]:
    return np.argmin(0.5 * (words**2).sum(axis=1) - rows @ words.T, axis=1)


def _means(
    rows: Float[np.ndarray, "row axis"],
    codes: Int[np.ndarray, " row"],
    words: Float[np.ndarray, "code axis"],
) -> Float[np.ndarray, "code axis"]:
    """Returns the mean of each codeword's rows; one without any stays where it is."""
    count = np.bincount(codes, minlength=len(words))
    total = np.zeros_like(words)
    np.add.at(total, codes, rows)
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], words)
