"""The trie of existing SIDs as flat sorted arrays that a jitted search can walk.

The nodes of each depth are numbered in the order of their prefixes, so the children of a node are
contiguous one depth below. Which codes continue a node is kept, level by level, in whichever of two
forms is smaller: `bitmap.Bitmap` or `ranges.Ranges`.

Source: this project (rank by population count over packed bitmaps, as in succinct tries; sorted
adjacency as in compressed sparse rows).
"""

from dsirm_jax.sids.trie.bitmap import BITMAP, Bitmap
from dsirm_jax.sids.trie.building import abstract_trie, add, build, form_named, form_with
from dsirm_jax.sids.trie.file import load, save
from dsirm_jax.sids.trie.items import Postings, items_below, postings
from dsirm_jax.sids.trie.levels import Dimension, Level, Trie, forms
from dsirm_jax.sids.trie.lookup import (
    NOT_FOUND,
    ROOT,
    child,
    child_mask,
    contains,
    enumerate_sids,
    find,
    leaf_range,
)
from dsirm_jax.sids.trie.ranges import RANGES, Ranges

__all__ = [
    "BITMAP",
    "NOT_FOUND",
    "RANGES",
    "ROOT",
    "Bitmap",
    "Dimension",
    "Level",
    "Postings",
    "Ranges",
    "Trie",
    "abstract_trie",
    "add",
    "build",
    "child",
    "child_mask",
    "contains",
    "enumerate_sids",
    "find",
    "form_named",
    "form_with",
    "forms",
    "items_below",
    "leaf_range",
    "load",
    "postings",
    "save",
]
