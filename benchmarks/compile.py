"""Every step of gin/tpu compiled for its chips, and how steps grow from 8 to 256 chips.

    python benchmarks/compile.py [--files FILE ...] [--generators FILE ...] [--steps STEP ...]
        [--gin BINDING ...] [--weak] [--json FILE] [--plot FILE]

Wants libtpu (`pip install -e '.[tpu,bench]'`) and no TPU. The least time of a step is the largest
of operations, traffic and bytes sent, each over the chip's published peak in
`dsirm_jax/ahead/chips.py`: a bound that a real step will not reach, not a forecast. --generators
are files of gin/models; every file is read with each of them behind it, for generator and search.
Weak scaling (v5e, the models of gin/tpu/v5e_8.gin) keeps the rows of a chip and doubles the chips.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lines import line, print_heading, print_row, write

from dsirm_jax.ahead import compile as ahead
from dsirm_jax.ahead.chips import CHIPS, Chip, Slice
from dsirm_jax.commands.compile import what_to_compile
from dsirm_jax.run import configuration

WEAK = ("v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16")
ROWS_A_CHIP = {"encode": 128, "quantize": 512, "generate": 128}


def outcomes(
    *files: str, steps: Sequence[str] = (), topology: str | None = None, more: Sequence[str] = ()
) -> Iterator[ahead.Outcome]:
    """Yields what became of steps."""
    configuration.parse(files=list(files), bindings=more)
    target, bindings = what_to_compile(topology=topology)
    return ahead.compile_all(bindings, target=target, steps=steps)


def show(name: str, each: ahead.Outcome, chip: Chip) -> list[dict[str, Any]]:
    """Prints the row of a step and returns its figures."""
    program = each.program
    if program is None:
        print_row(name, each.step, each.reason, *[""] * 7)
        return []
    memory, seconds = program.memory, program.seconds(chip)
    binding = max(seconds, key=seconds.get)
    print_row(
        *(name, each.step, f"{memory.arguments / 1e9:.2f}"),
        f"{(memory.temporaries + memory.outputs) / 1e9:.2f}",
        f"{memory.code / 1e9:.2f}",
        f"{memory.total / chip.memory:.0%}",
        *(f"{program.flops / 1e9:,.0f}", f"{program.traffic / 1e9:.2f}"),
        f"{program.sent / 1e9:.3f}",
        f"{1e3 * seconds[binding]:.2f} ({binding})",
    )
    case = f"{name} {each.step}"
    return [
        line(f"{case} least time", seconds[binding], None, "s", ratio=None),
        line(f"{case} memory", memory.total, chip.memory, "B", ratio=None),
        line(f"{case} sent", program.sent, None, "B", ratio=None),
    ]


def plot(path: Path, series: dict[str, list[tuple[int, float, int]]]) -> None:
    """Draws the least time and the bytes sent by chips."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for step, points in series.items():
        chips, seconds, sent = zip(*points, strict=True)
        axes[0].plot(chips, [1e3 * each for each in seconds], marker="o", label=step)
        axes[1].plot(chips, [each / 1e6 for each in sent], marker="o", label=step)
    for axis, label in zip(axes, ("least ms a step", "MB sent by a chip"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="v5e chips", ylabel=label, xticks=chips)
        axis.set_xticklabels(chips)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(path, dpi=80)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", nargs="*", default=sorted(map(str, Path("gin/tpu").glob("*"))))
    parser.add_argument("--generators", nargs="*", default=[], help="files of gin/models")
    parser.add_argument("--gin", nargs="*", default=[], help="further bindings")
    parser.add_argument("--steps", nargs="*", default=[], choices=list(ahead.STEPS))
    parser.add_argument("--weak", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    heading = ("of a chip, GB: arguments", "temporary", "code", "of memory")
    heading += ("Gflop", "traffic GB", "sent GB", "least ms")
    print_heading("chips" if given.weak else "file", "step", *heading)
    cases, series = [], {}
    if given.weak:
        for topology in WEAK:
            chips = Slice(name=topology)
            more = [
                f"{step}/settings.Training.batch_size = {rows * chips.size}"
                for step, rows in ROWS_A_CHIP.items()
            ]
            for each in outcomes(
                "gin/tpu/v5e_8.gin", steps=list(ROWS_A_CHIP), topology=topology, more=more
            ):
                cases += show(str(chips.size), each, chips.chip)
                if each.program:
                    seconds = max(each.program.seconds(chips.chip).values())
                    points = series.setdefault(each.step, [])
                    points.append((chips.size, seconds, each.program.sent))
    else:
        for file, generator in itertools.product(given.files, given.generators or [None]):
            read, steps = [file], given.steps
            if generator:
                read, steps = [file, generator], steps or ["generate", "search"]
            name = ", ".join(Path(each).stem for each in read)
            kind = Path(file).stem.partition("_")[0]
            for each in outcomes(*read, steps=steps, more=given.gin):
                cases += show(name, each, CHIPS[kind])
    write(given.json, cases)
    if given.plot and series:
        plot(given.plot, series)


if __name__ == "__main__":
    main()
