"""The errors a user is meant to read, which the command line prints without a traceback."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


class InputError(ValueError):
    """Something the user gave is wrong; the message names it and how to fix it.

    Every message is one line: the file, row, column or gin binding at fault, then the fix. The
    command line exits with code 2.
    """


class ContentError(InputError):
    """A file does not hold what was written into it, or what it has to hold.

    Who calls a server that reads it is not to blame.
    """


class StorageError(OSError):
    """The disk is at fault, and nothing that the user gave: it is full, read-only or broken.

    Every message is one line: the path, what the system says of it, then the mend. The command line
    exits with code 1. See `disk`.
    """


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], *, otherwise: str) -> Iterator[None]:
    """Names a file in whatever its contents make the block raise, for they may be anything.

    Args:
      path: the file.
      otherwise: message, after the path, where its contents cannot be read.

    Raises:
      ContentError: the block raised an error.
    """
    try:
        yield
    except ContentError:
        raise
    except InputError as error:
        message = str(error)
        named = message if os.fspath(path) in message else f"{path}: {message}"
        raise ContentError(named) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ContentError(f"{path}: {otherwise} ({reason})") from error


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, then what led to it, as far as a traceback would show."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
