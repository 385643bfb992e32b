"""Item titles, category paths and SIDs; in their order the items below a prefix are one slice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int

from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import pack, prefix_keys, read_sids

CATEGORY_DEPTH = 3
TITLE_LENGTH = 110


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageItems:
    """What the page tells of items, in arrays.

    Attributes:
      titles: one per item.
      categories: int `[item, depth]`: number of the item's category path cut at each depth; -1
        where the path is shorter or unknown.
      category_names: by depth and number.
      sids: int32 `[item, level]`.
      sizes: codes per level.
      order: int `[item]`: rows of the items sorted by SID.
      keys: int64 `[item, level]`: packed prefixes of the SIDs, in `order`.
    """

    titles: pa.ChunkedArray
    categories: Int[np.ndarray, "item depth"]
    category_names: list[list[str]]
    sids: Int[np.ndarray, "item level"]
    sizes: tuple[int, ...]
    order: Int[np.ndarray, " item"]
    keys: Int[np.ndarray, "item level"]

    def with_sid(self, sid: Sequence[int]) -> Int[np.ndarray, " row"]:
        """Returns the rows of the items that have a SID."""
        key = pack(np.asarray(sid, np.int64), sizes=self.sizes)
        start, end = np.searchsorted(self.keys[:, -1], [key, key + 1])
        return self.order[start:end]

    def titles_of(self, rows: Iterable[int]) -> dict[int, str]:
        """Returns titles, cut to a length that fits two lines, by row."""
        wanted = sorted(set(rows))
        titles = self.titles.take(pa.array(wanted, pa.int64())).to_pylist()
        return {row: shorten(title) for row, title in zip(wanted, titles, strict=True)}


def read_page_items(layout: Layout, *, sizes: Sequence[int]) -> PageItems:
    """Reads the items of a run and the full model's SIDs of them.

    Args:
      layout: the run.
      sizes: codes per level.
    """
    table = pq.read_table(layout.items, columns=["title", "category"])
    categories, names = category_prefixes(table["category"], depth=CATEGORY_DEPTH)
    sids = read_sids(layout.sids).sids
    keys = prefix_keys(sids.astype(np.int64), sizes=sizes)
    order = np.argsort(keys[:, -1], kind="stable")
    return PageItems(
        titles=table["title"],
        categories=categories,
        category_names=names,
        sids=sids,
        sizes=tuple(sizes),
        order=order,
        keys=keys[order],
    )


def category_prefixes(
    paths: pa.ChunkedArray, *, depth: int
) -> tuple[Int[np.ndarray, "item depth"], list[list[str]]]:
    """Numbers the category paths cut at each depth.

    Args:
      paths: list<string>, coarse to fine; null when unknown.
      depth: how deep to look.

    Returns:
      `categories` and `category_names` of a `Catalogue`.
    """
    paths = paths.combine_chunks()
    lengths = paths.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    encoded = paths.flatten().dictionary_encode()
    words, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
    numbers = np.full((len(lengths), depth), -1, np.int64)
    names: list[list[str]] = []
    for level in range(depth):
        rows = np.flatnonzero(lengths > level)
        parents = numbers[rows, level - 1] if level else np.zeros(len(rows), np.int64)
        keys = parents * len(words) + codes[starts[rows] + level]
        distinct, numbers[rows, level] = np.unique(keys, return_inverse=True)
        coarser = [f"{name} › " for name in names[-1]] if level else [""]
        names.append([coarser[key // len(words)] + words[key % len(words)] for key in distinct])
    return numbers, names


def common_category(
    catalogue: PageItems, rows: Int[np.ndarray, " row"]
) -> tuple[str, float] | None:
    """Returns the category that tells most about some items, and its share among them.

    That is the deepest one that at least half of those with a category belong to, else the most
    frequent of the first depth. None when no category is known.
    """
    numbers = catalogue.categories[rows]
    numbers = numbers[numbers[:, 0] >= 0]
    if not len(numbers):
        return None
    for depth in reversed(range(numbers.shape[1])):
        counts = np.bincount(numbers[:, depth] + 1)[1:]
        if counts.size and (counts.max() * 2 >= len(numbers) or depth == 0):
            best = int(counts.argmax())
            return catalogue.category_names[depth][best], float(counts[best] / len(numbers))
    raise AssertionError("depth 0 always returns")


def spread(rows: Int[np.ndarray, " row"], count: int) -> list[int]:
    """Returns up to `count` rows at even distances, so that they show the width of a prefix."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    return rows[places.astype(np.int64)].tolist()


def shorten(title: str) -> str:
    """Returns a title, shortened where it is long."""
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rstrip() + "…"
