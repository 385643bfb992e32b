"""`dsirm compare`: two finished runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsirm_jax.commands.command import Command, Values


def run(flags: Values, arguments: Sequence[str]) -> int:
    """Prints how two runs differ."""
    from dsirm_jax.report.compare import compare_runs

    print(compare_runs(*map(Path, arguments)))
    return 0


COMMAND = Command(
    name="compare",
    summary="two finished MODEL_DIRs -> their metrics, differences and bindings side by side",
    run=run,
    arguments=("A", "B"),
    wanted="name two finished MODEL_DIRs",
    configured=False,
    details=lambda: (
        "A and B are the MODEL_DIRs of two finished runs or ladders; prints for every rung that\n"
        "both have the metrics over the pairs that both tested, B − A, how soon their generators\n"
        "write the SID of a relevant item, and the bindings that differ"
    ),
)
