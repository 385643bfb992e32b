"""The one error a user is meant to read."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave is wrong; the message names it and how to fix it.

    Every message is one line: the file, row, column or gin binding at fault, then the fix. The
    command line prints it without a traceback and exits with code 2.
    """
