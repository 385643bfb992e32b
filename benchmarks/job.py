"""The whole job as the catalogue grows: time, memory and disk of every stage.

    python benchmarks/job.py [--sizes 1e4 ...] [--folder DIR] [--quick] [--json FILE]

`dsirm STAGE`, one process a stage, on the simulated shop with some five judgements an item and a
query for every five items, and the models of gin/models/tiny.gin. Every stage goes through its
rows as often at any size: towers, quantizer and generator once. So what takes longer a row at a
larger size grows faster than its rows. Rungs are `no_sid` and `full`: one that has SIDs of its own
takes `quantize`, `generate` and `match` again. Memory: the most of the process and those that it
starts, what they share counted once, files that are mapped with what is in memory of them. Disk:
what a stage leaves in MODEL_DIR. The models see their rows once and are not good ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lines import append, line, print_heading, print_row
from watched import watched

from dsirm_jax.stages import STAGES

SIZES, QUICK = (1e4, 1e5, 1e6), (1e3,)
GIB, ALLOWED = 2**30, 3.0
ITEMS_PER_QUERY, JUDGEMENTS = 5, 32
"""Judgements that are wanted of a query; some 25 come out."""
BINDINGS = (
    f"simulated_shop.SimulatedShop.judgements_per_query = {JUDGEMENTS}",
    "encode/settings.Training.epochs = 1",
    "quantize/settings.Training.epochs = 1",
    "generate/settings.Training.epochs = 1",
    "job.Job.rungs = ()",
    "relevance.run.rungs = {'no_sid': @groups.without_sids(), 'full': @groups.all_groups()}",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table a size and writes the cases as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", type=float, help=f"items; {SIZES}")
    parser.add_argument("--folder", type=Path, help="of the runs, which stay there")
    parser.add_argument("--quick", action="store_true", help="1,000 items")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        for size in map(int, given.sizes or (QUICK if given.quick else SIZES)):
            folder = (given.folder or Path(temporary)) / str(size)
            folder.mkdir(parents=True, exist_ok=True)
            print_heading(f"{size:,} items", "seconds", "of CPU", "peak GiB", "disk MiB")
            for case in job(folder / "run", items=size, log=folder / "log"):
                append(given.json, case)


def job(model_dir: Path, *, items: int, log: Path) -> Iterator[dict]:
    """Yields what every stage takes.

    Args:
      model_dir: of the run.
      items: of the shop.
      log: file that the stages' own lines are added to.
    """
    bindings = [
        f"MODEL_DIR = {str(model_dir)!r}",
        f"simulated_shop.SimulatedShop.items = {items}",
        f"simulated_shop.SimulatedShop.queries = {items // ITEMS_PER_QUERY}",
        *BINDINGS,
    ]
    flags = ["--gin_file=gin/runs/demo.gin", *(f"--gin_bindings={text}" for text in bindings)]
    seconds, disk = 0.0, _bytes(model_dir)
    for stage in (stage.name for stage in STAGES):
        taken = watched([sys.executable, "-m", "dsirm_jax", stage, *flags], log=log)
        seconds, before, disk = seconds + taken.seconds, disk, _bytes(model_dir)
        cells = (f"{taken.seconds:.0f}", f"{taken.of_cpu:.0f}", f"{taken.peak / GIB:.2f}")
        print_row(stage, *cells, f"{(disk - before) / 2**20:.0f}")
        named = f"{items}/{stage}"
        yield line(f"{named}/time", taken.seconds, None, "s", ratio=None)
        yield line(f"{named}/of CPU", taken.of_cpu, None, "s", ratio=None)
        peak = taken.peak / GIB
        yield line(f"{named}/memory", peak, ALLOWED, "GiB, other: allowed", ratio=ALLOWED / peak)
        yield line(f"{named}/disk", (disk - before) / 2**20, None, "MiB", ratio=None)
    summary = json.loads((model_dir / "prepare" / "summary.json").read_text())
    shown = ", ".join(f"{summary[name]['read']:,} {name}" for name in ("items", "judgements"))
    page = (model_dir / "report" / "index.html").stat().st_size / 2**20
    print(f"\n{shown}; {seconds:,.0f} s in all; the report's first page {page:.1f} MiB\n")
    yield line(f"{items}/report's first page", page, None, "MiB", ratio=None)


def _bytes(folder: Path) -> int:
    """Returns the size of all files of a folder; of one that is not there, 0."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
