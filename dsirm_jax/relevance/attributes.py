"""What a query asks for by name and an item has: brand, colour, numbers, product type, negations.

Texts become sets of terms, and a feature is how many terms of one kind a query and an item share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data.product_type import product_type

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


def attributes(
    *,
    query_row: Int[np.ndarray, " pair"],
    item_row: Int[np.ndarray, " pair"],
    queries: Sequence[str],
    items: ItemTexts,
    names: Names,
    language: str | None,
) -> Float[np.ndarray, "pair 9"]:
    """Returns the features of the group `attributes`, in the order of `schema.FEATURES`.

    Args:
      query_row: row of `queries` of each pair.
      item_row: row of `items` of each pair.
      queries: texts.
      items: texts.
      names: of the catalogue.
      language: of the texts, ISO 639-1; product types are found in English, "en", alone.

    Returns:
      float64, columns as documented in `schema.FEATURES`. Source: this project.
    """
    of_queries = [terms(text, title=text, names=names, language=language) for text in queries]
    of_items = [
        terms(text, title=title, names=names, language=language)
        for text, title in zip(items.text, items.title, strict=True)
    ]
    found = [compare(of_queries[q], of_items[i]) for q, i in zip(query_row, item_row, strict=True)]
    return np.array(found, np.float64).reshape(-1, 9)


def compare(asked: Terms, has: Terms) -> tuple[float, ...]:
    """Returns the features of one pair, in the order of `schema.FEATURES`."""
    units = len(asked.units & has.units)
    amounts = len(asked.amounts & has.amounts)
    numbers = len(asked.numbers & has.numbers)
    lacked = asked.negated & has.negated
    return (
        _agrees(asked.brands, has.brands),
        _agrees(asked.colours, has.colours),
        numbers / max(len(asked.numbers), 1),
        (len(asked.numbers) - numbers) / max(len(asked.numbers), 1),
        max(units - amounts, 0) / max(len(asked.units), 1),
        len(asked.negated & (has.words - has.negated)) / max(len(asked.negated), 1),
        len(lacked) / max(len(asked.negated), 1),
        len(asked.type & has.type),
        len(asked.words & has.type),
    )


def _agrees(asked: frozenset[str], has: frozenset[str]) -> float:
    """Returns 1 where a name asked for is there, −1 where none is, 0 where none is asked for."""
    return 0.0 if not asked else 1.0 if asked & has else -1.0
