"""How codebooks start, follow the data and stay alive: k-means++, averages, restarts, balance."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.io.checks import check_number, check_whole
from dsirm_jax.quantizer.model import UNPINNED, Codebook, Quantized, lowest, nearest_code
from dsirm_jax.sids.arrays import AnyArray

SMOOTHING = 1e-3
SINKHORN_ITERATIONS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upkeep:
    """How the codebooks follow the encoder.

    Attributes:
      decay: of the moving averages (secondary note: 0.99).
      restart_below: a code whose moving count is below this share of an even one's is moved onto a
        row of the batch. 0 turns restarts off.
      init_rows: rows that k-means sees at the start (hierarchical k-means: in all). 0 starts from
        random codewords instead.
      init_iterations: Lloyd iterations at the start.
      balance: how far codes are picked evenly while training, see `balanced`; 0 takes the nearest.

    Raises:
      InputError: a value is out of its range, or no finite number.
    """

    decay: float = 0.99
    restart_below: float = 0.1
    init_rows: int = 20_000
    init_iterations: int = 20
    balance: float = 0.3

    def __post_init__(self) -> None:
        check_number("Upkeep.decay", self.decay, least=0, below=1)
        check_number("Upkeep.restart_below", self.restart_below, least=0, below=math.inf)
        check_whole("Upkeep.init_rows", self.init_rows, least=0)
        check_whole("Upkeep.init_iterations", self.init_iterations, least=0)
        check_number("Upkeep.balance", self.balance, least=0, below=math.inf)


def code_sums(
    rows: Float[Array, "row dim"],
    codes: Int[Array, " row"],
    *,
    size: int,
    weight: Float[Array, " row"] | None = None,
) -> tuple[Float[Array, " code"], Float[Array, "code dim"]]:
    """Returns the (weighted) number of rows that each code has, and their (weighted) sum."""
    weight = jnp.ones_like(rows[:, 0]) if weight is None else weight
    count = jax.ops.segment_sum(weight, codes, size)
    return count, jax.ops.segment_sum(rows * weight[:, None], codes, size)


@functools.partial(jax.jit, static_argnames=("size", "iterations"))
def kmeans(
    rows: Float[Array, "row dim"],
    *,
    key: jax.Array,
    size: int,
    iterations: int,
    used: int | None = None,
) -> Float[Array, "code dim"]:
    """Returns `size` centroids of `rows`: greedy k-means++ seeding, then Lloyd's iterations.

    A centroid that loses all its rows moves onto the row that is farthest from its own centroid.

    Args:
      rows: float32 `[row, dim]`.
      key: random key of the seeding.
      size: number of centroids; at most the number of distinct rows to be useful.
      iterations: Lloyd iterations.
      used: the rows that count, the first ones; the others only give the array its shape, so that
        tables of many lengths need one compilation. All when not given.

    Returns:
      Centroids `[code, dim]`. Source: Arthur & Vassilvitskii 2007 (k-means++).
    """
    first_key, key = jax.random.split(key)
    first = rows[jax.random.randint(first_key, (), 0, rows.shape[0] if used is None else used)]
    centroids = jnp.zeros((size, rows.shape[1]), rows.dtype).at[0].set(first)
    weight = None if used is None else (jnp.arange(rows.shape[0]) < used).astype(rows.dtype)

    def counted(distance: Float[Array, "*rows"]) -> Float[Array, "*rows"]:
        return distance if weight is None else distance * weight

    distance = counted(jnp.sum((rows - first) ** 2, axis=-1))  # [row], to the nearest so far

    trials = 2 + int(np.log(size))

    def seed(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centroids, distance = carry
        draws = jax.random.categorical(
            jax.random.fold_in(key, index), jnp.log(distance + 1e-30), shape=(trials,)
        )
        apart = jnp.sum((rows[draws][:, None] - rows) ** 2, axis=-1)  # [trial, row]
        left = jnp.minimum(distance, counted(apart))
        best = jnp.argmin(jnp.sum(left, axis=1))
        return centroids.at[index].set(rows[draws[best]]), left[best]

    centroids, _ = jax.lax.fori_loop(1, size, seed, (centroids, distance))

    def lloyd(_: Array, centroids: Float[Array, "code dim"]) -> Float[Array, "code dim"]:
        codes = nearest_code(rows, centroids)
        count, total = code_sums(rows, codes, size=size, weight=weight)
        distance = counted(jnp.sum((rows - centroids[codes]) ** 2, axis=-1))
        empty = count == 0
        # The i-th empty centroid takes the i-th farthest row.
        farthest = jnp.argsort(-distance)[jnp.clip(jnp.cumsum(empty) - 1, 0, rows.shape[0] - 1)]
        means = total / jnp.maximum(count, 1)[:, None]
        return jnp.where(empty[:, None], rows[farthest], means)

    return jax.lax.fori_loop(0, iterations, lloyd, centroids)


def initial_codebooks(
    latents: Float[AnyArray, "row dim"],
    *,
    sizes: tuple[int, ...],
    pinned: Int[Array, " row"] | None,
    key: jax.Array,
    iterations: int,
) -> tuple[Codebook, ...]:
    """Returns codebooks fitted to `latents` level by level, each on the residuals of the last.

    Args:
      latents: float32 `[row, dim]` of catalogue items.
      sizes: codes per level.
      pinned: see `residual_quantize`; a pinned codeword is the mean of its members.
      key: random key.
      iterations: Lloyd iterations a level.

    Returns:
      One codebook a level, with counts as if the rows had been one batch of average use 1.
    """
    residual, codebooks = jnp.asarray(latents), []
    for level, size in enumerate(sizes):
        level_key = jax.random.fold_in(key, level)
        codewords = kmeans(residual, key=level_key, size=size, iterations=iterations)
        codes = nearest_code(residual, codewords)
        if level == 0 and pinned is not None:
            known = pinned != UNPINNED
            count, total = code_sums(residual, pinned * known, size=size, weight=known * 1.0)
            means = total / jnp.maximum(count, 1)[:, None]
            codewords = jnp.where(count[:, None] > 0, means, codewords)
            codes = jnp.where(known, pinned, nearest_code(residual, codewords))
        codebooks.append(Codebook(codewords=codewords, count=jnp.ones(size), total=codewords))
        residual = residual - codewords[codes]
    return tuple(codebooks)


def random_codebooks(sizes: tuple[int, ...], *, dim: int, key: jax.Array) -> tuple[Codebook, ...]:
    """Returns standard normal codewords, the start that knows no data.

    Codes collapse from here: the shortest codewords are nearest to nearly every row, and the others
    are never moved. It is what k-means and restarts are compared with.
    """
    codebooks = []
    for level, size in enumerate(sizes):
        codewords = jax.random.normal(jax.random.fold_in(key, level), (size, dim))
        codebooks.append(Codebook(codewords=codewords, count=jnp.ones(size), total=codewords))
    return tuple(codebooks)


def follow(
    codebook: Codebook,
    *,
    count: Float[Array, " code"],
    total: Float[Array, "code dim"],
    decay: float,
) -> Codebook:
    """Moves the averages of one level towards a batch's statistics, summed over all devices.

    Counts are in units of an even share of the batch, so that they do not depend on its size.

    Args:
      codebook: the level's state.
      count: rows of the batch a code.
      total: sum of their residuals.
      decay: weight of the past.

    Returns:
      The new state; codewords are `total / count`, smoothed towards their old place so that a code
      without any use stays where it is. Source: van den Oord et al. 2017, arXiv 1711.00937,
      appendix A.1; the smoothing is this project's.
    """
    unit = jnp.maximum(jnp.sum(count), 1.0) / count.shape[0]
    new_count = decay * codebook.count + (1 - decay) * count / unit
    new_total = decay * codebook.total + (1 - decay) * total / unit
    codewords = (new_total + SMOOTHING * codebook.codewords) / (new_count + SMOOTHING)[:, None]
    return Codebook(codewords=codewords, count=new_count, total=new_total)


def restart_dead(
    codebook: Codebook, *, replacements: Float[Array, "code dim"], below: float
) -> tuple[Codebook, Bool[Array, " code"]]:
    """Moves the codes that are hardly used onto rows of the batch.

    Args:
      codebook: the level's state.
      replacements: a residual of the batch for each code.
      below: moving count under which a code is dead, 1 being an even share.

    Returns:
      The new state and which codes were moved. Source: dead-code restart of Jukebox (Dhariwal et
      al. 2020, arXiv 2005.00341).
    """
    dead = codebook.count < below
    column = dead[:, None]
    return (
        Codebook(
            codewords=jnp.where(column, replacements, codebook.codewords),
            count=jnp.where(dead, 1.0, codebook.count),
            total=jnp.where(column, replacements, codebook.total),
        ),
        dead,
    )


def moved(
    codebooks: tuple[Codebook, ...],
    quantized: Quantized,
    *,
    upkeep: Upkeep,
    pinned: bool,
    key: jax.Array,
    axis: str,
) -> tuple[tuple[Codebook, ...], dict[str, Array]]:
    """Moves all levels towards a batch: one step of the moving averages, then the restarts.

    With an identity encoder this is mini-batch k-means with forgetting.

    Args:
      codebooks: the state of every level.
      quantized: this device's rows of the batch.
      upkeep: decay and restarts.
      pinned: the first level's codes mean categories and are never restarted.
      key: random key of the step, the same on all devices.
      axis: the mapped axis of the devices, over which statistics are summed.

    Returns:
      The new state and scalars about it: `restarts`, and `perplexity_l` of the moving counts of
      each level as a share of its size.
    """
    rows = quantized.codes.shape[0]
    num_rows = rows * jax.lax.axis_size(axis)
    first_row = jax.lax.axis_index(axis) * rows
    new, restarts, health = [], jnp.zeros((), jnp.int32), {}
    for level, codebook in enumerate(codebooks):
        residual, size = quantized.residuals[:, level], codebook.codewords.shape[0]
        sums = code_sums(residual, quantized.codes[:, level], size=size)
        count, total = jax.lax.psum(sums, axis)
        codebook = follow(codebook, count=count, total=total, decay=upkeep.decay)
        share = codebook.count / jnp.sum(codebook.count)
        entropy = jnp.sum(jax.scipy.special.entr(share))
        health[f"perplexity_{level + 1}"] = jnp.exp(entropy) / size
        if not (level == 0 and pinned):
            # Every device draws the same global rows and contributes those that it holds.
            row = jax.random.randint(jax.random.fold_in(key, level), (size,), 0, num_rows)
            row = row - first_row
            here = (row >= 0) & (row < rows)
            drawn = residual[jnp.clip(row, 0, rows - 1)] * here[:, None]
            replacements = jax.lax.psum(drawn, axis)
            codebook, dead = restart_dead(
                codebook, replacements=replacements, below=upkeep.restart_below
            )
            restarts += jnp.sum(dead)
        new.append(codebook)
    return tuple(new), health | {"restarts": restarts}


def balanced(
    costs: Float[Array, "row code"], *, softness: float, axis: str | None = None
) -> Int[Array, " row"]:
    """Returns codes under which every code has about as many rows, wherever the rows lie.

    The transport plan with even codes and entropy `softness`, by Sinkhorn's iterations in the log
    domain; a row takes the code that has most of it.

    Args:
      costs: what each row pays for each code, up to a constant of the row.
      softness: of the plan, in units of the mean gap between a row's mean and lowest cost; the
        smaller, the longer the iterations would take to even the codes out.
      axis: mapped axis of the devices that hold the other rows of the batch.

    Returns:
      int32 `[row]`. Source: Cuturi 2013 (Sinkhorn distances); as an assignment: SwAV (Caron et al.
      2020, arXiv 2006.09882) and, for SIDs, LC-Rec (Zheng et al. 2023, arXiv 2311.09049).
    """

    def over_devices(reduce: Callable[..., Array], values: Array) -> Array:
        return values if axis is None else reduce(jax.lax.all_gather(values, axis), axis=0)

    costs = jax.lax.stop_gradient(costs)
    gap = jnp.mean(costs, axis=1) - jnp.min(costs, axis=1)
    unit = over_devices(jnp.mean, jnp.mean(gap))
    plan = -costs / (softness * jnp.maximum(unit, 1e-12))  # log of the transported mass
    for _ in range(SINKHORN_ITERATIONS):
        plan -= jax.nn.logsumexp(plan, axis=1, keepdims=True)
        plan -= over_devices(jax.nn.logsumexp, jax.nn.logsumexp(plan, axis=0))
    return lowest(-plan)


def picking(
    upkeep: Upkeep, *, axis: str
) -> Callable[[Float[Array, "row code"]], Int[Array, " row"]]:
    """Returns how training takes codes by their costs: evenly, or the nearest ones.

    Args:
      upkeep: its `balance` says which.
      axis: mapped axis of the devices that hold the other rows of the batch.
    """
    if not upkeep.balance:
        return lowest
    return functools.partial(balanced, softness=upkeep.balance, axis=axis)


def category_codes(
    categories: pa.ChunkedArray, *, most: int, known: Sequence[str] = ()
) -> tuple[Int[np.ndarray, " item"], tuple[str, ...]]:
    """Numbers the first-level categories: the pinned codes of the items.

    Args:
      categories: each item's first-level category, string `[item]`; null or empty where unknown.
      most: codes that the first level has room for; the most frequent categories get them.
      known: categories that have the first codes already.

    Returns:
      int32 `[item]` (`UNPINNED` without a category or a code) and the category of every code.
    """
    distinct, counts = categories.value_counts().flatten()
    order = np.lexsort([distinct.fill_null("").to_numpy(False), -counts.to_numpy()])
    by_count = distinct.take(pa.array(order)).to_pylist()
    names = [*known, *(name for name in by_count if name and name not in known)][:most]
    codes = pc.index_in(categories, pa.array(names, pa.string())).fill_null(UNPINNED)
    return codes.to_numpy(), tuple(names)
