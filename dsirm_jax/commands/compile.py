"""`dsirm compile`: every stage's step for chips that are not here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dsirm_jax.ahead.compile import STEPS
from dsirm_jax.commands.command import Command, Flag, Values
from dsirm_jax.stages import STAGES

if TYPE_CHECKING:
    from dsirm_jax.ahead.compile import Target


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Compiles and prints what every step asks of the chips; 1 where one does not fit."""
    from dsirm_jax.ahead import printing
    from dsirm_jax.ahead.compile import compile_all

    target, bindings = what_to_compile(topology=flags["topology"])
    print(printing.heading(target), flush=True)
    outcomes = []
    for outcome in compile_all(bindings, target=target, steps=flags["step"]):
        print(printing.rows(outcome, target=target), flush=True)
        outcomes.append(outcome)
    problems = printing.problems(outcomes, target=target)
    for problem in problems:
        print(f"dsirm: {problem}", file=sys.stderr)
    return 1 if problems else 0


def what_to_compile(*, topology: str | None) -> tuple[Target, dict[str, dict[str, Any]]]:
    """Returns the chips to compile for, and what the configuration binds to every stage.

    Args:
      topology: overrides that of the configuration.
    """
    from dsirm_jax.ahead.compile import Target
    from dsirm_jax.run import configuration

    values = configuration.bound(Target) | ({"topology": topology} if topology else {})
    configuration.check_complete(Target, values)
    bindings = {stage.name: configuration.bound(stage.function) for stage in STAGES}
    return Target(**values), bindings


COMMAND = Command(
    name="compile",
    summary="models -> memory and least time of every step on TPUs that are not here",
    run=run,
    flags=(
        Flag(
            name="topology",
            value="KIND:SHAPE",
            meaning="chips to compile for instead, such as v5e:16x16",
        ),
        Flag(
            name="step",
            value="NAME",
            kind="choices",
            choices=tuple(STEPS),
            meaning=f"only this step; may be given again: {', '.join(STEPS)}",
        ),
    ),
    details=lambda: (
        "beside --gin_file=gin/tpu/... or any with models and a topology\n"
        "exit code 1: a step does not fit into a chip's memory; the binding to change is named"
    ),
)
