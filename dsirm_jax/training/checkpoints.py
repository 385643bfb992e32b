"""Checkpoints of a training state: written with Orbax, sealed and verified with checksums.

Orbax reads back arrays whose bits have flipped without a word. So before a step is committed, the
SHA-256 of every file goes into the step's `SHA256SUMS` (`sha256sum --check` reads it), and nothing
is restored that does not agree with it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from dsirm_jax.io.checksums import checksums
from dsirm_jax.io.errors import InputError, StorageError
from dsirm_jax.io.files import write_text
from dsirm_jax.training import processes

log = logging.getLogger(__name__)
KEEP = 2
LOSS = "held_out_loss"
METRICS_FILE = "metrics/metrics"
"""Where Orbax puts the metrics of a step."""
CHECKSUMS = "SHA256SUMS"
UNREADABLE = "unreadable"


@contextlib.contextmanager
def manager(directory: Path, *, best: bool = False) -> Iterator[ocp.CheckpointManager]:
    """Opens the checkpoints below `directory`; leaving the block waits for saves under way.

    The newest step is verified first. One that is damaged is named in the log and kept in
    `directory/unreadable/`, and the one before it is looked at.

    Args:
      directory: of one training run, on a file system that all processes share.
      best: the step of least loss is kept beside the newest, and every step is verified.

    Raises:
      StorageError: the last save failed.
    """
    directory = Path(directory).absolute()
    processes.first(functools.partial(_set_damaged_aside, directory, every=best))
    # Orbax would do so beside other work, and trip over what it has removed itself.
    processes.first(functools.partial(_remove_partial, directory))

    def seal_all() -> None:
        """Runs on the first process, when all have written their files and none is renamed."""
        for partial in _partial(directory):
            seal_step(partial)

    kept = [LatestN(n=KEEP)]
    if best:
        order = {"get_metric_fn": _loss_of, "reverse": True}
        # One that was saved on SIGTERM has no loss.
        kept.append(BestN(**order, n=1, keep_checkpoints_without_metrics=False))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy(kept),
        best_fn=_loss_of if best else None,
        best_mode="min",
        create=True,
        lightweight_initialize=not best,  # reads no file that no checksum covers
        async_options=ocp.AsyncOptions(post_finalization_callback=seal_all),
    )
    with ocp.CheckpointManager(directory, options=options) as opened:
        try:
            yield opened
        finally:
            failure = _failure(opened.wait_until_finished, opened)
        if failure:
            raise StorageError(f"{failure}; make room or repair the disk, and run the same again")


def save(
    opened: ocp.CheckpointManager, *, step: int, state: Any, loss: float | None = None
) -> None:
    """Saves `state` as `step` in the background; a step that exists already is left as it is.

    `loss` is that of the rows held out, where it was measured.

    A save that fails is an error in the log, at the next save at the latest; that one is made all
    the same, and what was saved before stays.
    """
    _failure(opened.wait_until_finished, opened)
    if step not in opened.all_steps():
        args = ocp.args.StandardSave(state)
        metrics = None if loss is None else {LOSS: loss}
        # Forced: without it Orbax skips, silently, what it takes for a step of the past.
        write = functools.partial(opened.save, step, args=args, metrics=metrics, force=True)
        _failure(write, opened)


def restore_newest(opened: ocp.CheckpointManager, *, like: Any) -> tuple[Any, int]:
    """Returns the newest checkpoint and its step.

    Args:
      opened: see `manager`, which has verified it.
      like: a state of the same structure, shapes, dtypes and shardings.

    Returns:
      `(state, step)`; `(like, 0)` when there is no checkpoint.

    Raises:
      InputError: the checkpoint is whole, but of another model.
    """
    step = opened.latest_step()
    if step is None:
        return like, 0
    return _read(Path(opened.directory) / str(step), like=like), step


def restore_best(opened: ocp.CheckpointManager, *, like: Any) -> tuple[Any, int]:
    """Returns the checkpoint with the least loss of rows held out, and its step.

    Args:
      opened: see `manager`; it keeps the best.
      like: see `restore_newest`.

    Raises:
      StorageError: the last save failed.
      InputError: the checkpoint is not what was written.
    """
    if failure := _failure(opened.wait_until_finished, opened):
        raise StorageError(f"{failure}; make room or repair the disk, and run the same again")
    step = Path(opened.directory) / str(opened.best_step())
    if reason := step_damage(step):
        raise InputError(f"{step} is damaged ({reason}); run the same again")
    return _read(step, like=like), int(step.name)


def read_result(directory: Path, *, like: Any) -> Any:
    """Returns the state that another run arrived at: its newest good checkpoint, or its best.

    The run is left as it is.

    Args:
      directory: its `checkpoints`.
      like: see `restore_newest`.

    Raises:
      InputError: there is none, or it is of another model.
    """
    for step in sorted(_steps(directory), key=_loss_in):
        if not (reason := step_damage(step)):
            return _read(step.absolute(), like=like)
        log.warning("checkpoint %s is damaged (%s); the one before it is tried", step, reason)
    raise InputError(
        f"{directory}: no good checkpoint; run that stage again, or bind no Job.previous"
    )


def seal_step(step: Path) -> None:
    """Writes the checksums of a step's files, unless they are there."""
    if not (step / CHECKSUMS).exists():
        sums = "".join(f"{digest}  {name}\n" for name, digest in _checksums(step).items())
        write_text(step / CHECKSUMS, sums)


def step_damage(step: Path) -> str | None:
    """Returns what is wrong with a step's files, or None when they are as they were written."""
    try:
        lines = (step / CHECKSUMS).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError):
        return f"{CHECKSUMS} cannot be read"
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    actual = _checksums(step)
    for name in sorted(expected.keys() | actual.keys()):
        if name not in expected:
            return f"{name} is not in {CHECKSUMS}"
        if name not in actual:
            return f"{name} is missing"
        if actual[name] != expected[name]:
            return f"{name} is not what was written"
    return None


def _checksums(step: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file of the step's items, by its path in the step.

    The few files beside the items are Orbax's own notes, some written after the seal; `_read` has
    no need of them.
    """
    names = (path.relative_to(step).as_posix() for path in step.glob("*/**/*") if path.is_file())
    return {name: known.sha256 for name, known in checksums(step, names).items()}


def _steps(directory: Path) -> list[Path]:
    """Returns the folders of committed steps, the newest first."""
    steps = [path for path in Path(directory).glob("*") if path.name.isdecimal()]
    return sorted(steps, key=lambda path: int(path.name), reverse=True)


def _partial(directory: Path) -> list[Path]:
    """Returns the folders of steps that are not committed."""
    return list(directory.glob(f"*{ocp.utils.TMP_DIR_SUFFIX}*"))


def _remove_partial(directory: Path) -> None:
    for partial in _partial(directory):
        shutil.rmtree(partial, ignore_errors=True)


def _loss_of(metrics: Mapping[str, float]) -> float:
    return metrics[LOSS]


def _loss_in(step: Path) -> float:
    """Returns the loss that was measured at a step; infinite where none was."""
    try:
        return _loss_of(json.loads((step / METRICS_FILE).read_text("utf-8")))
    except (OSError, ValueError, KeyError):
        return math.inf


def _set_damaged_aside(directory: Path, *, every: bool) -> None:
    """Moves damaged steps away: every one, or until the newest one is good."""
    for step in _steps(directory):
        if not (reason := step_damage(step)):
            if every:
                continue
            return
        kept = directory / UNREADABLE
        kept.mkdir(exist_ok=True)
        names = (kept / f"{step.name}-{number}" for number in itertools.count(1))
        target = next(path for path in names if not path.exists())
        step.rename(target)
        log.warning("checkpoint %s is damaged (%s); it is kept in %s", step, reason, target)


def _read(step: Path, *, like: Any) -> Any:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            state = checkpointer.restore(step / "default", abstract)
        jax.tree_util.tree_map_with_path(_check_shape, state, like)
        return state
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{step}: the checkpoint is whole, but it is not of a model of this shape ({reason}); "
            f"bind the same sizes as that run had, or move {step.parent} away"
        ) from error


def _check_shape(path: Any, actual: Any, expected: Any) -> None:
    if np.shape(actual) != np.shape(expected):  # Orbax compares those of device arrays alone
        raise ValueError(f"{jax.tree_util.keystr(path)} has shape {np.shape(actual)}")


def _failure(write: Callable[[], Any], opened: ocp.CheckpointManager) -> str | None:
    """Calls `write`; returns and logs what made it fail, if it did."""
    try:
        write()
    except Exception as error:  # whatever a file system has to say
        opened.reload()  # a step counts from its commit, not from the start of its save
        if processes.is_first():  # what is left of it must not keep the next from its room
            _remove_partial(Path(opened.directory))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        failure = f"a checkpoint in {opened.directory} could not be written ({reason})"
        log.error("%s", failure)
        return failure
    return None
