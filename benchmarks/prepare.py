"""`prepare` at the size shops have: time, peak memory and the same rows, and pandas beside it.

    python benchmarks/prepare.py [--quick] [--json FILE]

Growth: the simulated shop with 5 judgements an item through the whole stage (checks, joins,
vocabulary, TFDS dataset), each size in a process of its own. Shards: the same tables in 1, 2 and 7
Parquet files. pandas: the joins and counts alone, in memory, on the same files, without checking or
cleaning a row. Memory is the sum over the process and its workers (proportional set size).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write
from watched import Taken, watched

GIB = 2**30
GAINS = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}
TABLES = ("items", "queries", "judgements", "examples")


def main() -> None:
    """Runs all cases, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1e3 to 1e4 items")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--case", nargs=3, metavar=("KIND", "WHAT", "DIR"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        kind, what, folder = given.case
        CASES[kind](int(what), Path(folder))
        return
    sizes = (1_000, 10_000) if given.quick else (10_000, 100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as scratch:
        lines = [*_growth(sizes, Path(scratch)), *_shards(sizes[-1], Path(scratch))]
    write(given.json, lines)


def _compared(case: str, ours: float, other: float, unit: str) -> dict:
    return line(case, ours, other, unit, ratio=other / ours)


def _growth(sizes: tuple[int, ...], scratch: Path) -> list[dict]:
    print_heading("items", "judgements", "seconds", "us a row", "peak GiB")
    lines, first = [], None
    for items in sizes:
        taken = _measured("shop", items, scratch / f"shop-{items}")
        summary = json.loads((scratch / f"shop-{items}" / "summary.json").read_text())
        rows = summary["items"]["read"] + summary["judgements"]["read"]
        cost = taken.seconds / rows * 1e6
        first = first or cost
        judgements = f"{summary['judgements']['read']:,}"
        gib = taken.peak / GIB
        print_row(f"{items:,}", judgements, f"{taken.seconds:.0f}", f"{cost:.0f}", f"{gib:.2f}")
        lines += [
            _compared(f"growth/items={items}", cost, first, "us a row"),
            _compared(f"memory/items={items}", gib, 3.0, "GiB, other: what is allowed"),
        ]
    return lines


def _shards(items: int, scratch: Path) -> list[dict]:
    print(f"\n{items:,} items\n")
    print_heading("case", "seconds", "peak GiB", "rows")
    lines, sums = [], set()
    for shards in (1, 2, 7):
        folder = scratch / f"tables-{shards}"
        _export(items, shards, folder)
        ours = _measured("tables", shards, folder)
        checksum = _checksum(folder)
        sums.add(checksum)
        print_row(f"{shards} shards", f"{ours.seconds:.1f}", f"{ours.peak / GIB:.2f}", checksum)
    other = _measured("pandas", 7, scratch / "tables-7")
    print_row("pandas", f"{other.seconds:.1f}", f"{other.peak / GIB:.2f}", "")
    lines.append(_compared("shards/distinct contents of 1, 2 and 7", len(sums), 1, "contents"))
    lines.append(_compared(f"pandas/items={items}", ours.seconds, other.seconds, "s"))
    lines.append(
        _compared(f"pandas/memory/items={items}", ours.peak / GIB, other.peak / GIB, "GiB")
    )
    return lines


def _measured(kind: str, what: int, folder: Path) -> Taken:
    """Runs a case in a fresh process."""
    folder.mkdir(parents=True, exist_ok=True)
    return watched([sys.executable, __file__, "--case", kind, str(what), str(folder)])


def _shop(items: int):
    from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop

    # About 12 of the 16 judgements asked for a query come out.
    return SimulatedShop(items=items, queries=round(items * 5 / 12))


def _run_shop(items: int, folder: Path) -> None:
    from dsirm_jax.data import dataset

    _prepare(_shop(items), folder)
    dataset.write_dataset(prepare_dir=folder, data_dir=folder / "tfds")


def _run_tables(shards: int, folder: Path) -> None:
    from dsirm_jax.ingestion.readers.tables import Tables

    del shards
    source = Tables(
        items=str(folder / "items-*.parquet"), judgements=str(folder / "judgements-*.parquet")
    )
    _prepare(source, folder / "out")


def _prepare(source, folder: Path) -> None:
    from dsirm_jax.ingestion.prepare import prepare

    prepare(
        source=source,
        out_dir=folder,
        label_gains=GAINS,
        relevant_labels=("E",),
        seed=0,
        vocabulary_size=4000,
    )


def _run_pandas(shards: int, folder: Path) -> None:
    import numpy as np
    import pandas as pd

    del shards
    items = pd.concat(map(pd.read_parquet, sorted(folder.glob("items-*.parquet"))))
    judged = pd.concat(map(pd.read_parquet, sorted(folder.glob("judgements-*.parquet"))))
    items = items.drop_duplicates("item_id").sort_values("item_id", ignore_index=True)
    items["item_index"] = items.index
    judged = judged[judged["item_id"].isin(items["item_id"])]
    judged["gain"] = judged["label"].map(GAINS)
    pairs = judged.groupby(["query", "item_id"], as_index=False).agg(
        {"gain": "max", "clicks": "sum", "impressions": "sum", "purchases": "sum"}
    )
    queries = judged.groupby("query", as_index=False)["query_frequency"].max()
    traffic = queries.sort_values("query_frequency", ascending=False)["query_frequency"].cumsum()
    queries["segment"] = np.digitize(traffic.sort_index() / traffic.max(), [0.5, 0.8])
    queries = queries.sort_values("query", ignore_index=True)
    queries["query_index"] = queries.index
    pairs = pairs.merge(items[["item_id", "item_index", "title"]], on="item_id")
    pairs = pairs.merge(queries, on="query").sort_values(["query", "item_id"])
    for name, table in (("items", items), ("queries", queries), ("pairs", pairs)):
        table.to_parquet(folder / f"pandas_{name}.parquet")


CASES = {"shop": _run_shop, "tables": _run_tables, "pandas": _run_pandas}


def _export(items: int, shards: int, folder: Path) -> None:
    """Writes the shop's raw tables, dealt out to shards chunk by chunk."""
    import pyarrow as pa

    source = _shop(items).read()
    folder.mkdir(parents=True)
    for name, parts in (("items", source.items), ("judgements", source.judgements)):
        tables = [chunk.table for part in parts for chunk in part()]
        rows = pa.concat_tables(tables)
        for shard in range(shards):
            path = folder / f"{name}-{shard}.parquet"
            pq.write_table(rows.take(pa.array(range(shard, len(rows), shards))), path)


def _checksum(folder: Path) -> str:
    """Returns a hash of all rows, in the order of their keys, in which they are written."""
    digest = hashlib.sha256()
    for name in TABLES:
        for batch in pq.ParquetFile(folder / "out" / f"{name}.parquet").iter_batches(65_536):
            digest.update(repr(batch.to_pylist()).encode())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    main()
