"""What alignment with rewards is worth: hits of the aligned generator over the supervised one.

    python benchmarks/aligned.py [--seeds N] [--experts K ...] [--quick] [--json FILE]
        [--scratch DIR]

Simulated shops, one a seed, through `dsirm prepare` to `generate` as gin/runs/demo.gin with
gin/models/aligned.gin has them; K experts join the samples of a group (CQ-SID's EG-GRPO has 2, its
plain GRPO none). Both generators search with 100 beams for test queries that nothing has seen. A
hit and its interval are as in benchmarks/hits.py: a bootstrap over the queries of all seeds. With
--scratch an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import TEST
from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.generator.fitted import load_with_sids
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.metrics.retrieval import HITS_AT, first_hits
from dsirm_jax.relevance.evaluate import evaluate_hits
from dsirm_jax.run.layout import Layout

ALIGNED, SUPERVISED = RUNGS = ("aligned", "supervised")
EARLIER = ("prepare", "encode", "quantize")
BATCH = 32
SHOWN = (1, 10)


def main() -> None:
    """Runs what is not finished, then prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, help="shops; 3")
    parser.add_argument("--experts", type=int, nargs="+", default=(0, 2))
    parser.add_argument("--quick", action="store_true", help="one shop of 1,000 items")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--scratch", type=Path, help="folder of all runs, kept and gone on with")
    given = parser.parse_args()
    flags = ["--gin_file=gin/runs/demo.gin", "--gin_file=gin/models/aligned.gin"]
    flags.append("--gin.job.Job.rungs=()")
    if given.quick:
        flags.append("--gin.simulated_shop.SimulatedShop.items=1000")
    seeds, cases = range(given.seeds or (1 if given.quick else 3)), []
    print_heading("experts", "queries", "level", "k", *RUNGS, "difference (95 %)", "kept, of runs")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = given.scratch or Path(temporary)
        for experts in given.experts:
            runs = [_run(flags, scratch, seed=seed, experts=experts) for seed in seeds]
            cases += _compared(runs, experts=experts)
    write(given.json, cases)


def _run(flags: Sequence[str], scratch: Path, *, seed: int, experts: int) -> Layout:
    """Runs the stages that are not finished yet; those before `generate` once a seed."""
    first = scratch / f"seed-{seed}"
    _stages(EARLIER, [*flags, f"--gin.SEED={seed}"], first)
    folder = scratch / f"seed-{seed}-experts-{experts}"
    if not folder.exists():
        shutil.copytree(first, folder)
    more = [f"--gin.SEED={seed}", f"--gin.alignment.Alignment.experts={experts}"]
    _stages(("generate",), [*flags, *more], folder)
    return Layout(model_dir=folder)


def _stages(stages: Sequence[str], flags: Sequence[str], folder: Path) -> None:
    placed = f"--gin.MODEL_DIR={str(folder.absolute())!r}"
    for stage in stages:
        done = subprocess.run([sys.executable, "-m", "dsirm_jax", stage, *flags, placed])
        if done.returncode:
            raise SystemExit(done.returncode)


def _ranks(layout: Layout, generator: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the test queries that have a relevant item, and `first_hits` of a generator."""
    fitted, trie, sids = load_with_sids(generator, sids=layout.sids)
    names = ("query_index", "item_index", "relevant", "split")
    query, item, relevant, split = read_judgements(layout.judgements, *names).values()
    counted = relevant & (split == TEST)
    queries, row = np.unique(query[counted], return_inverse=True)
    vocabulary = vocabularies.of_generator(layout.generator_vocabulary, of_run=layout.vocabulary)
    texts = pq.read_table(layout.queries, columns=["query"])["query"].take(queries).to_pylist()
    beams = predict_sids(
        fitted=fitted,
        trie=trie,
        pieces=fitted.reading(vocabulary).pieces(texts),
        beams=max(HITS_AT),
        batch_size=BATCH,
    )
    found, _, valid = map(np.asarray, beams)
    return queries, first_hits(found, valid, query_index=row, relevant_sids=sids[item[counted]])


def _compared(runs: Sequence[Layout], *, experts: int) -> Iterator[dict]:
    """Yields the cases of one number of experts."""
    ranks, counts, segments = {rung: [] for rung in RUNGS}, [], []
    for layout in runs:
        for rung, generator in zip(
            RUNGS, (layout.generator, layout.supervised_generator), strict=True
        ):
            queries, of_queries = _ranks(layout, generator)
            ranks[rung].append(of_queries)
        counts.append(len(queries))
        segment = pq.read_table(layout.queries, columns=["segment"])["segment"]
        segments += segment.take(queries).to_pylist()
    rows = np.arange(sum(counts))
    found = evaluate_hits(
        {rung: (rows, np.concatenate(of_rung)) for rung, of_rung in ranks.items()},
        segment=np.array(segments),
        identity=rows,
        lifts=(RUNGS,),
    )
    (lift,) = found["lifts"].values()
    kept = sum(json.loads(layout.alignment_result.read_text())["is_aligned"] for layout in runs)
    for level in sorted(key for key in lift if key.startswith("level_")):
        for k in SHOWN:
            ours, other = (found["rungs"][rung][level][f"hit@{k}"]["value"] for rung in RUNGS)
            apart = lift[level][f"hit@{k}"]
            print_row(
                *(experts, len(rows), level.removeprefix("level_"), k),
                *(f"{100 * value:.1f} %" for value in (ours, other)),
                f"{apart['value']:+.4f} ({apart['low']:+.4f} to {apart['high']:+.4f})",
                f"{kept} of {len(runs)}",
            )
            yield line(
                f"aligned/{experts} experts/{level}/{k}",
                *(ours, other, "share"),
                ratio=ours / other if other else None,
            )


if __name__ == "__main__":
    main()
