"""`dsirm predict-sids`: SIDs of a user's own queries."""

from __future__ import annotations

from collections.abc import Sequence

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.stages import generate, predict


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Prints the SIDs of some queries, and writes those of a table as a stage `predict`."""
    from dsirm_jax.io import storage
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job
    from dsirm_jax.run.runner import run_stage

    layout = configuration.call_with_bound(Job).layout
    beams = configuration.bound(generate.run)["beams"]
    if flags["query"]:
        print(predict.predicted(layout, queries=flags["query"], beams=beams))
    if table := flags["queries"]:
        bindings = {"table": table, "beams": beams}
        run_stage(
            predict.STAGE,
            layout,
            bindings=bindings,
            described=bindings | {"files": {table: storage.version(storage.require_file(table))}},
            needed={"generate": layout.stage("generate")},
            force=flags["force"],
        )
    return 0


COMMAND = Command(
    name="predict-sids",
    summary="query texts -> their SIDs, from the generator as it is",
    run=run,
    flags=(
        Flag(
            name="query",
            value="TEXT",
            kind="texts",
            meaning="prints the SIDs of a query; may be given again",
        ),
        Flag(
            name="queries",
            value="FILE",
            meaning=(
                "a table with a column query, whose SIDs go to\n"
                "MODEL_DIR/predict/query_sids.parquet"
            ),
        ),
    ),
    details=lambda: "beside the --gin_file=MODEL_DIR/config.gin of a finished run",
)
