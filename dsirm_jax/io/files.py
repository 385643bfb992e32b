"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsirm_jax.io import disk


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path that takes the place of `path` when the block succeeds.

    A reader, or a run that is killed half-way, sees the old file or the new one, never a part; so
    does the system after a loss of power.

    Args:
      path: the file to write; its folder is made when missing.

    Yields:
      A path in the same folder, to be written by the block.

    Raises:
      StorageError: the disk refuses it.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{socket.gethostname()}-{os.getpid()}")
    with disk.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            sync_tree(partial)
            os.replace(partial, path)
            sync(path.parent)
        finally:
            # On a disk that has become read-only what is not there cannot be removed either.
            if partial.is_file():
                partial.unlink()


def rename_folder(source: Path, target: Path) -> None:
    """Renames a folder, whose new name stays, come loss of power.

    What is in it has to be on the disk before where others rely on it, see `sync_tree`.

    Args:
      source: the folder.
      target: its new path, where nothing may be, on the same file system; its own folder is made
        when missing.

    Raises:
      StorageError: the disk refuses it.
    """
    with disk.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        for folder in {source.parent, target.parent}:
            sync(folder)


def sync_tree(path: Path) -> None:
    """Waits until a file, or a folder with all below it, is on the disk, come loss of power.

    Raises:
      OSError: the disk has failed to write it.
    """
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            if not file.is_symlink():
                sync(file)
        sync(Path(folder))
    if not path.is_dir():
        sync(path)


def sync(path: Path) -> None:
    """Waits until the disk has what was written to a file, or the names in a folder.

    Raises:
      OSError: the disk has failed to write it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have nothing of the kind for a folder.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            error.filename = str(path)
            raise
    finally:
        os.close(descriptor)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON for people to read, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def remove_partials(folder: str | os.PathLike[str]) -> list[Path]:
    """Removes what writers of this machine that were killed have left in a folder, see `replacing`.

    Only while no other process begins to write there: who stops between a look at it and now may
    be taken for dead.

    Args:
      folder: with all folders below it.

    Returns:
      What was removed, in order.
    """
    host = re.escape(socket.gethostname())
    removed = []
    for path in sorted(Path(folder).rglob("*.partial-*")):
        writer = re.search(rf"\.partial-{host}-(\d+)$", path.name)
        if writer and not _is_alive(int(writer[1])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    # A process that asks has no partial file of a time before it.
    return process != os.getpid()
