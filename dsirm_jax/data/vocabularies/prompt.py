"""The text around a query, for a generator whose network has learnt to read such."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.io.errors import InputError

QUERY = "{query}"
"""What stands in a prompt for the query; alone, it is the prompt that adds nothing."""


def check_prompt(name: str, value: Any) -> None:
    """Checks that a prompt says once where the query goes; other braces are text.

    Args:
      name: what messages call it.
      value: what it is.

    Raises:
      InputError: it does not.

    Example:
      >>> check_prompt("the prompt", "Query:")
      Traceback (most recent call last):
      dsirm_jax.io.errors.InputError: the prompt is 'Query:'; give a text that has {query} in it \
once
    """
    if not isinstance(value, str) or value.count(QUERY) != 1:
        raise InputError(f"{name} is {value!r}; give a text that has {QUERY} in it once")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Prompted:
    """Texts as a generator reads them: in the prompt, split as one, between the model's marks.

    Of what is too long the text's end is left out, never the prompt's.

    Attributes:
      vocabulary: what splits texts.
      prompt: see `check_prompt`.
      most: pieces that are read.

    Raises:
      InputError: the prompt has no place for a query, or leaves it no piece.
    """

    vocabulary: Vocabulary
    prompt: str = QUERY
    most: int

    def __post_init__(self) -> None:
        check_prompt("the prompt", self.prompt)
        (empty,) = self.whole([""])
        if (self.prompt != QUERY or any(self.vocabulary.marks)) and len(empty) >= self.most:
            raise InputError(
                f"the prompt {self.prompt!r} has {len(empty)} pieces without a query, but no more "
                f"than {self.most} are read; shorten it or raise generate.run.max_pieces"
            )

    @functools.cached_property
    def around(self) -> tuple[str, str]:
        """The texts before and behind a query."""
        before, _, behind = self.prompt.partition(QUERY)
        return before, behind

    @functools.cached_property
    def ending(self) -> tuple[int, ...]:
        """The pieces that stand behind a text which is cut."""
        (pieces,) = self.vocabulary.encode([self.around[1]])
        return (*pieces, *self.vocabulary.marks[1])

    def whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns all pieces of each text."""
        before, behind = self.around
        first, last = self.vocabulary.marks
        pieces = self.vocabulary.encode([f"{before}{text}{behind}" for text in texts])
        return [[*first, *of_text, *last] for of_text in pieces]

    def cut(self, pieces: Sequence[Sequence[int]]) -> list[list[int]]:
        """Returns what is read of texts, of which these are all pieces."""
        kept = self.most - len(self.ending)
        return [
            list(text) if len(text) <= self.most else [*text[:kept], *self.ending]
            for text in pieces
        ]

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns what is read of each text."""
        return self.cut(self.whole(texts))
