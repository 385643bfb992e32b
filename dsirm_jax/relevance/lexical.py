"""Word overlap of queries and items: BM25 and its kin over SentencePiece pieces.

A text is digested once, into arrays; pairs of digested texts are array work. The statistics are
those of the whole catalogue. Libraries of BM25 rank a corpus for a query; here pairs are given, so
the formula stands below.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dsirm_jax.relevance.rows import Rows, bytes_in, bytes_of, lengths_of, places, rows_of, shared

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

BM25_K1 = 1.2
BM25_B = 0.75


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


class Pieces(NamedTuple):
    """Texts, one row a text, as the group `lexical` reads them.

    Attributes:
      pieces: the distinct pieces of each text, rising, int32.
      counts: how often each of them occurs, int32, in the order of `pieces.values`.
      lengths: how many pieces each text has, those that repeat among them, int32.
      folded: bytes of each text without regard to case, UTF-8.
    """

    pieces: Rows
    counts: Int[np.ndarray, " value"]
    lengths: Int[np.ndarray, " text"]
    folded: Rows


def pieces_of(texts: Sequence[str], processor: SentencePieceProcessor) -> Pieces:
    """Digests texts."""
    folded = [text.casefold() for text in texts]
    encoded = rows_of(processor.encode(folded, out_type=int), dtype=np.int64)
    size = processor.get_piece_size()
    row, place = places(encoded.starts, np.arange(len(texts)))
    keys, counts = np.unique(row * size + encoded.values[place], return_counts=True)
    starts = np.searchsorted(keys, size * np.arange(len(texts) + 1))
    return Pieces(
        pieces=Rows(starts, (keys % size).astype(np.int32)),
        counts=counts.astype(np.int32),
        lengths=np.diff(encoded.starts).astype(np.int32),
        folded=bytes_of(folded),
    )


def lexical(
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
    queries: Pieces,
    items: Pieces,
    statistics: PieceStatistics,
) -> Float[np.ndarray, "pair 6"]:
    """Returns the features of the group `lexical`, in the order of `schema.FEATURES`.

    Args:
      query_row: row of `queries` of each pair.
      item_row: row of `items` of each pair.
      queries: digested.
      items: digested.
      statistics: of the catalogue.

    Returns:
      float64. Source: Robertson & Zaragoza 2009 with Lucene's non-negative idf.
    """
    pairs = len(query_row)
    pair, asked, has = shared(queries.pieces, items.pieces, query_row=query_row, item_row=item_row)
    idf = inverse_frequencies(statistics, queries.pieces.values)
    gained = bm25(items.counts[has], items.lengths[item_row[pair]], idf[asked], statistics)
    score = np.bincount(pair, gained, minlength=pairs)
    both = np.bincount(pair, minlength=pairs)
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
    queries: Rows,
    items: Rows,
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
) -> Bool[np.ndarray, " pair"]:
    """Returns whether the bytes of a pair's query stand in those of its item."""
    asked, has = bytes_in(queries, query_row), bytes_in(items, item_row)
    return np.fromiter(map(operator.contains, has, asked), bool, len(query_row))


def _sums(
    starts: Int[np.ndarray, " boundary"], values: Shaped[np.ndarray, " value"]
) -> Float[np.ndarray, " row"]:
    """Returns the sum of the values of each row; 0 of an empty one."""
    rows = len(starts) - 1
    return np.bincount(np.repeat(np.arange(rows), np.diff(starts)), values, minlength=rows)
