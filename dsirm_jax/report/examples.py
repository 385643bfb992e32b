"""What the generator writes for test queries, held against the judgements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int, Shaped

from dsirm_jax.data.schema import SEGMENTS, TEST
from dsirm_jax.relevance.tables import ABOUT_THE_PAIR, read_beams
from dsirm_jax.report.catalogue import PageItems, common_category, spread
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.sids.codes import check_same_version
from dsirm_jax.sids.prefix_match import agreement

EXAMPLES_PER_OUTCOME = 8
BEAMS_SHOWN = 6
JUDGED_SHOWN = 10
BEAM_TITLES = 3


def judged_queries(layout: Layout, catalogue: PageItems, *, seed: int = 0) -> dict[str, Any]:
    """Returns how often the beams reach a relevant item, and examples.

    Args:
      layout: the run.
      catalogue: its items.
      seed: of the choice of examples.

    Returns:
      `reach`, by `all` and segment: `queries` and, per level l, the `shares` of them with a beam
      that agrees with a relevant item in the first l codes; `beams`, the most that a query has;
      `examples`, see below. Queries without a relevant judged item are left out of both.
    """
    check_same_version(layout.sids, layout.query_sids)
    judged = pq.read_table(
        layout.judgements,
        columns=["query_index", "item_index", "item_id", "label", "relevant"],
        filters=[("split", "=", TEST)],
    )
    query = judged["query_index"].to_numpy()
    relevant = judged["relevant"].to_numpy()
    table = pq.read_table(layout.queries, columns=["query", "segment"])
    segments = np.asarray(table["segment"].to_pylist(), object)
    beams = read_beams(layout.query_sids, levels=len(catalogue.sizes))
    item_sids = catalogue.sids[judged["item_index"].to_numpy()]
    agrees = np.asarray(agreement(beams.sids[query], item_sids[:, None]))[:, :, 0]
    depths = agrees.sum(axis=1) * beams.valid[query]  # [pair, beam]
    best = np.full(len(segments), -1)  # -1: no relevant item was judged
    np.maximum.at(best, query[relevant], depths[relevant].max(axis=1))
    chosen = choose_queries(best, segments, per_outcome=EXAMPLES_PER_OUTCOME, seed=seed)
    texts = table["query"].take(pa.array(chosen, pa.int64())).to_pylist()
    scores = _scores(layout, texts)

    def example(row: int, text: str) -> dict[str, Any]:
        pairs = np.flatnonzero(query == row)
        wanted = pairs[relevant[pairs]]
        shown = np.flatnonzero(beams.valid[row])[:BEAMS_SHOWN].tolist()
        items = [
            {
                "row": int(judged["item_index"][pair].as_py()),
                "label": judged["label"][pair].as_py(),
                "relevant": bool(relevant[pair]),
                "sid": item_sids[pair].tolist(),
                "depth": int(depths[pair].max()),
                "scores": scores.get((text, judged["item_id"][pair].as_py()), {}),
            }
            for pair in pairs.tolist()
        ]
        items.sort(key=lambda item: (-item["scores"].get(FULL, 0.0), -item["depth"]))
        return {
            "query": text,
            "segment": segments[row],
            "depth": int(best[row]),
            "beams": [
                _beam(
                    catalogue,
                    sid=beams.sids[row, beam].tolist(),
                    probability=float(np.exp(beams.log_probs[row, beam])),
                    depth=int(depths[wanted, beam].max()),
                )
                for beam in shown
            ],
            "judged": items[:JUDGED_SHOWN],
            "more": max(0, len(items) - JUDGED_SHOWN),
        }

    return {
        "reach": reach(best, segments, levels=len(catalogue.sizes)),
        "beams": int(beams.valid.sum(axis=1).max(initial=0)),
        "examples": [example(row, text) for row, text in zip(chosen, texts, strict=True)],
    }


def reach(
    best: Int[np.ndarray, " query"], segments: Shaped[np.ndarray, " query"], *, levels: int
) -> dict[str, dict[str, Any]]:
    """Returns the share of queries whose best depth is at least each level.

    Args:
      best: deepest agreement of a beam with a relevant item, -1 where there is none to find.
      segments: `[query]` str.
      levels: levels of a SID.
    """
    parts = {"all": best >= 0} | {name: (best >= 0) & (segments == name) for name in SEGMENTS}
    return {
        name: {
            "queries": int(kept.sum()),
            "shares": [float((best[kept] >= level).mean()) for level in range(1, levels + 1)],
        }
        for name, kept in parts.items()
        if kept.any()
    }


def choose_queries(
    best: Int[np.ndarray, " query"],
    segments: Shaped[np.ndarray, " query"],
    *,
    per_outcome: int,
    seed: int,
) -> list[int]:
    """Returns up to `per_outcome` random queries of every segment and best depth, well mixed.

    First one of each, the frequent segments and the deepest agreement leading, then the next.
    """
    shuffled = np.random.Generator(np.random.Philox(key=seed)).permutation(len(best))
    taken: dict[tuple[int, int], int] = {}
    chosen = []
    for row in shuffled[best[shuffled] >= 0].tolist():
        cell = (SEGMENTS.index(segments[row]), -int(best[row]))
        taken[cell] = taken.get(cell, 0) + 1
        if taken[cell] <= per_outcome:
            chosen.append((taken[cell], *cell, row))
    return [row for *_, row in sorted(chosen)]


def example_rows(examples: list[Mapping[str, Any]]) -> list[int]:
    """Returns the item rows that examples name."""
    return [row for e in examples for beam in e["beams"] for row in beam["rows"]] + [
        item["row"] for e in examples for item in e["judged"]
    ]


def _beam(
    catalogue: PageItems, *, sid: list[int], probability: float, depth: int
) -> dict[str, Any]:
    rows = catalogue.with_sid(sid)
    category = common_category(catalogue, rows)
    return {
        "sid": sid,
        "probability": probability,
        "depth": depth,
        "items": len(rows),
        "category": category[0] if category else None,
        "rows": spread(rows, BEAM_TITLES),
    }


def _scores(layout: Layout, queries: list[str]) -> dict[tuple[str, str], dict[str, float]]:
    """Reads the rungs' scores of the test pairs of some queries."""
    if not layout.predictions.is_file():
        return {}
    table = pq.read_table(
        layout.predictions,
        filters=(pc.field("split") == TEST) & pc.field("query").isin(queries),
    )
    rungs = [name for name in table.column_names if name not in ABOUT_THE_PAIR]
    return {
        (row["query"], row["item_id"]): {rung: round(row[rung], 4) for rung in rungs}
        for row in table.to_pylist()
    }
