"""`dsirm COMMAND --gin_file=... --gin.NAME=VALUE`: the command line."""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from dsirm_jax.commands import COMMANDS
from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.io import disk
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.secrets import masked
from dsirm_jax.training import processes

USAGE = """usage: dsirm COMMAND --gin_file=FILE [--gin_file=FILE ...] [--gin.NAME=VALUE ...]

commands: a look at your tables, then the stages in the order in which they run, and others:
{commands}

flags:
{flags}
"""
SHARED_FLAGS = (
    Flag(
        name="gin_file",
        value="FILE",
        kind="texts",
        meaning=(
            "a gin file; several are read in order. Looked up as given, then in\n"
            "--gin_search_paths, then among those that come with dsirm\n"
            "(gin/runs/demo.gin, gin/runs/esci.gin, gin/runs/tables.gin)"
        ),
    ),
    Flag(
        name="gin_bindings",
        value="TEXT",
        kind="texts",
        meaning=(
            "a gin line that overrides the files; --gin.NAME=VALUE is the same:\n"
            "--gin.MODEL_DIR=\"'out/mine'\" --gin.SEED=1"
        ),
    ),
    Flag(
        name="gin_search_paths",
        value="DIRS",
        kind="list",
        meaning="further folders of gin files, separated by commas",
    ),
    Flag(
        name="allow",
        value="MODULES",
        kind="list",
        meaning=(
            "modules of your own that the config.gin of a run may name beside dsirm_jax,\n"
            "separated by commas; a gin file that you wrote may name any"
        ),
    ),
    Flag(
        name="distributed",
        kind="switch",
        meaning="be one of several processes, see docs/scaling.md",
    ),
    Flag(
        name="profile_steps",
        value="10:15",
        meaning="trace these steps of every training into its logs/",
    ),
    Flag(
        name="force",
        kind="switch",
        meaning="run again what is finished; the old output is kept in MODEL_DIR/replaced",
    ),
    Flag(
        name="help",
        kind="switch",
        meaning="this text; `dsirm COMMAND --help` has flags and gin bindings of a command",
    ),
)
_show_unraisable = sys.unraisablehook


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: arguments without the program's name; those of the process when not given.

    Returns:
      Exit code: 0; 2 when something the user gave is wrong; 1 when the disk refuses a file,
      training diverged or a compiled step does not fit; 75 when another process of the job is
      gone; 130 when interrupted.

    Raises:
      SystemExit: 143 when SIGTERM stopped training, which is saved, see `training.preemption`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    sys.excepthook = _print_masked
    # TensorFlow reads its log level when it is imported, and it has nothing to say to the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The locale's encoding may lack a sign of a table, for which no finished run shall fail.
        sys.stdout.reconfigure(errors="replace")
    try:
        with disk.writing("standard output"):
            code = _run(argv)
            sys.stdout.flush()
        return code
    except InputError as error:
        known = disk.fault(error)  # such as a full one, where a file of the user's was to be copied
        print(f"dsirm: {masked(str(known or error))}", file=sys.stderr)
        return 1 if known else 2
    except FloatingPointError as error:
        print(f"dsirm: {masked(str(error))}", file=sys.stderr)
        return 1
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_lost_reader():
            return 1
        if known := disk.fault(error):
            print(f"dsirm: {masked(str(known))}", file=sys.stderr)
            _keep_output()
            return 1
        if not processes.has_lost_another(error):
            raise
        print(
            f"dsirm: another process of this job is gone ({masked(str(error).splitlines()[0])}); "
            f"start all of them again, they go on from the last checkpoint",
            file=sys.stderr,
        )
        processes.leave(processes.LOST)
    except KeyboardInterrupt:
        print("dsirm: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _print_masked(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Prints a traceback without the secrets that an engine's error may have."""
    text = "".join(traceback.format_exception(kind, error, trace))
    print(masked(text), end="", file=sys.stderr)


def _has_lost_reader() -> bool:
    """Whether whoever read the output, such as `head`, had enough; the rest then goes nowhere.

    Other pipes break too, such as that of a worker that was killed, and are faults.
    """
    descriptor = sys.stdout.fileno()
    waiting = select.poll()
    waiting.register(descriptor, 0)  # of errors alone
    if not any(event & select.POLLERR for _, event in waiting.poll(0)):
        return False
    _discard_output()
    return True


def _keep_output() -> None:
    """Writes what was printed, unless this is what the disk refuses."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    place, wants_help = _scan(argv)
    before, name, after = (
        (argv, None, []) if place is None else (argv[:place], argv[place], argv[place + 1 :])
    )
    if name == "help":
        rest = [argument for argument in after if not argument.startswith("-")]
        name, wants_help = (rest[0] if rest else None), True
    if name is None and (wants_help or not argv):
        print(_usage())
        return 0 if wants_help else 2
    if name not in COMMANDS:
        raise InputError(
            f"unknown command {name!r}; the commands are {', '.join(COMMANDS)}"
            if name
            else f"name a command first: {', '.join(COMMANDS)}"
        )
    command = COMMANDS[name]
    if wants_help:
        print(command.help())
        return 0
    flags, given = command.parse([*map(_as_binding, [*before, *after])], shared=SHARED_FLAGS)
    if command.configured:
        _configure(flags)
    else:
        _set_up_logging(logging.INFO)
    with disk.writing(_place(command, given)):
        return command.run(flags, given)


def _place(command: Command, given: Sequence[str]) -> str:
    """Returns where a command writes, for an error of a disk that does not say."""
    if command.configured:
        from dsirm_jax.run import configuration
        from dsirm_jax.run.job import Job

        given = [str(configuration.bound(Job).get("model_dir", ""))]
    return f"{' '.join(filter(None, given)) or 'a file'}, or the temporary folder (TMPDIR)"


def _scan(argv: Sequence[str]) -> tuple[int | None, bool]:
    """Returns where the command stands, and whether help is wanted.

    What follows a flag that has a value is that value, whatever it says.
    """
    valued = {
        flag.name
        for flag in (
            *SHARED_FLAGS,
            *(flag for command in COMMANDS.values() for flag in command.flags),
        )
        if flag.kind != "switch"
    }
    place, wants_help, is_value = None, False, False
    for index, argument in enumerate(argv):
        if is_value:
            is_value = False
        elif argument in ("--help", "-help", "-h"):
            wants_help = True
        elif argument.startswith("-") and argument != "-":
            is_value = argument.lstrip("-") in valued
        elif place is None:
            place = index
    return place, wants_help


def _configure(flags: Values) -> None:
    """Starts what the shared flags ask for, and reads the gin files."""
    if not flags["gin_file"]:
        raise InputError("no --gin_file given; try --gin_file=gin/runs/demo.gin")
    if flags["distributed"]:
        processes.start()
    _set_up_logging(logging.INFO if processes.is_first() else logging.WARNING)

    from dsirm_jax.run import configuration

    if flags["profile_steps"]:
        from dsirm_jax.training import profiling

        profiling.choose_steps(flags["profile_steps"])
    configuration.parse(
        files=flags["gin_file"],
        bindings=flags["gin_bindings"],
        search_paths=flags["gin_search_paths"],
        allowed=flags["allow"],
    )


def _usage() -> str:
    commands = [f"  {command.name:<13} {command.summary}" for command in COMMANDS.values()]
    return USAGE.format(
        commands="\n".join(commands), flags="\n".join(flag.help() for flag in SHARED_FLAGS)
    )


def _as_binding(argument: str) -> str:
    """Rewrites T5X's `--gin.NAME=VALUE` as `--gin_bindings=NAME = VALUE`."""
    prefix = "--gin."
    if not argument.startswith(prefix):
        return argument
    name, equals, value = argument[len(prefix) :].partition("=")
    if not equals:
        raise InputError(f"{argument}: a value is missing; write {argument}=VALUE")
    return f"--gin_bindings={name} = {value}"


class _Masked(logging.Formatter):
    """Formats a line of the log without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def _set_up_logging(level: int) -> None:
    """Sends this package's log to standard error, and of the libraries' only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Masked("%(message)s"))
    ours = logging.getLogger("dsirm_jax")
    ours.handlers = [handler]
    ours.setLevel(level)
    ours.propagate = False

    from absl import logging as libraries

    libraries.get_absl_logger().addFilter(_without_traceback)
    logging.getLogger("asyncio").addFilter(_not_given_up)
    sys.unraisablehook = _unraisable


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leaves the line alone of what a thread of Orbax logs, which is raised or logged here too."""
    record.exc_info = None
    return True


def _not_given_up(record: logging.LogRecord) -> bool:
    """Leaves out the writes of a save that Orbax has given up: it raises the first that failed."""
    said = record.getMessage()
    lost = said.startswith("Task exception was never retrieved")
    return not (lost and f"{os.sep}orbax{os.sep}" in said)


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Shows an error as it was before, but for the writes of a save that Orbax has given up.

    Threads of Tensorstore come back with them to an event loop that is closed by then.
    """
    if lost.object is not None or str(lost.exc_value) != "Event loop is closed":
        _show_unraisable(lost)


if __name__ == "__main__":
    sys.exit(main())
