"""What a trie consists of: for each depth, which codes continue its nodes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from jaxtyping import Bool, Integer

from dsirm_jax.sids.arrays import AnyArray

Dimension = Any
"""The size of an axis: an integer, or a symbol of `jax.export`."""


class Level(Protocol):
    """The children of one depth's nodes, in one of the forms; a dataclass and a pytree.

    Attributes:
      form: its name in files and manifests.
      array_names: of its fields that are arrays.
      size: codes of the level.
    """

    form: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]]

    @property
    def size(self) -> int: ...

    @classmethod
    def num_bytes(cls, *, size: int, nodes: int, children: int) -> int:
        """Returns the bytes that the form takes of each child and node, to choose the smaller."""
        ...

    @classmethod
    def shapes(
        cls, *, size: int, nodes: Dimension, children: Dimension
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shape and dtype of each array, by its name."""
        ...

    @classmethod
    def from_children(
        cls,
        parents: Integer[np.ndarray, " child"],
        codes: Integer[np.ndarray, " child"],
        starts: Integer[np.ndarray, " node"],
        *,
        size: int,
    ) -> Level:
        """Returns the level of ascending children.

        Args:
          parents: the same number for the children of one node, ascending.
          codes: of each child, ascending for each node.
          starts: where the children of each node begin.
          size: codes of the level.
        """
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], *, size: int) -> Level:
        """Returns the level whose arrays have been read from a file."""
        ...

    @classmethod
    def of_any(cls, arrays: Mapping[str, Any], *, size: int) -> Level:
        """Returns a level whose nodes may have children under all codes.

        Args:
          arrays: by their names; arrays that are traced, or their shapes and dtypes, as well.
          size: codes of the level.
        """
        ...

    def fits(self, *, nodes: int) -> bool:
        """Returns whether its arrays are a level of so many nodes, with a child of each at least.

        Those of a file may be anything.
        """
        ...

    def mask(self, nodes: Integer[AnyArray, "*rows"]) -> Bool[AnyArray, "*rows code"]:
        """Returns which codes continue each node."""
        ...

    def child(
        self, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
    ) -> Integer[AnyArray, "*rows"]:
        """Returns the child of each node under a code that exists, int32."""
        ...

    def has(
        self, nodes: Integer[AnyArray, "*rows"], codes: Integer[AnyArray, "*rows"]
    ) -> Bool[AnyArray, "*rows"]:
        """Returns whether each node has a child under a code of the level."""
        ...

    def bounds(self) -> Integer[np.ndarray, " bound"]:
        """Returns the first child of each node, and behind the last one the number of children."""
        ...

    def span(self, low: int, high: int) -> tuple[int, int]:
        """Returns the half-open range of the children of the nodes from `low` to below `high`."""
        ...

    def children(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the parent (from 0) and the code of the children of consecutive nodes."""
        ...


@functools.partial(jax.tree_util.register_dataclass, data_fields=["levels"], meta_fields=[])
@dataclasses.dataclass(frozen=True, kw_only=True)
class Trie:
    """A trie; a pytree of arrays, so that a compiled search takes any trie of the same shapes.

    Attributes:
      levels: which codes continue the nodes of each depth.
    """

    levels: tuple[Level, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(level.size for level in self.levels)


def forms(trie: Trie) -> tuple[str, ...]:
    """Returns the form of each level, `BITMAP` or `RANGES`."""
    return tuple(level.form for level in trie.levels)
