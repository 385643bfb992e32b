"""Group `lexical`: word overlap of queries and items, BM25 and its kin over SentencePiece pieces.

The statistics are those of the whole catalogue. Libraries of BM25 rank a corpus for a query; here
pairs are given, so the formula stands below.
"""

from __future__ import annotations

import operator

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dsirm_jax.relevance.features.group import Column, Group, PairContext
from dsirm_jax.relevance.pieces import PieceStatistics
from dsirm_jax.relevance.rows import Ragged, bytes_in, lengths_of, shared

BM25_K1 = 1.2
BM25_B = 0.75


def lexical(context: PairContext) -> Float[np.ndarray, "pair 6"]:
    """Returns the columns of `GROUP`.

    Args:
      context: of the pairs.

    Returns:
      float64. Source: Robertson & Zaragoza 2009 with Lucene's non-negative idf.
    """
    query_row, item_row = context.query_row, context.item_row
    queries, items = context.texts.queries.pieces, context.texts.items.pieces
    statistics = context.texts.statistics
    pair, in_query, in_item = shared(
        queries.pieces, items.pieces, query_row=query_row, item_row=item_row
    )
    idf = inverse_frequencies(statistics, queries.pieces.values)
    gained = bm25(items.counts[in_item], items.lengths[item_row[pair]], idf[in_query], statistics)
    score = np.bincount(pair, gained, minlength=len(query_row))
    both = np.bincount(pair, minlength=len(query_row))
    most = np.maximum(_sums(queries.pieces.starts, idf), 1e-9)
    query_pieces = lengths_of(queries.pieces, query_row)
    return np.stack(
        [
            score,
            score / most[query_row],
            both / np.maximum(query_pieces, 1),
            both / np.maximum(lengths_of(items.pieces, item_row), 1),
            stands_in(queries.folded, items.folded, query_row=query_row, item_row=item_row),
            np.log1p(query_pieces),
        ],
        axis=1,
    )


def inverse_frequencies(
    statistics: PieceStatistics, pieces: Int[np.ndarray, " value"]
) -> Float[np.ndarray, " value"]:
    """Returns idf = ln(1 + (N − n + ½) / (n + ½)) of pieces that n of N documents have."""
    documents, with_piece = statistics.documents, statistics.with_piece[pieces]
    return np.log1p((documents - with_piece + 0.5) / (with_piece + 0.5))


def bm25(
    counts: Int[np.ndarray, " entry"],
    lengths: Int[np.ndarray, " entry"],
    idf: Float[np.ndarray, " entry"],
    statistics: PieceStatistics,
) -> Float[np.ndarray, " entry"]:
    """Returns what pieces add to the BM25 scores of documents that have them.

    idf · tf (k1 + 1) / (tf + k1 (1 − b + b · length / mean length)).

    Args:
      counts: tf, how often the document has the piece, at least 1.
      lengths: pieces of the document.
      idf: of the piece.
      statistics: of all documents.
    """
    norms = BM25_K1 * (1 - BM25_B + BM25_B * lengths / max(statistics.mean_length, 1e-9))
    return idf * counts * (BM25_K1 + 1) / (counts + norms)


def stands_in(
    queries: Ragged,
    items: Ragged,
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
) -> Bool[np.ndarray, " pair"]:
    """Returns whether the bytes of a pair's query stand in those of its item."""
    texts = bytes_in(items, item_row), bytes_in(queries, query_row)
    return np.fromiter(map(operator.contains, *texts), bool, len(query_row))


def _sums(
    starts: Int[np.ndarray, " boundary"], values: Shaped[np.ndarray, " value"]
) -> Float[np.ndarray, " row"]:
    """Returns the sum of the values of each row; 0 of an empty one."""
    rows = len(starts) - 1
    return np.bincount(np.repeat(np.arange(rows), np.diff(starts)), values, minlength=rows)


GROUP = Group(
    name="lexical",
    order=2,
    columns=(
        Column("bm25", "BM25 of the item's text, over SentencePiece pieces"),
        Column("bm25_share", "bm25 over the sum of the query's idf"),
        Column("overlap", "share of the query's distinct pieces in the item's text"),
        Column("coverage", "share of the item's distinct pieces in the query"),
        Column("phrase", "1 if the query stands in the text word for word"),
        Column("query_length", "log(1 + the query's distinct pieces)"),
    ),
    compute=lexical,
)
