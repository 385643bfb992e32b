"""Runs stages: skips what is finished and unchanged, resumes what was interrupted."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_text
from dsirm_jax.run.layout import Layout
from dsirm_jax.training import processes

log = logging.getLogger(__name__)
RECORD = "stage.json"
JOB_ARGUMENTS = ("seed", "sid_rungs", "halves", "previous")
"""Arguments that a job gives to the functions of its stages, where they have them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the job.

    Attributes:
      name: also the name of its folder.
      function: `function(layout, **bindings)`.
      needs: stages that must be finished before.
      optional: names of stages whose output it shows where it is there.
      per_half: whether each half of a cross-fit has its own.
      per_rung: whether each rung of the ablation ladder has its own.
      execution_only: bindings that say where and how the work is done, whatever comes out being
        the same: they are no part of the fingerprint.
      paths: bindings that name a file or folder, whose contents are part of the fingerprint.
      alone: the first of several processes does all of it, while the others wait.
      check: raises InputError where bindings contradict each other, before any stage runs; its
        argument is the bindings of the stage and of those that it needs, by name.
    """

    name: str
    function: Callable[..., None]
    needs: tuple[Stage, ...] = ()
    optional: tuple[str, ...] = ()
    per_half: bool = False
    per_rung: bool = False
    execution_only: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    alone: bool = False
    check: Callable[[Mapping[str, Mapping[str, Any]]], None] | None = None


def run_stage(
    stage: Stage,
    layout: Layout,
    *,
    bindings: Mapping[str, Any],
    described: Mapping[str, Any],
    needed: Mapping[str, Path],
    force: bool,
) -> None:
    """Runs a stage unless its output is there and was made from the same inputs and bindings.

    Output of other inputs or bindings is moved to `MODEL_DIR/replaced/`, never deleted. A run that
    was interrupted goes on, its checkpoints in place.

    Args:
      stage: what to run.
      layout: where.
      bindings: arguments of the stage's function.
      described: the same as JSON values, which the fingerprint is taken of.
      needed: folders of the stages that this one reads, by their names below MODEL_DIR.
      force: run again even when nothing changed.

    Raises:
      InputError: a stage that this one needs is not finished, or its folder is not this project's.
    """
    folder = layout.stage(stage.name)
    label = str(folder.relative_to(layout.model_dir))
    inputs = {name: fingerprint_of(path) for name, path in needed.items()}
    content = {"stage": label, "version": dsirm_jax.__version__, "bindings": described}
    content["inputs"] = inputs
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    record = content | {"fingerprint": fingerprint, "finished": False}

    def begin() -> bool:
        before = _read_record(folder)
        if before and before["fingerprint"] == fingerprint and not force:
            if before["finished"]:
                log.info("%s: finished and unchanged, skipped (--force runs it again)", label)
                return False
            log.info("%s: was interrupted, goes on", label)
        elif before:
            _move_aside(layout, folder, label, reason=_difference(before, record))
        _write_record(folder, record)
        log.info("%s: starts", label)
        return True

    if not processes.first(begin):
        return
    started = time.monotonic()
    work = functools.partial(stage.function, layout, **bindings)
    if stage.alone:
        processes.first(work)
    else:
        work()
    seconds = time.monotonic() - started
    finished = record | {"finished": True, "seconds": round(seconds, 1)}
    processes.first(functools.partial(_write_record, folder, finished))
    log.info("%s: done in %.0f s", label, seconds)


def is_finished(folder: Path) -> bool:
    """Returns whether the stage of this folder has finished."""
    return _finished_record(folder) is not None


def _finished_record(folder: Path) -> dict[str, Any] | None:
    record = _read_record(folder)
    return record if record is not None and record["finished"] else None


def _read_record(folder: Path) -> dict[str, Any] | None:
    path = folder / RECORD
    if path.is_file():
        return json.loads(path.read_text("utf-8"))
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} exists but has no {RECORD}: it is not a stage's output; move it away "
            f"or choose another MODEL_DIR"
        )
    return None


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_text(folder / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")


def fingerprint_of(folder: Path) -> str:
    """Returns the fingerprint of a finished stage.

    Args:
      folder: of the stage.

    Raises:
      InputError: it is not finished.
    """
    record = _finished_record(folder)
    if record is None:
        raise InputError(
            f"{folder} is not finished; run `dsirm {folder.name}` (or `dsirm run`) first"
        )
    return record["fingerprint"]


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    changed = [
        f"{kind[:-1]} {key}"
        for kind in ("bindings", "inputs")
        for key in sorted(set(before[kind]) | set(after[kind]))
        if before[kind].get(key) != after[kind].get(key)
    ]
    if before["version"] != after["version"]:
        changed.append("version of dsirm_jax")
    return f"{', '.join(changed)} changed" if changed else "--force"


def _move_aside(layout: Layout, folder: Path, label: str, *, reason: str) -> None:
    stem = label.replace("/", "-")
    numbers = (layout.model_dir / "replaced" / f"{stem}-{number}" for number in range(1, 10**6))
    target = next(path for path in numbers if not path.exists())
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    log.info("%s: runs again (%s); the old output is kept in %s", label, reason, target)
