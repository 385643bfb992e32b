"""What a text names: brand, colour, numbers, product type, negations.

Texts become sets of terms, and these are digested to numbers once a text, so that pairs are array
work.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from dsirm_jax.data.identity import normal_form
from dsirm_jax.data.product_type import product_type
from dsirm_jax.relevance.rows import Ragged, ragged

MOST_WORDS = 4
"""Words of a name that is looked for in a text."""
_WORD = re.compile(r"\w+")
# In normal form ½ is 1⁄2, and ″ is two primes.
_NUMBER = re.compile(r"(?<![\w.,⁄])(\d+(?:[.,⁄]\d+)?)[\s-]?([a-z]+|[\"”]|′′)?")
_NEGATED = re.compile(
    r"\b(?:without|w/o|no|non|not|sin|ohne|sans)[\s-]+(\w+)|\b(\w+)(?:-free|\sfree)\b"
)
_SIGNS = str.maketrans(dict.fromkeys("™℠®©№", " "))
"""Signs that are no words, though the normal form spells some of them in letters."""
_UNITS = {
    alias: unit
    for unit, aliases in {
        "in": 'in inch inches " ” ′′',
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
    """Returns the words of a name, folded; "" when it has none, or more than `MOST_WORDS`."""
    words = _WORD.findall(_folded(text or ""))
    return " ".join(words) if len(words) <= MOST_WORDS else ""


def _folded(text: str) -> str:
    """Returns a text in the normal form of vocabularies, without `_SIGNS`."""
    return normal_form(text.translate(_SIGNS))


def names_in(*, brands: Sequence[str | None], colours: Sequence[str | None]) -> Names:
    """Returns the names that occur in columns of a catalogue."""
    return Names(*(frozenset(map(name_of, column)) - {""} for column in (brands, colours)))


def is_negated(text: str) -> bool:
    """Returns whether a text says what it is without, or what is not wanted."""
    return _NEGATED.search(_folded(text)) is not None


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


def terms_in(text: str, *, title: str, names: Names, language: str | None) -> Terms:
    """Returns the terms of a text, which is read in the normal form of vocabularies.

    Args:
      text: a query, or all that is known of an item.
      title: what the product type is read from.
      names: of the catalogue.
      language: of the texts, as `product_type` wants it.
    """
    folded = _folded(text)
    words = _WORD.findall(folded)
    phrases = {
        " ".join(words[start : start + length])
        for length in range(1, MOST_WORDS + 1)
        for start in range(len(words) - length + 1)
    }
    numbers = [(n.replace(",", "."), _UNITS.get(unit)) for n, unit in _NUMBER.findall(folded)]
    amounts = [(number, unit) for number, unit in numbers if unit]
    kind = product_type(_folded(title), language=language)
    return Terms(
        words=frozenset(words),
        brands=names.brands & phrases,
        colours=names.colours & phrases,
        numbers=frozenset(number for number, _ in numbers),
        amounts=frozenset(f"{number} {unit}" for number, unit in amounts),
        units=frozenset(unit for _, unit in amounts),
        negated=frozenset(a or b for a, b in _NEGATED.findall(folded)),
        type=frozenset([kind] if kind else []),
    )


TERM_COUNTS = (
    ("brands", "brands"),
    ("colours", "colours"),
    ("numbers", "numbers"),
    ("amounts", "amounts"),
    ("units", "units"),
    ("negated", "affirmed"),
    ("negated", "negated"),
    ("type", "type"),
    ("words", "type"),
)
"""How many terms of the first kind a query has that are of the second kind in an item."""


class QueryTerms(NamedTuple):
    """Queries, one row a query, as the group `attributes` reads them.

    Attributes:
      terms: keys of the terms that items may share, int64.
      kind: which of `TERM_COUNTS` each adds to, uint8, in the order of `terms.values`.
    """

    terms: Ragged
    kind: UInt8[np.ndarray, " value"]


def digest_query_terms(queries: Sequence[Terms]) -> QueryTerms:
    """Digests the terms of queries."""
    keys = [
        [
            (term_key(in_item, term), number)
            for number, (in_query, in_item) in enumerate(TERM_COUNTS)
            for term in getattr(terms, in_query)
        ]
        for terms in queries
    ]
    return QueryTerms(
        terms=ragged([[key for key, _ in row] for row in keys], dtype=np.int64),
        kind=ragged([[number for _, number in row] for row in keys], dtype=np.uint8).values,
    )


def digest_item_terms(items: Sequence[Terms]) -> Ragged:
    """Digests the terms of items: keys of the terms of all kinds, int64, each row rising."""
    kinds = {in_item for _, in_item in TERM_COUNTS}
    return ragged(
        [
            sorted(term_key(kind, term) for kind in kinds for term in getattr(terms, kind))
            for terms in items
        ],
        dtype=np.int64,
    )


@functools.lru_cache(1 << 16)
def term_key(kind: str, term: str) -> int:
    """Returns 64 bits for a term of a kind: of a million terms, two are the same by 1 in 10^7."""
    spelt = f"{kind} {term}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(spelt, digest_size=8).digest(), "little", signed=True)
