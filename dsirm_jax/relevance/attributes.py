"""What a query asks for by name and an item has: brand, colour, numbers, product type, negations.

Texts become sets of terms, and a feature is how many terms of one kind a query and an item share.
Terms are digested to numbers once a text, so that pairs are array work.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data.product_type import product_type
from dsirm_jax.relevance.rows import Rows, places, rows_of, shared

MOST_WORDS = 4
"""Words of a name that is looked for in a text."""
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(?<![\w.,])(\d+(?:[.,]\d+)?)[\s-]?([a-z]+|[\"”″])?")
_NEGATED = re.compile(
    r"\b(?:without|w/o|no|non|not|sin|ohne|sans)[\s-]+(\w+)|\b(\w+)(?:-free|\sfree)\b"
)
_UNITS = {
    alias: unit
    for unit, aliases in {
        "in": 'in inch inches " ” ″',
        "ft": "ft foot feet",
        "mm": "mm",
        "cm": "cm",
        "m": "m meter meters metre metres",
        "g": "g gram grams",
        "kg": "kg kgs",
        "mg": "mg",
        "oz": "oz ounce ounces",
        "lb": "lb lbs pound pounds",
        "ml": "ml",
        "l": "l liter liters litre litres",
        "gal": "gal gallon gallons",
        "qt": "qt quart quarts",
        "v": "v volt volts",
        "w": "w watt watts",
        "mah": "mah",
        "hz": "hz",
        "ghz": "ghz",
        "mb": "mb",
        "gb": "gb",
        "tb": "tb",
        "ct": "ct count",
        "pk": "pk pack packs",
        "pc": "pc pcs piece pieces",
    }.items()
    for alias in aliases.split()
}


class ItemTexts(NamedTuple):
    """Columns of some items, as `prepare/items.parquet` has them.

    Attributes:
      text: title, then brand and colour where the title lacks them.
      title: alone.
      brand: None where it is not known.
      colour: likewise.
    """

    text: Sequence[str]
    title: Sequence[str]
    brand: Sequence[str | None]
    colour: Sequence[str | None]


class Names(NamedTuple):
    """Names that a catalogue knows, as `name_of` writes them."""

    brands: frozenset[str]
    colours: frozenset[str]


def name_of(text: str | None) -> str:
    """Returns the words of a name in lower case; "" when it has none, or more than `MOST_WORDS`."""
    words = _WORD.findall((text or "").casefold())
    return " ".join(words) if len(words) <= MOST_WORDS else ""


def names_in(*, brands: Sequence[str | None], colours: Sequence[str | None]) -> Names:
    """Returns the names that occur in columns of a catalogue."""
    return Names(*(frozenset(map(name_of, of)) - {""} for of in (brands, colours)))


def is_negated(text: str) -> bool:
    """Returns whether a text says what it is without, or what is not wanted."""
    return _NEGATED.search(text.casefold()) is not None


class Terms(NamedTuple):
    """What a text names, a set of each kind.

    Attributes:
      words: all of them.
      brands: known brands.
      colours: known colours.
      numbers: such as "7.5", with or without a unit.
      amounts: numbers with a unit, such as "64 gb".
      units: units of the amounts.
      negated: words that it says it is without.
      type: its product type, see `data.product_type`.
    """

    words: frozenset[str]
    brands: frozenset[str]
    colours: frozenset[str]
    numbers: frozenset[str]
    amounts: frozenset[str]
    units: frozenset[str]
    negated: frozenset[str]
    type: frozenset[str]

    @property
    def affirmed(self) -> frozenset[str]:
        """Words that it does not say it is without."""
        return self.words - self.negated


def terms(text: str, *, title: str, names: Names, language: str | None) -> Terms:
    """Returns the terms of a text.

    Args:
      text: a query, or all that is known of an item.
      title: what the product type is read from.
      names: of the catalogue.
      language: of the texts, as `product_type` wants it.
    """
    folded = text.casefold()
    words = _WORD.findall(folded)
    phrases = {
        " ".join(words[start : start + length])
        for length in range(1, MOST_WORDS + 1)
        for start in range(len(words) - length + 1)
    }
    found = [(n.replace(",", "."), _UNITS.get(unit)) for n, unit in _NUMBER.findall(folded)]
    amounts = [(number, unit) for number, unit in found if unit]
    kind = product_type(title, language=language)
    return Terms(
        words=frozenset(words),
        brands=names.brands & phrases,
        colours=names.colours & phrases,
        numbers=frozenset(number for number, _ in found),
        amounts=frozenset(f"{number} {unit}" for number, unit in amounts),
        units=frozenset(unit for _, unit in amounts),
        negated=frozenset(a or b for a, b in _NEGATED.findall(folded)),
        type=frozenset([kind] if kind else []),
    )


ASKED = ("brands", "colours", "numbers", "amounts", "units", "negated", "negated", "type", "words")
HAS = ("brands", "colours", "numbers", "amounts", "units", "affirmed", "negated", "type", "type")
"""Kinds of terms: how many of the one a query has that are of the other in an item, nine counts."""


class Asked(NamedTuple):
    """Queries, one row a query, as the group `attributes` reads them.

    Attributes:
      terms: keys of the terms that items may share, int64.
      count: which of the nine counts each adds to, uint8, in the order of `terms.values`.
    """

    terms: Rows
    count: Int[np.ndarray, " value"]


def asked_of(found: Sequence[Terms]) -> Asked:
    """Digests the terms of queries."""
    keys = [
        [
            (_key(has, term), number)
            for number, (asks, has) in enumerate(zip(ASKED, HAS, strict=True))
            for term in getattr(terms, asks)
        ]
        for terms in found
    ]
    return Asked(
        terms=rows_of([[key for key, _ in row] for row in keys], dtype=np.int64),
        count=rows_of([[number for _, number in row] for row in keys], dtype=np.uint8).values,
    )


def has_of(found: Sequence[Terms]) -> Rows:
    """Digests the terms of items: keys of the terms of all kinds, int64, each row rising."""
    return rows_of(
        [
            sorted(_key(kind, term) for kind in set(HAS) for term in getattr(terms, kind))
            for terms in found
        ],
        dtype=np.int64,
    )


@functools.lru_cache(1 << 16)
def _key(kind: str, term: str) -> int:
    """Returns 64 bits for a term of a kind: of a million terms, two are the same by 1 in 10^7."""
    spelt = f"{kind} {term}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelt, digest_size=8).digest(), "little", signed=True)


def attributes(
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
    queries: Asked,
    items: Rows,
) -> Float[np.ndarray, "pair 9"]:
    """Returns the features of the group `attributes`, in the order of `schema.FEATURES`.

    Args:
      query_row: row of `queries` of each pair.
      item_row: row of `items` of each pair.
      queries: from `asked_of`.
      items: from `has_of`.

    Returns:
      float64, columns as documented in `schema.FEATURES`. Source: this project.
    """
    pair, place, _ = shared(queries.terms, items, query_row=query_row, item_row=item_row)
    both = _counts(pair, queries.count[place], rows=len(query_row))  # [pair, 9]
    row, _ = places(queries.terms.starts, np.arange(len(queries.terms.starts) - 1))
    asked = _counts(row, queries.count, rows=len(queries.terms.starts) - 1)[query_row]
    share = both / np.maximum(asked, 1)
    agree = np.where(asked == 0, 0, np.where(both > 0, 1, -1))
    brands, colours, numbers, amounts, units, unwanted, without, kind, named = range(9)
    return np.stack(
        [
            agree[:, brands],
            agree[:, colours],
            share[:, numbers],
            (asked - both)[:, numbers] / np.maximum(asked[:, numbers], 1),
            np.maximum(both[:, units] - both[:, amounts], 0) / np.maximum(asked[:, units], 1),
            share[:, unwanted],
            share[:, without],
            both[:, kind],
            both[:, named],
        ],
        axis=1,
    )


def _counts(
    row: Int[np.ndarray, " entry"], count: Int[np.ndarray, " entry"], *, rows: int
) -> Int[np.ndarray, "row 9"]:
    """Returns how often each number below nine stands in each row."""
    return np.bincount(len(ASKED) * row + count, minlength=len(ASKED) * rows).reshape(
        rows, len(ASKED)
    )
