"""Word overlap of queries and items: BM25 and its kin over SentencePiece pieces.

The statistics are those of the whole catalogue, read once, a block of texts at a time; only the
texts of the pairs' items are kept. Libraries of BM25 rank a corpus that they hold in memory for a
query; here pairs are given and the corpus is streamed, so the formula stands below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.attributes import ItemTexts, Names, names_in

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sentencepiece import SentencePieceProcessor

BM25_K1 = 1.2
BM25_B = 0.75
PAIRS_AT_ONCE = 1 << 14


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


class Catalogue(NamedTuple):
    """What features know of all items of a catalogue."""

    pieces: PieceStatistics
    names: Names


def read_catalogue(
    items: Iterable[ItemTexts],
    *,
    wanted: Int[np.ndarray, " item"],
    processor: SentencePieceProcessor,
) -> tuple[Catalogue, ItemTexts]:
    """Returns what features know of all items, and the texts of those wanted.

    Args:
      items: columns of all items, some rows at a time, in order.
      wanted: numbers of items, rising.
      processor: SentencePiece.
    """
    kept: tuple[list, ...] = ([], [], [], [])
    documents, length = 0, 0.0
    with_piece = np.zeros(processor.get_piece_size(), np.int64)
    names = Names(frozenset(), frozenset())
    for some in items:
        counts = piece_counts(some.text, processor)
        with_piece += np.bincount(counts.indices, minlength=len(with_piece))
        more = names_in(brands=some.brand, colours=some.colour)
        names = Names(*(known | new for known, new in zip(names, more, strict=True)))
        first, last = np.searchsorted(wanted, [documents, documents + len(some.text)])
        for column, values in zip(kept, some, strict=True):
            column.extend(values[row] for row in wanted[first:last] - documents)
        documents, length = documents + len(some.text), length + counts.sum()
    pieces = PieceStatistics(documents, with_piece, length / max(documents, 1))
    return Catalogue(pieces, names), ItemTexts(*kept)


def lexical(
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
    queries: Sequence[str],
    items: Sequence[str],
    statistics: PieceStatistics,
    processor: SentencePieceProcessor,
) -> Float[np.ndarray, "pair 6"]:
    """Returns the features of the group `lexical`, in the order of `schema.FEATURES`.

    Args:
      query_row: row of `queries` of each pair.
      item_row: row of `items` of each pair.
      queries: texts.
      items: texts.
      statistics: of the catalogue.
      processor: SentencePiece.

    Returns:
      float64. Source: Robertson & Zaragoza 2009 with Lucene's non-negative idf.
    """
    query_texts, item_texts = ([text.casefold() for text in texts] for texts in (queries, items))
    query_has = (piece_counts(queries, processor) > 0).astype(np.float64)
    item_counts = piece_counts(items, processor)
    item_scores, idf = bm25_weights(item_counts, statistics)
    item_has = (item_counts > 0).astype(np.float64)
    query_pieces, item_pieces = (np.diff(has.indptr) for has in (query_has, item_has))
    most = np.maximum(query_has @ idf, 1e-9)  # [query]
    values = np.empty((len(query_row), 6))
    for start in range(0, len(query_row), PAIRS_AT_ONCE):
        rows = slice(start, start + PAIRS_AT_ONCE)
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


def bm25_weights(
    counts: csr_matrix, statistics: PieceStatistics
) -> tuple[csr_matrix, Float[np.ndarray, " piece"]]:
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


def piece_counts(texts: Sequence[str], processor: SentencePieceProcessor) -> csr_matrix:
    """Returns how often each piece occurs in each text without regard to case, `[text, piece]`."""
    from scipy.sparse import csr_matrix

    pieces = processor.encode([text.casefold() for text in texts], out_type=int)
    bounds = np.cumsum([0, *map(len, pieces)])
    flat = np.fromiter((piece for text in pieces for piece in text), np.int32, bounds[-1])
    shape = (len(texts), processor.get_piece_size())
    counts = csr_matrix((np.ones(len(flat)), flat, bounds), shape=shape)
    counts.sum_duplicates()
    return counts
