"""The trie of existing SIDs as flat sorted arrays that a jitted search can walk.

The nodes of each depth are numbered in the order of their prefixes, so the children of a node are
contiguous one depth below. A node's children are a bitmap over the codes of its level; the child
under code `c` is the node's first child plus the number of bits set below `c`. That takes an eighth
of a byte per possible child and 4 bytes per inner node: 0.3 byte a SID for a full 216/512/512.

Source: this project (rank by population count over packed bitmaps, as in succinct tries).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from dsirm_jax.errors import InputError
from dsirm_jax.sids.codes import pack, validate

ROOT = 0
NOT_FOUND = -1
WORD_BITS = 32


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["bitmaps", "first_child"], meta_fields=["sizes"]
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trie:
    """A trie; a pytree of arrays, so that a compiled search takes any trie of the same shapes.

    Attributes:
      bitmaps: per level uint32 `[node, word]`: bit `b` of word `w` of a node is set when its child
        under code `32 * w + b` exists.
      first_child: per level int32 `[node]`: number, one depth below, of the node's first child.
      sizes: codes per level.
    """

    bitmaps: tuple[UInt32[Array, "node word"], ...]
    first_child: tuple[Int[Array, " node"], ...]
    sizes: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postings:
    """SID to items: `rows[starts[leaf] : starts[leaf + 1]]` are the items of a leaf, ascending.

    Attributes:
      rows: int64 `[item]` rows of the SID table, sorted by SID.
      starts: int64 `[leaf + 1]`.
    """

    rows: Int[np.ndarray, " item"]
    starts: Int[np.ndarray, " leaf_and_one"]


def build(sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int]) -> Trie:
    """Builds the trie of a catalogue's SIDs, in O(N log N) by one sort.

    Args:
      sids: int `[item, level]`; several items may share a SID.
      sizes: codes per level.

    Returns:
      A trie of NumPy arrays; `jax.device_put` it once before searching.

    Raises:
      InputError: no SIDs, a code outside its level, or sizes that cannot be packed.
    """
    if not len(sids):
        raise InputError("the trie needs at least one SID; the SID table is empty")
    validate(sids, sizes=sizes)
    # Packed prefixes of one depth, ascending. (np.unique hashes: many times slower than a sort.)
    nodes, _ = _runs(np.sort(pack(sids, sizes=sizes)))
    bitmaps, first_child = [], []
    for size in reversed(sizes):
        parents, code = np.divmod(nodes, size)
        nodes, starts = _runs(parents)
        bitmaps.append(_bitmap(parents, code, starts, size=size))
        first_child.append(starts.astype(np.int32))
    return Trie(bitmaps=tuple(bitmaps[::-1]), first_child=tuple(first_child[::-1]), sizes=(*sizes,))


def _runs(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct values of an ascending array and where each one starts."""
    starts = np.flatnonzero(np.diff(ascending, prepend=ascending[0] - 1))
    return ascending[starts], starts


def _bitmap(parents: np.ndarray, code: np.ndarray, starts: np.ndarray, *, size: int) -> np.ndarray:
    """Returns uint32 `[node, word]` with one bit per child; children are in ascending order."""
    words = -(-size // WORD_BITS)
    is_first = np.zeros(len(parents), np.int64)
    is_first[starts] = 1
    place = (np.cumsum(is_first) - 1) * words + code // WORD_BITS  # flat word of each child
    used, first = _runs(place)
    bits = np.left_shift(np.uint32(1), (code % WORD_BITS).astype(np.uint32))
    bitmap = np.zeros(len(starts) * words, np.uint32)
    bitmap[used] = np.bitwise_or.reduceat(bits, first)
    return bitmap.reshape(len(starts), words)


def child_mask(trie: Trie, *, level: int, nodes: Int[Array, "*rows"]) -> Bool[Array, "*rows code"]:
    """Returns which codes continue each node.

    This and the functions below compute where the trie's arrays are: with NumPy on the host, with
    JAX on a device or inside jit.

    Args:
      trie: the trie.
      level: level of the codes, from 0; the nodes are at this depth.
      nodes: int `[...]`.

    Returns:
      bool `[..., sizes[level]]`.
    """
    xp = trie.bitmaps[level].__array_namespace__()
    bitmap = trie.bitmaps[level][nodes]  # [..., word]
    bits = (bitmap[..., None] >> xp.arange(WORD_BITS, dtype=xp.uint32)) & 1  # [..., word, bit]
    return bits.reshape(*bitmap.shape[:-1], -1)[..., : trie.sizes[level]].astype(bool)


def child(
    trie: Trie, *, level: int, nodes: Int[Array, "*rows"], codes: Int[Array, "*rows"]
) -> Int[Array, "*rows"]:
    """Returns the child of each node under a code that exists (see `child_mask`).

    Args:
      trie: the trie.
      level: level of the codes, from 0.
      nodes: int `[...]` at this depth.
      codes: int `[...]`.

    Returns:
      int32 `[...]` nodes one depth below; after the last level the numbers of leaves.
    """
    xp = trie.bitmaps[level].__array_namespace__()
    bitmap = trie.bitmaps[level][nodes]  # [..., word]
    # Bits below the code: all of the words before its own, some of its own, none of those after.
    below = codes[..., None] - WORD_BITS * xp.arange(bitmap.shape[-1])  # [..., word]
    shift = xp.clip(below, 0, WORD_BITS - 1).astype(xp.uint32)
    some = (xp.uint32(1) << shift) - xp.uint32(1)
    kept = bitmap & xp.where(below >= WORD_BITS, xp.uint32(0xFFFFFFFF), some)
    rank = xp.sum(xp.bitwise_count(kept).astype(xp.int32), axis=-1, dtype=xp.int32)
    return trie.first_child[level][nodes] + rank


def find(trie: Trie, prefixes: Int[Array, "*rows depth"]) -> Int[Array, "*rows"]:
    """Returns the node of each prefix, `NOT_FOUND` where the catalogue has none.

    Args:
      trie: the trie.
      prefixes: int `[..., depth]` codes of the first `depth` levels; a whole SID gives its leaf.

    Returns:
      int32 `[...]`. Codes outside a level are not found.
    """
    xp = trie.bitmaps[0].__array_namespace__()
    nodes = xp.full(prefixes.shape[:-1], ROOT, xp.int32)
    found = xp.ones(prefixes.shape[:-1], bool)
    for level in range(prefixes.shape[-1]):
        code = prefixes[..., level]
        within = xp.clip(code, 0, trie.sizes[level] - 1)
        word = trie.bitmaps[level][nodes, within // WORD_BITS]
        bit = (word >> (within % WORD_BITS).astype(xp.uint32)) & xp.uint32(1)
        found = found & (code == within) & (bit == 1)
        nodes = xp.where(found, child(trie, level=level, nodes=nodes, codes=within), ROOT)
    return xp.where(found, nodes, NOT_FOUND)


def contains(trie: Trie, prefixes: Int[Array, "*rows depth"]) -> Bool[Array, "*rows"]:
    """Returns whether each prefix (or whole SID) exists, bool `[...]`."""
    return find(trie, prefixes) != NOT_FOUND


def leaf_range(trie: Trie, prefix: Sequence[int]) -> tuple[int, int]:
    """Returns the half-open range of the leaves below a prefix; `(0, 0)` when it does not exist."""
    node = int(find(trie, np.asarray(prefix, np.int32)))
    if node == NOT_FOUND:
        return 0, 0
    low, high = node, node + 1
    for level in range(len(prefix), len(trie.sizes)):
        low, high = _children_range(trie, level, low, high)
    return low, high


def _children_range(trie: Trie, level: int, low: int, high: int) -> tuple[int, int]:
    first_child = trie.first_child[level]
    of_last = int(np.bitwise_count(np.asarray(trie.bitmaps[level][high - 1])).sum())
    return int(first_child[low]), int(first_child[high - 1]) + of_last


def enumerate_sids(trie: Trie, prefix: Sequence[int] = ()) -> Int[np.ndarray, "leaf level"]:
    """Returns every SID that starts with `prefix`, in ascending order.

    Args:
      trie: the trie.
      prefix: codes of the first levels; empty for all SIDs.

    Returns:
      int32 `[leaf, level]`, empty when there is none; row `i` is leaf `leaf_range(...)[0] + i`.
    """
    node = int(find(trie, np.asarray(prefix, np.int32)))
    if node == NOT_FOUND:
        return np.empty((0, len(trie.sizes)), np.int32)
    sids, low, high = np.asarray([prefix], np.int32).reshape(1, -1), node, node + 1
    for level in range(len(prefix), len(trie.sizes)):
        mask = np.asarray(child_mask(trie, level=level, nodes=np.arange(low, high)))
        parents, code = np.nonzero(mask)  # ascending by parent, then code
        sids = np.concatenate([sids[parents], code[:, None].astype(np.int32)], axis=1)
        low, high = _children_range(trie, level, low, high)
    return sids


def postings(sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int]) -> Postings:
    """Returns which items carry each SID; leaves are numbered as in `build` of the same SIDs."""
    keys = pack(sids, sizes=sizes)
    rows = np.argsort(keys, kind="stable")
    _, starts = _runs(keys[rows])
    return Postings(rows=rows, starts=np.append(starts, len(rows)))


def items_below(trie: Trie, found: Postings, prefix: Sequence[int]) -> Int[np.ndarray, " item"]:
    """Returns the item rows whose SID starts with `prefix` (a whole SID gives its own items)."""
    low, high = leaf_range(trie, prefix)
    return found.rows[found.starts[low] : found.starts[high]]
