"""Who writes: one process at a time, by a lock that the system takes back from one that dies."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.secrets import masked

log = logging.getLogger(__name__)
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(path: Path, *, what: str) -> Iterator[None]:
    """Holds a lock; its file stays, and says who has it or had it last.

    Args:
      path: the lock's file; its folder is made when missing.
      what: what it keeps others from, for messages.

    Raises:
      InputError: another process has it; the message says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Neither truncated, for it may be another's, nor inherited by a process that outlives this one.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{what} is in use{_holder(file.read())}; wait until it is done, or stop it"
            ) from None
        except OSError as error:
            if error.errno not in LOCKLESS:
                raise
            log.warning(
                "%s: this file system has no locks (%s); see that nobody else writes there",
                *(path, error.strerror),
            )
        file.truncate()
        json.dump(_self(), file)
        file.flush()
        yield


def _self() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.datetime.now().astimezone().isoformat(" ", "seconds"),
        "command": shlex.join(["dsirm", *map(masked, sys.argv[1:])]),
    }


def _holder(text: str) -> str:
    """Returns who has a lock, as its file says; nothing where that is not written yet."""
    try:
        known = json.loads(text)
        return (
            f": process {known['pid']} on {known['host']} since {known['since']} "
            f"({known['command']})"
        )
    except (ValueError, KeyError, TypeError):
        return ""
