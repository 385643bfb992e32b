"""The trie of existing SIDs as flat sorted arrays that a jitted search can walk.

The nodes of each depth are numbered in the order of their prefixes, so the children of a node are
contiguous one depth below. Which codes continue a node is kept, level by level, in whichever of two
forms is smaller:

- `Bitmap`: a bit for every code of the level. The child under code `c` is the node's first child
  plus the number of bits set below `c`. An eighth of a byte per possible child and 4 bytes per
  node: 0.3 byte a SID for a full 216/512/512.
- `Ranges`: the children's codes, ascending. Wide levels of which each node uses little would need
  huge bitmaps: 8192/8192/8192 with ten million SIDs takes 10 GB so, and 0.1 GB as ranges.

Source: this project (rank by population count over packed bitmaps, as in succinct tries; sorted
adjacency as in compressed sparse rows).
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, UInt, UInt32

from dsirm_jax.io import arrays as files
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids.codes import pack, unpack, validate

ROOT = 0
NOT_FOUND = -1
WORD_BITS = 32
BITMAP, RANGES = "bitmap", "ranges"
KIND = "trie"
NODES_AT_ONCE = 1 << 16


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["bitmaps", "first_child"], meta_fields=["size"]
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bitmap:
    """The children of one depth's nodes as bits.

    Attributes:
      bitmaps: uint32 `[node, word]`: bit `b` of word `w` of a node is set when its child under code
        `32 * w + b` exists.
      first_child: int32 `[node]`: number, one depth below, of the node's first child.
      size: codes of the level.
    """

    bitmaps: UInt32[Array, "node word"]
    first_child: Int[Array, " node"]
    size: int

    def mask(self, nodes: Int[Array, "*rows"]) -> Bool[Array, "*rows code"]:
        xp = self.bitmaps.__array_namespace__()
        bitmap = self.bitmaps[nodes]  # [..., word]
        bits = (bitmap[..., None] >> xp.arange(WORD_BITS, dtype=xp.uint32)) & 1  # [..., word, bit]
        return bits.reshape(*bitmap.shape[:-1], -1)[..., : self.size].astype(bool)

    def child(self, nodes: Int[Array, "*rows"], codes: Int[Array, "*rows"]) -> Int[Array, "*rows"]:
        xp = self.bitmaps.__array_namespace__()
        bitmap = self.bitmaps[nodes]  # [..., word]
        # Bits below the code: all of the words before its own, some of its own, none after those.
        below = codes[..., None] - WORD_BITS * xp.arange(bitmap.shape[-1])  # [..., word]
        shift = xp.clip(below, 0, WORD_BITS - 1).astype(xp.uint32)
        some = (xp.uint32(1) << shift) - xp.uint32(1)
        kept = bitmap & xp.where(below >= WORD_BITS, xp.uint32(0xFFFFFFFF), some)
        rank = xp.sum(xp.bitwise_count(kept).astype(xp.int32), axis=-1, dtype=xp.int32)
        return self.first_child[nodes] + rank

    def has(self, nodes: Int[Array, "*rows"], codes: Int[Array, "*rows"]) -> Bool[Array, "*rows"]:
        xp = self.bitmaps.__array_namespace__()
        word = self.bitmaps[nodes, codes // WORD_BITS]
        return ((word >> (codes % WORD_BITS).astype(xp.uint32)) & xp.uint32(1)) == 1

    def span(self, low: int, high: int) -> tuple[int, int]:
        """Returns the half-open range of the children of the nodes from `low` to below `high`."""
        of_last = int(np.bitwise_count(np.asarray(self.bitmaps[high - 1])).sum())
        return int(self.first_child[low]), int(self.first_child[high - 1]) + of_last

    def children(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the parent (from 0) and the code of the children of consecutive nodes."""
        return np.nonzero(np.asarray(self.mask(np.arange(low, high))))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["codes", "starts"],
    meta_fields=["size", "widest"],
)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranges:
    """The children of one depth's nodes as codes.

    Attributes:
      codes: unsigned `[child]`: code of every child, ascending for each node.
      starts: int32 `[node + 1]`: where the codes of each node begin, which is also the number, one
        depth below, of its first child.
      size: codes of the level.
      widest: no node has more children; a power of two or `size`, so that programs are few.
    """

    codes: UInt[Array, " child"]
    starts: Int[Array, " node+1"]
    size: int
    widest: int

    def _of(self, nodes: Int[Array, "*rows"]) -> Int[Array, "*rows child"]:
        """Returns the children's codes, ascending, and `size` where there are no more."""
        xp = self.codes.__array_namespace__()
        place = self.starts[nodes][..., None] + xp.arange(self.widest, dtype=xp.int32)
        codes = self.codes[xp.minimum(place, self.codes.shape[0] - 1)].astype(xp.int32)
        return xp.where(place < self.starts[nodes + 1][..., None], codes, self.size)

    def mask(self, nodes: Int[Array, "*rows"]) -> Bool[Array, "*rows code"]:
        xp = self.codes.__array_namespace__()
        codes = self._of(nodes).reshape(-1, self.widest)
        rows = xp.arange(codes.shape[0])[:, None]
        shape = (codes.shape[0], self.size + 1)  # the last column is for what there is not
        if xp is np:
            mask = np.zeros(shape, bool)
            mask[rows, codes] = True
        else:
            mask = xp.zeros(shape, bool).at[rows, codes].set(True)
        return mask[:, : self.size].reshape(*nodes.shape, self.size)

    def child(self, nodes: Int[Array, "*rows"], codes: Int[Array, "*rows"]) -> Int[Array, "*rows"]:
        xp = self.codes.__array_namespace__()
        rank = xp.sum(self._of(nodes) < codes[..., None], axis=-1, dtype=xp.int32)
        return self.starts[nodes] + rank

    def has(self, nodes: Int[Array, "*rows"], codes: Int[Array, "*rows"]) -> Bool[Array, "*rows"]:
        xp = self.codes.__array_namespace__()
        return xp.any(self._of(nodes) == codes[..., None], axis=-1)

    def span(self, low: int, high: int) -> tuple[int, int]:
        """Returns the half-open range of the children of the nodes from `low` to below `high`."""
        return int(self.starts[low]), int(self.starts[high])

    def children(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the parent (from 0) and the code of the children of consecutive nodes."""
        starts = np.asarray(self.starts[low : high + 1])
        codes = np.asarray(self.codes[starts[0] : starts[-1]])
        return np.repeat(np.arange(high - low), np.diff(starts)), codes.astype(np.int64)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["levels"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trie:
    """A trie; a pytree of arrays, so that a compiled search takes any trie of the same shapes.

    Attributes:
      levels: which codes continue the nodes of each depth.
    """

    levels: tuple[Bitmap | Ranges, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(level.size for level in self.levels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postings:
    """SID to items: `rows[starts[leaf] : starts[leaf + 1]]` are the items of a leaf, ascending.

    Attributes:
      rows: unsigned `[item]` rows of the SID table, sorted by SID.
      starts: unsigned `[leaf + 1]`.
    """

    rows: UInt[np.ndarray, " item"]
    starts: UInt[np.ndarray, " leaf+1"]


def build(
    sids: Int[np.ndarray, "item level"],
    *,
    sizes: Sequence[int],
    kind: str | Sequence[str] | None = None,
) -> Trie:
    """Builds the trie of a catalogue's SIDs, in O(N log N) by one sort.

    Args:
      sids: int `[item, level]`; several items may share a SID.
      sizes: codes per level.
      kind: form of all levels, `BITMAP` or `RANGES`, or of each one; the smaller one for each when
        not given.

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
    return _of_leaves(nodes, sizes=sizes, kind=kind)


def shapes(sizes: Sequence[int], *, sids: int) -> Trie:
    """Returns the shapes and dtypes of a trie of SIDs spread evenly, for compilation.

    Args:
      sizes: codes per level.
      sids: distinct SIDs.
    """
    levels: list[Bitmap | Ranges] = []
    nodes = 1
    for size in sizes:
        children = min(nodes * size, sids)
        if _smaller(size, nodes=nodes, children=children) == BITMAP:
            bitmaps = jax.ShapeDtypeStruct((nodes, -(-size // WORD_BITS)), np.uint32)
            first_child = jax.ShapeDtypeStruct((nodes,), np.int32)
            levels.append(Bitmap(bitmaps=bitmaps, first_child=first_child, size=size))
        else:
            codes = jax.ShapeDtypeStruct((children,), np.min_scalar_type(size - 1))
            starts = jax.ShapeDtypeStruct((nodes + 1,), np.int32)
            levels.append(Ranges(codes=codes, starts=starts, size=size, widest=size))
        nodes = children
    return Trie(levels=tuple(levels))


def add(trie: Trie, sids: Int[np.ndarray, "item level"]) -> Trie:
    """Returns the trie of its own SIDs and further ones; the table of the old SIDs is not needed.

    Args:
      trie: the trie, which stays as it is. Its leaves have other numbers in the new one.
      sids: int `[item, level]`, new or old.

    Returns:
      What `build` makes of all SIDs together.

    Raises:
      InputError: a code outside its level.
    """
    validate(sids, sizes=trie.sizes)
    both = np.concatenate([_leaves(trie), pack(sids, sizes=trie.sizes)])
    nodes, _ = _runs(np.sort(both, kind="stable"))  # merges what is sorted already
    return _of_leaves(nodes, sizes=trie.sizes)


def _of_leaves(
    nodes: Int[np.ndarray, " leaf"],
    *,
    sizes: Sequence[int],
    kind: str | Sequence[str] | None = None,
) -> Trie:
    """Builds a trie from the packed SIDs, ascending and distinct."""
    kinds = [kind] * len(sizes) if kind is None or isinstance(kind, str) else kind
    levels: list[Bitmap | Ranges] = []
    for size, kind in zip(reversed(sizes), reversed(kinds), strict=True):
        parents, code = np.divmod(nodes, size)
        nodes, starts = _runs(parents)
        form = kind or _smaller(size, nodes=len(starts), children=len(code))
        if form == BITMAP:
            bitmaps = _bitmap(parents, code, starts, size=size)
            levels.append(Bitmap(bitmaps=bitmaps, first_child=starts.astype(np.int32), size=size))
            continue
        codes = code.astype(np.min_scalar_type(size - 1))
        levels.append(_ranges(codes, np.append(starts, len(code)).astype(np.int32), size=size))
    return Trie(levels=tuple(levels[::-1]))


def _ranges(codes: np.ndarray, starts: np.ndarray, *, size: int) -> Ranges:
    most = int(np.diff(starts).max())
    return Ranges(
        codes=codes, starts=starts, size=size, widest=min(1 << (most - 1).bit_length(), size)
    )


def _smaller(size: int, *, nodes: int, children: int) -> str:
    """Returns the form that takes fewer bytes."""
    bitmap = nodes * -(-size // WORD_BITS) * 4
    return BITMAP if bitmap <= children * np.min_scalar_type(size - 1).itemsize else RANGES


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


def forms(trie: Trie) -> tuple[str, ...]:
    """Returns the form of each level, `BITMAP` or `RANGES`."""
    return tuple(BITMAP if isinstance(level, Bitmap) else RANGES for level in trie.levels)


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
    return trie.levels[level].mask(nodes)


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
    return trie.levels[level].child(nodes, codes)


def find(trie: Trie, prefixes: Int[Array, "*rows depth"]) -> Int[Array, "*rows"]:
    """Returns the node of each prefix, `NOT_FOUND` where the catalogue has none.

    Args:
      trie: the trie.
      prefixes: int `[..., depth]` codes of the first `depth` levels; a whole SID gives its leaf.

    Returns:
      int32 `[...]`. Codes outside a level are not found.
    """
    xp = jax.tree.leaves(trie)[0].__array_namespace__()
    nodes = xp.full(prefixes.shape[:-1], ROOT, xp.int32)
    found = xp.ones(prefixes.shape[:-1], bool)
    for depth, level in enumerate(trie.levels[: prefixes.shape[-1]]):
        code = prefixes[..., depth]
        within = xp.clip(code, 0, level.size - 1)
        found = found & (code == within) & level.has(nodes, within)
        nodes = xp.where(found, level.child(nodes, within), ROOT)
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
    for level in trie.levels[len(prefix) :]:
        low, high = level.span(low, high)
    return low, high


def enumerate_sids(trie: Trie, prefix: Sequence[int] = ()) -> Int[np.ndarray, "leaf level"]:
    """Returns every SID that starts with `prefix`, in ascending order.

    Args:
      trie: the trie.
      prefix: codes of the first levels; empty for all SIDs.

    Returns:
      int32 `[leaf, level]`, empty when there is none; row `i` is leaf `leaf_range(...)[0] + i`.
    """
    return unpack(_leaves(trie, prefix), sizes=trie.sizes)


def _leaves(trie: Trie, prefix: Sequence[int] = ()) -> Int[np.ndarray, " leaf"]:
    """Returns the packed SIDs below a prefix, ascending."""
    node = int(find(trie, np.asarray(prefix, np.int32)))
    if node == NOT_FOUND:
        return np.empty(0, np.int64)
    of_prefix = trie.sizes[: len(prefix)]
    keys = pack(np.asarray(prefix, np.int64), sizes=of_prefix).reshape(1)
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


def postings(sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int]) -> Postings:
    """Returns which items carry each SID; leaves are numbered as in `build` of the same SIDs."""
    keys = pack(sids, sizes=sizes)
    rows = np.argsort(keys, kind="stable")
    _, starts = _runs(keys[rows])
    number = np.min_scalar_type(len(rows))
    return Postings(rows=rows.astype(number), starts=np.append(starts, len(rows)).astype(number))


def items_below(trie: Trie, found: Postings, prefix: Sequence[int]) -> Int[np.ndarray, " item"]:
    """Returns the item rows whose SID starts with `prefix` (a whole SID gives its own items)."""
    low, high = leaf_range(trie, prefix)
    return found.rows[found.starts[low] : found.starts[high]]


def save(path: str | os.PathLike[str], trie: Trie) -> None:
    """Writes a trie, on the host or on a device, as one file."""
    arrays = {
        f"{number}/{name}": array
        for number, level in enumerate(trie.levels)
        for name, array in _arrays(level)
    }
    files.save(path, arrays, kind=KIND, description=trie.sizes)


def load(path: str | os.PathLike[str]) -> Trie:
    """Returns the trie that `save` wrote, its arrays mapped into memory.

    Raises:
      InputError: there is no such file, or it is no whole trie.
    """
    arrays, sizes = files.load(
        path, kind=KIND, otherwise="no trie, or not a whole one; write it again", mapped=True
    )
    levels: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        number, _, field = name.partition("/")
        levels.setdefault(number, {})[field] = array
    return Trie(
        levels=tuple(
            _level(levels.get(str(number), {}), size=size, path=path)
            for number, size in enumerate(sizes)
        )
    )


def _arrays(level: Bitmap | Ranges) -> Iterator[tuple[str, np.ndarray]]:
    names = ("bitmaps", "first_child") if isinstance(level, Bitmap) else ("codes", "starts")
    for name in names:
        yield name, np.asarray(getattr(level, name))


def _level(arrays: dict[str, np.ndarray], *, size: int, path: object) -> Bitmap | Ranges:
    if set(arrays) == {"bitmaps", "first_child"}:
        return Bitmap(**arrays, size=size)
    if set(arrays) == {"codes", "starts"}:
        return _ranges(**arrays, size=size)
    raise InputError(f"{path}: a level has the arrays {sorted(arrays)}; write the trie again")
