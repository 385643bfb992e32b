"""Runs stages: skips what is finished, whole and unchanged, resumes what was interrupted."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dsirm_jax
from dsirm_jax.io import disk
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import remove_partials, rename_folder, sync_tree, write_text
from dsirm_jax.run.layout import CONFIG, Layout
from dsirm_jax.run.old_record import OldRecord, stale_parts
from dsirm_jax.run.record import (
    StageRecord,
    check_lineage,
    complete,
    difference,
    faults,
    finished_record,
    is_finished,
    read_record,
    write_record,
)
from dsirm_jax.training import processes

log = logging.getLogger(__name__)
JOB_ARGUMENTS = ("seed", "sid_rungs", "halves", "previous")
"""Arguments that a job gives to the functions of its stages, where they have them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the job.

    Attributes:
      name: also the name of its folder.
      function: `function(layout, **bindings)`.
      version: raised when what the stage makes of the same bindings and inputs has another meaning:
        what was made before is stale then.
      needs: stages that must be finished before.
      optional: names of stages whose output it shows where it is there.
      per_half: whether each half of a cross-fit has its own.
      per_rung: whether each rung of the ablation ladder has its own.
      execution_only: bindings that say where and how the work is done, whatever comes out being
        the same: they are no part of the fingerprint.
      paths: bindings that name a file or folder, whose contents are part of the fingerprint.
      alone: the first of several processes does all of it, while the others wait.
      reads_run: reads a finished run, of which it is no part: MODEL_DIR's config.gin stays.
      faults: returns what is wrong with what it made and its record does not list, a line each.
      check: raises InputError where bindings contradict each other, before any stage runs; its
        argument is the bindings of the stage and of those that it needs, by name.
    """

    name: str
    function: Callable[..., None]
    version: int = 1
    needs: tuple[Stage, ...] = ()
    optional: tuple[str, ...] = ()
    per_half: bool = False
    per_rung: bool = False
    execution_only: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    alone: bool = False
    reads_run: bool = False
    faults: Callable[[Layout], list[str]] | None = None
    check: Callable[[Mapping[str, Mapping[str, Any]]], None] | None = None


def run_stage(
    stage: Stage,
    layout: Layout,
    *,
    bindings: Mapping[str, Any],
    described: Mapping[str, Any],
    needed: Mapping[str, Path],
    config: str,
    force: bool = False,
    trust: bool = False,
) -> bool:
    """Runs a stage unless its output is there, whole, and was made from the same.

    Where there is an output already, its successor is made in `MODEL_DIR/successors/`, and takes
    its place when it is whole; what was there is then in `MODEL_DIR/replaced/`, never deleted. A
    run that was interrupted goes on, its checkpoints in place.

    Args:
      stage: what to run.
      layout: where.
      bindings: arguments of the stage's function.
      described: the same as JSON values, which the fingerprint is taken of.
      needed: folders of the stages that this one reads, by their names below MODEL_DIR.
      config: the gin configuration that all this comes from, kept beside the output.
      force: run again even when nothing changed.
      trust: take files for what they were whose sizes and times of change are, and read none.

    Returns:
      Whether the output is of this call: made, or taken up from version 0.2.

    Raises:
      InputError: a stage that this one needs is not finished, not whole, or made of another one
        than is there; or the folder is not this project's.
    """
    folder, successor = layout.stage(stage.name), layout.succeeding(stage.name).stage(stage.name)
    label = str(folder.relative_to(layout.model_dir))
    takes_up = replaces = False

    def begin() -> bool:
        nonlocal takes_up, replaces
        settle(layout, stage.name)
        check_lineage(needed.values(), trust=trust)
        record = StageRecord(
            stage=label,
            stage_version=stage.version,
            version=dsirm_jax.__version__,
            bindings=json.loads(json.dumps(described)),  # as it will be read
            inputs={name: finished_record(path).identity for name, path in needed.items()},
        )
        before = read_record(folder)
        reason = None if before is None else _reason(before, record, needed=needed)
        replaces = before is not None and before.finished
        is_current = replaces and not reason and not force
        if is_current and isinstance(before, OldRecord):
            _take_up(folder, before, record, config=config)
            takes_up = True
            return False
        if is_current and isinstance(before, StageRecord):
            wrong = faults(folder, before, trust=trust)
            if stage.faults and not wrong:
                wrong = stage.faults(layout)
            if not wrong:
                log.info("%s: finished and unchanged, skipped (--force runs it again)", label)
                return False
            log.warning("%s: %s", label, wrong[0])
            reason = "it is not whole"
        if replaces:
            log.info(
                "%s: runs again (%s); what is there stays until its successor is whole",
                *(label, reason or "--force"),
            )
        _begin(layout, successor if replaces else folder, record, force=force)
        return True

    if not processes.first(begin):
        return processes.first(lambda: takes_up)
    # The first process alone has looked.
    work = layout.succeeding(stage.name) if processes.first(lambda: replaces) else layout
    started = time.monotonic()
    call = functools.partial(stage.function, work, **bindings)
    with disk.writing(work.stage(stage.name)):
        if stage.alone:
            processes.first(call)
        else:
            call()
    processes.wait()  # what another is still writing under a temporary name is none of its files
    seconds = time.monotonic() - started

    def end() -> None:
        place = work.stage(stage.name)
        record = read_record(place)
        assert isinstance(record, StageRecord)  # `begin` wrote it
        for name, path in needed.items():
            if finished_record(path).identity != record.inputs[name]:
                raise InputError(
                    f"{path} was made anew while {label} read it; run `dsirm {stage.name}` again"
                )
        write_text(place / CONFIG, config)
        sync_tree(place)
        write_record(place, complete(place, record, seconds=seconds))
        settle(layout, stage.name)

    processes.first(end)
    log.info("%s: done in %.0f s", label, seconds)
    return True


def settle(layout: Layout, name: str) -> None:
    """Puts the successor of a stage in its place, if it is whole.

    Args:
      layout: of the run.
      name: of the stage.
    """
    folder, successor = layout.stage(name), layout.succeeding(name).stage(name)
    if not successor.exists() or not is_finished(successor):
        return
    if folder.exists():
        _move_aside(layout, folder)
    rename_folder(successor, folder)
    for parent in successor.parents:
        if parent == layout.model_dir or any(parent.iterdir()):
            break
        parent.rmdir()


def _reason(
    before: StageRecord | OldRecord, record: StageRecord, *, needed: Mapping[str, Path]
) -> str:
    """Returns why a stage is to run again, in a few words; nothing where it is not."""
    if isinstance(before, StageRecord):
        return difference(before, record)
    inputs = {name: finished_record(path).fingerprint_0_2 for name, path in needed.items()}
    parts = stale_parts(before, bindings=record.bindings, inputs=inputs)
    return f"made by version 0.2: {', '.join(parts)} changed" if parts else ""


def _take_up(folder: Path, old: OldRecord, record: StageRecord, *, config: str) -> None:
    """Seals what version 0.2 made, as it is."""
    write_text(folder / CONFIG, config)
    record = dataclasses.replace(record, fingerprint_0_2=old.fingerprint)
    write_record(folder, complete(folder, record, seconds=old.seconds or 0.0))
    log.info("%s: made by version 0.2, taken up and sealed as it is", record.stage)


def _begin(layout: Layout, work: Path, record: StageRecord, *, force: bool) -> None:
    """Makes the folder ready in which a stage is to work."""
    unfinished = read_record(work)
    if unfinished is not None:
        if isinstance(unfinished, StageRecord) and not force and not difference(unfinished, record):
            log.info("%s: was interrupted, goes on", record.stage)
            remove_partials(work)
            return
        _move_aside(layout, work)
    write_record(work, record)
    log.info("%s: starts", record.stage)


def _move_aside(layout: Layout, folder: Path) -> None:
    stem = "-".join(folder.relative_to(layout.model_dir).parts)
    numbers = (layout.replaced / f"{stem}-{number}" for number in range(1, 10**6))
    target = next(path for path in numbers if not path.exists())
    rename_folder(folder, target)
    log.info("%s: kept in %s", folder, target)
