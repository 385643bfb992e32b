"""The codes of the children, for wide levels of which each node uses little.

Those would need huge bitmaps: 8192/8192/8192 with ten million SIDs takes 10 GB so, and 0.1 GB as
ranges.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Bool, Integer, UInt

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

    codes: UInt[Array, " child"]
    starts: Integer[Array, " bound"]
    size: int
    widest: int

    @classmethod
    def num_bytes(cls, *, size: int, nodes: int, children: int) -> int:
        return children * _code_type(size).itemsize

    @classmethod
    def shape(cls, *, size: int, nodes: int, children: int) -> Ranges:
        return cls(
            codes=jax.ShapeDtypeStruct((children,), _code_type(size)),
            starts=jax.ShapeDtypeStruct((nodes + 1,), np.int32),
            size=size,
            widest=size,
        )

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
        return cls(**arrays, size=size, widest=min(1 << (most - 1).bit_length(), size))

    def _codes_below(self, nodes: Integer[Array, "*rows"]) -> Integer[Array, "*rows child"]:
        """Returns the children's codes, ascending, and `size` where there are no more."""
        xp = self.codes.__array_namespace__()
        place = self.starts[nodes][..., None] + xp.arange(self.widest, dtype=xp.int32)
        codes = self.codes[xp.minimum(place, self.codes.shape[0] - 1)].astype(xp.int32)
        return xp.where(place < self.starts[nodes + 1][..., None], codes, self.size)

    def mask(self, nodes: Integer[Array, "*rows"]) -> Bool[Array, "*rows code"]:
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
        self, nodes: Integer[Array, "*rows"], codes: Integer[Array, "*rows"]
    ) -> Integer[Array, "*rows"]:
        xp = self.codes.__array_namespace__()
        rank = xp.sum(self._codes_below(nodes) < codes[..., None], axis=-1, dtype=xp.int32)
        return self.starts[nodes] + rank

    def has(
        self, nodes: Integer[Array, "*rows"], codes: Integer[Array, "*rows"]
    ) -> Bool[Array, "*rows"]:
        xp = self.codes.__array_namespace__()
        return xp.any(self._codes_below(nodes) == codes[..., None], axis=-1)

    def span(self, low: int, high: int) -> tuple[int, int]:
        """Returns the half-open range of the children of the nodes from `low` to below `high`."""
        return int(self.starts[low]), int(self.starts[high])

    def children(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the parent (from 0) and the code of the children of consecutive nodes."""
        starts = np.asarray(self.starts[low : high + 1])
        codes = np.asarray(self.codes[starts[0] : starts[-1]])
        return np.repeat(np.arange(high - low), np.diff(starts)), codes.astype(np.int64)


def _code_type(size: int) -> np.dtype:
    """Returns the smallest type that holds every code."""
    return np.min_scalar_type(size - 1)
