"""`dsirm ablate`: the whole job once a fold and a seed, every rung judged on all queries."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Sequence
from typing import Any

from dsirm_jax.commands import bindings
from dsirm_jax.commands.command import Command, Values
from dsirm_jax.io.files import write_text
from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import STAGES, ablate, encode, prepare, report
from dsirm_jax.training import processes


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Runs the ladder as the gin configuration in effect says, prints and writes what came out."""
    import jax

    from dsirm_jax.relevance.evaluate import metrics_table
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job, plan, run_tasks
    from dsirm_jax.run.runner import is_finished, run_stage

    ladder = configuration.call_with_bound(ablate.Ladder)
    job = configuration.call_with_bound(Job)
    layout = job.layout
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Folds and rungs run the same programs.
        jax.config.update("jax_compilation_cache_dir", str(layout.compiled))
    vectors = _shared_vectors(job)
    stages = [stage for stage in STAGES if stage is not report.STAGE]
    needed = {}
    folds: list[list[Layout]] = []
    for seed in ladder.seeds:
        folds.append([])
        for number in range(ladder.folds):
            fold = layout.fold(seed=seed, number=number, of=ladder.folds)
            fold_job = dataclasses.replace(
                job, model_dir=str(fold.model_dir), seed=seed, crossfit=ladder.crossfit
            )
            changes = {"prepare": {"fold": (number, ladder.folds)}} | vectors
            run_tasks(plan(stages, fold_job, changes=changes), job=fold_job, force=False)
            # Linux lets a process map some 65,000 areas, and every compiled program takes a few.
            jax.clear_caches()
            needed[f"{fold.model_dir.name}/relevance"] = fold.stage("relevance")
            folds[-1].append(fold)
    run_stage(
        ablate.STAGE,
        layout,
        bindings={"folds": folds, "seed": job.seed},
        described={"seed": job.seed},
        needed=needed,
        force=flags["force"],
    )
    processes.first(functools.partial(write_text, layout.ladder_config, configuration.text()))
    if is_finished(layout.stage("relevance")):
        run_tasks(plan([report.STAGE], job), job=job, force=False)
    if processes.is_first():
        print(metrics_table(json.loads(layout.ladder.read_text("utf-8"))))
    return 0


def _shared_vectors(job: Any) -> dict[str, dict[str, Any]]:
    """Returns the encoder of all folds where its vectors are made once: a copy of these."""
    from dsirm_jax.encoder.kinds.precomputed import Precomputed
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import plan, run_tasks

    encoder = configuration.bound(encode.run).get("encoder")
    if encoder is None or not encoder.made_once:
        return {}
    whole = dataclasses.replace(job, crossfit=False)
    run_tasks(plan([prepare.STAGE, encode.STAGE], whole), job=whole, force=False)
    layout = whole.layout
    vectors = Precomputed(items=str(layout.item_vectors), queries=str(layout.query_vectors))
    return {"encode": {"encoder": vectors}}


COMMAND = Command(
    name="ablate",
    summary="the job once a fold of the queries -> every rung's metrics over all queries",
    run=run,
    details=lambda: "\n".join(
        [
            "gin/runs/ablate.gin comes after a run's own file; gin bindings:",
            *bindings.class_rows(ablate.Ladder),
            "  job.Job.rungs        rungs with SIDs of their own",
            "  relevance.run.rungs  feature groups of every rung",
        ]
    ),
)
