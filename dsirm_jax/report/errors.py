"""Error analysis: the test pairs that SIDs fixed, and those that they broke."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.parquet as pq

from dsirm_jax.data.schema import TEST
from dsirm_jax.relevance.evaluate import BASELINE
from dsirm_jax.relevance.tables import read_beams
from dsirm_jax.report.catalogue import shorten
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.sids.codes import read_sids
from dsirm_jax.sids.prefix_match import agreement

SHOWN = 12
PER_QUERY = 2


def changes(layout: Layout) -> dict[str, list[dict[str, Any]]] | None:
    """Returns the test pairs whose probability the full model moved farthest from no SID's.

    Args:
      layout: the run.

    Returns:
      `fixed`, moved towards the judgement, and `broken`, moved away from it: query, title, label,
      relevant, both scores, the item's SID, and the beam that agrees with it farthest with its
      place, its number of codes that agree and its probability. None where a stage is missing, or
      either rung.
    """
    needed = (layout.predictions, layout.query_sids, layout.sids)
    if not all(path.is_file() for path in needed):
        return None
    names = ("query", "item_id", "label", "relevant", BASELINE, FULL)
    if not set(names) <= set(pq.read_schema(layout.predictions).names):
        return None
    tested = pq.read_table(
        layout.predictions, columns=list(names), filters=[("split", "=", TEST)]
    ).to_pydict()
    moved = np.asarray(tested[FULL]) - np.asarray(tested[BASELINE])
    gained = np.where(tested["relevant"], moved, -moved)
    best, worst = np.argsort(-gained, kind="stable"), np.argsort(gained, kind="stable")
    chosen = {
        "fixed": _spread([row for row in best if gained[row] > 0], tested["query"]),
        "broken": _spread([row for row in worst if gained[row] < 0], tested["query"]),
    }
    items = pq.read_table(layout.items, columns=["item_id", "title"])
    query_texts = pq.read_table(layout.queries, columns=["query"])["query"].combine_chunks()
    sids = read_sids(layout.sids).sids
    beams = read_beams(layout.query_sids, levels=sids.shape[1])

    def shown(row: int) -> dict[str, Any]:
        item = items["item_id"].index(tested["item_id"][row]).as_py()
        query = query_texts.index(tested["query"][row]).as_py()
        sid = sids[item]
        agrees = np.asarray(agreement(beams.sids[[query]], sid[None, None]))[0, :, 0].sum(axis=0)
        depths = np.where(beams.valid[query], agrees, 0)
        best = int(depths.argmax())
        return {
            **{name: tested[name][row] for name in names},
            "title": shorten(items["title"][item].as_py()),
            "sid": sid.tolist(),
            "depth": int(depths[best]),
            "beam": beams.sids[query, best].tolist(),
            "place": best + 1,
            "probability": float(np.exp(beams.log_probs[query, best])),
        }

    return {name: [shown(row) for row in rows] for name, rows in chosen.items()}


def _spread(rows: list[int], queries: list[str]) -> list[int]:
    """Returns the first rows, of each query a few at most."""
    taken: dict[str, int] = {}
    kept = []
    for row in rows:
        taken[queries[row]] = taken.get(queries[row], 0) + 1
        if taken[queries[row]] <= PER_QUERY:
            kept.append(int(row))
    return kept[:SHOWN]
