"""`dsirm export`: a finished run to a bundle, or to what a search engine loads."""

from __future__ import annotations

from collections.abc import Sequence

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.commands.stage import TRUST
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import engines
from dsirm_jax.stages import (
    STAGES,
    documents,
    encode,
    export,
    features,
    generate,
    relevance,
    report,
)


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Writes the bundle of a finished run, or the files of the engines that are named."""
    if flags["to"]:
        return _run_engines(flags)
    for name in ("vectors", "index"):
        if flags[name]:
            raise InputError(f"--{name} is for the files of an engine; name it with --to")
    return _run_bundle(flags)


def _run_engines(flags: Values) -> int:
    """Writes what engines load, each as a stage of its name."""
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job, check_agreement
    from dsirm_jax.run.runner import run_stage
    from dsirm_jax.run.writer import sole_writer

    if flags["show_queries"]:
        raise InputError("--show_queries is for a bundle; an engine's files have all queries")
    job = configuration.call_with_bound(Job)
    bindings = {"name": flags["index"] or "items", "vectors": flags["vectors"]}
    for name in flags["to"]:
        stage = documents.stage_of(name)
        with sole_writer(job.layout, name=name):
            check_agreement(job, STAGES)
            run_stage(
                stage,
                job.layout,
                bindings=bindings,
                described=bindings,
                needed={"generate": job.layout.stage("generate")},
                config=configuration.text(),
                force=flags["force"],
                trust=flags["trust"],
            )
        print(f"{name}: {job.layout.stage(name)}")
    return 0


def _run_bundle(flags: Values) -> int:
    """Writes the bundle, as a stage `export`."""
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
            bindings=described
            | {
                "encoder": configuration.bound(encode.run)["encoder"],
                # What a bundle answers is the same whatever its card is called.
                "title": configuration.bound(report.run).get("title", "DSIRM"),
            },
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
    summary="a finished run -> one folder that serves it, or what a search engine loads",
    run=run,
    flags=(
        TRUST,
        Flag(
            name="show_queries",
            kind="switch",
            meaning="let the explorer show anybody some of the run's queries, as examples",
        ),
        Flag(
            name="to",
            value="ENGINE",
            kind="choices",
            choices=engines.names(),
            meaning=(
                "writes schema, documents and queries to MODEL_DIR/ENGINE/ in place of the\n"
                f"bundle: {', '.join(engines.names())};\nmay be given again"
            ),
        ),
        Flag(name="index", value="NAME", meaning="of the engine's index or table; items"),
        Flag(name="vectors", kind="switch", meaning="documents have the items' vectors, too"),
    ),
    details=lambda: (
        "beside the --gin_file=MODEL_DIR/config.gin of a finished run; writes\n"
        "MODEL_DIR/export/bundle, a folder that can be copied anywhere, see docs/serving.md"
    ),
)
