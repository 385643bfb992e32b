"""Nodes, children and leaves of prefixes."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Integer

from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.sids.codes import pack, unpack
from dsirm_jax.sids.trie.levels import Trie

ROOT = 0
NOT_FOUND = -1
NODES_AT_ONCE = 1 << 16


def child_mask(
    trie: Trie, *, level: int, nodes: Integer[AnyArray, "*rows"]
) -> Bool[AnyArray, "*rows code"]:
    """Returns which codes continue each node.

    This and the functions below compute where the trie's arrays are: with NumPy on the host, with
    JAX on a device or inside jit.

    Args:
      trie: the trie.
      level: level of the codes, from 0; the nodes are at this depth.
      nodes: int `[...]`.

    Returns:
      bool `[..., sizes[level]]`.

    Example:
      >>> from dsirm_jax.sids.trie import build
      >>> trie = build(np.array([[0, 2], [1, 0], [1, 1]]), sizes=(2, 3))
      >>> child_mask(trie, level=1, nodes=np.array([1])).tolist()
      [[True, True, False]]
    """
    return trie.levels[level].mask(nodes)


def child(
    trie: Trie, *, level: int, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
) -> Integer[AnyArray, "*rows"]:
    """Returns the child of each node under a code that exists (see `child_mask`).

    Args:
      trie: the trie.
      level: level of the codes, from 0.
      nodes: int `[...]` at this depth.
      codes: int `[...]`.

    Returns:
      int32 `[...]` nodes one depth below; after the last level the numbers of leaves.
    """
    return trie.levels[level].child(nodes, codes)


def find(trie: Trie, prefixes: Integer[AnyArray, "*rows depth"]) -> Integer[AnyArray, "*rows"]:
    """Returns the node of each prefix, `NOT_FOUND` where the catalogue has none.

    Args:
      trie: the trie.
      prefixes: int `[..., depth]` codes of the first `depth` levels; a whole SID gives its leaf.

    Returns:
      int32 `[...]`. Codes outside a level are not found.

    Example:
      >>> from dsirm_jax.sids.trie import build
      >>> trie = build(np.array([[0, 2], [1, 0], [1, 1]]), sizes=(2, 3))
      >>> find(trie, np.array([[1, 1], [0, 0]])).tolist()
      [2, -1]
    """
    xp = jax.tree.leaves(trie)[0].__array_namespace__()
    nodes = xp.full(prefixes.shape[:-1], ROOT, xp.int32)
    exists = xp.ones(prefixes.shape[:-1], bool)
    for depth, level in enumerate(trie.levels[: prefixes.shape[-1]]):
        code = prefixes[..., depth]
        within = xp.clip(code, 0, level.size - 1)
        exists = exists & (code == within) & level.has(nodes, within)
        nodes = xp.where(exists, level.child(nodes, within), ROOT)
    return xp.where(exists, nodes, NOT_FOUND)


def contains(trie: Trie, prefixes: Integer[AnyArray, "*rows depth"]) -> Bool[AnyArray, "*rows"]:
    """Returns whether each prefix (or whole SID) exists, bool `[...]`."""
    return find(trie, prefixes) != NOT_FOUND


def leaf_range(trie: Trie, prefix: Sequence[int]) -> tuple[int, int]:
    """Returns the half-open range of the leaves below a prefix; `(0, 0)` when it does not exist."""
    node = int(find(trie, np.asarray(prefix, np.int32)))
    if node == NOT_FOUND:
        return 0, 0
    low, high = node, node + 1
    for level in trie.levels[len(prefix) :]:
        low, high = level.span(low, high)
    return low, high


def enumerate_sids(trie: Trie, prefix: Sequence[int] = ()) -> Integer[np.ndarray, "leaf level"]:
    """Returns every SID that starts with `prefix`, in ascending order.

    Args:
      trie: the trie.
      prefix: codes of the first levels; empty for all SIDs.

    Returns:
      int32 `[leaf, level]`, empty when there is none; row `i` is leaf `leaf_range(...)[0] + i`.
    """
    return unpack(leaves(trie, prefix), sizes=trie.sizes)


def leaves(trie: Trie, prefix: Sequence[int] = ()) -> Integer[np.ndarray, " leaf"]:
    """Returns the packed SIDs below a prefix, ascending."""
    node = int(find(trie, np.asarray(prefix, np.int32)))
    if node == NOT_FOUND:
        return np.empty(0, np.int64)
    prefix_sizes = trie.sizes[: len(prefix)]
    keys = pack(np.asarray(prefix, np.int64), sizes=prefix_sizes).reshape(1)
    low, high = node, node + 1
    for level in trie.levels[len(prefix) :]:
        # A part of the nodes at a time: a bit of a bitmap takes a byte while it is looked at.
        keys = np.concatenate(
            [
                keys[first - low + parents] * level.size + code
                for first in range(low, high, NODES_AT_ONCE)
                for parents, code in [level.children(first, min(first + NODES_AT_ONCE, high))]
            ]
        )
        low, high = level.span(low, high)
    return keys
