"""How long changes to the items of a bundle take, by its size.

    python benchmarks/update.py [--bundle DIR] [--sizes N ...] [--quick] [--json FILE]

A bundle of the demo (`make demo`, then `dsirm export`) with its items repeated. `--new` further
items, a tenth as many that change their title and a tenth as many that go: first the new ones
alone, then all three, then cached queries alone, then the same again, which writes nothing. Each in
a process of its own: seconds in all, those of the CPU, and the most memory of the process.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write
from serving import repeated

from dsirm_jax.serving.bundle.contents import Bundle, open_bundle

SIZES, NEW = (100_000, 1_000_000), 10_000
TIMED = """
import logging, resource, sys, time
from pathlib import Path
from dsirm_jax.serving.update import update

logging.basicConfig(level=logging.WARNING)
path, *given = sys.argv[1:]
started = time.perf_counter()
update(Path(path), **dict(argument.split("=", 1) for argument in given))
used = resource.getrusage(resource.RUSAGE_SELF)
print(time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6)
"""


def main() -> None:
    """Prints a table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("out/demo/export/bundle"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="items of a bundle")
    parser.add_argument("--new", type=int, default=NEW, help="further items")
    parser.add_argument("--quick", action="store_true", help="a small bundle and few items")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    sizes, new = ((20_000,), 100) if given.quick else (given.sizes, given.new)
    cases = []
    print_heading("items", "change", "seconds", "of CPU", "GB at most")
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            cases += changed(bundle, Path(scratch), items=size, new=new)
    write(given.json, cases)


def changed(bundle: Bundle, scratch: Path, *, items: int, new: int) -> Iterator[dict]:
    """Yields what each change takes."""
    path = scratch / "bundle"
    large = repeated(bundle, path, copies=-(-items // len(bundle.catalogue)))
    files = tables(large, scratch, new=new)
    shown = f"{len(large.catalogue):,}"
    del large
    untouched = shutil.copytree(path, scratch / "untouched")
    changes = {
        f"{new:,} new": (path, ("items",)),
        f"{new:,} new, {new // 10:,} change, {new // 10:,} go": (untouched, ("all", "removed")),
        f"{new // 10:,} queries": (untouched, ("queries",)),
        "nothing": (untouched, ("all",)),
    }
    for name, (folder, wanted) in changes.items():
        given = [f"{key.replace('all', 'items')}={files[key]}" for key in wanted]
        command = [sys.executable, "-c", TIMED, str(folder), *given]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, of_cpu, memory = map(float, done.stdout.split())
        print_row(shown, name, f"{seconds:.1f}", f"{of_cpu:.1f}", f"{memory:.1f}")
        yield line(f"update/{shown} items/{name}", seconds, None, "s", ratio=None)


def tables(bundle: Bundle, scratch: Path, *, new: int) -> dict[str, Path]:
    """Writes tables of further items, of these and others that change, of what goes, of queries."""
    few = new // 10
    known = bundle.catalogue.items(range(new + 2 * few))
    rows = [vars(item) | dict(item.attributes) for item in known]
    for row in rows:
        del row["number"], row["attributes"], row["text"]
        row["category"] = list(row["category"])
    further = [row | {"item_id": f"new {row['item_id']}"} for row in rows[:new]]
    others = [row | {"title": f"{row['title']}, new"} for row in rows[new : new + few]]
    written = {
        "items": further,
        "all": further + others,
        "removed": [{"item_id": row["item_id"]} for row in rows[-few:]],
        "queries": [{"query": f"{row['title']} {number}"} for number, row in enumerate(rows[:few])],
    }
    files = {name: scratch / f"{name}.parquet" for name in written}
    for name, listed in written.items():
        pq.write_table(pa.Table.from_pylist(listed), files[name])
    return files


if __name__ == "__main__":
    main()
