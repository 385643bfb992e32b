"""What the generator believes of queries that nothing has seen, to metrics with intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int, Shaped

from dsirm_jax.data.identity import identities_in
from dsirm_jax.data.pairs import relevant_pairs
from dsirm_jax.data.schema import SEGMENTS, TEST
from dsirm_jax.data.vectors import read_categories, read_title_types
from dsirm_jax.metrics import bootstrap
from dsirm_jax.metrics.belief import Prefixes, beam_entropy, kinds_per_query, right_mass, total_mass
from dsirm_jax.metrics.classification import CALIBRATION_BINS, ece_floor, reliability
from dsirm_jax.metrics.correlation import spearman_statistic
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import read_sids

TYPE_COUNTS = {"1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5-8": (5, 8), "9+": (9, math.inf)}
"""Least and most product types of the queries that a mean is taken of."""
CATEGORY, TITLE, CODE = "category", "title", "first code"
"""What a product type is: a whole category path, a title's head noun, an item's first code."""
DEEPEST = 1 << 16
"""More levels than a category path has."""

DISTANCE = "distance of ece"
"""A statistic that is no metric: the interval of `ece` needs it."""

_Name = tuple[str, ...]
"""Of a figure: the keys that lead to it in `metrics.json`, below its rung."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Belief:
    """What a generator believes of some queries, each of which has a relevant item.

    Attributes:
      queries: their numbers, rising.
      branch: probability of the right branches at each level, see `metrics.belief`.
      first_entropy: of the first code, over all that there are, nats.
      first_probability: exact, of each prefix of the first level.
      prefixes: of each level, those of the beams; `query` is a place in `queries`.
    """

    queries: Int[np.ndarray, " query"]
    branch: Float[np.ndarray, "query level"]
    first_entropy: Float[np.ndarray, " query"]
    first_probability: Float[np.ndarray, " first_prefix"]
    prefixes: tuple[Prefixes, ...]

    @property
    def right_mass(self) -> Float[np.ndarray, "query level"]:
        """Probability of the beams on the right branches at each level."""
        columns = [right_mass(of, queries=len(self.queries)) for of in self.prefixes]
        return np.stack(columns, axis=1)

    @property
    def mass(self) -> Float[np.ndarray, " query"]:
        """Probability of all beams."""
        return total_mass(self.prefixes[0], queries=len(self.queries))

    @property
    def probabilities(self) -> list[Float[np.ndarray, " _prefix"]]:
        """Of the prefixes of each level: exact at the first; the mass of the beams below."""
        return [self.first_probability, *(of.mass for of in self.prefixes[1:])]

    @property
    def entropy(self) -> Float[np.ndarray, "query level"]:
        """Of the first code; of the beams' prefixes at each level below."""
        below = [beam_entropy(of, queries=len(self.queries)) for of in self.prefixes[1:]]
        return np.stack([self.first_entropy, *below], axis=1)


def read_belief(path: Path) -> Belief | None:
    """Reads `hits.parquet`; None where it has no query, or ranks alone (earlier versions)."""
    if "prefix_mass" not in pq.read_schema(path).names or not pq.read_metadata(path).num_rows:
        return None
    table = pq.read_table(path)
    mass, right = (_lists(table[name]) for name in ("prefix_mass", "prefix_right"))
    branch = np.asarray(table["branch"].to_pylist(), np.float64)
    first = table["first_probability"].combine_chunks().flatten()
    # The lists of a query follow each other, one a level.
    place = np.repeat(np.arange(branch.size), mass.counts)
    query, level = np.divmod(place, branch.shape[1])
    rows = [np.flatnonzero(level == number) for number in range(branch.shape[1])]
    masses = mass.values.astype(np.float64)
    return Belief(
        queries=table["query_index"].to_numpy(),
        branch=branch,
        first_entropy=table["first_entropy"].to_numpy().astype(np.float64),
        first_probability=first.to_numpy().astype(np.float64),
        prefixes=tuple(Prefixes(query[of], masses[of], right.values[of]) for of in rows),
    )


class _Lists(NamedTuple):
    """The innermost lists of a column of lists of lists, one after the other."""

    values: Shaped[np.ndarray, " value"]
    counts: Int[np.ndarray, " list"]


def _lists(column: pa.ChunkedArray) -> _Lists:
    inner = column.combine_chunks().flatten()
    values = inner.flatten().to_numpy(zero_copy_only=False)
    return _Lists(values, inner.value_lengths().to_numpy().astype(np.int64))


def read_types(
    items: Path, *, sids: Path, language: str | None
) -> tuple[str, Int[np.ndarray, " item"]]:
    """Returns what a product type is in a catalogue, and a number of each item's.

    That is the whole path of its category; where no item has one, its title's head noun; and where
    there is no rule for the language either, its first code.

    Args:
      items: `prepare/items.parquet`.
      sids: `quantize/sids.parquet`.
      language: of titles, see `data.product_type`; None where it is not known.

    Returns:
      `CATEGORY`, `TITLE` or `CODE`; and int64, -1 where an item has none.
    """
    files = [str(items)]
    for kind in (CATEGORY, TITLE):
        types = read_title_types(files, language=language) if kind == TITLE else None
        names = read_categories(files, depth=DEEPEST, types=types)
        known = pc.if_else(pc.equal(names, ""), pa.scalar(None, pa.string()), names)
        if known.null_count < len(known):
            codes = known.combine_chunks().dictionary_encode().indices.fill_null(-1)
            return kind, codes.to_numpy(zero_copy_only=False).astype(np.int64)
    return CODE, read_sids(sids).sids[:, 0].astype(np.int64)


def measure(
    layouts: Mapping[str, Layout], *, language: str | None, seed: int = 0
) -> dict[str, Any]:
    """Returns `evaluate_belief` of a run, and what its product types are, as `types`.

    Args:
      layouts: by rung; one whose generator told ranks alone is left out.
      language: of titles, see `read_types`.
      seed: of the resamples.
    """
    read = {rung: read_belief(at.hits) for rung, at in layouts.items()}
    beliefs = {rung: belief for rung, belief in read.items() if belief is not None}
    if not beliefs:
        return {}
    kinds, counts = {}, {}
    for rung, belief in beliefs.items():
        at = layouts[rung]
        kinds[rung], types = read_types(at.items, sids=at.sids, language=language)
        query, item = relevant_pairs(at.judgements, split=TEST).T
        row = np.searchsorted(belief.queries, query)
        counts[rung] = kinds_per_query(row, types[item], queries=len(belief.queries))
    queries = next(iter(layouts.values())).queries
    measured = evaluate_belief(
        beliefs,
        types=counts,
        segment=pq.read_table(queries, columns=["segment"])["segment"].to_numpy(),
        identity=identities_in(queries),
        seed=seed,
    )
    return measured | {"types": next(iter(kinds.values()))}


def evaluate_belief(
    beliefs: Mapping[str, Belief],
    *,
    types: Mapping[str, Int[np.ndarray, " query"]],
    segment: Shaped[np.ndarray, " any_query"],
    identity: Int[np.ndarray, " any_query"],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns how much of the probability is right, how undecided it is, and whether it is honest.

    Args:
      beliefs: by rung, of the same queries, of which there are some.
      types: by rung, the number of product types of each query's relevant items; 0: not known.
      segment: `[any query]` str, of queries by their number.
      identity: `[any query]`, a number that all spellings of a query share.
      resamples: resamples of queries, each with all its spellings, that the intervals come from.
      seed: seed of the resamples.

    Returns:
      `queries`, `rungs` and `segments` as docs/contract.md has them. What is undefined is left out.
    """
    queries = next(iter(beliefs.values())).queries
    figures = {rung: _figures(belief) for rung, belief in beliefs.items()}
    every = {
        rung: _means(of) | _by_types(beliefs[rung], types[rung]) | _calibration(beliefs[rung])
        for rung, of in figures.items()
    }
    plan = {"resamples": resamples, "seed": seed}
    result: dict[str, Any] = {
        "queries": len(queries),
        "rungs": _intervals(every, identity=identity[queries], **plan),
        "segments": {},
    }
    for rung, belief in beliefs.items():
        _count(result["rungs"][rung], belief, types[rung])
    for name in SEGMENTS:
        kept = segment[queries] == name
        if kept.any():
            within = {
                rung: _means({figure: values[kept] for figure, values in of.items()})
                for rung, of in figures.items()
            }
            result["segments"][name] = {
                "queries": int(kept.sum()),
                "rungs": _intervals(within, identity=identity[queries[kept]], **plan),
            }
    return result


def _figures(belief: Belief) -> dict[_Name, Float[np.ndarray, " query"]]:
    """Returns what is averaged over queries."""
    by_level = {"branch": belief.branch, "beams": belief.right_mass, "entropy": belief.entropy}
    return {("mass",): belief.mass} | {
        (_level(level), name): values[:, level]
        for level in range(len(belief.prefixes))
        for name, values in by_level.items()
    }


def _means(
    figures: Mapping[_Name, Float[np.ndarray, " query"]],
) -> dict[_Name, bootstrap.Statistic]:
    return {name: bootstrap.mean_over_queries(values) for name, values in figures.items()}


def _by_types(belief: Belief, types: Int[np.ndarray, " query"]) -> dict[_Name, bootstrap.Statistic]:
    """Returns the entropy of queries with as many product types, and its correlation with them."""
    known = np.where(types > 0, types.astype(np.float64), np.nan)
    statistics: dict[_Name, bootstrap.Statistic] = {}
    for level, values in enumerate(belief.entropy.T):
        statistics[_level(level), "spearman"] = spearman_statistic(values, known)
        for name, (least, most) in TYPE_COUNTS.items():
            of_count = np.where((known >= least) & (known <= most), values, np.nan)
            statistics[_level(level), "types", name] = bootstrap.mean_over_queries(of_count)
    return statistics


def _calibration(belief: Belief) -> dict[_Name, bootstrap.Statistic]:
    """Returns the ECE of prefixes, and what its interval needs."""
    statistics: dict[_Name, bootstrap.Statistic] = {}
    for level, (of, probability) in enumerate(zip(belief.prefixes, belief.probabilities)):
        columns = (of.query, of.right, probability)
        statistics[_level(level), "ece"] = bootstrap.ece_statistic(*columns)
        statistics[_level(level), DISTANCE] = bootstrap.ece_distance_statistic(*columns)
    return statistics


def _intervals(
    statistics: Mapping[str, Mapping[_Name, bootstrap.Statistic]],
    *,
    identity: Int[np.ndarray, " query"],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Returns the intervals of statistics of rungs, each below the keys of its name."""
    values, samples = bootstrap.bootstrap(
        {(rung, *name): of for rung, named in statistics.items() for name, of in named.items()},
        num_queries=len(identity),
        num_pairs=len(identity),  # statistics hold what they know by query
        resamples=resamples,
        seed=seed,
        groups=identity,
    )
    result: dict[str, Any] = {rung: {} for rung in statistics}
    for (*keys, name), value in values.items():
        of_name = samples[*keys, name]
        if name == "ece":
            distances = samples[*keys, DISTANCE]
            interval = bootstrap.ece_interval(value, of_name, distances=distances)
        else:
            interval = bootstrap.interval(value, of_name)
        shown = dataclasses.asdict(interval)
        if name != DISTANCE and all(map(math.isfinite, shown.values())):
            at = result
            for key in keys:
                at = at.setdefault(key, {})
            at[name] = shown
    return result


def _count(rung: dict[str, Any], belief: Belief, types: Int[np.ndarray, " query"]) -> None:
    """Adds to the intervals of a rung how many queries, or prefixes, they are of."""
    for level, (of, probability) in enumerate(zip(belief.prefixes, belief.probabilities)):
        at = rung[_level(level)]
        for name, interval in at.get("types", {}).items():
            least, most = TYPE_COUNTS[name]
            interval["queries"] = int(((types >= least) & (types <= most)).sum())
        at["ece"]["floor"] = ece_floor(probability)
        found = reliability(of.right, probability)
        at["reliability"] = [
            {
                "from": number / CALIBRATION_BINS,
                "prefixes": pairs,
                "probability": mean,
                "share": share,
            }
            for number, pairs, mean, share in zip(*(column.tolist() for column in found))
        ]


def _level(level: int) -> str:
    return f"level_{level + 1}"
