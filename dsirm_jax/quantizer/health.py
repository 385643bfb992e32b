"""How good the SIDs of a catalogue are, without any later stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import HEAD
from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import codebook
from dsirm_jax.metrics.codebook import codebook_health
from dsirm_jax.quantizer.assign import assign_vectors, variance
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.scaling import as_bytes, without_outliers
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.sids.codes import SidTable

LEAST_BITS = 3.0
LEAST_SHARE = 0.1
MOST_SHARED = 0.3
"""Share of items that share their SID, above which larger codebooks are advised."""
SIZE_STEP = 32
"""Advised sizes are multiples of it."""


def sid_health(
    *,
    fitted: FittedQuantizer,
    fitted_to: TrainingItems,
    table: SidTable,
    items: Path,
    judgements: Path,
    before: Int[np.ndarray, "item level"] | None = None,
) -> dict[str, Any]:
    """Returns the contents of `health.json`, see docs/contract.md.

    Args:
      fitted: the quantizer.
      fitted_to: what it was fitted to.
      table: the SIDs that it gives to the items.
      items: `prepare/items.parquet`.
      judgements: `prepare/judgements.parquet`.
      before: the items' SIDs in an earlier run, −1 of items that it did not have.
    """
    columns = pq.read_table(items, columns=["category", "brand"]).to_pydict()
    labels = {
        "category": np.array([path[0] if path else None for path in columns["category"]], object),
        "brand": np.array(columns["brand"], object),
    }
    query_codes = assign_vectors(fitted=fitted, vectors=fitted_to.queries).codes
    return {
        "sid_version": fitted.version,
        "sizes": fitted.sizes,
        "pinned_categories": fitted.names,
        "reconstruction_error": relative_error(table.errors, vectors=fitted_to.items),
        **codebook_health(table.sids, fitted.sizes, labels),
        "agreement": _agreement(judgements, query_codes=query_codes, item_codes=table.sids),
        **({} if before is None else {"churn": codebook.churn(before, table.sids)}),
    }


def crowded(health: Mapping[str, Any], *, sizes: Sequence[int], pinned: bool) -> str | None:
    """Returns which sizes to bind where too many items share their SID; None where they do not.

    Args:
      health: what `sid_health` returned.
      sizes: those that are bound.
      pinned: whether first codes are pinned, so that their number follows the categories.
    """
    shared = health["collision_rate"]
    if shared <= MOST_SHARED:
        return None
    advised = roomier(sizes, shared=shared, pinned=pinned)
    return (
        f"{shared:.0%} of {health['items']:,} items share their SID with another, in buckets of up "
        f"to {health['largest_bucket']:,}: bind QuantizerConfig.codebook_sizes = {advised} for "
        f"some {MOST_SHARED:.0%}, unless their vectors are the same"
    )


def roomier(sizes: Sequence[int], *, shared: float, pinned: bool) -> tuple[int, ...]:
    """Returns sizes at which about `MOST_SHARED` of the items would share their SID.

    Items in `M` equally likely SIDs share theirs with the probability 1 − exp(−n/M). From what is
    seen follows the `M` in effect, and by what factor it is too small; all levels but a pinned
    first one share that factor evenly.

    Args:
      sizes: codes of each level.
      shared: share of the items that share their SID, above `MOST_SHARED`; of 1, the factor is that
        of .999.
      pinned: whether the first level keeps its size.

    Returns:
      Sizes, those that grow in multiples of `SIZE_STEP`. Source: this project; Poisson occupancy.
    """
    load = -math.log1p(-min(shared, 0.999))
    kept = 1 if pinned and len(sizes) > 1 else 0
    factor = (load / -math.log1p(-MOST_SHARED)) ** (1 / (len(sizes) - kept))
    grown = (SIZE_STEP * math.ceil(factor * size / SIZE_STEP) for size in sizes[kept:])
    return (*sizes[:kept], *grown)


def relative_error(
    errors: Float[np.ndarray, " item"], *, vectors: Float[np.ndarray, "item dim"]
) -> float | None:
    """Returns the mean squared error of SIDs as a share of the vectors' variance.

    Args:
      errors: squared distance from each vector to its decoded SID, `Assigned.errors`.
      vectors: float32 `[item, dim]`.

    Returns:
      The share; None where all vectors are the same and leave nothing to tell.
    """
    spread = variance(vectors)
    return float(np.mean(errors)) / spread if spread > 0 else None


def check_carried(
    sids: Int[np.ndarray, "row level"],
    errors: Float[np.ndarray, " row"],
    *,
    vectors: Float[np.ndarray, "row dim"],
    fitted: FittedQuantizer,
    where: str,
) -> None:
    """Raises InputError where SIDs carry next to nothing of what tells vectors apart.

    That is less than `LEAST_SHARE` of the bits that the distinct vectors have (items of the same
    vector may share a SID), or of those that the levels have room for, while the SIDs leave more
    than half of the vectors' spread. Where first codes are pinned, all three are those within a
    first code. Fewer than `LEAST_BITS` tell nothing and pass.

    Args:
      sids: int32 `[row, level]`.
      errors: squared distances of the vectors to their decoded SIDs, `[row]`.
      vectors: float32 `[row, dim]`.
      fitted: the quantizer that gave them.
      where: what the message names, such as a file.

    Raises:
      InputError: as above. Source: this project.
    """
    pinned = bool(fitted.names)
    first = sids[:, 0] if pinned else np.zeros_like(sids[:, 0])
    known = _bits(first)
    _, vector = np.unique(as_bytes(vectors), return_inverse=True)
    room = float(np.log2(np.asarray(fitted.sizes[pinned:], np.float64)).sum())
    possible = min(_bits(first, vector) - known, room)
    carried = _bits(*sids.T) - known
    if possible < LEAST_BITS or carried >= LEAST_SHARE * possible:
        return
    spread = without_outliers(_squares_within(vectors, first)).mean()
    if without_outliers(errors.astype(np.float64)).mean() <= 0.5 * spread:
        return
    raise InputError(
        f"{where}: {len(np.unique(sids, axis=0)):,} SIDs of {len(sids):,} items carry "
        f"{carried:.2f} of the {possible:.1f} bits that tell their vectors apart"
        f"{' within a first code' if pinned else ''}: the quantizer has found next to nothing; see "
        f"that all vectors are of one model and of like size, and that Upkeep.init_rows is above 0"
    )


def _squares_within(
    vectors: Float[np.ndarray, "row dim"], group: Int[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """Returns the squared distance of each vector to the mean of its group."""
    squares = np.empty(len(vectors))
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        centred = vectors[rows].astype(np.float64)
        centred -= centred.mean(axis=0)
        squares[rows] = np.einsum("rd,rd->r", centred, centred)
    return squares


def _bits(*columns: Int[np.ndarray, " row"]) -> float:
    """Returns the entropy of rows of whole numbers, in bits."""
    _, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    shares = counts / counts.sum()
    return float(-np.sum(shares * np.log2(shares)))


def _agreement(
    judgements: Path,
    *,
    query_codes: Int[np.ndarray, "query level"],
    item_codes: Int[np.ndarray, "item level"],
) -> dict[str, list[float | None]]:
    """Returns how often queries that training has not seen share their items' codes."""
    pairs = read_judgements(judgements, "query_index", "item_index", "relevant", "split")
    rows = np.flatnonzero(pairs["split"] == HEAD)
    agreement = codebook.prefix_agreement(
        query_codes[pairs["query_index"][rows]],
        item_codes[pairs["item_index"][rows]],
        pairs["relevant"][rows],
    )
    return {
        name: [share if np.isfinite(share) else None for share in shares]
        for name, shares in agreement.items()
    }
