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
from jaxtyping import Float, Int

from dsirm_jax.relevance.attributes import ItemTexts, attributes
from dsirm_jax.relevance.lexical import Catalogue, lexical
from dsirm_jax.relevance.neighbours import (
    NEAR_ITEMS,
    Neighbours,
    Votes,
    lengths,
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
from dsirm_jax.sids.prefix_match import Beams

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

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
    """
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
    """
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
        items, votes = near
        shares = [
            _in_chunks(
                _weighted_agreement,
                (jnp.asarray(sids[of_items]), jnp.asarray(weights)),
                (query_row, pair_sids),
            )
            for of_items, weights in ((items.index, items.weights()), (votes.items, votes.weights))
        ]
        return np.concatenate(shares, axis=1)

    def margins() -> np.ndarray:
        pairs = {"query_index": query_index, "item_index": item_index}
        vectors = {"query_vectors": query_vectors, "item_vectors": item_vectors}
        named, item_row = np.unique(item_index, return_inverse=True)
        others = prefix_match.others_of_prefix(
            sids, sizes=sizes, items=named, most=OTHERS_OF_PREFIX
        )[item_row]  # [pair, level, other]
        of_others = cosines_to(query_index=query_index, items=others, **vectors)
        own = cosine(**pairs, **vectors)[:, 0]
        return _in_chunks(_within_prefix, (), (own, of_others, others >= 0))

    compute = {
        "paper_match": match_depth,
        "prefix": prefix,
        "neighbours": neighbours,
        "margins": margins,
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


def cosines_to(
    *,
    query_index: Int[np.ndarray, " pair"],
    items: Int[np.ndarray, "pair *shape"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
) -> Float[np.ndarray, "pair *shape"]:
    """Returns the cosines of each pair's query to several items, float32; 0 for the item −1.

    The items of a query are read once, however many of its pairs name them.
    """
    values = np.zeros(items.shape, np.float32)
    for query, rows in _by_query(query_index):
        named, place = np.unique(items[rows], return_inverse=True)
        vectors = np.asarray(item_vectors[named], np.float32)
        found = vectors @ unit(query_vectors[query]) / lengths(vectors)
        values[rows] = np.where(named >= 0, found, 0)[place.reshape(items[rows].shape)]
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
      item_vectors: dense vector of every item, in memory or memory-mapped.
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
        vectors = unit(item_vectors[np.concatenate([items, feedback])])
        cosines = vectors[: len(items)] @ vectors[len(items) :].T  # [pair, feedback]
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
    """Returns the user's own numbers of each pair's item; one that is not known is the mean."""
    columns = [np.empty((len(item_index), 0))]
    for values in numbers.values():
        known = np.isfinite(values)
        mean = values[known].mean() if known.any() else 0.0
        columns.append(np.where(known, values, mean)[item_index][:, None])
    return np.concatenate(columns, axis=1)


_match_depth = jax.jit(prefix_match.match_depth)
_prefix_features = jax.jit(prefix_match.prefix_features)
_weighted_agreement = jax.jit(prefix_match.weighted_agreement)
_within_prefix = jax.jit(prefix_match.within_prefix)


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
