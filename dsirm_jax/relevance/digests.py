"""Texts of queries and items, each read once: what features keep of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from dsirm_jax.relevance.attributes import (
    Asked,
    ItemTexts,
    Names,
    asked_of,
    has_of,
    names_in,
    terms,
)
from dsirm_jax.relevance.lexical import Pieces, PieceStatistics, pieces_of
from dsirm_jax.relevance.rows import Rows

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


class Reading(NamedTuple):
    """How texts are read.

    Attributes:
      processor: SentencePiece.
      names: that the catalogue knows.
      language: of queries and items, ISO 639-1; None where it is not known or there are several.
    """

    processor: SentencePieceProcessor
    names: Names
    language: str | None


class QueryDigests(NamedTuple):
    """Queries, one row a query."""

    pieces: Pieces
    asked: Asked


class ItemDigests(NamedTuple):
    """Items, one row an item."""

    pieces: Pieces
    has: Rows


def read_queries(texts: Sequence[str], reading: Reading) -> QueryDigests:
    """Digests queries."""
    _, names, language = reading
    found = [terms(text, title=text, names=names, language=language) for text in texts]
    return QueryDigests(pieces_of(texts, reading.processor), asked_of(found))


def read_items(items: ItemTexts, reading: Reading) -> ItemDigests:
    """Digests items."""
    _, names, language = reading
    found = [
        terms(text, title=title, names=names, language=language)
        for text, title in zip(items.text, items.title, strict=True)
    ]
    return ItemDigests(pieces_of(items.text, reading.processor), has_of(found))


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
    return Catalogue(pieces, names), ItemTexts(*kept)
