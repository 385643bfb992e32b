"""A trie as one `safetensors` file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from dsirm_jax.io import arrays as files
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.sids.trie.building import form_with
from dsirm_jax.sids.trie.levels import Level, Trie

TRIE = "trie"
"""What the file's header calls its contents."""


def save(path: str | os.PathLike[str], trie: Trie) -> None:
    """Writes a trie, on the host or on a device, as one file."""
    arrays = {
        f"{number}/{name}": np.asarray(getattr(level, name))
        for number, level in enumerate(trie.levels)
        for name in level.array_names
    }
    files.save(path, arrays, kind=TRIE, description=trie.sizes)


def load(path: str | os.PathLike[str]) -> Trie:
    """Returns the trie that `save` wrote, its arrays mapped into memory.

    Raises:
      InputError: there is no such file, or it is no whole trie.
    """
    otherwise = "no trie, or not a whole one; write it again"
    arrays, sizes = files.load(path, kind=TRIE, otherwise=otherwise, mapped=True)
    with naming(path, otherwise=otherwise):
        trie = _trie(arrays, sizes=sizes, path=path)
        nodes = 1
        for number, level in enumerate(trie.levels):
            if not level.fits(nodes=nodes):
                raise InputError(f"{path}: level {number} is no level of a trie; write it again")
            nodes = int(level.bounds()[-1])
    return trie


def _trie(arrays: Mapping[str, np.ndarray], *, sizes: Sequence[int], path: object) -> Trie:
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


def _level(arrays: dict[str, np.ndarray], *, size: int, path: object) -> Level:
    form = form_with(arrays)
    if form is None:
        raise InputError(f"{path}: a level has the arrays {sorted(arrays)}; write the trie again")
    return form.from_arrays(arrays, size=size)
