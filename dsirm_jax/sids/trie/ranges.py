"""The codes of the children, for wide levels of which each node uses little.

Those would need huge bitmaps: 8192/8192/8192 with ten million SIDs takes 10 GB so, and 0.1 GB as
ranges.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Bool, Integer, UInt

from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.sids.trie.levels import Dimension

RANGES = "ranges"


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

    form: ClassVar[str] = RANGES
    array_names: ClassVar[tuple[str, ...]] = ("codes", "starts")

    codes: UInt[AnyArray, " child"]
    starts: Integer[AnyArray, " bound"]
    size: int
    widest: int

    @classmethod
    def num_bytes(cls, *, size: int, nodes: int, children: int) -> int:
        return children * _code_type(size).itemsize

    @classmethod
    def shapes(
        cls, *, size: int, nodes: Dimension, children: Dimension
    ) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "codes": jax.ShapeDtypeStruct((children,), _code_type(size)),
            "starts": jax.ShapeDtypeStruct((nodes + 1,), np.int32),
        }

    @classmethod
    def from_children(
        cls,
        parents: Integer[np.ndarray, " child"],
        codes: Integer[np.ndarray, " child"],
        starts: Integer[np.ndarray, " node"],
        *,
        size: int,
    ) -> Ranges:
        ends = np.append(starts, len(codes)).astype(np.int32)
        return cls.from_arrays({"codes": codes.astype(_code_type(size)), "starts": ends}, size=size)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], *, size: int) -> Ranges:
        most = int(np.diff(arrays["starts"]).max())
        level = cls.of_any(arrays, size=size)
        return dataclasses.replace(level, widest=min(1 << (most - 1).bit_length(), size))

    @classmethod
    def of_any(cls, arrays: Mapping[str, Any], *, size: int) -> Ranges:
        return cls(**arrays, size=size, widest=size)

    def _codes_below(self, nodes: Integer[AnyArray, "*rows"]) -> Integer[AnyArray, "*rows child"]:
        """Returns the children's codes, ascending, and `size` where there are no more."""
        xp = self.codes.__array_namespace__()
        place = self.starts[nodes][..., None] + xp.arange(self.widest, dtype=xp.int32)
        codes = self.codes[xp.minimum(place, self.codes.shape[0] - 1)].astype(xp.int32)
        return xp.where(place < self.starts[nodes + 1][..., None], codes, self.size)

    def fits(self, *, nodes: int) -> bool:
        shapes = self.shapes(size=self.size, nodes=nodes, children=len(self.codes))
        if not all(
            of.shape == (a := getattr(self, n)).shape and of.dtype == a.dtype
            for n, of in shapes.items()
        ):
            return False
        starts = np.asarray(self.starts)
        if starts[0] != 0 or starts[-1] != len(self.codes) or (np.diff(starts) < 1).any():
            return False
        rises = self.codes[1:] > self.codes[:-1]
        rises[starts[1:-1] - 1] = True  # from one node's children to the next one's
        return bool(rises.all() and (self.codes < self.size).all())

    def mask(self, nodes: Integer[AnyArray, "*rows"]) -> Bool[AnyArray, "*rows code"]:
        xp = self.codes.__array_namespace__()
        codes = self._codes_below(nodes).reshape(-1, self.widest)
        rows = xp.arange(codes.shape[0])[:, None]
        shape = (codes.shape[0], self.size + 1)  # the last column is for what there is not
        if xp is np:
            mask = np.zeros(shape, bool)
            mask[rows, codes] = True
        else:
            mask = xp.zeros(shape, bool).at[rows, codes].set(True)
        return mask[:, : self.size].reshape(*nodes.shape, self.size)

    def child(
        self, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
    ) -> Integer[AnyArray, "*rows"]:
        xp = self.codes.__array_namespace__()
        rank = xp.sum(self._codes_below(nodes) < codes[..., None], axis=-1, dtype=xp.int32)
        return self.starts[nodes] + rank

    def has(
        self, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
    ) -> Bool[AnyArray, "*rows"]:
        xp = self.codes.__array_namespace__()
        return xp.any(self._codes_below(nodes) == codes[..., None], axis=-1)

    def bounds(self) -> Integer[np.ndarray, " bound"]:
        return np.asarray(self.starts)

    def span(self, low: int, high: int) -> tuple[int, int]:
        return int(self.starts[low]), int(self.starts[high])

    def children(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        starts = np.asarray(self.starts[low : high + 1])
        codes = np.asarray(self.codes[starts[0] : starts[-1]])
        return np.repeat(np.arange(high - low), np.diff(starts)), codes.astype(np.int64)


def _code_type(size: int) -> np.dtype:
    """Returns the smallest type that holds every code."""
    return np.min_scalar_type(size - 1)
