"""The catalogue of a bundle as a tree of SIDs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.stored_items import UNKNOWN, StoredItem
from dsirm_jax.serving.scorer.answers import Branch, Item
from dsirm_jax.sids import trie as tries

TITLES = 3
"""Titles shown of a branch."""
EXAMPLES_FROM = 10_000
"""Cached queries that examples are chosen from."""


def numbers_below(
    catalogue: BundleCatalogue, prefix: Sequence[int], *, sizes: Sequence[int]
) -> Integer[np.ndarray, " item"]:
    """Returns the numbers of the items below a prefix, in the order of their SIDs.

    Args:
      catalogue: whose items they are.
      prefix: codes of the first levels; empty for all items.
      sizes: codes per level.

    Raises:
      InputError: no item has this prefix.
    """
    in_range = len(prefix) <= len(sizes) and all(
        0 <= code < size for code, size in zip(prefix, sizes, strict=False)
    )
    numbers = catalogue.items_below(prefix) if in_range else np.empty(0, int)
    if not len(numbers):
        raise InputError(f"no item's SID starts with {'-'.join(map(str, prefix))}")
    return numbers


def branches(catalogue: BundleCatalogue, prefix: tuple[int, ...]) -> list[Branch]:
    """Returns the codes that go on from the prefix of some items, in ascending order."""
    node = int(tries.find(catalogue.trie, np.asarray(prefix, np.int32)))
    _, codes = catalogue.trie.levels[len(prefix)].children(node, node + 1)
    return [_branch(catalogue, (*prefix, code)) for code in codes.tolist()]


def _branch(catalogue: BundleCatalogue, prefix: tuple[int, ...]) -> Branch:
    numbers = catalogue.items_below(prefix)
    categories = catalogue.categories[numbers]
    known = categories[categories != UNKNOWN]
    category = purity = None
    if len(known):
        counts = np.bincount(known)
        purity = float(counts.max() / len(known))
        (one,) = catalogue.items(numbers[categories == counts.argmax()][:1])
        category = one.category[-1] if one.category else None
    places = np.linspace(0, len(numbers) - 1, min(TITLES, len(numbers))).astype(int)
    return Branch(
        code=prefix[-1],
        items=len(numbers),
        category=category,
        purity=purity,
        titles=tuple(item.title for item in catalogue.items(numbers[places])),
    )


def listed_items(catalogue: BundleCatalogue, numbers: Integer[np.ndarray, " item"]) -> list[Item]:
    """Returns items by their numbers, in that order."""
    return [
        _listed(item, sid=tuple(catalogue.sids[item.number].tolist()))
        for item in catalogue.items(numbers)
    ]


def _listed(item: StoredItem, *, sid: tuple[int, ...]) -> Item:
    category = " > ".join(item.category)
    own = {"brand": item.brand, "colour": item.colour, "category": category}
    columns = {**own, **item.attributes}
    return Item(
        item_id=item.item_id,
        title=item.title,
        sid=sid,
        attributes={name: str(value) for name, value in columns.items() if value not in (None, "")},
    )


def example_queries(catalogue: BundleCatalogue, *, most: int) -> list[str]:
    """Returns texts of some cached queries, short ones from all over the alphabet."""
    texts = [text for text, _ in itertools.islice(catalogue.cached_queries(), EXAMPLES_FROM)]
    ends = np.linspace(0, len(texts), min(most, len(texts)) + 1).astype(int)
    return [min(texts[start:end], key=len) for start, end in itertools.pairwise(ends)]
