"""`dsirm predict-sids`: SIDs of a user's own queries."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.commands.stage import COLUMNS, TRUST
from dsirm_jax.stages import STAGES, generate, predict, prepare
from dsirm_jax.training import processes


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Prints the SIDs of some queries, and writes those of a table as a stage `predict`."""
    from dsirm_jax.ingestion.query_files import check_given, given_columns
    from dsirm_jax.io import storage
    from dsirm_jax.io.secrets import check_public
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job, check_agreement
    from dsirm_jax.run.record import check_lineage
    from dsirm_jax.run.runner import run_stage
    from dsirm_jax.run.writer import sole_writer

    if flags["queries"]:
        check_public("--queries", flags["queries"])
    columns = given_columns(flags["columns"])
    check_given(columns, wanted=("query",))
    job = configuration.call_with_bound(Job)
    layout, beams = job.layout, configuration.bound(generate.run)["beams"]
    processes.first(functools.partial(check_agreement, job, STAGES))
    if flags["query"]:
        check_lineage([layout.stage("generate")], trust=flags["trust"])
        print(predict.predicted(layout, queries=flags["query"], beams=beams))
    if table := flags["queries"]:
        source = configuration.bound(prepare.run)["source"]
        bindings = {
            "table": table,
            "beams": beams,
            "columns": columns,
            "run_columns": dict(getattr(source, "judgement_columns", {})),
        }
        with sole_writer(layout, name=predict.STAGE.name):
            run_stage(
                predict.STAGE,
                layout,
                bindings=bindings,
                described=bindings
                | {"files": {table: storage.version(storage.require_file(table))}},
                needed={"generate": layout.stage("generate")},
                config=configuration.text(),
                force=flags["force"],
                trust=flags["trust"],
            )
    return 0


COMMAND = Command(
    name="predict-sids",
    summary="query texts -> their SIDs, from the generator as it is",
    run=run,
    flags=(
        TRUST,
        COLUMNS,
        Flag(
            name="query",
            value="TEXT",
            kind="texts",
            meaning="prints the SIDs of a query; may be given again",
        ),
        Flag(
            name="queries",
            value="FILE",
            meaning=("a table of queries, whose SIDs go to\nMODEL_DIR/predict/query_sids.parquet"),
        ),
    ),
    details=lambda: "beside the --gin_file=MODEL_DIR/config.gin of a finished run",
)
