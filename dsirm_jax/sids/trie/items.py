"""The items that carry a SID, or a prefix of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, UInt

from dsirm_jax.sids.codes import pack
from dsirm_jax.sids.trie.levels import Trie
from dsirm_jax.sids.trie.lookup import leaf_range
from dsirm_jax.sids.trie.runs import runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postings:
    """SID to items: `rows[starts[leaf] : starts[leaf + 1]]` are the items of a leaf, ascending.

    Attributes:
      rows: unsigned `[item]` rows of the SID table, sorted by SID.
      starts: unsigned `[leaf + 1]`.
    """

    rows: UInt[np.ndarray, " item"]
    starts: UInt[np.ndarray, " bound"]


def postings(sids: Integer[np.ndarray, "item level"], *, sizes: Sequence[int]) -> Postings:
    """Returns which items carry each SID; leaves are numbered as in `build` of the same SIDs."""
    keys = pack(sids, sizes=sizes)
    rows = np.argsort(keys, kind="stable")
    _, starts = runs(keys[rows])
    number = np.min_scalar_type(len(rows))
    return Postings(rows=rows.astype(number), starts=np.append(starts, len(rows)).astype(number))


def items_below(trie: Trie, items: Postings, prefix: Sequence[int]) -> UInt[np.ndarray, " item"]:
    """Returns the item rows whose SID starts with `prefix` (a whole SID gives its own items).

    Example:
      >>> from dsirm_jax.sids.trie import build
      >>> sids = np.array([[1, 0], [0, 2], [1, 0]])
      >>> items_below(build(sids, sizes=(2, 3)), postings(sids, sizes=(2, 3)), (1,)).tolist()
      [0, 2]
    """
    low, high = leaf_range(trie, prefix)
    return items.rows[items.starts[low] : items.starts[high]]
