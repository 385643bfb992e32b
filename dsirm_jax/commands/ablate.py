"""`dsirm ablate`: the whole job once a fold and a seed, every rung judged on all queries."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsirm_jax.commands import bindings
from dsirm_jax.commands.command import Command, Values
from dsirm_jax.commands.stage import TRUST
from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import STAGES, ablate, encode, prepare, relevance, report
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.run.job import Job


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Runs the ladder as the gin configuration in effect says, prints and writes what came out."""
    import jax

    from dsirm_jax.relevance.metrics_table import metrics_table
    from dsirm_jax.report.verdict import verdict
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job
    from dsirm_jax.run.runner import run_stage
    from dsirm_jax.run.writer import sole_writer

    ladder = configuration.call_with_bound(ablate.Ladder)
    job = configuration.call_with_bound(Job)
    layout, trust = job.layout, flags["trust"]
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Folds and rungs run the same programs.
        jax.config.update("jax_compilation_cache_dir", str(layout.compiled))
    judged = configuration.bound(relevance.run)
    gains = {name: judged[name] for name in ("esci_gains",) if name in judged}
    with sole_writer(layout):
        folds = _run_folds(job, ladder, trust=trust)
        run_stage(
            ablate.STAGE,
            layout,
            bindings={"folds": folds, "seed": job.seed, **gains},
            described={"seed": job.seed, **gains},
            needed={
                str(fold.stage("relevance").relative_to(layout.model_dir)): fold.stage("relevance")
                for of_seed in folds
                for fold in of_seed
            },
            config=configuration.text(),
            force=flags["force"],
            trust=trust,
        )
        write_page(job, trust=trust)
    if processes.is_first():
        metrics = json.loads(layout.ladder.read_text("utf-8"))
        print(metrics_table(metrics))
        if told := verdict(metrics):
            print("", told.headline, *told.details, sep="\n")
        print(f"\nreport: {layout.report}")
    return 0


def write_page(job: Job, *, trust: bool) -> None:
    """Writes the page: of the whole run where it is finished, of the ladder alone where not.

    Args:
      job: whose ladder is finished.
      trust: see `runner.run_stage`.
    """
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import plan, run_tasks
    from dsirm_jax.run.record import is_finished
    from dsirm_jax.run.runner import run_stage

    layout = job.layout
    tasks = plan([report.STAGE], job)
    if is_finished(layout.stage("relevance")):
        run_tasks(tasks, job=job, trust=trust, keeps_config=False)
        return
    [task] = tasks
    run_stage(
        task.stage,
        layout,
        bindings=task.bindings,
        described=configuration.description(dict(task.bindings)),
        needed={ablate.STAGE.name: layout.stage(ablate.STAGE.name)},
        config=configuration.text(),
        trust=trust,
    )


def _run_folds(job: Job, ladder: ablate.Ladder, *, trust: bool) -> list[list[Layout]]:
    """Runs the job once a fold and seed, and returns where, by seed."""
    import jax

    from dsirm_jax.run.job import plan, run_tasks

    vectors = _shared_vectors(job, trust=trust)
    stages = [stage for stage in STAGES if stage is not report.STAGE]
    folds: list[list[Layout]] = []
    for seed in ladder.seeds:
        folds.append([])
        for number in range(ladder.folds):
            fold = job.layout.fold(seed=seed, number=number, of=ladder.folds)
            fold_job = dataclasses.replace(
                job, model_dir=str(fold.model_dir), seed=seed, crossfit=ladder.crossfit
            )
            changes = {"prepare": {"fold": (number, ladder.folds)}} | vectors
            tasks = plan(stages, fold_job, changes=changes)
            run = functools.partial(run_tasks, job=fold_job, trust=trust, keeps_config=False)
            if not any(folds):
                # What it can tell of these queries is said before it costs anything.
                run([task for task in tasks if task.stage is prepare.STAGE])
                tasks = [task for task in tasks if task.stage is not prepare.STAGE]
                if processes.is_first():
                    print(ablate.outlook(fold, former=job.layout.ladder), flush=True)
            run(tasks)
            # Linux lets a process map some 65,000 areas, and every compiled program takes a few.
            jax.clear_caches()
            folds[-1].append(fold)
    return folds


def _shared_vectors(job: Job, *, trust: bool) -> dict[str, dict[str, Any]]:
    """Returns the encoder of all folds where its vectors are made once: a copy of these."""
    from dsirm_jax.encoder.kinds.precomputed import Precomputed
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import plan, run_tasks

    encoder = configuration.bound(encode.run).get("encoder")
    if encoder is None or not encoder.made_once:
        return {}
    whole = dataclasses.replace(job, crossfit=False)
    tasks = plan([prepare.STAGE, encode.STAGE], whole)
    run_tasks(tasks, job=whole, trust=trust, keeps_config=False)
    layout = whole.layout
    vectors = Precomputed(items=str(layout.item_vectors), queries=str(layout.query_vectors))
    return {"encode": {"encoder": vectors}}


COMMAND = Command(
    name="ablate",
    summary="the job once a fold of the queries -> every rung's metrics over all queries",
    run=run,
    flags=(TRUST,),
    details=lambda: "\n".join(
        [
            "gin/runs/ablate.gin comes after a run's own file; gin bindings:",
            *bindings.class_rows(ablate.Ladder),
            "  job.Job.rungs        rungs with SIDs of their own",
            "  relevance.run.rungs  feature groups of every rung",
        ]
    ),
)
