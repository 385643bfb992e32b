"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
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
