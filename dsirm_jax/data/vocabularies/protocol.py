"""What a tokenizer is to a generator, whatever family it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

Marks = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids before and behind a text, such as those of its beginning and its end; perhaps none."""


@runtime_checkable
class Vocabulary(Protocol):
    """Texts to ids of pieces.

    A text is never read as a special piece, whatever it spells: what a user types is no command.
    """

    @property
    def size(self) -> int:
        """All ids are below it."""
        ...

    @property
    def padding(self) -> int | None:
        """The id that fills up rows; None where the tokenizer has none."""
        ...

    @property
    def marks(self) -> Marks:
        """What the model wants around every text."""
        ...

    @property
    def specials(self) -> frozenset[int]:
        """Ids that stand for no text: of padding, of beginning and end, of what is unknown."""
        ...

    @property
    def byte_pieces(self) -> tuple[int, ...]:
        """Ids of the bytes 0 to 255, in which all pieces can be spelt; empty where they cannot.

        -1 stands for a byte that no piece of the tokenizer has.
        """
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the pieces of each text, without marks."""
        ...

    def spelling(self, piece: int) -> bytes:
        """Returns the bytes of text, as the tokenizer has normalised it, that a piece is."""
        ...
