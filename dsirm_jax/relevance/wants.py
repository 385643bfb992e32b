"""What a query asks for of an item, and what items have: read from texts, or the shop's truth.

An attribute is of a kind; a query asks for one or several, and an item has what is asked for,
another value, or nobody knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from dsirm_jax.data.identity import normal_form
from dsirm_jax.ingestion.shop import reading
from dsirm_jax.metrics.fine_grained import HAS, HAS_ANOTHER, UNKNOWN
from dsirm_jax.relevance.terms import Names, Terms, name_of, terms_in

KINDS = BRAND, COLOUR, SIZE, NUMBER, NEGATION, OTHER = (
    "brand",
    "colour",
    "size",
    "number",
    "negation",
    "other",
)
"""Kinds of attributes: `OTHER` is known of the simulated shop alone, such as a material."""

_WITHOUT = "without "
_LETTERS = {"small": "s", "medium": "m", "large": "l", "xxl": "2xl", "xxxl": "3xl"}
_SIZE = re.compile(
    r"\bsize[\s:-]+(\d+(?:\.\d+)?|[2-5]?x{0,3}[sl]|m)\b"
    r"|\b([2-5]?x{1,3}[sl]|small|medium|large|twin|queen|king)\b"
)


class Item(NamedTuple):
    """What is known of an item.

    Attributes:
      terms: of its text.
      brand: as `terms.name_of` writes it; "" where it is not known.
      sizes: that its text names.
    """

    terms: Terms
    brand: str
    sizes: frozenset[str]


class Want(NamedTuple):
    """An attribute that a query asks for.

    Attributes:
      kind: one of `KINDS`.
      state_of: `HAS`, `HAS_ANOTHER` or `UNKNOWN` of an item.
    """

    kind: str
    state_of: Callable[[Item], int]


def item_of(text: str, *, brand: str | None, names: Names) -> Item:
    """Returns what is known of an item of a user's own.

    Args:
      text: title, then brand and colour.
      brand: its brand, where it is known.
      names: of the catalogue.
    """
    terms = terms_in(text, title="", names=names, language=None)
    return Item(terms, name_of(brand), sizes_in(text))


def sizes_in(text: str) -> frozenset[str]:
    """Returns the sizes that a text names: "9" of "size 9", "xl", "m" of "medium", "queen"."""
    found = (first or second for first, second in _SIZE.findall(normal_form(text)))
    return frozenset(_LETTERS.get(size, size) for size in found)


def wants_in(query: str, *, names: Names) -> list[Want]:
    """Returns what a query asks for, as far as its words name it; one of a kind at most.

    Brands and colours are those that the catalogue knows, numbers such as have a unit. Of a
    negation the wrong item has the word, the right one does not.

    Args:
      query: its text.
      names: of the catalogue.
    """
    terms, sizes = terms_in(query, title="", names=names, language=None), sizes_in(query)
    brands = terms.brands - terms.negated - terms.colours
    colours = terms.colours - terms.negated - terms.brands
    wants = {
        BRAND: (brands, lambda item: _of(brands, {item.brand} - {""})),
        COLOUR: (colours, lambda item: _of(colours, item.terms.colours)),
        SIZE: (sizes, lambda item: _of(sizes, item.sizes)),
        NUMBER: (terms.amounts, lambda item: _of_amounts(terms, item.terms)),
        NEGATION: (
            terms.negated,
            lambda item: HAS_ANOTHER if terms.negated & item.terms.affirmed else HAS,
        ),
    }
    return [Want(kind, state_of) for kind, (asked, state_of) in wants.items() if asked]


def _of(asked: Iterable[str], known: Iterable[str]) -> int:
    """Returns the state of an item by the values that it has, perhaps none."""
    known = frozenset(known)
    return UNKNOWN if not known else HAS if known & frozenset(asked) else HAS_ANOTHER


def _of_amounts(query: Terms, item: Terms) -> int:
    """Returns whether an item has all amounts of a query, or others of their units."""
    if query.amounts <= item.amounts:
        return HAS
    return HAS_ANOTHER if query.units <= item.units else UNKNOWN


class ShopItem(NamedTuple):
    """What an item of the simulated shop is.

    Attributes:
      type: first name of its product type.
      facts: `name=value` by the attribute's name.
    """

    type: str
    facts: Mapping[str, str]


def shop_item(type_: str, facts: Sequence[str]) -> ShopItem:
    """Returns an item by the columns `truth_type` and `truth_attributes`."""
    return ShopItem(type_, {fact.partition("=")[0]: fact for fact in facts})


def shop_states(query: str, items: Sequence[ShopItem]) -> tuple[list[str], list[list[int]]] | None:
    """Returns the kinds of the attributes that a query of the simulated shop asks for, and states.

    Args:
      query: its text.
      items: those judged for it.

    Returns:
      A kind of each attribute, and of each item its states, `UNKNOWN` all where it is of another
      product type; None where the query cannot be read, or asks for a type alone.
    """
    asked = reading.asked(query)
    if asked is None or not asked.facts:
        return None
    kinds = [shop_kind(fact) for fact in asked.facts.values()]
    return kinds, [
        [
            UNKNOWN
            if item.type != asked.type or name not in item.facts
            else HAS
            if item.facts[name] == fact
            else HAS_ANOTHER
            for name, fact in asked.facts.items()
        ]
        for item in items
    ]


def shop_kind(fact: str) -> str:
    """Returns the kind of an attribute of the simulated shop, by `name=value`."""
    name, _, value = fact.partition("=")
    if name == BRAND:
        return BRAND
    if "colour" in name or name == "shade":
        return COLOUR
    if "size" in name:
        return SIZE
    if value.startswith(_WITHOUT):
        return NEGATION
    return NUMBER if any(character.isdecimal() for character in value) else OTHER
