"""A command that runs one stage, `dsirm quantize`, and `dsirm run`, which runs all of them."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
from collections.abc import Sequence

from dsirm_jax.commands import bindings
from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import STAGES
from dsirm_jax.training import processes

COLUMNS = Flag(
    name="columns",
    value="OURS=YOURS",
    kind="list",
    meaning=(
        "what the table calls our columns, such as query=search,item_id=sku;\n"
        "others may be called as in the run's own judgements, or as ours"
    ),
)
"""How a table beside those of the run calls its columns."""

TRUST = Flag(
    name="trust",
    kind="switch",
    meaning=(
        "take finished stages for whole whose files have the sizes and times of change\n"
        "that they had, and read none of them"
    ),
)

MLFLOW = Flag(
    name="mlflow",
    value="URI",
    meaning=(
        "send bindings, curves, figures and report to MLflow, too: a folder or the URL\n"
        "of a server, its password as ${NAME}; MLFLOW_EXPERIMENT_NAME is the experiment"
    ),
)


def command_of(stage: Stage) -> Command:
    """Returns the command that runs a stage."""
    return Command(
        name=stage.name,
        summary=(inspect.getdoc(stage.function) or "").partition("\n")[0],
        run=functools.partial(_run, (stage,)),
        flags=(TRUST, MLFLOW),
        details=functools.partial(bindings.help_text, stage.function),
    )


def _run(stages: Sequence[Stage], flags: Values, arguments: Sequence[str]) -> int:
    """Runs stages as the gin configuration in effect says."""
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job, check_agreement, plan, run_tasks
    from dsirm_jax.run.writer import sole_writer

    job = configuration.call_with_bound(Job)
    tasks = plan(stages, job)
    with sole_writer(job.layout, name=stages[0].name if stages[0].reads_run else "run"):
        processes.first(functools.partial(check_agreement, job, STAGES, rerun=stages))
        with _followed(job.layout, uri=flags["mlflow"]):
            run_tasks(tasks, job=job, force=flags["force"], trust=flags["trust"])
    if stages[-1].name in ("relevance", "report") and processes.is_first():
        _print_metrics(job.layout)
    return 0


def _followed(layout: Layout, *, uri: str | None) -> contextlib.AbstractContextManager[None]:
    """Returns what sends a run to MLflow, if it is to be sent, from the first process."""
    if not (uri and processes.is_first()):
        return contextlib.nullcontext()
    from dsirm_jax.report.mlflow_run import followed
    from dsirm_jax.run import configuration

    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "dsirm")
    return followed(layout, uri=uri, experiment=experiment, bindings=configuration.in_effect())


def _print_metrics(layout: Layout) -> None:
    from dsirm_jax.relevance.metrics_table import metrics_table

    print(metrics_table(json.loads(layout.metrics.read_text("utf-8"))))
    if layout.report.is_file():
        print(f"\nreport: {layout.report}")


RUN = Command(
    name="run",
    summary="all stages in order; what is finished and unchanged is skipped",
    run=functools.partial(_run, STAGES),
    flags=(TRUST, MLFLOW),
    details=lambda: "\n".join(f"  {stage.name}" for stage in STAGES),
)
