"""How soon the generator writes the SID of a relevant item: query-bridged against unsupervised.

    python benchmarks/hits.py [--esci DIR] [--minilm DIR] [--quick] [--json FILE] [--scratch DIR]

Data: simulated shops, one a seed, and the official ESCI files where a folder is given, each through
`dsirm prepare` to `generate` as gin/runs/ has it, the latter's vectors from a pretrained encoder
where its folder is given. A hit is a test query, unseen by every stage, with a relevant item's SID,
or its first codes, among the first 1, 5, 10 or 100 of a search with 100 beams. A query counts
once for every seed that has it, and is drawn for all of them: intervals are a bootstrap over
queries. With --scratch an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write

from dsirm_jax.metrics.retrieval import HITS_AT
from dsirm_jax.relevance.evaluate import evaluate_hits
from dsirm_jax.relevance.tables import read_hits
from dsirm_jax.run.layout import FULL, Layout

RUNGS = (FULL, "unsupervised")
SEEDS = range(3)
RESAMPLES = 1000
STAGES = ("prepare", "encode", "quantize", "generate")


def main() -> None:
    """Runs what is not finished, then prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esci", type=Path, help="folder of the official ESCI files")
    parser.add_argument("--minilm", type=Path, help="folder of a pretrained encoder for ESCI")
    parser.add_argument("--quick", action="store_true", help="a shop of 1,000 items, one seed")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--scratch", type=Path, help="folder of all runs, kept and gone on with")
    given = parser.parse_args()
    shop = ["--gin_file=gin/runs/demo.gin"]
    if given.quick:
        shop.append("--gin.simulated_shop.SimulatedShop.items=1000")
    data = {"shop": shop}
    if given.esci:
        data["ESCI"] = [
            "--gin_file=gin/runs/esci.gin",
            f"--gin.DATA_DIR={str(given.esci.absolute())!r}",
        ]
        if given.minilm:
            data["ESCI"] += [
                "--gin_file=gin/models/minilm.gin",
                f"--gin.ENCODER={str(given.minilm.absolute())!r}",
            ]
    lines = []
    print_heading("data", "queries", "agree in", "k", *RUNGS, "difference (95 %)")
    with tempfile.TemporaryDirectory() as temporary:
        for name, flags in data.items():
            runs = [
                _run(flags, seed, (given.scratch or Path(temporary)) / f"{name}-{seed}")
                for seed in SEEDS[: 1 if given.quick else None]
            ]
            lines += _compared(name, runs)
    write(given.json, lines)


def _run(flags: Sequence[str], seed: int, folder: Path) -> Layout:
    """Runs the stages that are not finished yet."""
    more = [f"--gin.MODEL_DIR={str(folder.absolute())!r}", f"--gin.SEED={seed}"]
    for stage in STAGES:
        done = subprocess.run([sys.executable, "-m", "dsirm_jax", stage, *flags, *more])
        if done.returncode:
            raise SystemExit(done.returncode)
    return Layout(model_dir=folder)


def _compared(name: str, runs: Sequence[Layout]) -> Iterator[dict]:
    """Yields the cases of one data set, all its queries and those of each segment."""
    texts, segments, ranks = [], [], {rung: [] for rung in RUNGS}
    for seed, layout in enumerate(runs):
        table = pq.read_table(layout.queries, columns=["query", "segment"])
        queries = read_hits(layout.hits)[0]
        # Every seed is another shop; the queries of the official files are the same.
        of_seed = f"{seed} " if name == "shop" else ""
        texts += [of_seed + text for text in table["query"].take(queries).to_pylist()]
        segments += table["segment"].take(queries).to_pylist()
        for rung in RUNGS:
            ranks[rung].append(read_hits(layout.for_rung(rung).hits)[1])
    rows, segment = np.arange(len(texts)), np.array(segments)
    identity = np.unique(texts, return_inverse=True)[1]
    found = evaluate_hits(
        {rung: (rows, np.concatenate(of_rung)) for rung, of_rung in ranks.items()},
        segment=segment,
        identity=identity,
        lifts=(RUNGS,),
        resamples=RESAMPLES,
    )
    yield from _part(name, found, queries=len({*identity}))
    for part, of_part in found["segments"].items():
        yield from _part(f"{name}/{part}", of_part, queries=len({*identity[segment == part]}))


def _part(name: str, found: Mapping[str, Any], *, queries: int) -> Iterator[dict]:
    (lift,) = found["lifts"].values()
    levels = [key for key in lift if key.startswith("level_")]
    for level, key in enumerate(levels, start=1):
        for k in HITS_AT:
            at = f"hit@{k}"
            ours, other = (found["rungs"][rung][key][at]["value"] for rung in RUNGS)
            agree = "whole SID" if level == len(levels) else f"{level}"
            shown = (f"{100 * value:.1f} %" for value in (ours, other))
            apart = lift[key][at]
            difference = f"{apart['value']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f})"
            print_row(name, queries, agree, k, *shown, difference)
            yield line(
                f"hits/{name}/level {level}/{k}",
                *(ours, other, "share"),
                ratio=ours / other if other else None,
            )


if __name__ == "__main__":
    main()
