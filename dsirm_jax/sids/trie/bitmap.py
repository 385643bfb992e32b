"""A bit for every code of a level, for levels of which each node uses much.

The child under code `c` is the node's first child plus the number of bits set below `c`. An eighth
of a byte per possible child and 4 bytes per node: 0.3 byte a SID for a full 216/512/512.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Bool, Integer, UInt32

from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.sids.trie.levels import Dimension
from dsirm_jax.sids.trie.runs import runs

BITMAP = "bitmap"
WORD_BITS = 32


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

    form: ClassVar[str] = BITMAP
    array_names: ClassVar[tuple[str, ...]] = ("bitmaps", "first_child")

    bitmaps: UInt32[AnyArray, "node word"]
    first_child: Integer[AnyArray, " node"]
    size: int

    @classmethod
    def num_bytes(cls, *, size: int, nodes: int, children: int) -> int:
        return nodes * _words(size) * WORD_BITS // 8

    @classmethod
    def shapes(
        cls, *, size: int, nodes: Dimension, children: Dimension
    ) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "bitmaps": jax.ShapeDtypeStruct((nodes, _words(size)), np.uint32),
            "first_child": jax.ShapeDtypeStruct((nodes,), np.int32),
        }

    @classmethod
    def from_children(
        cls,
        parents: Integer[np.ndarray, " child"],
        codes: Integer[np.ndarray, " child"],
        starts: Integer[np.ndarray, " node"],
        *,
        size: int,
    ) -> Bitmap:
        words = _words(size)
        is_first = np.zeros(len(parents), np.int64)
        is_first[starts] = 1
        place = (np.cumsum(is_first) - 1) * words + codes // WORD_BITS  # flat word of each child
        used, first = runs(place)
        bits = np.left_shift(np.uint32(1), (codes % WORD_BITS).astype(np.uint32))
        bitmaps = np.zeros(len(starts) * words, np.uint32)
        bitmaps[used] = np.bitwise_or.reduceat(bits, first)
        return cls(
            bitmaps=bitmaps.reshape(len(starts), words),
            first_child=starts.astype(np.int32),
            size=size,
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], *, size: int) -> Bitmap:
        return cls.of_any(arrays, size=size)

    @classmethod
    def of_any(cls, arrays: Mapping[str, Any], *, size: int) -> Bitmap:
        return cls(**arrays, size=size)

    def fits(self, *, nodes: int) -> bool:
        shapes = self.shapes(size=self.size, nodes=nodes, children=0)
        if not all(
            of.shape == (a := getattr(self, n)).shape and of.dtype == a.dtype
            for n, of in shapes.items()
        ):
            return False
        children = np.bitwise_count(self.bitmaps).sum(axis=1, dtype=np.int64)
        beyond = WORD_BITS * _words(self.size) - self.size
        return bool(
            (children > 0).all()
            and (self.first_child == np.cumsum(children) - children).all()
            and not (beyond and (self.bitmaps[:, -1] >> np.uint32(WORD_BITS - beyond)).any())
        )

    def mask(self, nodes: Integer[AnyArray, "*rows"]) -> Bool[AnyArray, "*rows code"]:
        xp = self.bitmaps.__array_namespace__()
        bitmap = self.bitmaps[nodes]  # [..., word]
        bits = (bitmap[..., None] >> xp.arange(WORD_BITS, dtype=xp.uint32)) & 1  # [..., word, bit]
        return bits.reshape(*bitmap.shape[:-1], -1)[..., : self.size].astype(bool)

    def child(
        self, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
    ) -> Integer[AnyArray, "*rows"]:
        xp = self.bitmaps.__array_namespace__()
        bitmap = self.bitmaps[nodes]  # [..., word]
        # Bits below the code: all of the words before its own, some of its own, none after those.
        below = codes[..., None] - WORD_BITS * xp.arange(bitmap.shape[-1])  # [..., word]
        shift = xp.clip(below, 0, WORD_BITS - 1).astype(xp.uint32)
        some = (xp.uint32(1) << shift) - xp.uint32(1)
        kept = bitmap & xp.where(below >= WORD_BITS, xp.uint32(0xFFFFFFFF), some)
        rank = xp.sum(xp.bitwise_count(kept).astype(xp.int32), axis=-1, dtype=xp.int32)
        return self.first_child[nodes] + rank

    def has(
        self, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
    ) -> Bool[AnyArray, "*rows"]:
        xp = self.bitmaps.__array_namespace__()
        word = self.bitmaps[nodes, codes // WORD_BITS]
        return ((word >> (codes % WORD_BITS).astype(xp.uint32)) & xp.uint32(1)) == 1

    def bounds(self) -> Integer[np.ndarray, " bound"]:
        _, children = self.span(0, len(self.first_child))
        return np.append(self.first_child, np.int32(children))

    def span(self, low: int, high: int) -> tuple[int, int]:
        in_last = int(np.bitwise_count(np.asarray(self.bitmaps[high - 1])).sum())
        return int(self.first_child[low]), int(self.first_child[high - 1]) + in_last

    def children(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        parents, codes = np.nonzero(np.asarray(self.mask(np.arange(low, high))))
        return parents, codes


def _words(size: int) -> int:
    """Returns the words that hold a bit for each code."""
    return -(-size // WORD_BITS)
