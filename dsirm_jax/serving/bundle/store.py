"""A file of keys and values that is written once and then only read, mapped into memory.

LMDB: any number of processes share its pages, and opening takes no longer for a large file.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from dsirm_jax.io import disk
from dsirm_jax.io.errors import InputError

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
        try:
            self._file = lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False, map_size=1
            )
            self._rows = self._file.stat()["entries"]
        except lmdb.Error as error:
            raise InputError(f"{path}: not a readable LMDB file ({error})") from error

    def __len__(self) -> int:
        return self._rows

    def get(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Returns the value of each key, None where there is none."""
        with self._file.begin() as reading:
            return [reading.get(key) if key else None for key in keys]  # no key is empty

    def existing(self, keys: Iterable[bytes]) -> list[bytes]:
        """Returns the value of each key.

        Raises:
          KeyError: a key has none.
        """
        values = self.get(keys)
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            raise KeyError(f"{len(values) - len(there)} of {len(values)} keys have no value")
        return there

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Yields keys and values, in the order of the keys' bytes."""
        with self._file.begin() as reading:
            yield from reading.cursor()


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


def write_store(path: str | os.PathLike[str], rows: Iterable[tuple[bytes, bytes]]) -> None:
    """Writes a file of keys and values; fastest where they come in the order of the keys.

    Args:
      path: where to; nothing may be there.
      rows: keys of at most `KEY_BYTES`, and values. Of a key's values the last one stays.

    Raises:
      StorageError: the disk refuses it. LMDB maps a file to read it, and writes it as any other.
    """
    with disk.writing(path):
        file = lmdb.open(str(path), subdir=False, lock=False, map_size=MOST_BYTES, sync=False)
        try:
            writing = file.begin(write=True)
            for number, (key, value) in enumerate(rows, 1):
                writing.put(key, value)
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


def keys_of_numbers(numbers: Iterable[int]) -> list[bytes]:
    """Returns the keys of numbers, in whose order they sort."""
    return [int(number).to_bytes(4, "big") for number in numbers]
