"""A job: which stages run where, with what the gin configuration binds to them, in what order."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsirm_jax.io.checks import check_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_text
from dsirm_jax.run import configuration
from dsirm_jax.run.layout import CONFIG, FULL, Layout
from dsirm_jax.run.record import PREVIOUS, finished_record, is_finished
from dsirm_jax.run.runner import JOB_ARGUMENTS, Stage, run_stage
from dsirm_jax.training import processes

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What all stages share.

    Attributes:
      model_dir: folder of the whole run.
      seed: every random key of every stage is derived from it.
      rungs: rungs of the ablation ladder that have SIDs of their own, beside the full model. Each
        is a gin scope: bindings under `RUNG/` are what it does differently.
      previous: MODEL_DIR of an earlier run that this one goes on from: with its vocabulary, from
        its towers and codebooks, and as far as possible with its SIDs. gin/runs/update.gin leaves
        towers and codebooks as they are.
      crossfit: fit all stages before the head twice, on either half of the queries that are not
        for evaluation; the head then learns from all of them, each with the features of the half
        that has not seen it. For small data.
    """

    model_dir: str
    seed: int
    rungs: tuple[str, ...]
    previous: str | None = None
    crossfit: bool = False

    def __post_init__(self) -> None:
        check_whole("Job.seed", self.seed, least=0)
        # Each is a folder and a gin scope.
        named = not isinstance(self.rungs, str) and all(
            isinstance(rung, str) and rung.isidentifier() and rung != FULL for rung in self.rungs
        )
        if not named or len(set(self.rungs)) != len(self.rungs):
            raise InputError(
                f"gin binding Job.rungs is {self.rungs!r}; bind a tuple of different names of "
                f"letters, digits and underscores, none of them {FULL!r}"
            )

    @property
    def layout(self) -> Layout:
        return Layout(model_dir=Path(self.model_dir))

    @property
    def halves(self) -> tuple[Layout, ...]:
        """Both halves of a cross-fit, or the run alone."""
        return (self.layout, self.layout.exchanged()) if self.crossfit else (self.layout,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One run of one stage.

    Attributes:
      stage: which.
      layout: where: of which half and rung.
      bindings: arguments of the stage's function.
    """

    stage: Stage
    layout: Layout
    bindings: Mapping[str, Any]


def plan(
    stages: Sequence[Stage], job: Job, *, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Task]:
    """Returns what is to run, where and with what arguments, in order.

    Args:
      stages: those wanted.
      job: what they share.
      changes: by stage, arguments that take the place of the configuration's.

    Raises:
      InputError: a binding is missing or wrong.
    """
    tasks = [
        Task(
            stage=stage,
            layout=layout,
            bindings=_bindings(stage, job, layout) | dict((changes or {}).get(stage.name, {})),
        )
        for stage in stages
        for layout in _layouts(stage, job)
    ]
    for stage in stages:
        if stage.check:
            parts = (stage, *stage.needs)
            stage.check({part.name: configuration.bound(part.function) for part in parts})
    return tasks


def _layouts(stage: Stage, job: Job) -> list[Layout]:
    """Returns where a stage runs: for each half and rung that have their own."""
    return [
        half.for_rung(rung)
        for half in (job.halves if stage.per_half else job.halves[:1])
        for rung in ((FULL, *job.rungs) if stage.per_rung else (FULL,))
    ]


def run_tasks(
    tasks: Sequence[Task],
    *,
    job: Job,
    force: bool = False,
    trust: bool = False,
    keeps_config: bool = True,
) -> None:
    """Runs what `plan` returned; what is finished, whole and unchanged is skipped.

    MODEL_DIR's config.gin is what its finished stages ran with.

    Args:
      tasks: in order.
      job: theirs.
      force: run them even when nothing changed.
      trust: see `runner.run_stage`.
      keeps_config: whether the configuration in effect is that of the run; a ladder's differs.
    """
    for task in tasks:
        config = configuration.text()
        is_new = run_stage(
            task.stage,
            task.layout,
            bindings=task.bindings,
            described=_described(task.stage, task.bindings)
            | _input_files(task.stage, task.bindings),
            needed=_inputs(task, job),
            config=config,
            force=force,
            trust=trust,
        )
        if is_new and keeps_config and not task.stage.reads_run:
            processes.first(functools.partial(write_text, job.layout.config, config))


def check_agreement(job: Job, stages: Sequence[Stage], *, rerun: Sequence[Stage] = ()) -> None:
    """Checks that finished stages ran with what the configuration says.

    A config.gin that is none of theirs, for somebody has changed it, is named in the log.

    Args:
      job: theirs.
      stages: to be looked at.
      rerun: stages that run now: these, and what is made of them, may have run with anything.

    Raises:
      InputError: one ran with another binding; the message names it.
    """
    _check_config(job, stages)
    stale = {stage.name for stage in rerun}
    for stage in stages:
        if stale.intersection((stage.name, *(earlier.name for earlier in stage.needs))):
            stale.add(stage.name)
            continue
        for layout in _layouts(stage, job):
            folder = layout.stage(stage.name)
            if is_finished(folder):
                bindings = _bindings(stage, job, layout)
                _check_bindings(stage, folder, _described(stage, bindings))


def _check_config(job: Job, stages: Sequence[Stage]) -> None:
    """Warns where MODEL_DIR's configuration is that of none of its stages."""
    own = [layout.stage(stage.name) / CONFIG for stage in stages for layout in _layouts(stage, job)]
    own = [path for path in own if path.is_file()]
    if own and job.layout.config.is_file():
        text = job.layout.config.read_bytes()
        if all(text != path.read_bytes() for path in own):
            log.warning(
                "%s is not as it was written; what a stage ran with is in its folder, such as %s",
                *(job.layout.config, own[-1]),
            )


def _check_bindings(stage: Stage, folder: Path, described: Mapping[str, Any]) -> None:
    record = finished_record(folder)
    before = {name: value for name, value in record.bindings.items() if name != "files"}
    now = json.loads(json.dumps(described))  # as a record has it
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise InputError(
                f"{folder} ran with {name} = {_shown(before.get(name))}, and the configuration "
                f"says {_shown(now.get(name))}: run `dsirm {stage.name}` (or `dsirm run`) with it "
                f"first, or take {folder / CONFIG}, as it ran"
            )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]} …"


def _described(stage: Stage, bindings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the bindings of a stage that decide what comes out, as JSON values."""
    # What `previous` and `halves` are is among the inputs.
    omitted = (*stage.execution_only, "previous", "halves")
    content = {name: value for name, value in bindings.items() if name not in omitted}
    return configuration.description(content)


def _inputs(task: Task, job: Job) -> dict[str, Path]:
    """Returns the folders of the stages that a task reads, by their names below MODEL_DIR."""
    inputs = {}
    for earlier in task.stage.needs:
        # A stage of one rung, or half, reads that one's; one that all share reads every one's.
        own_rung = task.stage.per_rung or not earlier.per_rung
        own_half = task.stage.per_half or not earlier.per_half
        for half in (task.layout,) if own_half else job.halves:
            for rung in (task.layout.rung,) if own_rung else (FULL, *job.rungs):
                folder = half.for_rung(rung).stage(earlier.name)
                inputs[str(folder.relative_to(job.model_dir))] = folder
    for name in task.stage.optional:
        if is_finished(task.layout.stage(name)):
            inputs[name] = task.layout.stage(name)
    if task.bindings.get("previous"):
        folder = task.layout.stage(task.stage.name)
        inputs[f"{PREVIOUS}{folder.relative_to(job.model_dir)}"] = task.bindings["previous"].stage(
            task.stage.name
        )
    return inputs


def _input_files(stage: Stage, bindings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the user's files hold, so that new contents are noticed."""
    from dsirm_jax.io import storage

    named = [
        file for value in bindings.values() if hasattr(value, "files") for file in value.files()
    ]
    for name in stage.paths:
        if bindings.get(name):
            named += storage.files_below(bindings[name])
    return {"files": {file: storage.version(file) for file in named}} if named else {}


def _bindings(stage: Stage, job: Job, layout: Layout) -> dict[str, Any]:
    """Returns the arguments of a stage's function for one rung of one half."""
    parameters = inspect.signature(stage.function).parameters
    shared = {"seed": job.seed, "sid_rungs": job.rungs, "halves": job.halves}
    if job.previous:
        shared["previous"] = dataclasses.replace(layout, model_dir=Path(job.previous))
    bindings = {
        name: shared[name] for name in JOB_ARGUMENTS if name in parameters and name in shared
    }
    scope = None if layout.rung == FULL else layout.rung
    bindings |= configuration.bound(stage.function, scope=scope)
    if job.crossfit and stage.name == "prepare":
        bindings |= {"head_share": 0.5, "exchanged": layout.is_exchanged}
    configuration.check_complete(stage.function, {"layout": None} | bindings)
    return bindings
