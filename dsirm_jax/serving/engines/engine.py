"""What a search engine is to an export: the text of its schema, its documents and its queries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from jaxtyping import Float

FIELDS = ("title", "brand", "colour", "category")
"""What a document has of an item, as far as it is known."""
FOUND = 50
"""Documents that the query of an example asks for."""
SCALE = 6
"""Decimals of a weight: one that is 0 with them is left out."""


class Index(NamedTuple):
    """What all documents share.

    Attributes:
      name: what the index, or the table, is called.
      sid_version: names the codebooks; documents and queries of two versions do not go together.
      dim: numbers of a vector; None where documents have none.
    """

    name: str
    sid_version: str
    dim: int | None


class Document(NamedTuple):
    """An item as an engine has it.

    Attributes:
      item_id: its id.
      prefixes: of its SID, each a term: `12`, `12.87`, `12.87.3`.
      fields: title, brand, colour and category path, those that it has.
      vector: of length 1; None where they are not wanted.
    """

    item_id: str
    prefixes: tuple[str, ...]
    fields: Mapping[str, str]
    vector: Float[np.ndarray, " dim"] | None


Terms: TypeAlias = Mapping[str, float]
"""Of a query: the probability of each prefix of its SIDs."""


class Engine(Protocol):
    """An engine: a module of this folder has one as `ENGINE`.

    An engine's own score of a document, for what `query` returns, is the sum of the weights of its
    prefixes: the features `beam_mass_1`, `beam_mass_2` … of the pair added up.
    """

    @property
    def suffix(self) -> str:
        """Of the files of documents and queries, such as "ndjson"."""

    def index_files(self, index: Index) -> dict[str, str]:
        """Returns what makes the index, as text by file name."""

    def document(self, document: Document, *, index: Index) -> str:
        """Returns a document's line, or lines."""

    def query(self, text: str, terms: Terms, *, index: Index) -> str:
        """Returns the line of a query known beforehand: its text, and what the engine is asked."""


def prefixes_of(sid: Sequence[int]) -> tuple[str, ...]:
    """Returns the prefixes of a SID as terms.

    Example:
      >>> prefixes_of([12, 87, 3])
      ('12', '12.87', '12.87.3')
    """
    codes = [str(code) for code in sid]
    return tuple(".".join(codes[: level + 1]) for level in range(len(codes)))


def terms_of(sids: Sequence[Sequence[int]], probabilities: Sequence[float]) -> dict[str, float]:
    """Returns the probability of each prefix of a query's SIDs, the coarse ones first.

    Args:
      sids: the beams.
      probabilities: of each.

    Returns:
      The sum over the beams below each prefix, to `SCALE` decimals; none that is 0 with them.

    Example:
      >>> terms_of([[1, 2], [1, 3]], [0.5, 0.25])
      {'1': 0.75, '1.2': 0.5, '1.3': 0.25}
    """
    mass: dict[str, float] = {}
    for sid, probability in zip(sids, probabilities, strict=True):
        for prefix in prefixes_of(sid):
            mass[prefix] = mass.get(prefix, 0.0) + float(probability)
    rounded = {prefix: round(value, SCALE) for prefix, value in mass.items()}
    ordered = sorted(rounded.items(), key=lambda item: (item[0].count("."), -item[1], item[0]))
    return {prefix: value for prefix, value in ordered if value > 0}


def json_line(value: Any) -> str:
    """Returns a value as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def json_page(value: Any) -> str:
    """Returns a value as JSON for people to read."""
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def numbers(vector: Float[np.ndarray, " dim"]) -> list[float]:
    """Returns a vector's numbers in as few digits as give the same float32."""
    return [float(str(value)) for value in np.asarray(vector, np.float32)]
