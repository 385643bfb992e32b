"""The whole job: which stages there are, what gin binds to them, and in what order they run."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax import pipeline, prediction, scoring
from dsirm_jax.errors import InputError
from dsirm_jax.files import write_text
from dsirm_jax.layout import FULL, Layout
from dsirm_jax.runner import Stage, is_finished, run_stage
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
      crossfit: fit all stages before the head twice, on either half of the queries that are not
        for evaluation; the head then learns from all of them, each with the features of the half
        that has not seen it. For small data.
    """

    model_dir: str
    seed: int
    rungs: tuple[str, ...]
    previous: str | None = None
    crossfit: bool = False


STAGES = (
    Stage(
        name="prepare",
        function=pipeline.prepare,
        means=("engine", "memory_limit", "workers", "beam_runner", "beam_options"),
        alone=True,
        per_half=True,
    ),
    Stage(name="encode", function=pipeline.encode, needs=("prepare",), per_half=True),
    Stage(
        name="quantize",
        function=pipeline.quantize,
        needs=("prepare", "encode"),
        per_half=True,
        per_rung=True,
    ),
    Stage(
        name="generate",
        function=pipeline.generate,
        needs=("prepare", "quantize"),
        per_half=True,
        per_rung=True,
        means=("model_parallel",),
    ),
    Stage(name="features", function=pipeline.features, needs=("prepare", "encode"), per_half=True),
    Stage(
        name="match",
        function=pipeline.match,
        needs=("prepare", "encode", "quantize", "generate", "features"),
        per_half=True,
        per_rung=True,
    ),
    Stage(
        name="relevance",
        function=pipeline.relevance,
        needs=("prepare", "generate", "features", "match"),
    ),
    Stage(
        name="report",
        function=pipeline.report,
        needs=("relevance",),
        takes=("ablate",),
        alone=True,
    ),
)
ASSIGN = Stage(name="assign", function=pipeline.assign, needs=("quantize",))
PREDICT = Stage(name="predict", function=prediction.predict, needs=("generate",))
SCORE = Stage(name="score", function=scoring.score, needs=("relevance",))
COMMANDS = (
    *(stage.name for stage in STAGES),
    *("run", ASSIGN.name, "predict-sids", "score", "ablate", "compare", "import-t5", "compile"),
    *("export", "verify-bundle", "update-bundle", "serve"),
)
FLAGS = {
    "ablate": """gin bindings, all in gin/runs/ablate.gin, which comes after a run's own file:
  ablation.Ladder.folds     parts of the queries, each tested once
  ablation.Ladder.seeds     whose metrics are averaged
  ablation.Ladder.crossfit  fit the stages before the head on either half of the queries
  job.Job.rungs             rungs with SIDs of their own
  pipeline.relevance.rungs  feature groups of every rung""",
    "compare": """arguments: A B, the MODEL_DIRs of two finished runs or ladders; prints for every
rung that both have the metrics over the pairs that both tested, B − A, and the bindings that
differ""",
    "predict-sids": """flags, beside the --gin_file=MODEL_DIR/config.gin of a finished run:
  --query=TEXT             prints the SIDs of a query; may be given again
  --queries=FILE           a table with a column query, whose SIDs go to
                           MODEL_DIR/predict/query_sids.parquet""",
    "score": """flags, beside the --gin_file=MODEL_DIR/config.gin of a finished run:
  --pairs=FILE             a table with columns query and item_id, whose probabilities go to
                           MODEL_DIR/score/scores.parquet, row by row""",
    "import-t5": """flags:
  --from=DIR               config.json and safetensors of Hugging Face, or a checkpoint of T5X
  --to=DIR                 the folder to make: weights, vocabulary and model.gin
  --vocabulary=FILE        the SentencePiece model, where it is not DIR/spiece.model""",
    "compile": """flags, beside --gin_file=gin/tpu/... or any with models and a topology:
  --topology=KIND:SHAPE    chips to compile for instead, such as v5e:16x16
  --step=NAME              only this step; may be given again
exit code 1: a step does not fit into a chip's memory; the binding to change is named""",
    "export": """no flags beside the --gin_file=MODEL_DIR/config.gin of a finished run; writes
MODEL_DIR/export/bundle, a folder that can be copied anywhere, see docs/serving.md""",
    "verify-bundle": """argument: DIR, a bundle
  --pairs=100              pairs of a query and an item that every form scores
exit code 2: a file is not what was written; 1: two forms do not agree""",
    "update-bundle": """argument: DIR, a bundle
  --items=FILE             a table of further items: item_id, title and the run's own columns, and
                           brand, colour and category where they are known
  --queries=FILE           a table with a column query: further queries to be cached
Where the run's vectors came from tables of your own, both are Parquet with a column vector.
Who has the bundle open keeps what is there; a catalogue goes with the second update after it.""",
    "serve": """flags:
  --bundle=DIR             the folder that `dsirm export` wrote
  --host=ADDRESS           where to listen; 127.0.0.1, which only this machine reaches
  --port=NUMBER            8080; 0: any that is free
  --programs=DIR           keep compiled programs there, so that the next start is ready soon
endpoints: /openapi.json has them all; / is the explorer, /metrics is for Prometheus""",
}
SUMMARIES = {
    "run": "all stages in order; what is finished and unchanged is skipped",
    "ablate": "the job once a fold of the queries -> every rung's metrics over all queries",
    "compare": "two finished MODEL_DIRs -> their metrics, differences and bindings side by side",
    "score": "a table of (query, item_id) -> the full model's probabilities, from the run as it is",
    "predict-sids": "query texts -> their SIDs, from the generator as it is",
    "import-t5": "a T5 of Hugging Face or T5X -> weights and vocabulary to start from",
    "export": "a finished run -> one folder that serves it: JAX, StableHLO, TensorFlow",
    "verify-bundle": "a bundle -> its checksums, and whether all its forms give the same numbers",
    "update-bundle": "further items and queries -> into a bundle, while it is being read",
    "compile": "models -> memory and least time of every step on TPUs that are not here",
    "serve": "a bundle -> HTTP on this machine, with a page that explores its SIDs",
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
    width = max((len(p.name) for p in parameters), default=0)
    arguments = [f"  pipeline.{command}.{p.name:<{width}}  {p.annotation}" for p in parameters]
    told = ["", "gin bindings:", *arguments] if arguments else []
    return "\n".join([f"dsirm {command}: {summary(command)}", *told])


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
    planned = plan(stages, job)
    processes.first(functools.partial(write_text, layout.config, configuration.text()))
    run_stages(planned, job=job, force=force)
    if stages[-1].name in ("relevance", "report") and processes.is_first():
        _print_metrics(layout)


def plan(
    stages: Sequence[Stage], job: Job, *, changed: Mapping[str, Mapping[str, Any]] | None = None
) -> list[tuple[Stage, Layout, dict[str, Any]]]:
    """Returns what is to run, where and with what arguments, in order.

    Args:
      stages: those wanted.
      job: what they share.
      changed: by stage, arguments that take the place of the configuration's.
    """
    halves = _halves(job)
    return [
        (
            stage,
            half.for_rung(rung),
            _bindings(stage, job, rung, half) | dict((changed or {}).get(stage.name, {})),
        )
        for stage in stages
        for half in (halves if stage.per_half else halves[:1])
        for rung in ((FULL, *job.rungs) if stage.per_rung else (FULL,))
    ]


def run_stages(
    planned: Sequence[tuple[Stage, Layout, dict[str, Any]]], *, job: Job, force: bool
) -> None:
    """Runs what `plan` returned; what is finished and unchanged is skipped."""
    from dsirm_jax import configuration

    halves = _halves(job)
    for stage, at, bindings in planned:
        needed = {}
        for before in map(_stage, stage.needs):
            # A stage of one rung, or half, reads that one's; one that all share reads every one's.
            rungs = (at.rung,) if stage.per_rung or not before.per_rung else (FULL, *job.rungs)
            for half in (at,) if stage.per_half or not before.per_half else halves:
                for rung in rungs:
                    folder = half.for_rung(rung).stage(before.name)
                    needed[str(folder.relative_to(job.model_dir))] = folder
        for name in stage.takes:
            if is_finished(at.stage(name)):
                needed[name] = at.stage(name)
        if bindings.get("previous"):
            label = str(at.stage(stage.name).relative_to(job.model_dir))
            needed[f"previous/{label}"] = bindings["previous"].stage(stage.name)
        left_out = (*stage.means, "previous", "halves")  # their fingerprints are among the inputs
        content = {name: value for name, value in bindings.items() if name not in left_out}
        run_stage(
            stage,
            at,
            bindings=bindings,
            described=configuration.description(content) | _input_files(bindings),
            needed=needed,
            force=force,
        )


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
        print(prediction.predicted(layout, queries=queries, beams=beams))
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


def score(*, pairs: str, force: bool) -> None:
    """Scores a table of (query, item_id) with a finished run, as a stage `score`.

    Args:
      pairs: the file.
      force: score again what is finished.
    """
    from dsirm_jax import configuration
    from dsirm_jax.data import storage

    job = configuration.call_with_bound(Job)
    layout = Layout(model_dir=Path(job.model_dir))
    rungs = configuration.bound(pipeline.relevance)["rungs"]
    if FULL not in rungs:
        raise InputError(f"pipeline.relevance.rungs has no {FULL!r}, whose head scores")
    described = {
        "pairs": pairs,
        "groups": rungs[FULL],
        "beams": configuration.bound(pipeline.generate)["beams"],
        "match_beams": configuration.bound(pipeline.match).get("beams", ()),
        "language": configuration.bound(pipeline.features).get("language"),
        "max_rejected_share": configuration.bound(pipeline.prepare)["max_rejected_share"],
    }
    halves = _halves(job)
    encoder = configuration.bound(pipeline.encode)["encoder"]
    needed = {"relevance": layout.stage("relevance")}
    run_stage(
        SCORE,
        layout,
        bindings=described | {"encoder": encoder, "halves": halves},
        described=described | {"files": {pairs: storage.version(storage.found(pairs))}},
        needed=needed,
        force=force,
    )
    print(f"scores: {layout.scores}")


def export(*, force: bool) -> None:
    """Writes the bundle of a finished run, as a stage `export`.

    Args:
      force: export again what is finished.

    Raises:
      InputError: the run cannot be served, see `serving.export`.
    """
    from dsirm_jax import configuration
    from dsirm_jax.serving import export as exporting

    job = configuration.call_with_bound(Job)
    layout = Layout(model_dir=Path(job.model_dir))
    described = {
        "rungs": configuration.bound(pipeline.relevance)["rungs"],
        "beams": configuration.bound(pipeline.generate)["beams"],
        "language": configuration.bound(pipeline.features).get("language"),
        "crossfit": job.crossfit,
    }
    exporting.check(described["rungs"], crossfit=job.crossfit)
    encoder = configuration.bound(pipeline.encode)["encoder"]
    run_stage(
        Stage(name="export", function=exporting.export, alone=True),
        layout,
        bindings=described | {"encoder": encoder},
        described=described,
        needed={"relevance": layout.stage("relevance")},
        force=force,
    )
    print(f"bundle: {layout.bundle}")


def serve(bundle: str, *, host: str, port: int, programs: str | None) -> None:
    """Serves a bundle over HTTP until it is told to stop.

    Args:
      bundle: its folder.
      host: address to listen at.
      port: 0 for any that is free.
      programs: folder where compiled programs are kept for the next start.

    Raises:
      InputError: there is no bundle, the address cannot be had, or the extra is not installed.
    """
    from dsirm_jax.serving.scorer import Scorer, Settings

    try:
        from dsirm_jax.serving import http
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn"):
            raise
        raise InputError(
            f"dsirm serve needs {error.name}: pip install 'dsirm-jax[serve]'"
        ) from error
    # The server compiles when it listens already, and says when it is ready.
    with Scorer.open(bundle, settings=Settings(warm=(), programs=programs)) as scorer:
        http.serve(scorer, host=host, port=port)


def _input_files(bindings: dict[str, Any]) -> dict[str, Any]:
    """Returns size and time of change of the user's files, so that new contents are noticed."""
    from dsirm_jax.data import storage

    files = [
        file for value in bindings.values() if hasattr(value, "files") for file in value.files()
    ]
    return {"files": {file: storage.version(file) for file in files}} if files else {}


def _print_metrics(layout: Layout) -> None:
    from dsirm_jax.relevance.evaluate import table

    print(table(json.loads(layout.metrics.read_text("utf-8"))))
    if layout.report.is_file():
        print(f"\nreport: {layout.report}")


def _halves(job: Job) -> tuple[Layout, ...]:
    layout = Layout(model_dir=Path(job.model_dir))
    return (layout, layout.exchanged()) if job.crossfit else (layout,)


def _bindings(stage: Stage, job: Job, rung: str, half: Layout) -> dict[str, Any]:
    """Returns the arguments of a stage's function for one rung of one half."""
    from dsirm_jax import configuration

    parameters = inspect.signature(stage.function).parameters
    halves = _halves(job)
    is_other = half != halves[0]
    shared = {"seed": job.seed, "sid_rungs": job.rungs, "halves": halves}
    if job.previous:
        previous = Layout(model_dir=Path(job.previous), rung=rung)
        shared["previous"] = previous.exchanged() if is_other else previous
    bindings = {name: value for name, value in shared.items() if name in parameters}
    bindings |= configuration.bound(stage.function, scope=None if rung == FULL else rung)
    if job.crossfit and stage.name == "prepare":
        bindings |= {"head_share": 0.5, "exchanged": is_other}
    configuration.check_complete(stage.function, {"layout": None} | bindings)
    return bindings


def _stage(name: str) -> Stage:
    return next(stage for stage in (*STAGES, ASSIGN) if stage.name == name)
