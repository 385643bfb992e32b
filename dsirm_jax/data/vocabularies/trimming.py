"""A vocabulary without the pieces that a user's texts do not use; new texts spell those in bytes.

A language model brings some 50,000 to 260,000 pieces, of which a shop's texts use a few per cent,
and an embedding has a row for each.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data.vocabularies.protocol import Marks, Vocabulary
from dsirm_jax.io.errors import InputError

PADDING = 0
"""Of every trimmed vocabulary, wherever the whole one has its own."""
TEXTS_AT_ONCE = 1 << 14


def trimmed(vocabulary: Vocabulary, texts: Iterable[str]) -> Int[np.ndarray, " kept"]:
    """Returns the pieces that a vocabulary needs for some texts.

    Those that the texts use, the special ones, and the bytes, which spell whatever else comes.

    Args:
      vocabulary: the whole one.
      texts: all that have to keep their pieces, within their prompts.

    Returns:
      Their ids in the whole vocabulary, int32, at their place in the trimmed one: padding first,
      the others in order. Where the whole one has no padding, or the texts or marks use the piece
      that pads, the first row is one more, which nothing reads. Source: this project.

    Raises:
      InputError: the vocabulary cannot spell text in bytes.
    """
    if not vocabulary.byte_pieces:
        raise InputError(
            f"a vocabulary of {vocabulary.size} pieces has none for some bytes, so that a new text "
            f"could be unknown; give a byte-level BPE, or a SentencePiece model with byte_fallback"
        )
    used = {id_ for ids in vocabulary.marks for id_ in ids}
    texts = iter(texts)
    while block := list(itertools.islice(texts, TEXTS_AT_ONCE)):
        used.update(itertools.chain.from_iterable(vocabulary.encode(block)))
    kept = used | ({*vocabulary.byte_pieces} - {-1}) | (vocabulary.specials - {vocabulary.padding})
    first = 0 if vocabulary.padding is None else vocabulary.padding
    return np.array([first, *sorted(kept)], np.int32)


def all_kept(vocabulary: Vocabulary) -> Int[np.ndarray, " kept"]:
    """Returns all pieces, behind one row more that pads; see `trimmed`.

    So numbered, a vocabulary has padding at 0 wherever it had its own, and nothing is spelt anew.
    """
    first = 0 if vocabulary.padding is None else vocabulary.padding
    return np.array([first, *range(vocabulary.size)], np.int32)


def kept_rows(
    table: Float[np.ndarray, "piece dim"], kept: Int[np.ndarray, " kept"]
) -> Float[np.ndarray, "kept dim"]:
    """Returns the rows of an embedding that a trimmed vocabulary has, in its order.

    Args:
      table: of the whole vocabulary; further rows, which many models have, are left out.
      kept: see `trimmed`.

    Raises:
      InputError: the vocabulary has pieces that the embedding has no row for.
    """
    if kept.max() >= len(table):
        raise InputError(
            f"the tokenizer has a piece {kept.max()}, but the embedding has {len(table)} rows; "
            f"take both from the same model"
        )
    return table[kept]


def text_rows(
    vocabulary: Vocabulary | None, *, size: int, rows: int, most_padding: int = 1
) -> Int[np.ndarray, " piece"] | slice | None:
    """Returns the rows of an embedding that the pieces of a vocabulary have, in its order.

    A trimmed vocabulary takes those that it keeps out of a whole embedding; of one that was cut
    down to them before, it takes all.

    Args:
      vocabulary: of the text; one that is not trimmed when not given.
      size: of the vocabulary.
      rows: of the embedding.
      most_padding: fewer than so many rows of a whole embedding are of no piece.

    Returns:
      None where the embedding is not of this vocabulary.
    """

    def is_whole(size: int) -> bool:
        return 0 <= rows - size < most_padding

    if not isinstance(vocabulary, Trimmed):
        return slice(size) if is_whole(size) else None
    # Nobody cuts an embedding down to all its rows.
    if rows == size and not np.array_equal(vocabulary.kept, all_kept(vocabulary.whole)):
        return slice(size)
    return vocabulary.kept if is_whole(vocabulary.whole.size) else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Trimmed:
    """A vocabulary with some of another's pieces; see `protocol.Vocabulary`.

    Texts are split as the whole one splits them, so what its pieces mean to a model stays. A piece
    that is not kept becomes its bytes.

    Attributes:
      whole: the other vocabulary.
      kept: see `trimmed`.
    """

    whole: Vocabulary
    kept: Int[np.ndarray, " kept"]

    @property
    def size(self) -> int:
        return len(self.kept)

    @property
    def padding(self) -> int:
        return PADDING

    @functools.cached_property
    def marks(self) -> Marks:
        before, behind = (tuple(map(self._places.__getitem__, ids)) for ids in self.whole.marks)
        return before, behind

    @functools.cached_property
    def specials(self) -> frozenset[int]:
        places = map(self._places.get, self.whole.specials)
        return frozenset({PADDING, *(place for place in places if place is not None)})

    @functools.cached_property
    def byte_pieces(self) -> tuple[int, ...]:
        return tuple(self._places.get(id_, -1) for id_ in self.whole.byte_pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [
            [place for piece in pieces for place in self._spelt(piece)]
            for pieces in self.whole.encode(texts)
        ]

    def spelling(self, piece: int) -> bytes:
        return self.whole.spelling(int(self.kept[piece]))

    @functools.cached_property
    def _places(self) -> Mapping[int, int]:
        """Place of each kept piece but padding, by its id in the whole vocabulary."""
        return {id_: place for place, id_ in enumerate(self.kept.tolist()) if place != PADDING}

    def _spelt(self, piece: int) -> tuple[int, ...]:
        place = self._places.get(piece)
        if place is not None:
            return (place,)
        spelt = (self.byte_pieces[value] for value in self.whole.spelling(piece))
        return tuple(place for place in spelt if place >= 0)


def whole_of(vocabulary: Vocabulary) -> Vocabulary:
    """Returns a vocabulary with its tokenizer's own ids, whether it is trimmed or not."""
    return vocabulary.whole if isinstance(vocabulary, Trimmed) else vocabulary
