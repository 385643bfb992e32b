"""SentencePiece models: that of a run, T5's, Gemma's `tokenizer.model`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsirm_jax.data.vocabularies.protocol import Marks
from dsirm_jax.data.vocabulary import processor

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

SPACE = "\u2581"
"""How a piece writes a space."""


def byte_name(value: int) -> str:
    """Returns what the piece of a byte is called, such as `<0x0A>`."""
    return f"<0x{value:02X}>"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SentencePiece:
    """A SentencePiece model with its ids as they are; see `protocol.Vocabulary`.

    Attributes:
      processor: the model, see `data.vocabulary.processor`.
      marks: what its language model wants around a text, which no SentencePiece model says.
    """

    processor: SentencePieceProcessor
    marks: Marks = ((), ())

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, marks: Marks = ((), ())) -> SentencePiece:
        """Reads a model, such as that of a run."""
        return cls(processor=processor(path), marks=marks)

    @property
    def is_plain(self) -> bool:
        """Whether nothing stands around a text, so that TensorFlow can make its pieces."""
        return not any(self.marks)

    @property
    def size(self) -> int:
        return self.processor.vocab_size()

    @property
    def padding(self) -> int | None:
        pad = self.processor.pad_id()
        return None if pad < 0 else pad

    @functools.cached_property
    def specials(self) -> frozenset[int]:
        is_special = (self.processor.is_control, self.processor.is_unknown)
        return frozenset(id_ for id_ in range(self.size) if any(known(id_) for known in is_special))

    @functools.cached_property
    def byte_pieces(self) -> tuple[int, ...]:
        ids = tuple(self.processor.piece_to_id(byte_name(value)) for value in range(256))
        return ids if all(map(self.processor.is_byte, ids)) else ()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        if len(texts) == 1:  # of a list the library asks a pool of threads
            return [self.processor.encode(texts[0], out_type=int)]
        return self.processor.encode(list(texts), out_type=int)

    def spelling(self, piece: int) -> bytes:
        name = self.processor.id_to_piece(piece)
        if self.processor.is_byte(piece):
            return bytes([int(name[3:5], 16)])  # see `byte_name`
        return name.replace(SPACE, " ").encode()
