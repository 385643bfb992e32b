"""What SIDs are worth to a ranker of one's own: LambdaMART with and without their columns.

    python benchmarks/rankers.py RUN [RUN ...] [--json FILE]

RUN is a MODEL_DIR of which `dsirm score --features` is done, see docs/rankers.md; of several, such
as the folds of a set too small for one test split, the test queries are judged together. Each
ranker is fitted on a run's split `head` and judged on its split `test`, with the settings of that
page but for rows and columns that are drawn by a seed; nDCG@10 of a query is the mean over five.
Intervals are a bootstrap over queries, that of the difference paired.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write

from dsirm_jax.metrics import bootstrap, ranking

OF_SIDS = ("paper_match", "prefix", "neighbours")
SEEDS = range(5)
SETTINGS = {"n_estimators": 150, "num_leaves": 8, "learning_rate": 0.05, "min_child_samples": 20}
# Without rows and columns drawn at random a seed makes no difference.
DRAWN = {"subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8}


def main() -> None:
    """Prints the table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a MODEL_DIR")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    tables = [pq.read_table(run / "score" / "features.parquet") for run in given.runs]
    known = {field.name: _group(field) for field in tables[0].schema if _group(field)}
    without = [name for name, group in known.items() if group not in OF_SIDS]
    values = {
        "without SIDs": np.concatenate([ndcg(table, without) for table in tables]),
        "with SIDs": np.concatenate([ndcg(table, [*known]) for table in tables]),
    }
    values["difference"] = values["with SIDs"] - values["without SIDs"]
    pairs = sum(_judged(table, "test").num_rows for table in tables)
    found, samples = bootstrap.bootstrap(
        {name: bootstrap.mean_over_queries(of) for name, of in values.items()},
        num_queries=len(values["difference"]),
        num_pairs=pairs,
        resamples=1000,
        seed=0,
    )
    cases = []
    print_heading(f"{len(values['difference'])} queries, {pairs} pairs", "nDCG@10", "95 %")
    for name, value in found.items():
        bounds = bootstrap.interval(value, samples[name])
        print_row(name, f"{value:.4f}", f"[{bounds.low:+.4f}, {bounds.high:+.4f}]")
        cases.append(line(f"rankers/{name}", value, None, "nDCG@10", ratio=None))
    write(given.json, cases)


def ndcg(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Returns nDCG@10 of a run's test queries by rankers that read some columns."""
    head, test = (_judged(table, split) for split in ("head", "test"))
    grades = np.unique(table["gain"].drop_null())
    of_head, of_test = (_queries(rows) for rows in (head, test))
    by_seed = []
    for seed in SEEDS:
        ranker = lightgbm.LGBMRanker(
            **SETTINGS, **DRAWN, deterministic=True, n_jobs=1, verbose=-1, seed=seed
        )
        labels = np.searchsorted(grades, head["gain"].to_numpy())
        ranker.fit(_values(head, names), labels, group=np.bincount(of_head))
        scores = ranker.predict(_values(test, names))
        gains = test["gain"].to_numpy()
        by_seed.append(ranking.ndcg_per_query(of_test, gains, scores, k=10))
    return np.mean(by_seed, axis=0)


def _group(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"group", b"").decode()


def _judged(table: pa.Table, split: str) -> pa.Table:
    rows = table.filter((pc.field("split") == split) & pc.field("gain").is_valid())
    return rows.sort_by("query")


def _queries(rows: pa.Table) -> np.ndarray:
    return np.unique(rows["query"].to_numpy(), return_inverse=True)[1]


def _values(rows: pa.Table, names: Sequence[str]) -> np.ndarray:
    return np.column_stack([rows[name].to_numpy() for name in names])


if __name__ == "__main__":
    main()
