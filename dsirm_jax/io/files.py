"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block succeeds.

    A reader, or a run that is killed half-way, sees the old file or the new one, never a part.

    Args:
      path: the file to write; its folder is made when missing.

    Yields:
      A path in the same folder, to be written by the block.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{socket.gethostname()}-{os.getpid()}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until the disk has what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON for people to read, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def sync_tree(folder: Path) -> None:
    """Has all files and folders below a folder written to the disk, so that power may fail."""
    for place, _, names in os.walk(folder):
        for name in (*names, ""):
            _sync(Path(place) / name)


def rename_folder(source: Path, target: Path) -> None:
    """Moves a folder, whose new parent is made when missing, and has that written to the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    for parent in {source.parent, target.parent}:
        _sync(parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Removes what writers that are gone have left below a folder."""
