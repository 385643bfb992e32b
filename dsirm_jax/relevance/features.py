"""Features of (query, item) pairs: those that know nothing of SIDs, and those that SIDs give.

`schema.WITHOUT_SIDS` and `sids.prefix_match.FEATURES` say what each column is. No statistic comes
from labels of head or test queries: votes are of training queries, counts of the catalogue alone.
Functions take arrays and texts and read no file, so that serving computes the same numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.relevance.attributes import attributes
from dsirm_jax.relevance.digests import ItemDigests, QueryDigests
from dsirm_jax.relevance.lexical import PieceStatistics, lexical
from dsirm_jax.relevance.neighbours import (
    NEAR_ITEMS,
    Neighbours,
    Votes,
    nearest,
    unit,
    votes_of_near_queries,
)
from dsirm_jax.relevance.schema import (
    COLUMNS_WITHOUT_SIDS,
    NUMERIC,
    FeatureTable,
    join,
)
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Beams, Buckets

PAIRS_AT_ONCE = 1 << 14
OTHERS_OF_PREFIX = 32


class Surroundings(NamedTuple):
    """What lies near the queries of some pairs, one row a query, in the order of their numbers.

    Attributes:
      items: the nearest items.
      votes: the items that suit the nearest training queries.
    """

    items: Neighbours
    votes: Votes


def surroundings(
    *,
    query_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    train_pairs: Int[np.ndarray, "train_pair 2"],
) -> Surroundings:
    """Returns what the groups `prf` and `neighbours` look at; it does not depend on SIDs.

    Args:
      query_index: row of `query_vectors` of each pair.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      train_pairs: relevant (query, item) numbers of the split `train`, never of another.
    """
    wanted = np.unique(query_index)
    return Surroundings(
        items=nearest(queries=query_vectors[wanted], candidates=item_vectors, k=NEAR_ITEMS),
        votes=votes_of_near_queries(
            query_index=wanted, query_vectors=query_vectors, train_pairs=train_pairs
        ),
    )


class Texts(NamedTuple):
    """What the groups `lexical` and `attributes` read.

    Attributes:
      queries: those of the pairs, in the order of their numbers, each once.
      items: likewise.
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
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
      near: see `surroundings`.
      texts: see `Texts`.
      numbers: the user's own of every item, by the name of their column, see `filled`.

    Returns:
      The table, columns in the order of `schema.COLUMNS_WITHOUT_SIDS`; the group `numeric` has a
      column per column of `numbers`.
    """
    query_row, item_row = (
        np.unique(index, return_inverse=True)[1] for index in (query_index, item_index)
    )
    rows = {"query_row": query_row, "item_row": item_row}

    def by_words() -> Float[np.ndarray, "pair 6"]:
        pieces = {"queries": texts.queries.pieces, "items": texts.items.pieces}
        return lexical(**rows, **pieces, statistics=texts.statistics)

    def by_attributes() -> Float[np.ndarray, "pair 9"]:
        return attributes(**rows, queries=texts.queries.asked, items=texts.items.has)

    pairs = {"query_index": query_index, "item_index": item_index}
    compute = {
        "dense": lambda: cosine(**pairs, query_vectors=query_vectors, item_vectors=item_vectors),
        "lexical": by_words,
        "attributes": by_attributes,
        "prf": lambda: prf(**pairs, item_vectors=item_vectors, near=near),
        NUMERIC: lambda: numeric(item_index, numbers=numbers),
    }
    tables = [
        _table(of_group, (group,) * len(of_group), compute[group]())
        for group, names in COLUMNS_WITHOUT_SIDS.items()
        if group in groups
        for of_group in (tuple(numbers) if group == NUMERIC else names,)
    ]
    return join(tables) if tables else _table((), (), np.empty((len(query_index), 0)))


class OfQueries(NamedTuple):
    """What the features that SIDs give look at of some queries, one row a query.

    Attributes:
      beams: the generator's SIDs.
      near_sids: SIDs of the nearest items.
      near_weights: weights of these.
      voted_sids: SIDs of the items that suit near training queries.
      voted_weights: weights of these.
    """

    beams: Beams
    near_sids: Int[Array, "query near level"]
    near_weights: Float[Array, "query near"]
    voted_sids: Int[Array, "query vote level"]
    voted_weights: Float[Array, "query vote"]


class OfPairs(NamedTuple):
    """What they look at of some pairs, one row a pair.

    Attributes:
      query_row: row of `OfQueries`.
      sids: the item's SID.
      log_probs: exact log P(first l codes of the item | query).
      log_shares: log share of the catalogue's items that have these first l codes.
      cosine: of query and item.
      other_cosines: of the query and others that have these first l codes.
      others: which of these there are.
    """

    query_row: Int[Array, " pair"]
    sids: Int[Array, "pair level"]
    log_probs: Float[Array, "pair level"]
    log_shares: Float[Array, "pair level"]
    cosine: Float[Array, " pair"]
    other_cosines: Float[Array, "pair level other"]
    others: Bool[Array, "pair level other"]


def sid_features(
    queries: OfQueries, pairs: OfPairs, *, groups: tuple[str, ...]
) -> Float[Array, "pair feature"]:
    """Returns the features of some groups, in the order of `sids.prefix_match.GROUPS`; in JAX."""

    def share(sids: Int[Array, "query sid level"], weights: Float[Array, "query sid"]) -> Array:
        return prefix_match.weighted_agreement(sids, weights, pairs.query_row, pairs.sids)

    def neighbours() -> Float[Array, "pair feature"]:
        near = share(queries.near_sids, queries.near_weights)
        return jnp.concatenate([near, share(queries.voted_sids, queries.voted_weights)], axis=1)

    own = (queries.beams, pairs.query_row, pairs.sids)
    compute = {
        "paper_match": lambda: prefix_match.match_depth(*own),
        "prefix": lambda: prefix_match.prefix_features(*own, pairs.log_probs, pairs.log_shares),
        "neighbours": neighbours,
        "margins": lambda: prefix_match.within_prefix(
            pairs.cosine, pairs.other_cosines, pairs.others
        ),
    }
    found = [compute[group]() for group in prefix_match.GROUPS if group in groups]
    return jnp.concatenate(found, axis=1)


def with_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    sids: Int[np.ndarray, "item level"],
    buckets: Buckets,
    beams: Beams,
    pair_log_probs: Float[np.ndarray, "pair level"],
    near: Surroundings,
) -> FeatureTable:
    """Returns the features that one rung's SIDs give.

    Args:
      groups: those wanted; names of groups without SIDs are passed over.
      query_index: row of `beams` and `query_vectors` of each pair.
      item_index: row of `sids` and `item_vectors` of each pair.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
      sids: SID of every item of the catalogue.
      buckets: of these SIDs.
      beams: the generator's SIDs of every query.
      pair_log_probs: exact log P(first l codes of the item | query) of each pair.
      near: see `surroundings`.

    Returns:
      The table, groups in the order of `sids.prefix_match.GROUPS`.
    """
    chosen = tuple(group for group in prefix_match.GROUPS if group in groups)
    if not chosen:
        return _table((), (), np.empty((len(query_index), 0)))
    wanted = np.unique(query_index)
    queries = of_queries(
        beams=Beams(*(np.asarray(part)[wanted] for part in beams)), sids=sids, near=near
    )
    pairs = of_pairs(
        groups=chosen,
        query_index=query_index,
        item_index=item_index,
        query_vectors=query_vectors,
        item_vectors=item_vectors,
        sids=sids,
        buckets=buckets,
        pair_log_probs=pair_log_probs,
    )
    compute = functools.partial(_sid_features, jax.device_put(queries), groups=chosen)
    columns = [prefix_match.columns(group, levels=sids.shape[1]) for group in chosen]
    names = [(group, name) for group, of in zip(chosen, columns, strict=True) for name in of]
    return _table(
        tuple(name for _, name in names),
        tuple(group for group, _ in names),
        _in_chunks(compute, pairs),
    )


def of_queries(
    *, beams: Beams, sids: Int[np.ndarray, "item level"], near: Surroundings
) -> OfQueries:
    """Returns what features look at of queries, whose beams and surroundings are given."""
    return OfQueries(
        beams=beams,
        near_sids=sids[near.items.index],
        near_weights=near.items.weights(),
        voted_sids=sids[near.votes.items],
        voted_weights=near.votes.weights,
    )


def of_pairs(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    sids: Int[np.ndarray, "item level"],
    buckets: Buckets,
    pair_log_probs: Float[np.ndarray, "pair level"],
) -> OfPairs:
    """Returns what features of some groups look at of pairs; arguments as `with_sids` has them."""
    most = OTHERS_OF_PREFIX if "margins" in groups else 0
    others = prefix_match.others_of_prefix(buckets, items=item_index, most=most)
    vectors = {"query_vectors": query_vectors, "item_vectors": item_vectors}
    own = cosines_to(query_index=query_index, items=item_index, **vectors)
    return OfPairs(
        query_row=np.unique(query_index, return_inverse=True)[1],
        sids=sids[item_index],
        log_probs=pair_log_probs,
        log_shares=prefix_match.log_prefix_shares(buckets, items=item_index),
        cosine=own,
        other_cosines=cosines_to(query_index=query_index, items=others, **vectors),
        others=others >= 0,
    )


def cosine(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
) -> Float[np.ndarray, "pair 1"]:
    """Returns the cosine of each pair's vectors."""
    chunks = [
        np.einsum(
            "pd,pd->p", unit(query_vectors[query_index[rows]]), item_vectors[item_index[rows]]
        )
        for rows in _slices(len(query_index), PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *chunks])[:, None]


def cosines_to(
    *,
    query_index: Int[np.ndarray, " pair"],
    items: Int[np.ndarray, "pair *shape"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
) -> Float[np.ndarray, "pair *shape"]:
    """Returns the cosines of each pair's query to several items, float32.

    Args:
      query_index: row of `query_vectors` of each pair.
      items: rows of `item_vectors` of each pair; the cosine of the item −1 means nothing.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
    """
    values = np.empty(items.shape, np.float32)
    for query, rows in _by_query(query_index):
        named, asked = items[rows], unit(query_vectors[query])
        if named.size > len(item_vectors):
            values[rows] = np.einsum("id,d->i", item_vectors, asked)[named]
        else:
            values[rows] = np.einsum("...d,d->...", item_vectors[named], asked)
    return values


def prf(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
) -> Float[np.ndarray, "pair 5"]:
    """Returns pseudo-relevance feedback: how close the item is to what suits the query, it seems.

    In order: the weighted mean and the greatest of the item's cosines to the query's 50 nearest
    items, itself left out; the same of the items that suit the nearest training queries, itself
    among them where it does; and the cosine of the nearest training query. 0 where there are none.

    Args:
      query_index: number of the query of each pair.
      item_index: row of `item_vectors` of each pair.
      item_vectors: dense vector of every item, of length 1, in memory or memory-mapped.
      near: of the pairs' queries, in the order of their numbers.

    Returns:
      float32 `[pair, 5]`. Source: this project, after Rocchio 1971.
    """
    weights = near.items.weights()
    values = np.zeros((len(query_index), 5), np.float32)
    query_row = np.unique(query_index, return_inverse=True)[1]
    for query, rows in _by_query(query_row):
        items = item_index[rows]
        voted = near.votes.weights[query] > 0
        feedback = np.concatenate([near.items.index[query], near.votes.items[query][voted]])
        cosines = item_vectors[items] @ item_vectors[feedback].T  # [pair, feedback]
        retrieved = near.items.index.shape[1]
        is_other = feedback[:retrieved] != items[:, None]
        values[rows, :2] = _mean_and_max(cosines[:, :retrieved], weights[query] * is_other)
        of_votes = np.broadcast_to(near.votes.weights[query][voted], cosines[:, retrieved:].shape)
        values[rows, 2:4] = _mean_and_max(cosines[:, retrieved:], of_votes)
    values[:, 4] = near.votes.nearest[query_row]
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


def _mean_and_max(
    values: Float[np.ndarray, "pair other"], weights: Float[np.ndarray, "pair other"]
) -> Float[np.ndarray, "pair 2"]:
    """Returns weighted mean and greatest of the values with weight; 0 where there are none."""
    total = weights.sum(axis=1)
    mean = np.einsum("po,po->p", values, weights) / np.maximum(total, 1e-9)
    greatest = np.where(weights > 0, values, -1.0).max(axis=1, initial=-1.0)
    return np.where(total[:, None] > 0, np.stack([mean, greatest], axis=1), 0.0)


def _by_query(query_index: Int[np.ndarray, " pair"]) -> Iterator[tuple[int, np.ndarray]]:
    """Yields each query with the rows of its pairs."""
    order = np.argsort(query_index, kind="stable")
    queries, starts = np.unique(query_index[order], return_index=True)
    for query, rows in zip(queries, np.split(order, starts[1:]), strict=False):
        yield int(query), rows


def _in_chunks(
    function: Callable[[OfPairs], Array], pairs: OfPairs, *, rows: int = PAIRS_AT_ONCE
) -> np.ndarray:
    """Applies a jitted function to pairs block by block; every block has the same shape."""
    length = len(pairs.sids)
    rows = min(rows, 1 << max(length - 1, 1).bit_length())
    blocks = []
    for block in _slices(length, rows):
        missing = rows - (block.stop - block.start)
        padded = [np.concatenate([a[block], np.repeat(a[:1], missing, axis=0)]) for a in pairs]
        blocks.append(np.asarray(function(OfPairs(*padded)))[: rows - missing])
    return np.concatenate(blocks)


def _slices(length: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _table(names: tuple[str, ...], groups: tuple[str, ...], values: np.ndarray) -> FeatureTable:
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"feature {names[column]} of pair {row} is {values[row, column]}")
    return FeatureTable(names=names, groups=groups, values=values)
