"""What `dsirm compile` prints of the outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from dsirm_jax.ahead.chips import Slice
from dsirm_jax.ahead.compile import REMEDIES, Outcome, Target


def heading(target: Target) -> str:
    """Returns what one chip has, and the names of the columns of `rows`."""
    chips = Slice(name=target.topology)
    chip = chips.chip
    return "\n".join(
        [
            f"{target.topology}: {chips.size} chips; each {chip.memory / 1e9:.1f} GB, "
            f"{chip.flops / 1e12:.0f} Tflop/s, {chip.bandwidth / 1e9:.0f} GB/s memory, "
            f"{chip.interconnect / 1e9:.0f} GB/s to others ({chip.source})",
            f"{'step':<10} {'arguments':>10} {'temporary':>10} {'code':>9} {'of memory':>9} "
            f"{'Gflop':>9} {'traffic':>9} {'sent':>9} {'least ms':>9}  bound by",
        ]
    )


def rows(outcome: Outcome, *, target: Target) -> str:
    """Returns what one step asks of a chip, and below it what it exchanges with others."""
    chip, program = Slice(name=target.topology).chip, outcome.program
    if program is None:
        return f"{outcome.step:<10} {outcome.reason}"
    memory, seconds = program.memory, program.seconds(chip)
    binding = max(seconds, key=seconds.__getitem__)
    first = (
        f"{outcome.step:<10} {_size(memory.arguments):>10} "
        f"{_size(memory.temporaries + memory.outputs):>10} {_size(memory.code):>9} "
        f"{memory.total / chip.memory:>9.1%} {program.flops / 1e9:>9.1f} "
        f"{_size(program.traffic):>9} {_size(program.sent):>9} "
        f"{1e3 * seconds[binding]:>9.3f}  {binding}"
    )
    exchanges = (
        f"{'':<10} {each.calls} {each.kind} over {each.group}: {_size(each.sent)} sent"
        for each in program.collectives
    )
    return "\n".join([first, *exchanges])


def problems(outcomes: Sequence[Outcome], *, target: Target) -> list[str]:
    """Returns what does not fit or compile, each with the binding to change."""
    room = Slice(name=target.topology).chip.memory
    misfits = []
    for each in outcomes:
        if each.used is not None and (each.used > room or each.program is None):
            misfits.append(
                f"{each.step} needs {_size(each.used)} of a chip's {_size(room)}; "
                f"bind {REMEDIES[each.step]}"
            )
        elif each.program is None and each.reason != "nothing is trained":
            misfits.append(f"{each.step}: {each.reason}")
    return misfits


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1e3:.1f} kB"
