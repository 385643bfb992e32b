"""The whole job: which stages there are, what gin binds to them, and in what order they run."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax import pipeline
from dsirm_jax.files import write_text
from dsirm_jax.layout import FULL, Layout
from dsirm_jax.runner import Stage, run_stage
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.ahead import Target


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
    """

    model_dir: str
    seed: int
    rungs: tuple[str, ...]
    previous: str | None = None


STAGES = (
    Stage(
        name="prepare",
        function=pipeline.prepare,
        means=("engine", "memory_limit", "workers", "beam_runner", "beam_options"),
        alone=True,
    ),
    Stage(name="encode", function=pipeline.encode, needs=("prepare",)),
    Stage(name="quantize", function=pipeline.quantize, needs=("prepare", "encode"), per_rung=True),
    Stage(
        name="generate",
        function=pipeline.generate,
        needs=("prepare", "quantize"),
        per_rung=True,
        means=("model_parallel",),
    ),
    Stage(
        name="relevance",
        function=pipeline.relevance,
        needs=("prepare", "encode", "quantize", "generate"),
    ),
    Stage(name="report", function=pipeline.report, needs=("relevance",), alone=True),
)
ASSIGN = Stage(name="assign", function=pipeline.assign, needs=("quantize",))
PREDICT = Stage(name="predict", function=pipeline.predict, needs=("generate",))
COMMANDS = (
    *(stage.name for stage in STAGES),
    "run",
    ASSIGN.name,
    "predict-sids",
    "import-t5",
    "compile",
)
FLAGS = {
    "predict-sids": """flags, beside the --gin_file=MODEL_DIR/config.gin of a finished run:
  --query=TEXT             prints the SIDs of a query; may be given again
  --queries=FILE           a table with a column query, whose SIDs go to
                           MODEL_DIR/predict/query_sids.parquet""",
    "import-t5": """flags:
  --from=DIR               config.json and safetensors of Hugging Face, or a checkpoint of T5X
  --to=DIR                 the folder to make: weights, vocabulary and model.gin
  --vocabulary=FILE        the SentencePiece model, where it is not DIR/spiece.model""",
    "compile": """flags, beside --gin_file=gin/tpu/... or any with models and a topology:
  --topology=KIND:SHAPE    chips to compile for instead, such as v5e:16x16
  --step=NAME              only this step; may be given again
exit code 1: a step does not fit into a chip's memory; the binding to change is named""",
}
SUMMARIES = {
    "run": "all stages in order; what is finished and unchanged is skipped",
    "predict-sids": "query texts -> their SIDs, from the generator as it is",
    "import-t5": "a T5 of Hugging Face or T5X -> weights and vocabulary to start from",
    "compile": "models -> memory and least time of every step on TPUs that are not here",
}


def summary(command: str) -> str:
    """Returns one line about a command."""
    if command in SUMMARIES:
        return SUMMARIES[command]
    return inspect.getdoc(_stage(command).function).splitlines()[0]


def help_text(command: str) -> str:
    """Returns what `dsirm COMMAND --help` prints."""
    if command == "run":
        lines = [f"dsirm run: {summary(command)}", "", *(f"  {s.name}" for s in STAGES)]
        return "\n".join(lines)
    if command in FLAGS:
        return f"dsirm {command}: {summary(command)}\n\n{FLAGS[command]}"
    function = _stage(command).function
    parameters = list(inspect.signature(function).parameters.values())[1:]
    width = max(len(p.name) for p in parameters)
    arguments = [f"  pipeline.{command}.{p.name:<{width}}  {p.annotation}" for p in parameters]
    return "\n".join([f"dsirm {command}: {summary(command)}", "", "gin bindings:", *arguments])


def run(command: str, *, force: bool) -> None:
    """Runs one stage, or all of them, as the gin configuration in effect says.

    Args:
      command: one of `COMMANDS`.
      force: run again what is finished.
    """
    from dsirm_jax import configuration

    job = configuration.call_with_bound(Job)
    layout = Layout(model_dir=Path(job.model_dir))
    stages = STAGES if command == "run" else (_stage(command),)
    planned = [
        (stage, layout.for_rung(rung), _bindings(stage, job, rung))
        for stage in stages
        for rung in ((FULL, *job.rungs) if stage.per_rung else (FULL,))
    ]
    processes.first(functools.partial(write_text, layout.config, configuration.text()))
    for stage, at, bindings in planned:
        needed = {}
        for before in map(_stage, stage.needs):
            # A stage of one rung reads that rung's; a stage that all share reads every rung's.
            wanted = (at.rung,) if stage.per_rung or not before.per_rung else (FULL, *job.rungs)
            for rung in wanted:
                folder = layout.for_rung(rung).stage(before.name)
                needed[str(folder.relative_to(layout.model_dir))] = folder
        if bindings.get("previous"):
            label = str(at.stage(stage.name).relative_to(layout.model_dir))
            needed[f"previous/{label}"] = bindings["previous"].stage(stage.name)
        left_out = (*stage.means, "previous")  # its fingerprint is among the inputs
        content = {name: value for name, value in bindings.items() if name not in left_out}
        run_stage(
            stage,
            at,
            bindings=bindings,
            described=configuration.description(content) | _input_files(bindings),
            needed=needed,
            force=force,
        )
    if stages[-1].name in ("relevance", "report") and processes.is_first():
        _print_metrics(layout)


def predict_sids(*, queries: Sequence[str], table: str | None, force: bool) -> None:
    """Predicts the SIDs of queries with a finished run's generator.

    Args:
      queries: texts whose SIDs are printed.
      table: file of queries whose SIDs are written, as a stage `predict`.
      force: predict again what is finished.
    """
    from dsirm_jax import configuration
    from dsirm_jax.data import storage

    job = configuration.call_with_bound(Job)
    layout = Layout(model_dir=Path(job.model_dir))
    beams = configuration.bound(pipeline.generate)["beams"]
    if queries:
        print(pipeline.predicted(layout, queries=queries, beams=beams))
    if table:
        bindings = {"table": table, "beams": beams}
        run_stage(
            PREDICT,
            layout,
            bindings=bindings,
            described=bindings | {"files": {table: storage.version(storage.found(table))}},
            needed={"generate": layout.stage("generate")},
            force=force,
        )


def compile_ahead(*, topology: str | None, steps: Sequence[str]) -> bool:
    """Compiles every stage's step for chips that are not here and prints what it asks of them.

    Args:
      topology: overrides that of the configuration.
      steps: names of `ahead.STEPS`; all of them when not given.

    Returns:
      Whether all of them compile and fit.
    """
    from dsirm_jax import ahead

    target, bindings = what_to_compile(topology=topology)
    print(ahead.heading(target), flush=True)
    outcomes = []
    for outcome in ahead.compile_all(bindings, target=target, steps=steps):
        print(ahead.rows(outcome, target=target), flush=True)
        outcomes.append(outcome)
    problems = ahead.problems(outcomes, target=target)
    for problem in problems:
        print(f"dsirm: {problem}", file=sys.stderr)
    return not problems


def what_to_compile(*, topology: str | None) -> tuple[Target, dict[str, dict[str, Any]]]:
    """Returns the chips to compile for, and what the configuration binds to every stage."""
    from dsirm_jax import ahead, configuration

    values = configuration.bound(ahead.Target) | ({"topology": topology} if topology else {})
    configuration.check_complete(ahead.Target, values)
    bindings = {stage.name: configuration.bound(stage.function) for stage in STAGES}
    return ahead.Target(**values), bindings


def _input_files(bindings: dict[str, Any]) -> dict[str, Any]:
    """Returns size and time of change of the user's files, so that new contents are noticed."""
    from dsirm_jax.data import storage

    files = [
        file for value in bindings.values() if hasattr(value, "files") for file in value.files()
    ]
    return {"files": {file: storage.version(file) for file in files}} if files else {}


def _print_metrics(layout: Layout) -> None:
    from dsirm_jax.relevance.evaluate import table

    print(table(json.loads(layout.metrics.read_text())))
    if layout.report.is_file():
        print(f"\nreport: {layout.report}")


def _bindings(stage: Stage, job: Job, rung: str) -> dict[str, Any]:
    """Returns the arguments of a stage's function for one rung."""
    from dsirm_jax import configuration

    parameters = inspect.signature(stage.function).parameters
    shared = {"seed": job.seed, "sid_rungs": job.rungs}
    if job.previous:
        shared["previous"] = Layout(model_dir=Path(job.previous), rung=rung)
    bindings = {name: value for name, value in shared.items() if name in parameters}
    bindings |= configuration.bound(stage.function, scope=None if rung == FULL else rung)
    configuration.check_complete(stage.function, {"layout": None} | bindings)
    return bindings


def _stage(name: str) -> Stage:
    return next(stage for stage in (*STAGES, ASSIGN) if stage.name == name)
