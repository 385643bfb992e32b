"""Features of (query, item) pairs: those that know nothing of SIDs, and those that SIDs give.

`schema.WITHOUT_SIDS` and `sids.prefix_match.FEATURES` say what each column is. No statistic comes
from labels of the query itself or of test queries: votes are of other queries, counts of the
catalogue alone. Functions take arrays and texts and read no file, so that serving computes the same
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.relevance.attributes import attributes
from dsirm_jax.relevance.digests import ItemDigests, QueryDigests
from dsirm_jax.relevance.grid import COLUMNS, Grid, blocks
from dsirm_jax.relevance.lexical import PieceStatistics, lexical
from dsirm_jax.relevance.neighbours import (
    NEAR_ITEMS,
    Judged,
    Neighbours,
    near_queries,
    nearest,
    unit,
)
from dsirm_jax.relevance.schema import COLUMNS_WITHOUT_SIDS, NUMERIC, FeatureTable
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Beams

PAIRS_AT_ONCE = 1 << 11
ROWS_AT_ONCE = PAIRS_AT_ONCE // COLUMNS

Tree = TypeVar("Tree")


class Surroundings(NamedTuple):
    """What lies near the queries of some pairs, one row a query, in the order of their numbers.

    Attributes:
      items: the nearest items.
      queries: the nearest training queries, rows of `judged`.
      judged: what was judged for every training query.
    """

    items: Neighbours
    queries: Neighbours
    judged: Judged


def surroundings(
    *,
    query_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    train_pairs: Int[np.ndarray, "train_pair 2"],
    relevant: Bool[np.ndarray, " train_pair"],
) -> Surroundings:
    """Returns what the groups `prf`, `votes` and `neighbours` look at; it depends on no SIDs.

    Args:
      query_index: row of `query_vectors` of each pair.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      train_pairs: judged (query, item) numbers of the splits `train` and `head`, never of `test`.
      relevant: whether each of these is.
    """
    wanted = np.unique(query_index)
    queries, judged = near_queries(
        query_index=wanted,
        query_vectors=query_vectors,
        train_pairs=train_pairs,
        relevant=relevant,
    )
    items = nearest(queries=query_vectors[wanted], candidates=item_vectors, k=NEAR_ITEMS)
    return Surroundings(items=items, queries=queries, judged=judged)


class Texts(NamedTuple):
    """What the groups `lexical` and `attributes` read.

    Attributes:
      queries: those of the pairs, in the order of their numbers, each once.
      items: those of the pairs and perhaps others, in memory or memory-mapped.
      statistics: of all items.
    """

    queries: QueryDigests
    items: ItemDigests
    statistics: PieceStatistics


def without_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
    texts: Texts,
    numbers: Mapping[str, Float[np.ndarray, " item"]],
) -> FeatureTable:
    """Returns the features that know nothing of SIDs.

    Args:
      groups: those wanted; names of SID groups among them are passed over.
      query_index: row of `query_vectors` of each pair.
      item_index: row of `item_vectors` of each pair.
      item_row: row of `texts.items` of each pair.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
      near: see `surroundings`.
      texts: see `Texts`.
      numbers: the user's own of every item, by the name of their column, see `filled`.

    Returns:
      The table, columns in the order of `schema.COLUMNS_WITHOUT_SIDS`; the group `numeric` has a
      column per column of `numbers`.
    """
    _, query_row = np.unique(query_index, return_inverse=True)
    rows = {"query_row": query_row, "item_row": item_row}

    def by_words() -> Float[np.ndarray, "pair 6"]:
        pieces = {"queries": texts.queries.pieces, "items": texts.items.pieces}
        return lexical(**rows, **pieces, statistics=texts.statistics)

    def by_attributes() -> Float[np.ndarray, "pair 9"]:
        return attributes(**rows, queries=texts.queries.asked, items=texts.items.has)

    pairs = {"query_index": query_index, "item_index": item_index}
    of_rows = {"query_row": query_row, "item_index": item_index}
    compute = {
        "dense": lambda: cosine(**pairs, query_vectors=query_vectors, item_vectors=item_vectors),
        "lexical": by_words,
        "attributes": by_attributes,
        "prf": lambda: prf(**of_rows, item_vectors=item_vectors, near=near),
        "votes": lambda: votes(**of_rows, item_vectors=item_vectors, near=near),
        NUMERIC: lambda: numeric(item_index, numbers=numbers),
    }
    chosen = {
        group: tuple(numbers) if group == NUMERIC else names
        for group, names in COLUMNS_WITHOUT_SIDS.items()
        if group in groups
    }
    columns = [(group, name) for group, names in chosen.items() for name in names]
    nothing = np.empty((len(query_index), 0), np.float32)
    return _table(columns, np.concatenate([nothing, *(compute[of]() for of in chosen)], axis=1))


class OfQueries(NamedTuple):
    """What the features that SIDs give look at of some queries, one row a query.

    Attributes:
      beams: the generator's SIDs.
      near_sids: SIDs of the nearest items.
      near_weights: weights of these.
      vote_sids: SIDs of the items judged for the nearest training queries.
      vote_weights: see `prefix_match.vote_weights`.
    """

    beams: Beams
    near_sids: Int[Array, "query near level"]
    near_weights: Float[Array, "query near"]
    vote_sids: Int[Array, "query vote level"]
    vote_weights: Float[Array, "query vote 4"]


class OfPairs(NamedTuple):
    """What they look at of the items that each query is paired with.

    Attributes:
      sids: the item's SID.
      log_probs: exact log P(first l codes of the item | query).
      log_shares: log share of the catalogue's items that have these first l codes.
    """

    sids: Int[Array, "query item level"]
    log_probs: Float[Array, "query item level"]
    log_shares: Float[Array, "query item level"]


def sid_features(
    queries: OfQueries, pairs: OfPairs, *, groups: tuple[str, ...]
) -> Float[Array, "query item feature"]:
    """Returns the features of some groups, in the order of `sids.prefix_match.GROUPS`; in JAX."""

    def neighbours() -> Float[Array, "query item feature"]:
        near = queries.near_sids, queries.near_weights
        votes = queries.vote_sids, queries.vote_weights
        parts = [
            prefix_match.near_item_features(*near, pairs.sids),
            prefix_match.vote_features(*votes, pairs.sids),
        ]
        return jnp.concatenate(parts, axis=-1)

    compute = {
        "paper_match": lambda: prefix_match.match_depth(queries.beams, pairs.sids),
        "prefix": lambda: prefix_match.prefix_features(queries.beams, *pairs),
        "neighbours": neighbours,
    }
    found = [compute[group]() for group in prefix_match.GROUPS if group in groups]
    return jnp.concatenate(found, axis=-1)


def with_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "item level"],
    log_shares: Float[np.ndarray, "item level"],
    beams: Beams,
    pair_log_probs: Float[np.ndarray, "pair level"],
    near: Surroundings,
) -> FeatureTable:
    """Returns the features that one rung's SIDs give.

    Args:
      groups: those wanted; names of groups without SIDs are passed over.
      query_index: row of `beams` of each pair.
      item_index: row of `sids` of each pair.
      sids: SID of every item of the catalogue.
      log_shares: of every item, see `prefix_match.log_prefix_shares`.
      beams: the generator's SIDs of every query.
      pair_log_probs: exact log P(first l codes of the item | query) of each pair.
      near: see `surroundings`.

    Returns:
      The table, groups in the order of `sids.prefix_match.GROUPS`.
    """
    chosen = tuple(group for group in prefix_match.GROUPS if group in groups)
    if not chosen:
        return _table((), np.empty((len(query_index), 0)))
    wanted, query_row = np.unique(query_index, return_inverse=True)
    base = relevant_share(near.judged)
    columns = [
        (group, name)
        for group in chosen
        for name in prefix_match.columns(group, levels=sids.shape[1])
    ]
    values = np.empty((len(query_row), len(columns)), np.float32)
    for query, pair, there in blocks(query_row, columns=COLUMNS, rows=ROWS_AT_ONCE):
        queries = of_queries(
            beams=Beams(*(np.asarray(part)[wanted[query]] for part in beams)),
            near=Surroundings(near.items.take(query), near.queries.take(query), near.judged),
            sids=sids,
            base=base,
        )
        items = item_index[pair]
        pairs = OfPairs(sids[items], pair_log_probs[pair], log_shares[items])
        # Few shapes, so that few programs are compiled.
        found = _sid_features(_grown(queries), _grown(pairs), groups=chosen)
        values[pair[there]] = np.asarray(found)[: len(query)][there]
    return _table(columns, values)


def of_queries(
    *,
    beams: Beams,
    near: Surroundings,
    sids: Int[np.ndarray, "item level"],
    base: float,
) -> OfQueries:
    """Returns what the features that SIDs give look at of queries.

    Args:
      beams: the generator's SIDs.
      near: of the same queries.
      sids: SID of every item of the catalogue.
      base: `relevant_share` of all training queries.
    """
    rows, (voters, cosines) = len(near.queries.index), near.queries
    weights = prefix_match.vote_weights(
        near.judged.verdicts[voters], cosines=cosines, weights=near.queries.weights(), base=base
    )
    return OfQueries(
        beams=beams,
        near_sids=sids[near.items.index],
        near_weights=near.items.weights(),
        vote_sids=sids[near.judged.items[voters]].reshape(rows, -1, sids.shape[1]),
        vote_weights=weights.reshape(rows, -1, weights.shape[-1]),
    )


def relevant_share(judged: Judged) -> float:
    """Returns the share of the judgements of training queries that say relevant."""
    return float((judged.verdicts > 0).sum() / max((judged.verdicts != 0).sum(), 1))


def cosine(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
) -> Float[np.ndarray, "pair 1"]:
    """Returns the cosine of each pair's vectors, those of items being of length 1."""
    chunks = [
        np.einsum(
            "pd,pd->p", unit(query_vectors[query_index[rows]]), item_vectors[item_index[rows]]
        )
        for rows in _slices(len(query_index), PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *chunks])[:, None]


def prf(
    *,
    query_row: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
) -> Float[np.ndarray, "pair 2"]:
    """Returns pseudo-relevance feedback: how close the item is to what suits the query, it seems.

    In order: the weighted mean and the greatest of the item's cosines to the query's 50 nearest
    items, itself left out; 0 where there are none.

    Args:
      query_row: row of `near` of each pair.
      item_index: row of `item_vectors` of each pair.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
      near: of the pairs' queries.

    Returns:
      float32 `[pair, 2]`. Source: this project, after Rocchio 1971.
    """
    weights = near.items.weights()
    values = np.zeros((len(query_row), 2), np.float32)
    for query, pair, there in _rows(query_row):
        items, others = item_index[pair], near.items.index[query]
        cosines = _cosines(item_vectors, items, others)
        of_others = weights[query][:, None] * (others[:, None] != items[..., None])
        total = of_others.sum(axis=-1)
        mean = np.einsum("qio,qio->qi", cosines, of_others) / np.maximum(total, 1e-9)
        greatest = np.where(of_others > 0, cosines, -1.0).max(axis=-1, initial=-1.0)
        found = np.where(total > 0, [mean, greatest], 0.0)
        values[pair[there]] = found[:, there].T
    return values


def votes(
    *,
    query_row: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
) -> Float[np.ndarray, "pair 3"]:
    """Returns how close the item is to items that suit similar training queries.

    In order: the weighted mean and the greatest of the item's cosines to these, itself among them
    where it does; and the cosine of the nearest training query. 0 where there are none. A training
    query spreads its weight evenly over its relevant items.

    Args:
      query_row: row of `near` of each pair.
      item_index: row of `item_vectors` of each pair.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
      near: of the pairs' queries.

    Returns:
      float32 `[pair, 3]`. Source: this project.
    """
    weights = near.queries.weights()
    values = np.zeros((len(query_row), 3), np.float32)
    for query, pair, there in _rows(query_row):
        voters = near.queries.index[query]
        suits = near.judged.verdicts[voters] > 0  # [query, neighbour, vote]
        shares = suits / np.maximum(suits.sum(axis=-1, keepdims=True, dtype=np.float32), 1)
        of_votes = (weights[query][..., None] * shares).reshape(len(query), -1)
        others, of_others = _voted(near.judged.items[voters].reshape(of_votes.shape), of_votes)
        cosines = _cosines(item_vectors, item_index[pair], others)
        total = of_others.sum(axis=1)[:, None]
        mean = np.einsum("qio,qo->qi", cosines, of_others) / np.maximum(total, 1e-9)
        found = np.where(total > 0, [mean, cosines.max(axis=-1, initial=-1.0)], 0.0)
        values[pair[there], :2] = found[:, there].T
    nearest_query = near.queries.cosine[:, 0]
    values[:, 2] = np.where(np.isfinite(nearest_query), nearest_query, 0)[query_row]
    return values


def numeric(
    item_index: Int[np.ndarray, " pair"], *, numbers: Mapping[str, Float[np.ndarray, " item"]]
) -> Float[np.ndarray, "pair column"]:
    """Returns the user's own numbers of each pair's item, see `filled`."""
    columns = [values[item_index][:, None] for values in numbers.values()]
    return np.concatenate([np.empty((len(item_index), 0)), *columns], axis=1)


def filled(values: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Returns a column of numbers in which one that is not known, or not finite, is the mean."""
    known = np.isfinite(values)
    return np.where(known, values, values[known].mean() if known.any() else 0.0)


_sid_features = jax.jit(sid_features, static_argnames="groups")


def _rows(query_row: Int[np.ndarray, " pair"]) -> Iterator[Grid]:
    """Returns rows of pairs; all of a lone query are one row."""
    if len(query_row) and (query_row == query_row[0]).all():
        pair = np.arange(len(query_row))[None]
        return iter([Grid(query=query_row[:1], pair=pair, there=np.ones(pair.shape, bool))])
    return blocks(query_row, columns=COLUMNS, rows=ROWS_AT_ONCE)


def _cosines(
    vectors: Float[np.ndarray, "item dim"],
    items: Int[np.ndarray, "query item"],
    others: Int[np.ndarray, "query other"],
) -> Float[np.ndarray, "query item other"]:
    """Returns the cosines of some items, all of length 1, to others of the same row."""
    return vectors[items] @ vectors[others].swapaxes(1, 2)


def _voted(
    items: Int[np.ndarray, "query vote"], weights: Float[np.ndarray, "query vote"]
) -> tuple[Int[np.ndarray, "query other"], Float[np.ndarray, "query other"]]:
    """Returns the items of weights above 0, and these; padding is the first item with weight 0."""
    most = (weights > 0).sum(axis=1).max(initial=0)
    place = np.argsort(weights == 0, axis=1, kind="stable")[:, :most]
    weights = np.take_along_axis(weights, place, axis=1)
    place = np.where(weights > 0, place, place[:, :1])
    return np.take_along_axis(items, place, axis=1), weights


def _grown(tree: Tree) -> Tree:
    """Returns arrays with their first row repeated at the end, up to a power of two of rows."""

    def grown(array: np.ndarray) -> np.ndarray:
        missing = (1 << (len(array) - 1).bit_length()) - len(array)
        return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])

    return jax.tree.map(grown, tree)


def _slices(length: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _table(columns: Sequence[tuple[str, str]], values: np.ndarray) -> FeatureTable:
    """Returns the table of columns, each a group and a name."""
    groups, names = zip(*columns, strict=True) if columns else ((), ())
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"feature {names[column]} of pair {row} is {values[row, column]}")
    return FeatureTable(names=names, groups=groups, values=values)
