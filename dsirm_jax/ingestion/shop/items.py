"""The items of the simulated shop: any row is made alone, from its number and the seed."""

from __future__ import annotations

import dataclasses
import functools
import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from dsirm_jax.data.schema import RAW_ITEMS, Chunk
from dsirm_jax.ingestion.shop import catalogue, draws
from dsirm_jax.ingestion.shop.catalogue import Facet, ProductType

FAMILY_ITEMS = 4
"""Items of one brand and model."""

_PRIMES = (9973, 999983, 99999989)  # above the number of families, they number the models

LARGEST_SHOP = _PRIMES[-1] * FAMILY_ITEMS - 1

TRUTH = {"truth_type": pa.string(), "truth_attributes": pa.list_(pa.string())}
"""Columns of what an item is, or of what a query wants."""

ATTRIBUTE_WIDTH = 12
"""Draws for the attributes of an item, beside its brand; at least as many as it may have."""

_FAMILY_WIDTH, _TEXT_WIDTH = 4, 64
_BREAKS = ", ", ", ", " - ", " | ", " "
_ITEM_SCHEMA = pa.schema([*RAW_ITEMS, *TRUTH.items()])


@functools.lru_cache(maxsize=8)
def type_shares(seed: int) -> np.ndarray:
    """Returns the shares of the product types, `[type]`.

    Types have Zipf shares, and so have departments, in orders that the seed decides.
    """
    random = draws.generator(seed, draws.LAYOUT_STREAM)
    types = catalogue.product_types()
    shares = 1 / (random.permutation(len(types)) + 5.0) ** 0.9
    names, departments = np.unique([type_.department for type_ in types], return_inverse=True)
    return shares / (random.permutation(len(names)) + 1.0)[departments]


@functools.lru_cache(maxsize=8)
def _family_starts(items: int, seed: int) -> np.ndarray:
    families = -(-items // FAMILY_ITEMS)
    return np.concatenate([[0], np.cumsum(draws.apportion(families, type_shares(seed)))])


def item_ids(numbers: np.ndarray, *, seed: int) -> pa.Array:
    """Returns the ids of items by their numbers: "P" and seven digits to the base 36."""
    # An odd factor permutes the numbers below 2^36, so that ids tell nothing of the type.
    codes = (numbers * 2654435761 + seed % 2**36) % 2**36
    digits = codes[:, None] // 36 ** np.arange(6, -1, -1) % 36
    letters = np.frombuffer(f"{string.digits}{string.ascii_uppercase}".encode(), np.uint8)
    ids = np.insert(letters[digits], 0, ord("P"), axis=1)
    return pa.array(ids.view("S8").ravel()).cast(pa.string())


def facet_values(type_: ProductType, values: Sequence[int]) -> list[tuple[Facet, int]]:
    """Returns the attributes that an item has, each with the number of its value, brand first."""
    return [
        (facet, values[facet.column])
        for facet in type_.facets
        if values[facet.column] != catalogue.NO_VALUE
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stock:
    """All items of a shop, in families of consecutive numbers, these in blocks by product type.

    Attributes:
      items: their number.
      seed: everything is a function of it.
    """

    items: int
    seed: int

    @property
    def starts(self) -> np.ndarray:
        """The first family of each type, then the number of families. `[type + 1]`."""
        return _family_starts(self.items, self.seed)

    def attributes(self, families: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the items of some families and what they are.

        Args:
          families: int64 `[family]`, ascending.

        Returns:
          Numbers of the items int64 `[item]`, of their types `[item]`, and of the values of their
          attributes `[attribute, item]` in the order of `catalogue.attribute_columns`.
        """
        chances, columns = catalogue.chances(), catalogue.attribute_columns()
        items = (families[:, None] * FAMILY_ITEMS + np.arange(FAMILY_ITEMS)).ravel()
        types = np.repeat(np.searchsorted(self.starts, families, "right") - 1, FAMILY_ITEMS)
        family_draws = draws.uniforms(
            self.seed, draws.FAMILY_STREAM, families, width=_FAMILY_WIDTH
        )[:, :1]
        item_draws = draws.uniforms(self.seed, draws.ATTRIBUTE_STREAM, items, width=ATTRIBUTE_WIDTH)
        values = np.full((len(columns) + 1, len(items)), catalogue.NO_VALUE)
        values[columns[catalogue.MODEL]] = items // FAMILY_ITEMS
        uniforms = np.hstack([np.repeat(family_draws, FAMILY_ITEMS, axis=0), item_draws]).T
        places = np.arange(len(items))
        for draw, thresholds, outcomes, column in zip(
            uniforms, chances.thresholds, chances.values, chances.columns
        ):
            steps = (thresholds.take(types, axis=1) <= draw).sum(axis=0)
            values[column[types], places] = outcomes[steps, types]
        exist = np.searchsorted(items, self.items)  # the last family may be smaller
        return items[:exist], types[:exist], values[:-1, :exist]

    def model_name(self, type_: ProductType, brand: int, family: int) -> str:
        """Returns the name of the model that a family's items are."""
        prime = next(p for p in _PRIMES if p * FAMILY_ITEMS > self.items)
        series = catalogue.series(type_, brand)
        return f"{series} {type_.names[0][0].upper()}{family * 7919 % prime}"

    def chunks(self, start: int, end: int, *, chunk_items: int) -> Iterator[Chunk]:
        """Yields items in the order of their numbers, whole families.

        Args:
          start: number of the first.
          end: number behind the last.
          chunk_items: most items of a chunk, a multiple of `FAMILY_ITEMS`.
        """
        for first in range(start, end, chunk_items):
            last = min(first + chunk_items, end)
            families = np.arange(first // FAMILY_ITEMS, -(-last // FAMILY_ITEMS))
            items, types, values = self.attributes(families)
            uniforms = draws.uniforms(self.seed, draws.TEXT_STREAM, items, width=_TEXT_WIDTH)
            rows = [
                self._item(catalogue.product_types()[type_], row, iter(draw).__next__)
                for type_, row, draw in zip(types.tolist(), values.T.tolist(), uniforms.tolist())
            ]
            columns = map(pa.array, zip(*rows), _ITEM_SCHEMA.types[1:])
            yield Chunk(
                table=pa.table([item_ids(items, seed=self.seed), *columns], schema=_ITEM_SCHEMA),
                file="simulated items",
                first_row=first + 1,
            )

    def _item(self, type_: ProductType, values: Sequence[int], draw: Callable[[], float]) -> tuple:
        """Returns the columns of `_ITEM_SCHEMA` but for the id."""
        model = self.model_name(type_, *values[:2])
        present = facet_values(type_, values)
        truth = [facet.phrases[value].fact for facet, value in present]
        truth.insert(1, f"{catalogue.MODEL}={model}")
        title = _title(type_, model, present, draw)
        description = None
        if draw() < 0.95:
            facts = "; ".join(truth).replace("=", ": ")
            description = f"A {type_.names[0]} from our {type_.group.lower()} range. {facts}."
        brand = catalogue.brand_name(values[0]) if draw() < 0.9 else None
        colour = values[catalogue.attribute_columns()["colour"]]
        has_colour = colour != catalogue.NO_VALUE and draw() < 0.7
        return (
            title,
            description,
            brand,
            catalogue.wordings()["colour"][colour][0] if has_colour else None,
            type_.path if draw() < 0.9 else None,
            type_.names[0],
            truth,
        )


def _title(
    type_: ProductType,
    model: str,
    present: Sequence[tuple[Facet, int]],
    draw: Callable[[], float],
) -> str:
    (brand, number), *others = present
    named = draw() < 0.7
    parts = [*brand.phrases[number].in_titles] if draw() < 0.85 else []
    if not named or draw() < 0.5:
        parts.append(model)
    after: list[str] = []
    for facet, value in others:
        words = draws.pick(facet.phrases[value].in_titles, draw() ** 1.5)
        stated, before = draw() < 0.8, draw() < 0.4 and not facet.follows
        if stated:
            (parts if before else after).append(words)
    if named:
        parts.append(draws.pick(catalogue.title_wordings(type_.names), draw() ** 1.5))
    clauses = [" ".join(parts), *after]
    if draw() < 0.35:
        other = draws.pick(catalogue.product_types(), draw()).names[0]
        mention = draws.pick(("goes with your", "not a", "ideal next to a"), draw())
        clauses.append(f"{mention} {other}")
    filler = catalogue.words()["filler"]
    # 0 to 8, mostly few
    clauses += [draws.pick(filler, draw()) for _ in range(int(9 * draw() ** 2))]
    if draw() < 0.3:
        clauses = [*clauses[1:], clauses[0]]
    title = string.capwords(draws.pick(_BREAKS, draw()).join(filter(None, clauses)))
    return draws.misspell(title, draw()) if draw() < 0.08 else title
