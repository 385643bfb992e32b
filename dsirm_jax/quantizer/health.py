"""How good the SIDs of a catalogue are, told without any later stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import HEAD
from dsirm_jax.metrics import codebook
from dsirm_jax.quantizer.assign import assign_vectors, variance
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.train import Catalogue
from dsirm_jax.sids.codes import SidTable


def health(
    *,
    fitted: FittedQuantizer,
    catalogue: Catalogue,
    table: SidTable,
    items: Path,
    judgements: Path,
    before: Int[np.ndarray, "item level"] | None = None,
) -> dict[str, Any]:
    """Returns the contents of `health.json`, see docs/contract.md.

    Args:
      fitted: the quantizer.
      catalogue: what it was fitted to.
      table: the SIDs that it gives to the items.
      items: `prepare/items.parquet`.
      judgements: `prepare/judgements.parquet`.
      before: the items' SIDs in an earlier run, −1 of items that it did not have.
    """
    known = pq.read_table(items, columns=["category", "brand"]).to_pydict()
    labels = {
        "category": np.array([path[0] if path else None for path in known["category"]], object),
        "brand": np.array(known["brand"], object),
    }
    query_codes = assign_vectors(fitted=fitted, vectors=catalogue.queries).codes
    return {
        "sid_version": fitted.version,
        "sizes": fitted.sizes,
        "pinned_categories": fitted.names,
        "reconstruction_error": float(np.mean(table.errors)) / variance(catalogue.items),
        **codebook.health(table.sids, fitted.sizes, labels),
        "agreement": _agreement(judgements, query_codes=query_codes, item_codes=table.sids),
        **({} if before is None else {"churn": codebook.churn(before, table.sids)}),
    }


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
