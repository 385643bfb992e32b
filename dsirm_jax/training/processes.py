"""Several processes of one job: how they find each other, and what the first does for all.

In a process that stands alone nothing here has an effect, and JAX is not even imported.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from dsirm_jax.io.errors import InputError

TIMEOUT = 7 * 24 * 60 * 60 * 1000  # milliseconds; the first process may work alone for long
LOST = 75
"""Exit code of a process that another one has left alone; run again, all go on."""
NUM_PROCESSES, PROCESS_ID = "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"

_call = itertools.count(1)


def start() -> None:
    """Joins the other processes of this job, before anything else touches JAX.

    The environment says which they are: JAX_COORDINATOR_ADDRESS (host and port of the first),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID; what is missing is looked up in Slurm, the TPU slice or
    Kubernetes, see `jax.distributed.initialize`.

    Raises:
      InputError: neither the environment nor a cluster names them.
    """
    import jax

    try:
        jax.distributed.initialize(
            num_processes=_number(NUM_PROCESSES), process_id=_number(PROCESS_ID)
        )
    except ValueError as error:
        raise InputError(
            f"--distributed: {str(error).rstrip('.')}; set JAX_COORDINATOR_ADDRESS, "
            f"{NUM_PROCESSES} and {PROCESS_ID}, or start under Slurm or on a TPU slice"
        ) from error


def several() -> bool:
    """Returns whether this is one of several processes."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def has_lost_another(error: Exception) -> bool:
    """Returns whether an error says that another process of the job is gone."""
    return several() and re.search("Gloo|NCCL|UNAVAILABLE|heartbeat", str(error)) is not None


def leave(code: int) -> NoReturn:
    """Ends this process at once: JAX's own farewell waits for the processes that are gone."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def index() -> int:
    """Returns the number of this process, from 0."""
    if not several():
        return 0
    import jax

    return jax.process_index()


def is_first() -> bool:
    """Returns whether this process writes logs and what is written once."""
    return index() == 0


def wait() -> None:
    """Waits until all processes have come here, in the same order of calls."""
    if several():
        import orbax.checkpoint as ocp

        barrier = ocp.multihost.get_barrier_sync_fn()
        barrier(key=f"dsirm_{next(_call)}", timeout_ms=TIMEOUT)


def first(function: Callable[[], bool | None]) -> bool:
    """Calls a function in the first process alone, while the others wait.

    Args:
      function: what is to be done once.

    Returns:
      Whether it returned something true; the same in all processes.

    Raises:
      SystemExit: it failed; the first process raises the error itself.
    """
    if not several():
        return bool(function())
    import numpy as np
    from jax.experimental import multihost_utils

    result, failed = False, None
    if is_first():
        try:
            result = bool(function())
        except BaseException as error:
            failed = error
    wait()
    result, has_failed = multihost_utils.broadcast_one_to_all(
        np.array([result, failed is not None])
    ).tolist()
    if failed is not None:
        raise failed
    if has_failed:
        raise SystemExit("dsirm: the first process failed, see its log")
    return result


def _number(variable: str) -> int | None:
    text = os.environ.get(variable)
    if text is None:
        return None
    if not text.isdecimal():
        raise InputError(f"{variable}={text}: give a whole number")
    return int(text)
