"""`dsirm STAGE --gin_file=... --gin.NAME=VALUE`: the command line."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from dsirm_jax import ahead, job
from dsirm_jax.errors import InputError
from dsirm_jax.training import processes

USAGE = """usage: dsirm STAGE --gin_file=FILE [--gin_file=FILE ...] [--gin.NAME=VALUE ...]

{stages}

flags:
  --gin_file=FILE          a gin file; several are read in order. Looked up as given, then in
                           --gin_search_paths, then among those that come with dsirm
                           (gin/runs/demo.gin, gin/runs/esci.gin, gin/runs/tables.gin)
  --gin.NAME=VALUE         a binding or macro that overrides the files, gin syntax:
                           --gin.MODEL_DIR="'out/mine'" --gin.SEED=1
  --gin_bindings=TEXT      the same, as the text of a gin line
  --gin_search_paths=DIRS  further folders of gin files, separated by commas
  --distributed            be one of several processes, see docs/scaling.md
  --profile_steps=10:15    trace these steps of every training into its logs/
  --force                  run again what is finished; the old output is kept in MODEL_DIR/replaced
  --help                   this text; `dsirm STAGE --help` tells what a stage reads and writes
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments without the program's name; those of the process when not given.

    Returns:
      Exit code: 0; 2 when something the user gave is wrong; 1 when training diverged or a compiled
      step does not fit; 75 when another process of the job is gone; 130 when interrupted.

    Raises:
      SystemExit: 143 when SIGTERM stopped training, which is saved, see `training.preemption`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # TensorFlow reads its log level when it is imported, and it has nothing to say to the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The locale's encoding may lack a sign of a table, for which no finished run shall fail.
        sys.stdout.reconfigure(errors="replace")
    try:
        return _run(argv)
    except InputError as error:
        print(f"dsirm: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"dsirm: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if not processes.has_lost_another(error):
            raise
        print(
            f"dsirm: another process of this job is gone ({str(error).splitlines()[0]}); "
            f"start all of them again, they go on from the last checkpoint",
            file=sys.stderr,
        )
        processes.leave(processes.LOST)
    except KeyboardInterrupt:
        print("dsirm: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    wants_help = any(argument in ("--help", "-h", "-help", "help") for argument in argv)
    stage = next((argument for argument in argv if not argument.startswith("-")), None)
    if stage == "help" or (stage is None and (wants_help or not argv)):
        print(_usage())
        return 0 if wants_help else 2
    if stage not in job.COMMANDS:
        raise InputError(
            f"unknown stage {stage!r}; the stages are {', '.join(job.COMMANDS)}"
            if stage
            else f"name a stage first: {', '.join(job.COMMANDS)}"
        )
    if wants_help:
        print(job.help_text(stage))
        return 0
    given, rest = _parse_flags([a for a in argv if a != stage], command=stage)
    if stage == "import-t5":
        from dsirm_jax.generator.weights import import_t5

        import_t5(given["from"].value, given.to, vocabulary=given.vocabulary)
        print(f"read {given.to}/model.gin after a run's own gin file")
        return 0
    if stage == "compare":
        from dsirm_jax.compare import compare

        if len(rest) != 2:
            raise InputError("name two finished MODEL_DIRs: dsirm compare A B")
        print(compare(*map(Path, rest)))
        return 0
    if stage in ("verify-bundle", "update-bundle"):
        return _of_bundle(stage, given, rest)
    if stage == "serve":
        job.serve(given.bundle, host=given.host, port=given.port, programs=given.programs)
        return 0
    if not given.gin_file:
        raise InputError("no --gin_file given; try --gin_file=gin/runs/demo.gin")
    if given.distributed:
        processes.start()
    _set_up_logging(logging.INFO if processes.is_first() else logging.WARNING)

    from dsirm_jax import configuration

    if given.profile_steps:
        from dsirm_jax.training import profiling

        profiling.choose(given.profile_steps)
    configuration.parse(
        files=given.gin_file,
        bindings=given.gin_bindings,
        search_paths=given.gin_search_paths,
    )
    if stage == "compile":
        return 0 if job.compile_ahead(topology=given.topology, steps=given.step) else 1
    if stage == "predict-sids":
        job.predict_sids(queries=given.query, table=given.queries, force=given.force)
    elif stage == "score":
        job.score(pairs=given.pairs, force=given.force)
    elif stage == "export":
        job.export(force=given.force)
    elif stage == "ablate":
        from dsirm_jax import ablation

        ablation.run(force=given.force)
    else:
        job.run(stage, force=given.force)
    return 0


def _of_bundle(stage: str, given: flags.FlagValues, rest: Sequence[str]) -> int:
    """Runs a command that needs a bundle alone, and returns the exit code."""
    if len(rest) != 1:
        raise InputError(f"name one bundle: dsirm {stage} DIR")
    _set_up_logging(logging.INFO)
    if stage == "update-bundle":
        from dsirm_jax.serving.update import update

        update(Path(rest[0]), items=given["items"].value, queries=given.queries)
        return 0
    from dsirm_jax.serving import verify

    found = verify.verify(Path(rest[0]), pairs=given.pairs)
    print(verify.table(found))
    return 0 if all(of.agrees for of in found) else 1


def _usage() -> str:
    lines = [f"  {name:<13} {job.summary(name)}" for name in job.COMMANDS]
    return USAGE.format(stages="stages, in the order in which they run:\n" + "\n".join(lines))


def _parse_flags(arguments: list[str], *, command: str) -> tuple[flags.FlagValues, list[str]]:
    """Returns the flags, and the further arguments that the command may have."""
    given = flags.FlagValues()
    if command == "predict-sids":
        flags.DEFINE_multi_string("query", [], "", flag_values=given)
        flags.DEFINE_string("queries", None, "", flag_values=given)
    if command == "verify-bundle":
        flags.DEFINE_integer("pairs", 100, "", 1, flag_values=given)
    if command == "update-bundle":
        flags.DEFINE_string("items", None, "", flag_values=given)
        flags.DEFINE_string("queries", None, "", flag_values=given)
    if command == "compile":
        flags.DEFINE_string("topology", None, "", flag_values=given)
        flags.DEFINE_multi_enum("step", [], list(ahead.STEPS), "", flag_values=given)
    if command == "score":
        flags.DEFINE_string("pairs", None, "", flag_values=given, required=True)
    if command == "serve":
        flags.DEFINE_string("bundle", None, "", flag_values=given, required=True)
        flags.DEFINE_string("host", "127.0.0.1", "", flag_values=given)
        flags.DEFINE_integer("port", 8080, "", 0, 65535, flag_values=given)
        flags.DEFINE_string("programs", None, "", flag_values=given)
    if command == "import-t5":
        flags.DEFINE_string("from", None, "", flag_values=given, required=True)
        flags.DEFINE_string("to", None, "", flag_values=given, required=True)
        flags.DEFINE_string("vocabulary", None, "", flag_values=given)
    flags.DEFINE_multi_string("gin_file", [], "", flag_values=given)
    flags.DEFINE_multi_string("gin_bindings", [], "", flag_values=given)
    flags.DEFINE_list("gin_search_paths", [], "", flag_values=given)
    flags.DEFINE_boolean("distributed", False, "", flag_values=given)
    flags.DEFINE_boolean("force", False, "", flag_values=given)
    flags.DEFINE_string("profile_steps", None, "", flag_values=given)
    try:
        rest = given(["dsirm", *map(_as_binding, arguments)])[1:]
    except flags.Error as error:
        raise InputError(f"{error}; see `dsirm --help`") from error
    if rest and command not in ("compare", "verify-bundle", "update-bundle"):
        raise InputError(f"unexpected argument {rest[0]!r}; see `dsirm --help`")
    return given, rest


def _as_binding(argument: str) -> str:
    """Rewrites T5X's `--gin.NAME=VALUE` as `--gin_bindings=NAME = VALUE`."""
    prefix = "--gin."
    if not argument.startswith(prefix):
        return argument
    name, equals, value = argument[len(prefix) :].partition("=")
    if not equals:
        raise InputError(f"{argument}: a value is missing; write {argument}=VALUE")
    return f"--gin_bindings={name} = {value}"


def _set_up_logging(level: int) -> None:
    """Sends this package's log to standard error, and of the libraries' only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours = logging.getLogger("dsirm_jax")
    ours.handlers = [handler]
    ours.setLevel(level)
    ours.propagate = False


if __name__ == "__main__":
    sys.exit(main())
