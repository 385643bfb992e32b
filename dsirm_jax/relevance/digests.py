"""Texts of queries and items, each read once: what features keep of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from dsirm_jax.relevance.pieces import Pieces, PieceStatistics, joined_pieces, pieces_of
from dsirm_jax.relevance.rows import Ragged, joined
from dsirm_jax.relevance.terms import (
    ItemTexts,
    Names,
    QueryTerms,
    digest_item_terms,
    digest_query_terms,
    names_in,
    terms_in,
)

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


_ITEMS_AT_ONCE = 1 << 14


class Reading(NamedTuple):
    """How texts are read.

    Attributes:
      processor: SentencePiece.
      names: that the catalogue knows.
      language: of queries and items, see `product_type`; None: not known, or several.
    """

    processor: SentencePieceProcessor
    names: Names
    language: str | None


class QueryDigests(NamedTuple):
    """Queries, one row a query."""

    pieces: Pieces
    terms: QueryTerms


class ItemDigests(NamedTuple):
    """Items, one row an item."""

    pieces: Pieces
    terms: Ragged

    def take(self, rows: Int[np.ndarray, " row"]) -> ItemDigests:
        """Returns some items, rising."""
        return ItemDigests(self.pieces.take(rows), self.terms.take(rows))


def digest_queries(texts: Sequence[str], reading: Reading) -> QueryDigests:
    """Digests queries."""
    _, names, language = reading
    terms = [terms_in(text, title=text, names=names, language=language) for text in texts]
    return QueryDigests(pieces_of(texts, reading.processor), digest_query_terms(terms))


def digest_items(items: ItemTexts, reading: Reading) -> ItemDigests:
    """Digests items, some at a time, for what is found in texts is larger than its digests."""
    _, names, language = reading
    pieces, terms = list[Pieces](), list[Ragged]()
    for start in range(0, max(len(items.text), 1), _ITEMS_AT_ONCE):
        rows = slice(start, start + _ITEMS_AT_ONCE)
        pairs = zip(items.text[rows], items.title[rows], strict=True)
        found = [terms_in(text, title=of, names=names, language=language) for text, of in pairs]
        pieces.append(pieces_of(items.text[rows], reading.processor))
        terms.append(digest_item_terms(found))
    return ItemDigests(joined_pieces(pieces), joined(terms))


class CatalogueStatistics(NamedTuple):
    """What features know of all items of a catalogue."""

    pieces: PieceStatistics
    names: Names


def catalogue_statistics(
    items: Iterable[ItemTexts],
    *,
    wanted: Int[np.ndarray, " item"],
    processor: SentencePieceProcessor,
) -> tuple[CatalogueStatistics, ItemTexts]:
    """Returns what features know of all items, and the texts of those wanted.

    Args:
      items: columns of all items, some rows at a time, in order.
      wanted: numbers of items, rising.
      processor: SentencePiece.
    """
    kept: tuple[list, ...] = ([], [], [], [])
    documents, length = 0, 0
    with_piece = np.zeros(processor.get_piece_size(), np.int64)
    names = Names(frozenset(), frozenset())
    for some in items:
        digested = pieces_of(some.text, processor)
        with_piece += np.bincount(digested.pieces.values, minlength=len(with_piece))
        more = names_in(brands=some.brand, colours=some.colour)
        names = Names(*(known | new for known, new in zip(names, more, strict=True)))
        first, last = np.searchsorted(wanted, [documents, documents + len(some.text)])
        for column, values in zip(kept, some, strict=True):
            column.extend(values[row] for row in wanted[first:last] - documents)
        documents, length = documents + len(some.text), length + int(digested.counts.sum())
    pieces = PieceStatistics(documents, with_piece, length / max(documents, 1))
    return CatalogueStatistics(pieces, names), ItemTexts(*kept)
