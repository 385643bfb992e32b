"""`dsirm export`: a finished run to a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.commands.stage import TRUST
from dsirm_jax.stages import STAGES, encode, export, features, generate, relevance


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Writes the bundle of a finished run, as a stage `export`."""
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job, check_agreement
    from dsirm_jax.run.runner import run_stage
    from dsirm_jax.run.writer import sole_writer
    from dsirm_jax.serving.export import check_servable

    job = configuration.call_with_bound(Job)
    described = {
        "rungs": configuration.bound(relevance.run)["rungs"],
        "beams": configuration.bound(generate.run)["beams"],
        "language": features.type_language(configuration.bound(features.run)),
        "crossfit": job.crossfit,
    }
    if flags["show_queries"]:
        described["show_queries"] = True
    check_servable(described["rungs"], crossfit=job.crossfit)
    with sole_writer(job.layout, name=export.STAGE.name):
        check_agreement(job, STAGES)
        run_stage(
            export.STAGE,
            job.layout,
            bindings=described | {"encoder": configuration.bound(encode.run)["encoder"]},
            described=described,
            needed={"relevance": job.layout.stage("relevance")},
            config=configuration.text(),
            force=flags["force"],
            trust=flags["trust"],
        )
    print(f"bundle: {job.layout.bundle}")
    return 0


COMMAND = Command(
    name="export",
    summary="a finished run -> one folder that serves it: JAX, StableHLO, TensorFlow",
    run=run,
    flags=(
        TRUST,
        Flag(
            name="show_queries",
            kind="switch",
            meaning="let the explorer show anybody some of the run's queries, as examples",
        ),
    ),
    details=lambda: (
        "beside the --gin_file=MODEL_DIR/config.gin of a finished run; writes\n"
        "MODEL_DIR/export/bundle, a folder that can be copied anywhere, see docs/serving.md"
    ),
)
