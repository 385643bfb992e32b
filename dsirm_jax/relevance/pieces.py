"""SentencePiece pieces of texts: each text is digested once, so that pairs are array work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from dsirm_jax.data.identity import normal_form
from dsirm_jax.relevance.rows import Ragged, bytes_of, joined, places, ragged

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor


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
      folded: bytes of the normal form of each text, UTF-8.
    """

    pieces: Ragged
    counts: Int[np.ndarray, " value"]
    lengths: Int[np.ndarray, " text"]
    folded: Ragged

    def take(self, rows: Int[np.ndarray, " row"]) -> Pieces:
        """Returns some texts, rising."""
        return Pieces(
            pieces=self.pieces.take(rows),
            counts=Ragged(self.pieces.starts, self.counts).take(rows).values,
            lengths=self.lengths[rows],
            folded=self.folded.take(rows),
        )


def joined_pieces(parts: Sequence[Pieces]) -> Pieces:
    """Returns the texts of some parts, one part after the other."""
    return Pieces(
        pieces=joined([part.pieces for part in parts]),
        counts=np.concatenate([part.counts for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        folded=joined([part.folded for part in parts]),
    )


def pieces_of(texts: Sequence[str], processor: SentencePieceProcessor) -> Pieces:
    """Digests texts, in the normal form of a vocabulary of this package."""
    folded = [normal_form(text) for text in texts]
    encoded = ragged(processor.encode(folded, out_type=int), dtype=np.int64)
    size = processor.get_piece_size()
    row, place = places(encoded.starts, np.arange(len(texts)))
    keys, counts = np.unique(row * size + encoded.values[place], return_counts=True)
    starts = np.searchsorted(keys, size * np.arange(len(texts) + 1))
    return Pieces(
        pieces=Ragged(starts, (keys % size).astype(np.int32)),
        counts=counts.astype(np.int32),
        lengths=np.diff(encoded.starts).astype(np.int32),
        folded=bytes_of(folded),
    )
