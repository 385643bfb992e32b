"""Which spellings are one query: in splits and folds, among voters, and in a bundle's cache."""

from __future__ import annotations

import dataclasses
import functools
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from dsirm_jax.io.checks import check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sentencepiece

RULE = "nmt_nfkc_cf"
"""SentencePiece's name of how a vocabulary of this package normalises text: NFKC, lower case."""
METADATA = b"identity"
"""Key of a queries table's metadata: the `QueryIdentity` that it was split by."""
APOSTROPHES = "'’ʼ"


def normal_form(text: str) -> str:
    """Returns text as a vocabulary of this package reads it, with single spaces.

    Case, Unicode form and white space are folded, whatever vocabulary a run has: one of a user's
    own that keeps case parts no queries. What Unicode writes in several letters in upper case
    ("STRASSE") is folded, too. Doing so twice changes nothing. Source: `RULE` of SentencePiece,
    after the full case folding of Unicode.

    Args:
      text: cleaned by `text.clean`.

    Returns:
      The text; the text as given where nothing would be left of it.
    """
    if text.isascii() and text.isprintable():
        folded = text.lower()
    else:
        folded = _normaliser().normalize(unicodedata.normalize("NFKC", text.casefold()))
    return " ".join(folded.split()) or text


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueryIdentity:
    """What makes two spellings one query, beside case, Unicode form and white space.

    Attributes:
      punctuation: it does not count: apostrophes go, any other becomes a space, so that "red-shoe."
        is "red shoe"; a query of nothing else keeps it.
      word_order: it does not count, so that "shoe red" is "red shoe".
    """

    punctuation: bool = False
    word_order: bool = False

    def __post_init__(self) -> None:
        for name in ("punctuation", "word_order"):
            check_choice(f"QueryIdentity.{name}", getattr(self, name), (True, False))

    def of(self, query: str) -> str:
        """Returns the identity of a query, which all its spellings share.

        Args:
          query: cleaned by `text.clean`.
        """
        identity = normal_form(query)
        if self.punctuation:
            identity = " ".join(identity.translate(_without_punctuation()).split()) or identity
        if self.word_order:
            identity = " ".join(sorted(identity.split()))
        return identity

    def numbers(self, queries: Sequence[str]) -> Int[np.ndarray, " query"]:
        """Returns a number of each query's identity, the same for those that share one."""
        identities = [self.of(query) for query in queries]
        return np.unique(np.array(identities, object), return_inverse=True)[1].reshape(-1)

    def metadata(self) -> dict[bytes, bytes]:
        """Returns what a table of queries says of it, see `identity_in`."""
        return {METADATA: json.dumps(dataclasses.asdict(self)).encode()}


PLAIN = QueryIdentity()
"""Spellings that differ in case, Unicode form and white space alone are one query."""

NEAR = QueryIdentity(punctuation=True, word_order=True)
"""By which queries that are spelt alike but are not one are found."""


def identity_in(table: Path) -> QueryIdentity:
    """Returns the identity that queries were split by, else the plain one.

    Args:
      table: `queries.parquet` of `prepare`, or `predictions.parquet` made of it.
    """
    import pyarrow.parquet as pq

    said = (pq.read_schema(table).metadata or {}).get(METADATA)
    return QueryIdentity(**json.loads(said)) if said else PLAIN


def identities_in(queries: Path) -> Int[np.ndarray, " query"]:
    """Returns a number of each query of `prepare/queries.parquet`, the same for its spellings."""
    import pyarrow.parquet as pq

    names = pq.read_table(queries, columns=["query"])["query"].to_pylist()
    return identity_in(queries).numbers(names)


@functools.cache
def _normaliser() -> sentencepiece.SentencePieceNormalizer:
    import sentencepiece

    return sentencepiece.SentencePieceNormalizer(rule_name=RULE)


@functools.cache
def _without_punctuation() -> Mapping[int, str]:
    return _Punctuation()


class _Punctuation(dict[int, str]):
    """What `str.translate` makes of each character, looked up when it first occurs."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character in APOSTROPHES:
            character = ""
        elif unicodedata.category(character).startswith("P"):
            character = " "
        self[code] = character
        return character
