"""How good the SIDs of a catalogue are, without any later stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import HEAD
from dsirm_jax.metrics import codebook
from dsirm_jax.metrics.codebook import codebook_health
from dsirm_jax.quantizer.assign import assign_vectors, variance
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.sids.codes import SidTable


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
