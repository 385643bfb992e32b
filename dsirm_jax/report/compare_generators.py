"""The generators of two runs side by side, over the test queries that both have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.metrics import bootstrap
from dsirm_jax.metrics.retrieval import HITS_AT, hit_at_k
from dsirm_jax.relevance.belief import read_belief
from dsirm_jax.relevance.printing import aligned, cell
from dsirm_jax.relevance.tables import read_hits
from dsirm_jax.run.layout import Layout

RESAMPLES = 1000


def generators_table(layouts: Sequence[Layout], *, identity: QueryIdentity) -> list[str]:
    """Returns lines that say how soon, and how surely, two generators write a relevant item's SID.

    Args:
      layouts: of one rung of two runs, `A` and `B`, with `hits.parquet`.
      identity: what makes two spellings one query.

    Returns:
      Of every level the hits, and the probability of the right branches where both tell it, with
      95 % intervals; nothing where their SIDs have other numbers of levels, or they tested no query
      in common.
    """
    tables = [read_hits(at.hits) for at in layouts]
    texts = [
        pq.read_table(at.queries, columns=["query"])["query"].to_numpy()[queries]
        for at, (queries, _) in zip(layouts, tables, strict=True)
    ]
    common, *rows = np.intersect1d(*texts, return_indices=True)
    ranks = [of[kept] for (_, of), kept in zip(tables, rows, strict=True)]
    if not len(common) or ranks[0].shape != ranks[1].shape:
        return []
    beliefs = [read_belief(at.hits) for at in layouts]
    branches = [of.branch[kept] for of, kept in zip(beliefs, rows, strict=True) if of]
    figures = _figures(ranks, branches)
    values, samples = bootstrap.bootstrap(
        {
            (name, side): bootstrap.mean_over_queries(of_side)
            for name, of in figures.items()
            for side, of_side in enumerate(of)
        },
        num_queries=len(common),
        num_pairs=len(common),
        resamples=RESAMPLES,
        seed=0,
        groups=identity.numbers(common.tolist()),
    )

    def shown(value: float, of: Float[np.ndarray, " resample"], *, signed: bool = False) -> str:
        return cell(dataclasses.asdict(bootstrap.interval(value, of)), signed=signed)

    lines = [[f"{len(common):,} test queries", "A", "B", "B − A"]]
    for name in figures:
        one, other = (name, 0), (name, 1)
        sides = [shown(values[side], samples[side]) for side in (one, other)]
        apart = values[other] - values[one], samples[other] - samples[one]
        lines.append([name, *sides, shown(*apart, signed=True)])
    return ["", *aligned(lines)]


def _figures(
    ranks: Sequence[Int[np.ndarray, "query level"]],
    branches: Sequence[Float[np.ndarray, "query level"]],
) -> dict[str, list[Float[np.ndarray, " query"]]]:
    """Returns what is averaged over queries, of both sides, by what a line calls it."""
    figures = {}
    for level in range(ranks[0].shape[1]):
        for k in HITS_AT:
            hits = [hit_at_k(of[:, level], k=k) * 1.0 for of in ranks]
            figures[f"level {level + 1}, hit@{k}"] = hits
        if len(branches) == len(ranks):
            figures[f"level {level + 1}, probability"] = [of[:, level] for of in branches]
    return figures
