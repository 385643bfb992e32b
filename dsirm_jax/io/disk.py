"""What the disk refuses: which errors say so, whichever library raised them, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

from dsirm_jax.io.errors import InputError, StorageError, causes

AGAIN = "and run the same again, which goes on from here"
ROOM = f"make room, {AGAIN}"
PLACE = f"let this user write there or name another place, {AGAIN}"
WRITTEN = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: f"lift the limit of a file's size (ulimit -f), {AGAIN}",
    errno.EROFS: PLACE,
}
"""What to do about an error that only a write has."""
MENDS = WRITTEN | {
    errno.EIO: f"look at the disk, {AGAIN}",
    errno.EACCES: PLACE,
    errno.EPERM: PLACE,
    errno.EEXIST: "move what is there, or name another place",
    errno.ENOTDIR: "move the file that is in the way, or name another place",
    errno.ENAMETOOLONG: "name a folder with a shorter path",
}
"""Likewise, with those that need a path to be told from what has nothing to do with a disk."""
TOLD = (*WRITTEN, errno.EIO)
"""Those whose words are looked for in the errors of other libraries."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Names what a block writes, where the disk refuses it.

    Args:
      path: of a file or folder, where the error knows of none.

    Raises:
      StorageError: the disk refuses it.
    """
    try:
        yield
    except Exception as error:
        known = fault(error, place=os.fspath(path))
        if known is None or known is error:
            raise
        raise known from error


def fault(error: BaseException, *, place: str = "a file") -> StorageError | None:
    """Returns the fault of the disk that an error comes from; None where it is none.

    Args:
      error: as any library raised it, with what caused it.
      place: what was being written, where the error does not say.
    """
    chain = [*causes(error)]
    for each in chain:
        if isinstance(each, StorageError):
            return each
    for each in chain:
        number = _number(each)
        # What the user gave is not at fault where it could only not be copied.
        if number and (number in WRITTEN or not isinstance(error, InputError)):
            reason = f"{_path(each) or place}: {os.strerror(number)}; {MENDS[number]}"
            return _numbered(StorageError(reason), number)
        if "No usable temporary directory" in str(each):
            text = str(each).partition("] ")[2] or str(each)
            return _numbered(
                StorageError(f"TMPDIR: {text}; set it to a folder that can be written"),
                errno.ENOENT,
            )
    return None


def _numbered(error: StorageError, number: int) -> StorageError:
    error.errno = number  # the message stays the one line
    return error


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        needs_path = error.errno not in TOLD
        return error.errno if error.errno in MENDS and (error.filename or not needs_path) else None
    text = str(error)
    # So NumPy has it, which keeps no reason.
    if re.search(r"\d+ requested and \d+ written", text):
        return errno.ENOSPC
    return next((number for number in TOLD if os.strerror(number) in text), None)


def _path(error: BaseException) -> str | None:
    """Returns the path that an error names: the file that was to be, in place of a partial one."""
    name = getattr(error, "filename", None)
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str):
        found = re.search(r"(?<!\w)/[^\s:;,'\"()\[\]]+", str(error))
        name = found and found[0]
    return name and re.sub(r"\.partial-[^/]*", "", name)
