"""The errors a user is meant to read, which the command line prints without a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong; the message names it and how to fix it.

    Every message is one line: the file, row, column or gin binding at fault, then the fix. The
    command line exits with code 2.
    """


class StorageError(OSError):
    """The disk is at fault, and nothing that the user gave: it is full, read-only or broken.

    Every message is one line: the path, what the system says of it, then the mend. The command line
    exits with code 1. See `disk`.
    """
