"""A file of keys and values that is written once and then only read, mapped into memory.

LMDB: any number of processes share its pages, and opening takes no longer for a large file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from dsirm_jax.io import disk
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.serving.bundle.manifest import REMEDY

META_AT, LAST_PAGE_AT, META = 16, 136, struct.Struct("=IIQQI")
"""Where the two meta pages, at the start of a file, have magic, version, address, size of the map
and of a page; and the number of the last page."""
PAGE_BYTES = tuple(1 << bits for bits in range(9, 17))
META_MAGIC, META_VERSION = 0xBEEFC0DE, 1
MOST_BYTES = 1 << 40
"""Of a file; what is reserved is address space alone."""
KEY_BYTES = 511
"""LMDB's longest key."""
PUT_AT_ONCE = 1 << 16

_opened: weakref.WeakValueDictionary[str, KeyValues] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class KeyValues:
    """A file that `write_store` wrote, open for reading by any number of threads."""

    def __init__(self, path: Path):
        self._path = path
        with self._reading():
            _check_length(path)
            self._file = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, map_size=1
            )
            self._rows = self._file.stat()["entries"]

    def _reading(self) -> contextlib.AbstractContextManager[None]:
        return naming(self._path, otherwise=f"not a readable LMDB file; {REMEDY}")

    def __len__(self) -> int:
        return self._rows

    def get(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Returns the value of each key, None where there is none."""
        with self._reading(), self._file.begin() as rows:
            return [rows.get(key) if key else None for key in keys]  # no key is empty

    def existing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Returns the value of each key.

        Raises:
          InputError: a key has none.
        """
        values = self.get(keys)
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            lacking = len(values) - len(there)
            raise InputError(
                f"{self._path}: {lacking} of {len(values)} keys have no value; {REMEDY}"
            )
        return there

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yields keys and values, in the order of the keys' bytes."""
        with self._reading(), self._file.begin() as rows:
            yield from rows.cursor()


def _check_length(path: Path) -> None:
    """Raises an error where a file ends before the last page that it says it has.

    LMDB maps a file as long as it says it is, and reading beyond its end would end the process.
    """
    with path.open("rb") as file:
        head = file.read(META_AT + META.size)
        _, version, _, _, page_bytes = META.unpack_from(head, META_AT)
        if version != META_VERSION or page_bytes not in PAGE_BYTES:
            raise ValueError("no meta page")
        for start in (0, page_bytes):
            file.seek(start)
            page = file.read(LAST_PAGE_AT + 8)
            magic, *_ = META.unpack_from(page, META_AT)
            last = int.from_bytes(page[LAST_PAGE_AT:], sys.byteorder)
            if magic != META_MAGIC or (last + 1) * page_bytes > path.stat().st_size:
                raise ValueError("a page is missing")


def open_store(path: str | os.PathLike[str]) -> KeyValues:
    """Opens a file, which stays open as long as anyone has it.

    Raises:
      InputError: there is no such file, or LMDB cannot read it.
    """
    name = os.path.realpath(path)
    with _opening:  # LMDB refuses to open a file twice in one process.
        file = _opened.get(name)
        if file is None:
            file = _opened[name] = KeyValues(Path(path))
        return file


def write_store(
    path: str | os.PathLike[str],
    rows: Iterable[tuple[bytes, bytes]],
    *,
    beside: str | os.PathLike[str] | None = None,
) -> None:
    """Writes a file of keys and values; fastest where they come in the order of the keys.

    Args:
      path: where to; nothing may be there.
      rows: keys of at most `KEY_BYTES`, and values. Of a key's values the first one stays.
      beside: a file that `write_store` wrote, all of whose keys and values are there, too, first.

    Raises:
      StorageError: the disk refuses it. LMDB maps a file to read it, and writes it as any other.
    """
    with disk.writing(path):
        if beside:
            shutil.copyfile(beside, path)
        file = lmdb.open(str(path), subdir=False, lock=False, map_size=MOST_BYTES, sync=False)
        try:
            writing = file.begin(write=True)
            for number, (key, value) in enumerate(rows, 1):
                writing.put(key, value, overwrite=False)
                if number % PUT_AT_ONCE == 0:
                    writing.commit()
                    writing = file.begin(write=True)
            writing.commit()
            file.sync(True)
        finally:
            file.close()


def key(text: str) -> bytes:
    """Returns the key of a text: its UTF-8, of which a very long one is cut and hashed."""
    whole = text.encode()
    if len(whole) <= KEY_BYTES:
        return whole
    digest = hashlib.sha256(whole).hexdigest().encode()
    return whole[: KEY_BYTES - len(digest)] + digest


def number_bytes(number: int) -> bytes:
    """Returns a number as keys and values have it; keys sort in the order of their numbers."""
    return number.to_bytes(4, "big")


def keys_of_numbers(numbers: Iterable[int]) -> list[bytes]:
    """Returns the keys of numbers."""
    return [number_bytes(int(number)) for number in numbers]
