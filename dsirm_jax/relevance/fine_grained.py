"""How often the right one of two items that differ in one attribute is ranked first, by rung."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int, Shaped

from dsirm_jax.data.identity import identities_in
from dsirm_jax.data.vectors import read_categories, read_title_types
from dsirm_jax.metrics import bootstrap
from dsirm_jax.metrics.fine_grained import Preferences, preferences_of_query, share_right_first
from dsirm_jax.relevance.evaluate import lift_keys
from dsirm_jax.relevance.tables import read_item_texts
from dsirm_jax.relevance.terms import Names, names_in
from dsirm_jax.relevance.wants import KINDS, Item, item_of, shop_item, shop_states, wants_in
from dsirm_jax.run.layout import Layout

ALL = "all"
"""Pairs of all kinds together."""
TRUTH, TEXTS = "truth", "texts"
"""Where attributes are known from: columns of the simulated shop, or words."""
_TRUTH_COLUMNS = ("truth_type", "truth_attributes")
_DEEPEST = 1 << 16


class Judged(NamedTuple):
    """Judged pairs in the order of queries, as preferences are read from them.

    Attributes:
      query: number of each pair's query.
      item: number of its item.
      gain: of the judgement.
    """

    query: Int[np.ndarray, " pair"]
    item: Int[np.ndarray, " pair"]
    gain: Float[np.ndarray, " pair"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fine:
    """Pairs of judged items that differ in one attribute their query asks for.

    Attributes:
      source: `TRUTH` or `TEXTS`.
      preferences: pairs of rows of the judgements.
      kind: of `wants.KINDS`, of each pair.
      query: number of each pair's query, from 0, of those that have any.
      identity: of these queries.
    """

    source: str
    preferences: Preferences
    kind: Shaped[np.ndarray, " preference"]
    query: Int[np.ndarray, " preference"]
    identity: Int[np.ndarray, " query"]


def measure(
    judged: Judged,
    scores: Mapping[str, Float[np.ndarray, "*seed pair"]],
    *,
    at: Layout,
    language: str | None,
    lifts: Sequence[tuple[str, str]],
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Returns `fine_grained` of `metrics.json`, see docs/contract.md; empty without any pair.

    Args:
      judged: the pairs that rungs are judged on.
      scores: of them by rung; of several seeds metrics are averaged.
      at: of the run, or of a fold.
      language: of titles, as `product_type` wants it, whose types stand in where no item has a
        category: both items of a pair are of one.
      lifts: (rung, baseline) pairs whose difference is wanted.
      resamples: resamples of queries, each with all its spellings, that the intervals come from.
      seed: seed of the resamples.
    """
    texts = pq.read_table(at.queries, columns=["query"])["query"]
    identity = identities_in(at.queries)
    fine = find(judged, items=at.items, queries=texts, identity=identity, language=language)
    if fine is None:
        return {}
    return evaluate_fine(fine, scores, lifts=lifts, resamples=resamples, seed=seed)


def find(
    judged: Judged,
    *,
    items: Path,
    queries: pa.ChunkedArray,
    identity: Int[np.ndarray, " query"],
    language: str | None,
) -> Fine | None:
    """Returns the pairs of judged items that differ in one attribute; None where there are none.

    Args:
      judged: see `measure`.
      items: `prepare/items.parquet`.
      queries: the text of every query.
      identity: a number of every query that its spellings share.
      language: likewise.
    """
    order = np.argsort(judged.query, kind="stable")
    starts = np.flatnonzero(np.diff(judged.query[order], prepend=-1))
    lists = np.split(order, starts[1:])
    asked = queries.take(pa.array(judged.query[order[starts]])).to_pylist()
    is_shop = set(_TRUTH_COLUMNS) <= set(pq.read_schema(items).names)
    read = _of_truth if is_shop else _of_texts
    parts: list[tuple[Preferences, list[str]]] = []
    kept: list[int] = []
    for rows, kinds, states, types in read(judged, lists, asked, items=items, language=language):
        found = preferences_of_query(states, gains=judged.gain[rows], types=types)
        if len(found.right):
            pairs = Preferences(rows[found.right], rows[found.wrong], found.attribute)
            parts.append((pairs, [kinds[number] for number in found.attribute]))
            kept.append(identity[judged.query[rows[0]]])
    if not parts:
        return None
    return Fine(
        source=TRUTH if is_shop else TEXTS,
        preferences=Preferences(*map(np.concatenate, zip(*(pairs for pairs, _ in parts)))),
        kind=np.array([kind for _, kinds in parts for kind in kinds], object),
        query=np.repeat(np.arange(len(parts)), [len(kinds) for _, kinds in parts]),
        identity=np.array(kept),
    )


class _Asked(NamedTuple):
    """A query's judged items, and what they have of what it asks for."""

    rows: Int[np.ndarray, " item"]
    kinds: list[str]
    states: Int[np.ndarray, "item attribute"]
    types: Int[np.ndarray, " item"]


def _of_truth(
    judged: Judged,
    lists: Sequence[Int[np.ndarray, " _item"]],
    queries: Sequence[str],
    *,
    items: Path,
    language: str | None,
) -> list[_Asked]:
    """Returns the queries of the simulated shop that ask for an attribute."""
    wanted, place = np.unique(judged.item, return_inverse=True)
    table = pq.read_table(items, columns=list(_TRUTH_COLUMNS)).take(pa.array(wanted))
    known = [shop_item(*row) for row in zip(*(column.to_pylist() for column in table.columns))]
    result = []
    for rows, query in zip(lists, queries, strict=True):
        if found := shop_states(query, [known[number] for number in place[rows]]):
            kinds, states = found
            result.append(_Asked(rows, kinds, np.array(states), np.zeros(len(rows), int)))
    return result


def _of_texts(
    judged: Judged,
    lists: Sequence[Int[np.ndarray, " _item"]],
    queries: Sequence[str],
    *,
    items: Path,
    language: str | None,
) -> list[_Asked]:
    """Returns the queries that name an attribute."""
    wanted, place = np.unique(judged.item, return_inverse=True)
    names, known = _read_items(items, wanted=wanted)
    types = _types(items, language=language)[wanted]
    result = []
    for rows, query in zip(lists, queries, strict=True):
        if wants := wants_in(query, names=names):
            of_list = [known[number] for number in place[rows]]
            states = [[want.state_of(item) for want in wants] for item in of_list]
            kinds = [want.kind for want in wants]
            result.append(_Asked(rows, kinds, np.array(states), types[place[rows]]))
    return result


def _read_items(items: Path, *, wanted: Int[np.ndarray, " wanted"]) -> tuple[Names, list[Item]]:
    """Returns the names that a catalogue knows, and what is known of some of its items."""
    names, texts, first = Names(frozenset(), frozenset()), list[tuple[str, str | None]](), 0
    for some in read_item_texts(items):
        more = names_in(brands=some.brand, colours=some.colour)
        names = Names(*(known | new for known, new in zip(names, more, strict=True)))
        start, stop = np.searchsorted(wanted, [first, first + len(some.text)])
        texts += [(some.text[row], some.brand[row]) for row in wanted[start:stop] - first]
        first += len(some.text)
    return names, [item_of(text, brand=brand, names=names) for text, brand in texts]


def _types(items: Path, *, language: str | None) -> Int[np.ndarray, " item"]:
    """Returns a number of each item's product type: its category path or its title's head noun.

    An item of none has a number that no other has; where no item has one, all have the same.
    """
    types = read_title_types([str(items)], language=language)
    names = read_categories([str(items)], depth=_DEEPEST, types=types).to_pylist()
    if not any(names):
        return np.zeros(len(names), int)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}
    return np.array([numbers.get(name, -1 - row) for row, name in enumerate(names)])


def evaluate_fine(
    fine: Fine,
    scores: Mapping[str, Float[np.ndarray, "*seed pair"]],
    *,
    lifts: Sequence[tuple[str, str]],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Returns the shares of pairs whose right item is ranked first, a mean over queries.

    Args:
      fine: the pairs.
      scores: as in `measure`.
      lifts: likewise.
      resamples: likewise.
      seed: likewise.
    """
    chosen = {ALL: np.ones(len(fine.kind), bool)}
    chosen |= {kind: fine.kind == kind for kind in KINDS if (fine.kind == kind).any()}
    statistics = {
        (rung, kind): bootstrap.mean_statistic(
            [
                bootstrap.mean_over_queries(_shares(fine, one_seed, kept=kept))
                for one_seed in np.atleast_2d(values)
            ]
        )
        for rung, values in scores.items()
        for kind, kept in chosen.items()
    }
    values, samples = bootstrap.bootstrap(
        statistics,
        num_queries=len(fine.identity),
        num_pairs=len(fine.identity),  # statistics hold what they know by query
        resamples=resamples,
        seed=seed,
        groups=fine.identity,
    )

    def lift(rung: str, over: str, kind: str) -> dict[str, float]:
        one, other = (rung, kind), (over, kind)
        difference = values[one] - values[other], samples[one] - samples[other]
        return dataclasses.asdict(bootstrap.interval(*difference))

    return {
        "source": fine.source,
        "queries": len(fine.identity),
        "pairs": len(fine.kind),
        "kinds": {
            kind: {"queries": len(np.unique(fine.query[kept])), "pairs": int(kept.sum())}
            for kind, kept in chosen.items()
            if kind != ALL
        },
        "rungs": {
            rung: {
                kind: dataclasses.asdict(
                    bootstrap.interval(values[rung, kind], samples[rung, kind])
                )
                for kind in chosen
            }
            for rung in scores
        },
        "lifts": {
            key: {"rung": rung, "over": over} | {kind: lift(rung, over, kind) for kind in chosen}
            for (rung, over), key in lift_keys(lifts, rungs=scores).items()
        },
    }


def _shares(
    fine: Fine, scores: Float[np.ndarray, " pair"], *, kept: Bool[np.ndarray, " preference"]
) -> Float[np.ndarray, " query"]:
    pairs = Preferences(*(part[kept] for part in fine.preferences))
    return share_right_first(scores, pairs, query=fine.query[kept], queries=len(fine.identity))
