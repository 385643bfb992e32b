"""`dsirm verify-bundle`: whether a bundle is whole and all its forms agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsirm_jax.commands.command import Command, Flag, Values


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Prints how far the forms of a bundle agree; 1 where two do not."""
    from dsirm_jax.serving.verification.comparison import comparison_table
    from dsirm_jax.serving.verify import verify

    comparisons = verify(Path(arguments[0]), pairs=flags["pairs"])
    print(comparison_table(comparisons))
    return 0 if all(comparison.agrees for comparison in comparisons) else 1


COMMAND = Command(
    name="verify-bundle",
    summary="a bundle -> its checksums, and whether all its forms give the same numbers",
    run=run,
    flags=(
        Flag(
            name="pairs",
            value="100",
            kind="number",
            default=100,
            bounds=(1, None),
            meaning="pairs of a query and an item that every form scores",
        ),
    ),
    arguments=("DIR",),
    wanted="name one bundle",
    configured=False,
    details=lambda: "exit code 2: a file is not what was written; 1: two forms do not agree",
)
