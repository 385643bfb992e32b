"""The tree of SIDs, cut to a size that a page can hold."""

from __future__ import annotations

import bisect
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from dsirm_jax.report.catalogue import PageItems, common_category, spread

NODES_SHOWN = 6000
FIRST_LEVEL_SHOWN = 2048
PREFIX_TITLES, SID_TITLES = 3, 6


class PrefixLevel(NamedTuple):
    """The occurring prefixes of one length, sorted.

    Attributes:
      starts: int `[prefix]`: the first of its items, in the order of SIDs.
      counts: int `[prefix]`: number of its items.
      parents: int `[prefix]`: the prefix above, among those of the level before.
      ranks: int `[prefix]`: place among the children of its parent, the largest first.
    """

    starts: Int[np.ndarray, " prefix"]
    counts: Int[np.ndarray, " prefix"]
    parents: Int[np.ndarray, " prefix"]
    ranks: Int[np.ndarray, " prefix"]


def levels_of(keys: Int[np.ndarray, "item level"]) -> list[PrefixLevel]:
    """Returns the prefixes of each length.

    Args:
      keys: packed prefixes of the items, sorted.
    """
    levels: list[PrefixLevel] = []
    above = np.zeros(1, np.int64)
    for level in range(keys.shape[1]):
        starts = np.flatnonzero(np.diff(keys[:, level], prepend=-1))
        counts = np.diff(starts, append=len(keys))
        parents = np.searchsorted(above, starts, side="right") - 1
        largest_first = np.lexsort((starts, -counts, parents))
        ranks = np.empty_like(largest_first)
        ranks[largest_first] = np.arange(len(starts))
        ranks -= np.searchsorted(parents, parents)
        levels.append(PrefixLevel(starts, counts, parents, ranks))
        above = starts
    return levels


def shown_prefixes(
    levels: list[PrefixLevel], *, most: int, most_first: int = FIRST_LEVEL_SHOWN
) -> list[Bool[np.ndarray, " prefix"]]:
    """Chooses what of a tree to show: the k largest children of every prefix.

    k is as large as `most` prefixes in all allow, so that every branch can be opened down to whole
    SIDs. The first level is shown in full, up to
    `most_first` of its codes.
    """

    def with_children(k: int) -> list[Bool[np.ndarray, " prefix"]]:
        shown = [levels[0].ranks < most_first]
        for level in levels[1:]:
            shown.append(shown[-1][level.parents] & (level.ranks < k))
        return shown

    widest = max(int(level.ranks.max()) + 1 for level in levels)
    k = bisect.bisect_right(
        range(1, widest + 1), most, key=lambda k: sum(int(s.sum()) for s in with_children(k))
    )
    return with_children(max(k, 1))


def sid_tree(
    catalogue: PageItems, *, most: int = NODES_SHOWN, most_first: int = FIRST_LEVEL_SHOWN
) -> dict[str, Any]:
    """Returns the tree as nested lists, the largest prefixes first.

    Args:
      catalogue: the items.
      most: nodes to keep, about.
      most_first: first-level nodes to keep.

    Returns:
      `nodes`, the first level's nodes `[code, items, category number or -1, share of that category
      in percent, rows of some items, children, number of children left out]`; `categories`, their
      names; `prefixes` and `shown`, number of nodes per level in all and in `nodes`; `hidden`,
      number of first-level nodes left out.
    """
    levels = levels_of(catalogue.keys)
    shown = shown_prefixes(levels, most=most, most_first=most_first)
    names: dict[str, int] = {}
    children: list[list[Any]] = []
    for number in reversed(range(len(levels))):
        level, kept = levels[number], np.flatnonzero(shown[number])
        last = number == len(levels) - 1
        below = {} if last else _by_parent(levels[number + 1], shown[number + 1], children)
        families = None if last else np.bincount(levels[number + 1].parents)
        nodes = []
        for prefix in kept.tolist():
            start, count = int(level.starts[prefix]), int(level.counts[prefix])
            rows = catalogue.order[start : start + count]
            category = common_category(catalogue, rows)
            mine = below.get(prefix, [])
            nodes.append(
                [
                    int(catalogue.sids[rows[0], number]),
                    count,
                    names.setdefault(category[0], len(names)) if category else -1,
                    round(100 * category[1]) if category else 0,
                    spread(rows, SID_TITLES if last else PREFIX_TITLES),
                    mine,
                    0 if families is None else int(families[prefix]) - len(mine),
                ]
            )
        children = nodes
    top = np.argsort(levels[0].ranks[shown[0]], kind="stable")
    return {
        "nodes": [children[place] for place in top],
        "categories": list(names),
        "prefixes": [len(level.starts) for level in levels],
        "shown": [int(kept.sum()) for kept in shown],
        "hidden": len(levels[0].starts) - int(shown[0].sum()),
    }


def tree_rows(nodes: list[list[Any]]) -> list[int]:
    """Returns the item rows that a tree names."""
    return [row for node in nodes for row in (*node[4], *tree_rows(node[5]))]


def _by_parent(
    level: PrefixLevel, shown: Bool[np.ndarray, " prefix"], nodes: list[list[Any]]
) -> dict[int, list[list[Any]]]:
    """Groups the nodes of the shown prefixes by their parent, the largest first."""
    families: dict[int, list[list[Any]]] = {}
    parents, ranks = level.parents[shown], level.ranks[shown]
    for place in np.argsort(ranks, kind="stable").tolist():
        families.setdefault(int(parents[place]), []).append(nodes[place])
    return families
