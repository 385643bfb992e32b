"""`dsirm score`: probabilities of a user's own pairs, from a finished run."""

from __future__ import annotations

from collections.abc import Sequence

from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.commands.stage import COLUMNS, TRUST
from dsirm_jax.io.errors import InputError
from dsirm_jax.run.layout import FULL
from dsirm_jax.stages import (
    STAGES,
    encode,
    features,
    generate,
    match,
    prepare,
    relevance,
    score,
)


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Scores a table of (query, item_id), as a stage `score`."""
    from dsirm_jax.ingestion.query_files import check_given, given_columns
    from dsirm_jax.io import storage
    from dsirm_jax.io.secrets import check_public
    from dsirm_jax.run import configuration
    from dsirm_jax.run.job import Job, check_agreement
    from dsirm_jax.run.runner import run_stage
    from dsirm_jax.run.writer import sole_writer

    pairs, queries = flags["pairs"], flags["queries"]
    files = [file for file in (pairs, queries) if file]
    for file in files:
        check_public("--pairs or --queries", file)
    columns = given_columns(flags["columns"])
    check_given(columns, wanted=("query", "item_id"))
    job = configuration.call_with_bound(Job)
    if FULL not in configuration.bound(relevance.run)["rungs"]:
        raise InputError(f"relevance.run.rungs has no {FULL!r}, whose head scores")
    matching, about_pairs = configuration.bound(match.run), configuration.bound(features.run)
    prepared = configuration.bound(prepare.run)
    bindings = {
        "pairs": pairs,
        "columns": columns,
        "queries": queries,
        "run_columns": dict(getattr(prepared["source"], "judgement_columns", {})),
        "beams": configuration.bound(generate.run)["beams"],
        "match_beams": matching.get("beams", ()),
        "pair_groups": about_pairs.get("extra_groups", ()),
        "sid_groups": matching.get("extra_groups", ()),
        "language": features.type_language(about_pairs),
        "max_rejected_share": prepared["max_rejected_share"],
    }
    if flags["features"]:
        bindings["features"] = True
    encoder = configuration.bound(encode.run)["encoder"]
    with sole_writer(job.layout, name=score.STAGE.name):
        check_agreement(job, STAGES)
        run_stage(
            score.STAGE,
            job.layout,
            bindings=bindings | {"encoder": encoder, "halves": job.halves},
            described=configuration.description(bindings)
            | {"files": {file: storage.version(storage.require_file(file)) for file in files}},
            needed={"relevance": job.layout.stage("relevance")},
            config=configuration.text(),
            force=flags["force"],
            trust=flags["trust"],
        )
    print(f"scores: {job.layout.scores}")
    if flags["features"]:
        print(f"features: {job.layout.asked_features} and {job.layout.asked_letor}")
    return 0


COMMAND = Command(
    name="score",
    summary=(
        "a table of (query, item_id) -> the full model's probabilities, from the run as it is"
    ),
    run=run,
    flags=(
        TRUST,
        COLUMNS,
        Flag(
            name="pairs",
            value="FILE",
            required=True,
            meaning=(
                "a table of query and item_id, or a TREC run, whose probabilities\n"
                "go to MODEL_DIR/score/scores.parquet, row by row"
            ),
        ),
        Flag(
            name="queries",
            value="FILE",
            meaning="the queries' texts by id, where the table or run has ids",
        ),
        Flag(
            name="features",
            kind="switch",
            meaning=(
                "also writes what the head sees of each pair, features.parquet, and the\n"
                "judged ones as LETOR text, letor/, for a ranker of your own"
            ),
        ),
    ),
    details=lambda: "beside the --gin_file=MODEL_DIR/config.gin of a finished run",
)
