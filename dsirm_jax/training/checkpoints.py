"""Checkpoints of a training state, written and read with Orbax."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from dsirm_jax.errors import InputError

log = logging.getLogger(__name__)
KEEP = 2


@contextlib.contextmanager
def manager(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints below `directory`; leaving the block waits for saves under way."""
    options = ocp.CheckpointManagerOptions(max_to_keep=KEEP, create=True)
    with ocp.CheckpointManager(Path(directory).absolute(), options=options) as opened:
        yield opened


def save(opened: ocp.CheckpointManager, *, step: int, state: Any) -> None:
    """Saves `state` as `step` in the background; a step that exists already is left as it is."""
    if step not in opened.all_steps():
        opened.save(step, args=ocp.args.StandardSave(state))


def restore_newest(opened: ocp.CheckpointManager, *, like: Any) -> tuple[Any, int]:
    """Returns the newest readable checkpoint and its step.

    A checkpoint that cannot be read is named in the log and the one before it is tried.

    Args:
      opened: see `manager`.
      like: a state of the same structure, shapes, dtypes and shardings.

    Returns:
      `(state, step)`; `(like, 0)` when there is no checkpoint.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    for step in sorted(opened.all_steps(), reverse=True):
        try:
            return opened.restore(step, args=ocp.args.StandardRestore(abstract)), step
        except (ValueError, OSError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("checkpoint %s/%d cannot be read (%s)", opened.directory, step, reason)
            opened.delete(step)
    return like, 0


def read_newest(directory: Path, *, like: Any) -> Any:
    """Returns the newest checkpoint of another run, which is left as it is.

    Args:
      directory: its `checkpoints`.
      like: see `restore_newest`.

    Raises:
      InputError: there is none of this structure.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    options = ocp.CheckpointManagerOptions(read_only=True)
    try:
        with ocp.CheckpointManager(Path(directory).absolute(), options=options) as opened:
            return opened.restore(None, args=ocp.args.StandardRestore(abstract))
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{directory}: no checkpoint of a model of this shape; bind the same sizes as that run "
            f"had, or no Job.previous"
        ) from error
