"""Digests of a catalogue's texts in flat files, which are mapped into memory when read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dsirm_jax.io.errors import naming
from dsirm_jax.relevance.digests import ItemDigests
from dsirm_jax.relevance.pieces import Pieces
from dsirm_jax.relevance.rows import Ragged
from dsirm_jax.serving.bundle.manifest import REMEDY

TYPES = {
    "pieces": np.int32,
    "folded": np.uint8,
    "terms": np.int64,
    "counts": np.int32,
    "lengths": np.int32,
}
RAGGED = ("pieces", "folded", "terms")
"""Those whose rows differ in length; where they begin is in files of their own."""


def write_digests(folder: Path, parts: Iterable[ItemDigests]) -> None:
    """Writes the digests of items, some at a time: `NAME.bin` and, of `RAGGED`, `NAME_starts.bin`.

    Args:
      folder: where to; it must not exist.
      parts: in the order of the items.
    """
    folder.mkdir()
    with contextlib.ExitStack() as stack:

        def opened(name: str) -> BinaryIO:
            return stack.enter_context((folder / f"{name}.bin").open("wb"))

        values = {name: opened(name) for name in TYPES}
        starts = {name: opened(f"{name}_starts") for name in RAGGED}
        written = dict.fromkeys(RAGGED, 0)
        for file in starts.values():
            file.write(np.zeros(1, np.int64).tobytes())
        for (pieces, counts, lengths, folded), terms in parts:
            for name, flat in (("counts", counts), ("lengths", lengths)):
                values[name].write(np.ascontiguousarray(flat, TYPES[name]).data)
            for name, rows in zip(RAGGED, (pieces, folded, terms), strict=True):
                values[name].write(np.ascontiguousarray(rows.values, TYPES[name]).data)
                starts[name].write((rows.starts[1:] + written[name]).astype(np.int64).data)
                written[name] += int(rows.starts[-1])


def read_digests(folder: Path) -> ItemDigests:
    """Maps what `write_digests` wrote into memory.

    Raises:
      InputError: a file is missing, or ends within a value.
    """

    def rows(name: str) -> Ragged:
        return Ragged(
            _mapped(folder / f"{name}_starts.bin", np.int64),
            _mapped(folder / f"{name}.bin", TYPES[name]),
        )

    counts, lengths = (
        _mapped(folder / f"{name}.bin", TYPES[name]) for name in ("counts", "lengths")
    )
    return ItemDigests(Pieces(rows("pieces"), counts, lengths, rows("folded")), rows("terms"))


def _mapped(path: Path, type_: type) -> np.ndarray:
    with naming(path, otherwise=f"not a whole file; {REMEDY}"):
        # What is empty cannot be mapped; a plain array is faster than np.memmap.
        is_empty = not path.stat().st_size
        return np.empty(0, type_) if is_empty else np.asarray(np.memmap(path, type_, "r"))
