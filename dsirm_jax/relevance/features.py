"""Features of (query, item) pairs, in named groups that a rung of the ablation ladder chooses from.

| group | columns | needs |
| --- | --- | --- |
| `dense` | cosine of query and item | vectors |
| `lexical` | BM25 and overlap of SentencePiece pieces, phrase match | texts, vocabulary |
| `prf` | pseudo-relevance feedback: the control without any code in it | vectors |
| `paper_match`, `prefix` | see `sids.prefix_match.FEATURES` | SIDs, generator |
| `neighbours` | see `sids.prefix_match.FEATURES` | SIDs, vectors, training pairs |

No statistic comes from labels of head or test queries; BM25 counts come from the catalogue alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.neighbours import (
    NEAR_ITEMS,
    Neighbours,
    Votes,
    nearest,
    unit,
    votes_of_near_queries,
)
from dsirm_jax.relevance.schema import COLUMNS_WITHOUT_SIDS, FeatureTable, check_groups, join
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.prefix_match import Beams

BM25_K1 = 1.2
BM25_B = 0.75
PAIRS_AT_ONCE = 1 << 14
VALUES_AT_ONCE = 1 << 24


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


def without_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    queries: Sequence[str],
    items: Iterable[Sequence[str]],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Surroundings,
    vocabulary: Path,
) -> FeatureTable:
    """Returns the features that know nothing of SIDs.

    Args:
      groups: those wanted; names of SID groups among them are passed over.
      query_index: row of `queries` of each pair.
      item_index: row of `items` of each pair.
      queries: text of every query.
      items: text of every item of the catalogue, some at a time, in order.
      query_vectors: dense vector of every query.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      near: see `surroundings`.
      vocabulary: SentencePiece model.

    Returns:
      The table, columns in the order of `COLUMNS_WITHOUT_SIDS`.

    Raises:
      InputError: a group does not exist.
    """
    check_groups(groups)
    pairs = {"query_index": query_index, "item_index": item_index}
    columns = {
        "dense": lambda: cosine(**pairs, query_vectors=query_vectors, item_vectors=item_vectors),
        "lexical": lambda: lexical(**pairs, queries=queries, items=items, vocabulary=vocabulary),
        "prf": lambda: prf(**pairs, item_vectors=item_vectors, near=near.items),
    }
    tables = [
        _table(COLUMNS_WITHOUT_SIDS[group], group, compute())
        for group, compute in columns.items()
        if group in groups
    ]
    return join(tables) if tables else _table((), "", np.empty((len(query_index), 0)))


def with_sids(
    *,
    groups: Sequence[str],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
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
        items, votes = near
        shares = [
            _in_chunks(
                _weighted_agreement,
                (jnp.asarray(sids[of_items]), jnp.asarray(weights)),
                (query_row, pair_sids),
            )
            for of_items, weights in ((items.index, items.weights()), (votes.items, votes.weights))
        ]
        return np.concatenate([*shares, votes.nearest[query_row][:, None]], axis=1)

    compute = {"paper_match": match_depth, "prefix": prefix, "neighbours": neighbours}
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


def lexical(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    queries: Sequence[str],
    items: Iterable[Sequence[str]],
    vocabulary: Path,
) -> Float[np.ndarray, "pair 6"]:
    """Returns how many pieces query and item share, in six ways.

    In order: BM25; BM25 over the sum of the query's idf; share of the query's distinct pieces that
    the item has; share of the item's distinct pieces that the query has; whether the query stands
    in the item's text word for word; log(1 + the query's distinct pieces). Texts are case-folded.

    Args:
      query_index: row of `queries` of each pair.
      item_index: number of the item of each pair.
      queries: text of every query.
      items: text of every item, some at a time, in order; document frequencies and lengths are
        theirs. Only the texts of the pairs' items are kept.
      vocabulary: SentencePiece model.

    Returns:
      float64 `[pair, 6]`. Source: Robertson & Zaragoza 2009 with Lucene's non-negative idf.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(vocabulary))
    wanted, query_row = np.unique(query_index, return_inverse=True)
    query_texts = [queries[row].casefold() for row in wanted]
    query_has = (_piece_counts(query_texts, processor) > 0).astype(np.float64)
    named, item_row = np.unique(item_index, return_inverse=True)
    item_texts, item_counts, statistics = _read_items(items, named, processor)
    item_has = (item_counts > 0).astype(np.float64)
    item_scores, idf = bm25_weights(item_counts, statistics)

    query_pieces = np.asarray(query_has.sum(axis=1)).ravel()
    item_pieces = np.asarray(item_has.sum(axis=1)).ravel()
    most = np.maximum(query_has @ idf, 1e-9)  # [query]
    values = np.empty((len(query_index), 6))
    for rows in _slices(len(query_index), PAIRS_AT_ONCE):
        query, item = query_row[rows], item_row[rows]
        chosen = query_has[query]
        score = np.asarray(chosen.multiply(item_scores[item]).sum(axis=1)).ravel()
        shared = np.asarray(chosen.multiply(item_has[item]).sum(axis=1)).ravel()
        stands_in = [query_texts[q] in item_texts[i] for q, i in zip(query, item, strict=True)]
        values[rows] = np.stack(
            [
                score,
                score / most[query],
                shared / np.maximum(query_pieces[query], 1),
                shared / np.maximum(item_pieces[item], 1),
                stands_in,
                np.log1p(query_pieces[query]),
            ],
            axis=1,
        )
    return values


class PieceStatistics(NamedTuple):
    """What BM25 knows of a catalogue.

    Attributes:
      documents: items.
      with_piece: items that have each piece, `[piece]`.
      mean_length: pieces of an item, on average.
    """

    documents: int
    with_piece: Int[np.ndarray, " piece"]
    mean_length: float


def bm25_weights(counts, statistics: PieceStatistics):
    """Returns what each piece adds to the BM25 score of each document that has it.

    idf · tf (k1 + 1) / (tf + k1 (1 − b + b · length / mean length)) with
    idf = ln(1 + (N − n + ½) / (n + ½)) for a piece that n of N documents have.

    Args:
      counts: SciPy CSR `[document, piece]` of term frequencies, of some documents.
      statistics: of all documents.

    Returns:
      `(weights, idf)`: CSR like `counts`, and float64 `[piece]`.
    """
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    documents, with_piece, mean_length = statistics
    idf = np.log1p((documents - with_piece + 0.5) / (with_piece + 0.5))
    norms = BM25_K1 * (1 - BM25_B + BM25_B * lengths / max(mean_length, 1e-9))
    of_entry = np.repeat(norms, np.diff(counts.indptr))
    weights = counts.copy()
    weights.data = idf[counts.indices] * counts.data * (BM25_K1 + 1) / (counts.data + of_entry)
    return weights, idf


def _read_items(items: Iterable[Sequence[str]], named: Int[np.ndarray, " row"], processor):
    """Returns the case-folded texts and piece counts of the items named, and all items' statistics.

    Args:
      items: all texts, some at a time, in order.
      named: numbers of the items wanted, ascending.
      processor: SentencePiece.
    """
    from scipy.sparse import csr_matrix, vstack

    kept_texts: list[str] = []
    kept_counts = [csr_matrix((0, processor.get_piece_size()))]
    documents, length = 0, 0.0
    with_piece = np.zeros(processor.get_piece_size(), np.int64)
    for some in items:
        texts = [text.casefold() for text in some]
        counts = _piece_counts(texts, processor)
        with_piece += np.bincount(counts.indices, minlength=len(with_piece))
        first, last = np.searchsorted(named, [documents, documents + len(texts)])
        here = named[first:last] - documents
        kept_texts.extend(texts[row] for row in here)
        kept_counts.append(counts[here])
        documents, length = documents + len(texts), length + counts.sum()
    return (
        kept_texts,
        vstack(kept_counts, format="csr"),
        PieceStatistics(documents, with_piece, length / max(documents, 1)),
    )


def prf(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    item_vectors: Float[np.ndarray, "item dim"],
    near: Neighbours,
) -> Float[np.ndarray, "pair 2"]:
    """Returns pseudo-relevance feedback: how close the item is to what the query retrieves.

    In order: the weighted mean and the greatest of the item's cosines to the query's 50 nearest
    items, itself left out.

    Args:
      query_index: number of the query of each pair.
      item_index: row of `item_vectors` of each pair.
      item_vectors: dense vector of every item, in memory or memory-mapped.
      near: the nearest items of the pairs' queries, in the order of their numbers.

    Returns:
      float32 `[pair, 2]`. Source: this project, after Rocchio 1971.
    """
    query_row = np.unique(query_index, return_inverse=True)[1]
    weights = near.weights()
    values = np.empty((len(query_index), 2), np.float32)
    at_once = max(1, VALUES_AT_ONCE // (near.index.shape[1] * item_vectors.shape[1]))
    for rows in _slices(len(query_index), at_once):
        # Pairs of one query are neighbours: what it retrieves is read once.
        queries, query = np.unique(query_row[rows], return_inverse=True)
        items = item_index[rows]
        retrieved = unit(item_vectors[near.index[queries]])[query]  # [pair, neighbour, dim]
        cosines = np.einsum("pd,pnd->pn", unit(item_vectors[items]), retrieved)
        is_other = near.index[queries][query] != items[:, None]
        weight = weights[queries][query] * is_other
        values[rows, 0] = np.sum(weight * cosines, axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
        values[rows, 1] = np.max(np.where(is_other, cosines, -1.0), axis=1)
    return values


_match_depth = jax.jit(prefix_match.match_depth)
_prefix_features = jax.jit(prefix_match.prefix_features)
_weighted_agreement = jax.jit(prefix_match.weighted_agreement)


def _piece_counts(texts: Sequence[str], processor):
    """Returns how often each piece occurs in each text, SciPy CSR float64 `[text, piece]`."""
    from scipy.sparse import csr_matrix

    pieces = processor.encode(list(texts), out_type=int)
    bounds = np.cumsum([0, *map(len, pieces)])
    flat = np.fromiter((piece for text in pieces for piece in text), np.int32, bounds[-1])
    shape = (len(texts), processor.get_piece_size())
    counts = csr_matrix((np.ones(len(flat)), flat, bounds), shape=shape)
    counts.sum_duplicates()
    return counts


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
