"""What the simulated shop sells: product types, their attributes, values and brands."""

from __future__ import annotations

import dataclasses
import functools
import string
from collections.abc import Mapping, Sequence

import numpy as np

from dsirm_jax.ingestion.shop.words import ATTRIBUTE_VALUES, TYPE_TREE, WORD_LISTS

_BRANDS_PER_DEPARTMENT = 12
_NEW_BRANDS_PER_DEPARTMENT = 6  # so that neighbouring departments share half of them

BRAND, MODEL, FEATURE, FITS = "brand", "model", "feature", "fits"
WITH, WITHOUT = 0, 1
NO_VALUE = -1  # the item says nothing about the attribute

OWN, SUBSTITUTE, COMPLEMENT, LOOKALIKE, NEIGHBOUR, ELSEWHERE = range(6)
"""What an item's type is to the type that a query asks for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phrases:
    """The ways to say that an attribute has a value.

    Attributes:
      fact: `name=value`, in the usual wording.
      in_titles: wordings, most usual first.
      in_queries: likewise; customers have one that titles lack.
    """

    fact: str
    in_titles: tuple[str, ...]
    in_queries: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facet:
    """An attribute of a product type, other than the model.

    Attributes:
      name: of the attribute.
      column: in an array of items' values, as in `attribute_columns`.
      phrases: by value.
      follows: whether its words stand behind the type's name ("with lid"), never before.
    """

    name: str
    column: int
    phrases: Mapping[int, Phrases]
    follows: bool


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ProductType:
    """A leaf of the category tree.

    Attributes:
      number: place among the types.
      department: first level of the category path.
      group: second level.
      names: wordings, most usual first, the last used by queries only.
      attributes: names, those of `words.TYPE_TREE` after brand, model and feature.
      feature: what items are with or without.
      purposes: names of the types that it is an accessory of.
      brands: numbers, most popular first.
    """

    number: int
    department: str
    group: str
    names: tuple[str, ...]
    attributes: tuple[str, ...]
    feature: str
    purposes: tuple[str, ...]
    brands: tuple[int, ...]

    @functools.cached_property
    def path(self) -> list[str]:
        """The category path."""
        return [self.department, self.group, string.capwords(self.names[0])]

    @functools.cached_property
    def facets(self) -> tuple[Facet, ...]:
        """The attributes in the order of `attribute_columns`, brand first."""
        return tuple(
            Facet(
                name=name,
                column=column,
                phrases={
                    value: _phrases(name, _wordings_of(self, name, value))
                    for value in _values_of(self, name)
                },
                follows=name in (FEATURE, FITS),
            )
            for name, column in attribute_columns().items()
            if name in self.attributes and name != MODEL
        )


@functools.cache
def product_types() -> tuple[ProductType, ...]:
    """Returns all types in the order of the tree."""
    types: list[ProductType] = []
    departments: list[str] = []
    group = ""
    for line in TYPE_TREE.strip().splitlines():
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            departments.append(line)
        elif depth == 2:
            group = line.strip()
        else:
            names, attributes, feature, purposes = (part.strip() for part in line.split(":"))
            first = (len(departments) - 1) * _NEW_BRANDS_PER_DEPARTMENT
            ranks = (np.arange(_BRANDS_PER_DEPARTMENT) + len(types)) % _BRANDS_PER_DEPARTMENT
            types.append(
                ProductType(
                    number=len(types),
                    department=departments[-1],
                    group=group,
                    names=tuple(names.split("/")),
                    attributes=(BRAND, MODEL, FEATURE, *attributes.split()),
                    feature=feature,
                    purposes=tuple(filter(None, purposes.split("/"))),
                    brands=tuple(int(first + rank) for rank in ranks),
                )
            )
    return tuple(types)


@functools.cache
def wordings() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Returns, per attribute, the wordings of each value, the usual one first."""
    lines = (line.split(": ", 1) for line in ATTRIBUTE_VALUES.strip().splitlines())
    return {
        attribute: tuple(tuple(value.strip().split("/")) for value in values.split(";"))
        for attribute, values in lines
    }


@functools.cache
def words() -> dict[str, tuple[str, ...]]:
    """Returns the word lists by name."""
    lines = (line.split(": ") for line in WORD_LISTS.strip().splitlines())
    return {name: tuple(words.split("/")) for name, words in lines}


@functools.cache
def attribute_columns() -> dict[str, int]:
    """Returns the column of each attribute in an array of items' values, brand and model first."""
    return {name: i for i, name in enumerate((BRAND, MODEL, FEATURE, FITS, *wordings()))}


@functools.cache
def relations() -> np.ndarray:
    """Returns what items of one type are to queries for another. `[query's type, item's type]`."""
    types = product_types()
    relations = np.full((len(types), len(types)), ELSEWHERE)
    for one, row in zip(types, relations, strict=True):
        words = set(" ".join(one.names).split())
        group = [t for t in types if (t.department, t.group) == (one.department, one.group)]
        peers = [t.number for t in group if bool(t.purposes) == bool(one.purposes)]
        for other in types:
            if one.names[0] in other.purposes or other.names[0] in one.purposes:
                row[other.number] = COMPLEMENT
            elif other in group or words & set(" ".join(other.names).split()):
                row[other.number] = LOOKALIKE
            elif other.department == one.department:
                row[other.number] = NEIGHBOUR
        substitute = peers[(peers.index(one.number) + 1) % len(peers)]
        if row[substitute] == LOOKALIKE:
            row[substitute] = SUBSTITUTE
        row[one.number] = OWN
    return relations


@functools.cache
def brand_name(brand: int) -> str:
    """Returns the name of a brand by its number."""
    starts, ends = words()["brand starts"], words()["brand ends"]
    return (starts[brand * 7 % 16] + ends[(brand * 11 + brand // 16) % 16]).capitalize()


@functools.cache
def series(type_: ProductType, brand: int) -> str:
    """Returns the name of a brand's models of a type."""
    names = words()["series"]
    return names[(type_.number * 29 + brand * 17) % len(names)].capitalize()


def purpose_type(type_: ProductType) -> ProductType:
    """Returns what an accessory is for."""
    return next(t for t in product_types() if t.names[0] == type_.purposes[0])


def title_wordings(wordings: Sequence[str]) -> Sequence[str]:
    """Returns the wordings that titles use: all but the last, which is the customers' own."""
    return wordings[:-1] or wordings


def cumulative_popularity(values: int) -> np.ndarray:
    """Returns Zipf-like shares of `values` values, cumulated, without the last."""
    shares = 1 / (np.arange(values) + 1.5)
    return np.cumsum(shares)[:-1] / shares.sum()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Chances:
    """How a uniform draw becomes a value of an attribute.

    A draw takes the value `values[draw, n, type]`, n being the number of thresholds not above it.

    Attributes:
      thresholds: float64 `[draw, step, type]`, infinite where there are fewer.
      values: int64 `[draw, step + 1, type]`.
      columns: of the attribute, int64 `[draw, type]`; one behind those of `attribute_columns` where
        a type has fewer attributes.
    """

    thresholds: np.ndarray
    values: np.ndarray
    columns: np.ndarray


@functools.cache
def chances() -> Chances:
    """Returns the chances of the brand, then of the other attributes in a type's own order."""
    types = product_types()
    draws = max(len(type_.attributes) - 1 for type_ in types)  # none for the model
    steps = max(_BRANDS_PER_DEPARTMENT, *map(len, wordings().values())) - 1
    tables = Chances(
        thresholds=np.full((draws, steps, len(types)), np.inf),
        values=np.full((draws, steps + 1, len(types)), NO_VALUE),
        columns=np.full((draws, len(types)), len(attribute_columns())),
    )
    for type_ in types:
        names = [name for name in type_.attributes if name != MODEL]
        for draw, name in enumerate(names):
            if name == FEATURE:
                # The others do not say.
                thresholds = np.array([0.4, 0.7])
                values: Sequence[int] = [WITH, WITHOUT, NO_VALUE]
            else:
                values = _values_of(type_, name)
                thresholds = cumulative_popularity(len(values))
            tables.thresholds[draw, : len(thresholds), type_.number] = thresholds
            tables.values[draw, : len(values), type_.number] = values
            tables.columns[draw, type_.number] = attribute_columns()[name]
    return tables


def _values_of(type_: ProductType, attribute: str) -> Sequence[int]:
    """Returns the values that an attribute may have, most popular first."""
    if attribute == BRAND:
        return type_.brands
    if attribute == FITS:
        return purpose_type(type_).brands
    return (WITH, WITHOUT) if attribute == FEATURE else range(len(wordings()[attribute]))


def _wordings_of(type_: ProductType, attribute: str, value: int) -> tuple[str, ...]:
    if attribute == BRAND:
        return (brand_name(value),)
    if attribute == FITS:
        model = f"{brand_name(value)} {series(purpose_type(type_), value)}"
        return f"for {model}", f"compatible with {model}", model
    if attribute == FEATURE:
        feature = type_.feature
        if value == WITH:
            return f"with {feature}", f"{feature} included", f"with {feature}"
        return f"without {feature}", f"no {feature}", f"{feature} free"
    return wordings()[attribute][value]


def _phrases(attribute: str, wordings: tuple[str, ...]) -> Phrases:
    return Phrases(
        fact=f"{attribute}={wordings[0]}",
        in_titles=tuple(title_wordings(wordings)),
        in_queries=wordings,
    )
