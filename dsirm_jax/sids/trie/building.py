"""Tries from tables of SIDs, from other tries, and in outline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Integer

from dsirm_jax.io.errors import InputError
from dsirm_jax.sids.codes import pack, validate
from dsirm_jax.sids.trie.bitmap import Bitmap
from dsirm_jax.sids.trie.levels import Level, Trie
from dsirm_jax.sids.trie.lookup import leaves
from dsirm_jax.sids.trie.ranges import Ranges
from dsirm_jax.sids.trie.runs import runs

FORMS: tuple[type[Level], ...] = (Bitmap, Ranges)
"""Of two that take as many bytes the first is chosen."""


def form_named(name: str) -> type[Level]:
    """Returns the form of this name in files and manifests.

    Raises:
      KeyError: there is none.
    """
    return {form.form: form for form in FORMS}[name]


def form_with(array_names: Iterable[str]) -> type[Level] | None:
    """Returns the form that has arrays of these names; None where there is none."""
    names = {*array_names}
    return next((form for form in FORMS if {*form.array_names} == names), None)


def build(
    sids: Integer[np.ndarray, "item level"],
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

    Example:
      >>> from dsirm_jax.sids.trie import enumerate_sids
      >>> trie = build(np.array([[1, 0], [0, 2], [1, 0]]), sizes=(2, 3))
      >>> enumerate_sids(trie).tolist()
      [[0, 2], [1, 0]]
    """
    if not len(sids):
        raise InputError("the trie needs at least one SID; the SID table is empty")
    validate(sids, sizes=sizes)
    # Packed prefixes of one depth, ascending. (np.unique hashes: many times slower than a sort.)
    nodes, _ = runs(np.sort(pack(sids, sizes=sizes)))
    return _from_leaves(nodes, sizes=sizes, kind=kind)


def abstract_trie(sizes: Sequence[int], *, sids: int) -> Trie:
    """Returns the shapes and dtypes of a trie of SIDs spread evenly, for compilation.

    Args:
      sizes: codes per level.
      sids: distinct SIDs.
    """
    levels: list[Level] = []
    nodes = 1
    for size in sizes:
        counts = {"size": size, "nodes": nodes, "children": min(nodes * size, sids)}
        form = _smallest(**counts)
        levels.append(form.of_any(form.shapes(**counts), size=size))
        nodes = counts["children"]
    return Trie(levels=tuple(levels))


def add(trie: Trie, sids: Integer[np.ndarray, "item level"]) -> Trie:
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
    both = np.concatenate([leaves(trie), pack(sids, sizes=trie.sizes)])
    nodes, _ = runs(np.sort(both, kind="stable"))  # merges what is sorted already
    return _from_leaves(nodes, sizes=trie.sizes)


def _from_leaves(
    nodes: Integer[np.ndarray, " leaf"],
    *,
    sizes: Sequence[int],
    kind: str | Sequence[str] | None = None,
) -> Trie:
    """Builds a trie from the packed SIDs, ascending and distinct."""
    kinds = [kind] * len(sizes) if kind is None or isinstance(kind, str) else kind
    levels: list[Level] = []
    for size, name in zip(reversed(sizes), reversed(kinds), strict=True):
        parents, codes = np.divmod(nodes, size)
        nodes, starts = runs(parents)
        counts = {"size": size, "nodes": len(starts), "children": len(codes)}
        form = form_named(name) if name else _smallest(**counts)
        levels.append(form.from_children(parents, codes, starts, size=size))
    return Trie(levels=tuple(levels[::-1]))


def _smallest(**counts: int) -> type[Level]:
    """Returns the form that takes the fewest bytes."""
    return min(FORMS, key=lambda form: form.num_bytes(**counts))
