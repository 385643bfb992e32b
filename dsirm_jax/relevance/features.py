"""Features of (query, item) pairs: those that know nothing of SIDs, and those that SIDs give.

`schema.WITHOUT_SIDS` and `sids.prefix_match.FEATURES` say what each column is. No statistic comes
from labels of head or test queries: votes are of training queries, counts of the catalogue alone.
Functions take arrays and texts and read no file, so that serving computes the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dsirm_jax.relevance.attributes import ItemTexts, attributes
from dsirm_jax.relevance.lexical import Catalogue, lexical
from dsirm_jax.relevance.neighbours import (
    NEAR_ITEMS,
    Judged,
    Neighbours,
    near_queries,
    nearest,
    unit,
)
from dsirm_jax.relevance.schema import (
    COLUMNS_WITHOUT_SIDS,
    NUMERIC,
    FeatureTable,
    check_groups,
    join,
)
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Beams

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

PAIRS_AT_ONCE = 1 << 14
VOTED_AT_ONCE = 1 << 11


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
      train_pairs: judged (query, item) numbers of the split `train`, never of another.
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
      items: texts of the pairs' items, in the order of their numbers, each once.
      catalogue: statistics of all items, see `lexical.read_catalogue`.
      processor: SentencePiece.
      language: of queries and items, ISO 639-1; None where it is not known or there are several.
    """

    items: ItemTexts
    catalogue: Catalogue
    processor: SentencePieceProcessor
    language: str | None = None


def without_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    queries: Sequence[str],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
    texts: Texts,
    numbers: Mapping[str, Float[np.ndarray, " item"]],
) -> FeatureTable:
    """Returns the features that know nothing of SIDs.

    Args:
      groups: those wanted; names of SID groups among them are passed over.
      query_index: row of `queries` of each pair.
      item_index: row of `item_vectors` of each pair.
      queries: text of every query.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      near: see `surroundings`.
      texts: see `Texts`.
      numbers: the user's own of every item, by the name of their column; NaN where not known.

    Returns:
      The table, columns in the order of `schema.COLUMNS_WITHOUT_SIDS`; the group `numeric` has a
      column per column of `numbers`.

    Raises:
      InputError: a group does not exist.
    """
    check_groups(groups)
    wanted, query_row = np.unique(query_index, return_inverse=True)
    item_row = np.unique(item_index, return_inverse=True)[1]
    rows = {"query_row": query_row, "item_row": item_row}
    asked = [queries[query] for query in wanted]

    def by_words() -> Float[np.ndarray, "pair 6"]:
        items, statistics = texts.items.text, texts.catalogue.pieces
        of_texts = {"queries": asked, "items": items, "statistics": statistics}
        return lexical(**rows, **of_texts, processor=texts.processor)

    def by_attributes() -> Float[np.ndarray, "pair 9"]:
        of_texts = {"queries": asked, "items": texts.items, "language": texts.language}
        return attributes(**rows, **of_texts, names=texts.catalogue.names)

    pairs = {"query_index": query_index, "item_index": item_index}
    compute = {
        "dense": lambda: cosine(**pairs, query_vectors=query_vectors, item_vectors=item_vectors),
        "lexical": by_words,
        "attributes": by_attributes,
        "prf": lambda: prf(**pairs, item_vectors=item_vectors, near=near),
        "votes": lambda: votes(**pairs, item_vectors=item_vectors, near=near),
        NUMERIC: lambda: numeric(item_index, numbers=numbers),
    }
    tables = [
        _table(tuple(numbers) if group == NUMERIC else names, group, compute[group]())
        for group, names in COLUMNS_WITHOUT_SIDS.items()
        if group in groups
    ]
    return join(tables) if tables else _table((), "", np.empty((len(query_index), 0)))


def with_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
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
      item_vectors: dense vector of every item, in memory or memory-mapped.
      sids: SID of every item of the catalogue.
      sizes: codes per level.
      beams: the generator's SIDs of every query.
      pair_log_probs: exact log P(first l codes of the item | query) of each pair.
      near: see `surroundings`.

    Returns:
      The table, groups in the order of `sids.prefix_match.GROUPS`.

    Raises:
      InputError: a group does not exist.
    """
    check_groups(groups)
    wanted, query_row = np.unique(query_index, return_inverse=True)
    beams = Beams(*(jnp.asarray(np.asarray(part)[wanted]) for part in beams))
    pair_sids = sids[item_index]

    def match_depth() -> np.ndarray:
        return _in_chunks(_match_depth, (beams,), (query_row, pair_sids))

    def prefix() -> np.ndarray:
        log_shares = prefix_match.log_prefix_shares(sids, sizes=sizes)[item_index]
        per_pair = (query_row, pair_sids, pair_log_probs, log_shares)
        return _in_chunks(_prefix_features, (beams,), per_pair)

    def neighbours() -> np.ndarray:
        items, queries, judged = near
        of_items = (jnp.asarray(sids[items.index]), jnp.asarray(items.weights()))
        of_items += (_heaviest_prefix(*of_items),)
        of_queries = (queries.index, queries.cosine, queries.weights())
        ballots = (sids[judged.items], judged.verdicts)
        voted = tuple(map(jnp.asarray, (*ballots, *of_queries)))
        rows = (query_row, pair_sids)
        parts = [
            _in_chunks(_near_item_features, of_items, rows),
            _in_chunks(_vote_features, voted, rows, rows=VOTED_AT_ONCE),
        ]
        return np.concatenate(parts, axis=1)

    compute = {
        "paper_match": match_depth,
        "prefix": prefix,
        "neighbours": neighbours,
    }
    tables = [
        _table(prefix_match.columns(group, levels=len(sizes)), group, compute[group]())
        for group in prefix_match.GROUPS
        if group in groups
    ]
    return join(tables) if tables else _table((), "", np.empty((len(query_index), 0)))


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
            "pd,pd->p", unit(query_vectors[query_index[rows]]), unit(item_vectors[item_index[rows]])
        )
        for rows in _slices(len(query_index), PAIRS_AT_ONCE)
    ]
    return np.concatenate([np.empty(0), *chunks])[:, None]


def prf(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
) -> Float[np.ndarray, "pair 2"]:
    """Returns pseudo-relevance feedback: how close the item is to what suits the query, it seems.

    In order: the weighted mean and the greatest of the item's cosines to the query's 50 nearest
    items, itself left out; 0 where there are none.

    Args:
      query_index: number of the query of each pair.
      item_index: row of `item_vectors` of each pair.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      near: of the pairs' queries, in the order of their numbers.

    Returns:
      float32 `[pair, 2]`. Source: this project, after Rocchio 1971.
    """
    weights = near.items.weights()
    values = np.zeros((len(query_index), 2), np.float32)
    query_row = np.unique(query_index, return_inverse=True)[1]
    for query, rows in _by_query(query_row):
        items, others = item_index[rows], near.items.index[query]
        cosines = _cosines(item_vectors, items, others)
        values[rows] = _mean_and_max(cosines, weights[query] * (others != items[:, None]))
    return values


def votes(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
) -> Float[np.ndarray, "pair 3"]:
    """Returns how close the item is to items that suit similar training queries.

    In order: the weighted mean and the greatest of the item's cosines to these, itself among them
    where it does; and the cosine of the nearest training query. 0 where there are none. A training
    query spreads its weight evenly over its relevant items.

    Args:
      query_index: number of the query of each pair.
      item_index: row of `item_vectors` of each pair.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      near: of the pairs' queries, in the order of their numbers.

    Returns:
      float32 `[pair, 3]`. Source: this project.
    """
    weights, suits = near.queries.weights(), near.judged.verdicts > 0
    shares = suits / np.maximum(suits.sum(axis=1, keepdims=True), 1)
    values = np.zeros((len(query_index), 3), np.float32)
    query_row = np.unique(query_index, return_inverse=True)[1]
    for query, rows in _by_query(query_row):
        voters = near.queries.index[query]
        of_votes = weights[query][:, None] * shares[voters]  # [neighbour, vote]
        voted = of_votes > 0
        cosines = _cosines(item_vectors, item_index[rows], near.judged.items[voters][voted])
        values[rows, :2] = _mean_and_max(cosines, np.broadcast_to(of_votes[voted], cosines.shape))
    nearest_query = near.queries.cosine[:, 0]
    values[:, 2] = np.where(np.isfinite(nearest_query), nearest_query, 0)[query_row]
    return values


def numeric(
    item_index: Int[np.ndarray, " pair"], *, numbers: Mapping[str, Float[np.ndarray, " item"]]
) -> Float[np.ndarray, "pair column"]:
    """Returns the user's own numbers of each pair's item; one that is not known is the mean."""
    columns = [np.empty((len(item_index), 0))]
    for values in numbers.values():
        known = np.isfinite(values)
        mean = values[known].mean() if known.any() else 0.0
        columns.append(np.where(known, values, mean)[item_index][:, None])
    return np.concatenate(columns, axis=1)


_match_depth = jax.jit(prefix_match.match_depth)
_prefix_features = jax.jit(prefix_match.prefix_features)
_heaviest_prefix = jax.jit(prefix_match.heaviest_prefix)
_near_item_features = jax.jit(prefix_match.near_item_features)
_vote_features = jax.jit(prefix_match.vote_features)


def _cosines(
    vectors: Float[np.ndarray, "item dim"],
    items: Int[np.ndarray, " one"],
    others: Int[np.ndarray, " other"],
) -> Float[np.ndarray, "one other"]:
    return unit(vectors[items]) @ unit(vectors[others]).T


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
    function: Callable,
    shared: tuple,
    per_pair: tuple[np.ndarray, ...],
    *,
    rows: int = PAIRS_AT_ONCE,
) -> np.ndarray:
    """Applies a jitted function to pairs block by block; every block has the same shape."""
    length = len(per_pair[0])
    rows = min(rows, 1 << max(length - 1, 1).bit_length())
    blocks = []
    for block in _slices(length, rows):
        missing = rows - (block.stop - block.start)
        padded = [np.concatenate([a[block], np.repeat(a[:1], missing, axis=0)]) for a in per_pair]
        blocks.append(np.asarray(function(*shared, *padded))[: rows - missing])
    return np.concatenate(blocks)


def _slices(length: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, length)) for start in range(0, length, rows)]


def _table(names: tuple[str, ...], group: str, values: np.ndarray) -> FeatureTable:
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"feature {names[column]} of pair {row} is {values[row, column]}")
    return FeatureTable(names=names, groups=(group,) * len(names), values=values)
