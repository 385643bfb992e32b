"""Many pairs from a bundle: `dsirm score`, one process, Spark and Beam, and whether they agree.

    python benchmarks/offline.py MODEL_DIR [--pairs N] [--engines NAME ...] [--quick] [--json FILE]

MODEL_DIR is a finished run with an exported bundle. The pairs are every item with as many queries
of the run as they take, shuffled. `dsirm score` scores them from the run; `process` is
`score_batches` of `dsirm_jax.serving.offline` over a Parquet file; Spark (`local[2]`) and Beam
(DirectRunner) run the programs of docs/offline.md. Seconds are from the start of the command to its
end, programs compiled and workers started; the CPU's are those of all its processes. Differences
are from `dsirm score`: features of both sides are sums in different orders, and a pair whose
feature lies on the step of a tree, so that it falls to the other side, is counted apart. The ratio
is 1e-6 over the greatest difference of 999 in 1,000 pairs. Wants pyspark and apache-beam; an engine
that is not installed is left out. The run gets a folder `score`.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write
from watched import Taken, watched

from dsirm_jax.run.layout import Layout

GOAL, ON_STEP, ROWS_PER_GROUP = 1e-6, 1e-5, 1 << 16
PACKAGES = {"process": "pyarrow", "spark": "pyspark", "beam": "apache_beam"}
TEXT = Path(__file__).parent.parent / "docs/offline.md"
PROCESS = """
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.serving.offline import score_batches

batches = pq.ParquetFile("pairs.parquet").iter_batches()
scored = score_batches(batches, bundle="out/demo/export/bundle")
pq.write_table(pa.Table.from_batches(scored), "scores")
"""


def main() -> None:
    """Prints a table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--pairs", type=int, help="1,000,000")
    parser.add_argument("--engines", nargs="*", choices=PACKAGES, default=[*PACKAGES])
    parser.add_argument("--quick", action="store_true", help="20,000 pairs")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    pairs = given.pairs or (20_000 if given.quick else 1_000_000)
    layout, cases = Layout(model_dir=given.run.absolute()), []
    apart = ("of 999 in 1,000", "greatest on no step", "above 1e-6", "on a step")
    print_heading("engine", "pairs", "seconds", "of CPU", "pairs/s and core", *apart)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "pairs.parquet"
        write_pairs(file, layout, pairs=pairs)
        command = [sys.executable, "-m", "dsirm_jax", "score", f"--pairs={file}"]
        command += [f"--gin_file={layout.model_dir / 'config.gin'}"]
        taken = watched([*command, "--trust"], log=Path(scratch) / "log")
        expected = by_pair([layout.model_dir / "score/scores.parquet"])
        cases += shown("dsirm score", pairs, taken, differences=None)
        for engine in given.engines:
            if importlib.util.find_spec(PACKAGES[engine]) is None:
                continue
            folder = Path(scratch) / engine
            folder.mkdir()
            (folder / "program.py").write_text(program(engine, file, folder, layout=layout))
            taken = watched(
                [sys.executable, "program.py"],
                cwd=folder,
                log=folder / "log",
                environment={"PYSPARK_PYTHON": sys.executable},
            )
            found = by_pair(sorted(folder.rglob("part-*")) or sorted(folder.glob("scores*")))
            if not found.drop_columns("score").equals(expected.drop_columns("score")):
                raise SystemExit(f"{engine} has other pairs")
            both = (np.asarray(of["score"]) for of in (found, expected))
            differences = np.abs(np.subtract(*both))
            cases += shown(engine, pairs, taken, differences=differences)
    write(given.json, cases)


def write_pairs(file: Path, layout: Layout, *, pairs: int) -> None:
    """Writes the first pairs of all items with one query after the other, shuffled."""
    items, queries = (
        pq.read_table(table, columns=[name])[name].to_pylist()
        for table, name in ((layout.items, "item_id"), (layout.queries, "query"))
    )
    number = np.random.default_rng(0).permutation(min(pairs, len(items) * len(queries)))
    table = {
        "query": [queries[row // len(items)] for row in number],
        "item_id": [items[row % len(items)] for row in number],
    }
    pq.write_table(pa.table(table), file, row_group_size=ROWS_PER_GROUP)


def program(engine: str, file: Path, folder: Path, *, layout: Layout) -> str:
    """Returns the text of the program of an engine."""
    found = dict(re.findall(r'^```python title="(\w+)"\n(.*?)^```$', TEXT.read_text(), re.M | re.S))
    text = found.get(engine, PROCESS)
    for name, place in {
        "out/demo/export/bundle": layout.model_dir / "export/bundle",
        "pairs.parquet": file,
        "scores": folder / "scores",
    }.items():
        text = text.replace(f'"{name}"', f'"{place}"')
    return text


def by_pair(files: Sequence[Path]) -> pa.Table:
    """Returns query, item and score of files, in the order of the pairs."""
    tables = [pq.ParquetFile(file).read(["query", "item_id", "score"]) for file in files]
    return pa.concat_tables(tables).sort_by([("query", "ascending"), ("item_id", "ascending")])


def shown(engine: str, pairs: int, taken: Taken, *, differences: np.ndarray | None) -> list[dict]:
    """Prints a row, and returns its cases."""
    rate, apart = pairs / taken.of_cpu, []
    cases = [line(f"{engine}/rate", rate, None, "pairs/s and core", ratio=None)]
    if differences is not None:
        most = float(np.quantile(differences, 0.999))
        elsewhere = differences[differences <= ON_STEP]
        counts = [int((differences > limit).sum()) for limit in (GOAL, ON_STEP)]
        apart = [f"{most:.1e}", f"{elsewhere.max(initial=0):.1e}", *counts]
        cases.append(
            line(f"{engine}/apart", most, GOAL, "probability", ratio=GOAL / max(most, 1e-12))
        )
    seconds = (f"{taken.seconds:.0f}", f"{taken.of_cpu:.0f}")
    print_row(engine, f"{pairs:,}", *seconds, f"{rate:,.0f}", *apart)
    return cases


if __name__ == "__main__":
    main()
