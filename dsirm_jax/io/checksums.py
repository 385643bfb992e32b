"""What files were when they were written: sizes and SHA-256, and what has become of them since.

One mechanism for all that is sealed: the steps of a checkpoint, the stages of a run, the files of
a bundle. Contents are streamed, several files at a time, for a hash is as fast as a disk at best.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dsirm_jax.io.errors import InputError

SEAL = "checksum"
"""Name, in a sealed JSON object, of the checksum of all the rest."""
SETTLED_NS = 2 * 10**9
MANIFEST_BYTES = 256 << 20
"""Of a sealed JSON file: one that is larger is no manifest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checksum:
    """What is known of a file.

    Attributes:
      bytes: its size.
      sha256: of its contents, hexadecimal.

    Raises:
      InputError: one of them is neither a size nor a SHA-256.
    """

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if type(self.bytes) is not int or self.bytes < 0:
            raise InputError(f"Checksum.bytes is {self.bytes!r}, which is no size of a file")
        if not (isinstance(self.sha256, str) and re.fullmatch("[0-9a-f]{64}", self.sha256)):
            raise InputError(f"Checksum.sha256 is {self.sha256!r}, which is no SHA-256")


def checksum(path: str | os.PathLike[str]) -> Checksum:
    """Returns the checksum of a file.

    One that was read before in this process is not read again while its size, its place on the
    disk and its times are what they were.
    """
    state = os.stat(path)
    times = (state.st_mtime_ns, state.st_ctime_ns)
    # Times are coarse: who changes a file twice within one tick leaves them as they are.
    is_settled = abs(time.time_ns() - max(times)) > SETTLED_NS
    read = _checksum_once if is_settled else _checksum
    return read(os.path.realpath(path), (state.st_dev, state.st_ino, state.st_size, *times))


def _checksum(path: str, state: tuple[int, ...]) -> Checksum:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Checksum(bytes=file.tell(), sha256=digest)


_checksum_once = functools.lru_cache(maxsize=1 << 16)(_checksum)


def checksums(folder: Path, names: Iterable[str]) -> dict[str, Checksum]:
    """Returns the checksums of files, given by their paths below a folder."""
    names = sorted(names)
    with ThreadPoolExecutor() as threads:
        return dict(zip(names, threads.map(checksum, (folder / name for name in names))))


def faults(
    folder: Path,
    expected: Mapping[str, Checksum],
    *,
    present: Iterable[str] | None = None,
    contents: bool = True,
) -> list[str]:
    """Returns what is wrong with files, one line each that begins with the file's path.

    Args:
      folder: that the files lie below.
      expected: their checksums, by their paths below it.
      present: paths of all files that are there, where there may be no other.
      contents: compare their contents too, and not only their sizes; they are read only where all
        sizes agree.
    """
    lines = []
    for name in sorted(set(present or ()) - expected.keys()):
        lines.append(f"{folder / name} is none of the files that were written")
    for name, known in expected.items():
        file = folder / name
        if not file.is_file():
            lines.append(f"{file} is missing")
        elif (size := file.stat().st_size) != known.bytes:
            lines.append(f"{file} has {size:,} bytes in place of {known.bytes:,}")
    if contents and not lines:
        for name, actual in checksums(folder, expected).items():
            if actual != expected[name]:
                lines.append(f"{folder / name} is not what was written")
    return lines


def summary(lines: list[str]) -> str:
    """Returns the first of some faults, and how many more files have one."""
    return lines[0] + (f" (and {len(lines) - 1} more files)" if len(lines) > 1 else "")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with a checksum of its own."""
    return {SEAL: digest(content)} | dict(content)


def unsealed(path: Path, *, otherwise: str) -> dict[str, Any]:
    """Reads a JSON object that was `sealed`, and written by `files.write_json`.

    Args:
      path: the file.
      otherwise: message, after the path, where it is not what was written.

    Raises:
      InputError: it is missing or not what was written.
    """
    try:
        if path.stat().st_size > MANIFEST_BYTES:
            raise InputError(f"{path} {otherwise}")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        # By the byte: 1e-05 and 1E-05 are one number, and two files.
        is_whole = text == json.dumps(content, indent=2) + "\n"
        is_whole &= content.pop(SEAL) == digest(content)
    # A hostile file may also be nested more deeply than Python reads.
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path} {otherwise}") from error
    if not is_whole:
        raise InputError(f"{path} {otherwise}")
    return content


def digest(content: Any) -> str:
    """Returns the SHA-256 of a JSON value, whatever the order of its names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
