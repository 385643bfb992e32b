"""The ablation ladder: the whole job once a fold and a seed, every rung judged on all queries.

A fold is a run of its own in `MODEL_DIR/folds/`, whose test queries no stage of it has seen, so
nothing can leak between folds. Each query is a test query of one fold; the scores of all folds are
judged together.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from dsirm_jax import job as jobs
from dsirm_jax import pipeline
from dsirm_jax.files import write_json, write_text
from dsirm_jax.job import Job
from dsirm_jax.layout import Layout
from dsirm_jax.runner import Stage, is_finished, run_stage
from dsirm_jax.training import processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    """How much evidence to gather. The rungs are `pipeline.relevance.rungs` and `Job.rungs`.

    Attributes:
      folds: parts that the queries are divided into; each is for evaluation once.
      seeds: of everything but the data; metrics are averaged over them.
      crossfit: see `Job.crossfit`.
    """

    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    crossfit: bool = False


def run(*, force: bool) -> None:
    """Runs the ladder as the gin configuration in effect says, prints and writes what came out.

    Args:
      force: evaluate again what is finished; the folds themselves stay.
    """
    import jax

    from dsirm_jax import configuration
    from dsirm_jax.relevance.evaluate import table

    ladder = configuration.call_with_bound(Ladder)
    job = configuration.call_with_bound(Job)
    layout = Layout(model_dir=Path(job.model_dir))
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        # Folds and rungs run the same programs.
        jax.config.update("jax_compilation_cache_dir", str(layout.compiled))
    vectors = _vectors(job)
    stages = [stage for stage in jobs.STAGES if stage.name != "report"]
    needed = {}
    folds: list[list[Layout]] = []
    for seed in ladder.seeds:
        folds.append([])
        for number in range(ladder.folds):
            at = layout.fold(seed=seed, number=number, of=ladder.folds)
            of_fold = dataclasses.replace(
                job, model_dir=str(at.model_dir), seed=seed, crossfit=ladder.crossfit
            )
            changed = {"prepare": {"fold": (number, ladder.folds)}} | vectors
            jobs.run_stages(jobs.plan(stages, of_fold, changed=changed), job=of_fold, force=False)
            # Linux lets a process map some 65,000 areas, and every compiled program takes a few.
            jax.clear_caches()
            needed[f"{at.model_dir.name}/relevance"] = at.stage("relevance")
            folds[-1].append(at)
    run_stage(
        ABLATE,
        layout,
        bindings={"folds": folds, "seed": job.seed},
        described={"seed": job.seed},
        needed=needed,
        force=force,
    )
    processes.first(functools.partial(write_text, layout.ladder_config, configuration.text()))
    if is_finished(layout.stage("relevance")):
        report = [stage for stage in jobs.STAGES if stage.name == "report"]
        jobs.run_stages(jobs.plan(report, job), job=job, force=False)
    if processes.is_first():
        print(table(json.loads(layout.ladder.read_text("utf-8"))))


def ablate(layout: Layout, *, folds: list[list[Layout]], seed: int) -> None:
    """predictions of all folds -> metrics of every rung with intervals, and lifts between rungs."""
    import pyarrow.parquet as pq

    from dsirm_jax.data.schema import TEST
    from dsirm_jax.relevance.evaluate import evaluate, lifts_between
    from dsirm_jax.relevance.tables import ABOUT_THE_PAIR, pooled, write_predictions
    from dsirm_jax.report.plot import lift_plot

    pairs, scores = pooled(folds)
    judged = pq.read_table(folds[0][0].judgements, columns=list(ABOUT_THE_PAIR))
    judged = {name: judged[name].to_numpy() for name in ABOUT_THE_PAIR}
    judged["split"] = np.full(len(judged["split"]), TEST)
    write_predictions(
        layout.ladder_predictions,
        judged=judged,
        scores={rung: of.mean(axis=0) for rung, of in scores.items()},
    )
    metrics = evaluate(
        pairs=pairs,
        scores=scores,
        lifts=lifts_between(scores),
        seed=seed,
    )
    metrics |= {"folds": len(folds[0]), "seeds": len(folds)}
    write_json(layout.ladder, metrics)
    write_text(layout.ladder_plot, lift_plot(metrics))


ABLATE = Stage(name="ablate", function=ablate, alone=True)


def _vectors(job: Job) -> dict[str, dict[str, Any]]:
    """Returns the encoder of all folds where it learns nothing from any: its vectors, made once."""
    from dsirm_jax import configuration
    from dsirm_jax.encoder.model import Precomputed, Pretrained

    encoder = configuration.bound(pipeline.encode).get("encoder")
    if not isinstance(encoder, Pretrained) or encoder.training.epochs:
        return {}
    whole = dataclasses.replace(job, crossfit=False)
    first = [stage for stage in jobs.STAGES if stage.name in ("prepare", "encode")]
    jobs.run_stages(jobs.plan(first, whole), job=whole, force=False)
    at = Layout(model_dir=Path(job.model_dir))
    given = Precomputed(items=str(at.item_vectors), queries=str(at.query_vectors))
    return {"encode": {"encoder": given}}
