"""Cached queries: how soon a table answers, and what it takes, the bundle's own and Redis.

    python benchmarks/queries.py [--bundle DIR] [--sizes N ...] [--quick] [--json FILE]

Tables of made-up queries, each with the record of a cached query of the bundle (`make demo`, then
`dsirm export`). Embedded: a file as bundles have it. Redis: a server of its own on this machine, by
a Unix socket, without a copy on disk, where there is a `redis-server` and room for the table. A
call gets one query that is there, drawn evenly, as text and arrays; callers are threads of one
process, and each calls again at once. Cold: the first calls after the file has left the page cache.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from lines import line, print_heading, print_row, write
from timing import of_callers

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle import store
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.queries.embedded import EmbeddedTable
from dsirm_jax.serving.queries.redis_store import RedisQueries, RedisWriter
from dsirm_jax.serving.queries.table import QueryTable
from dsirm_jax.serving.queries.values import Values

SIZES, CALLERS, CALLS, COLD_CALLS = (10_000, 1_000_000, 10_000_000), (1, 8), 20_000, 200
WRITTEN_AT_ONCE = 1024
REDIS = shutil.which("redis-server")
REDIS_SHARE = 0.5
"""Of the memory that is free, how much a table in Redis may take."""
PATIENT = 60.0
"""Seconds that a call may wait: a late answer would be none."""


def main() -> None:
    """Prints tables and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("out/demo/export/bundle"))
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="queries of a table")
    parser.add_argument("--quick", action="store_true", help="small tables and fewer calls")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    sizes, calls = ((1_000, 10_000), 2_000) if given.quick else (given.sizes, CALLS)
    print_heading("table", "queries", "callers", "P50 us", "P99 us", "calls/s")
    cases, taken = [], []
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            for name, opened in (("embedded", embedded), ("redis", in_redis)):
                with opened(bundle, Path(scratch), queries=size) as table:
                    if table is None:
                        continue
                    cases += asked(name, table[0], queries=size, calls=calls)
                    taken.append((name, size, *table[1:]))
    print_heading("table", "queries", "written/s", "bytes a query", "cold P50 us")
    for name, size, rate, size_of_one, cold in taken:
        shown = "–" if cold is None else f"{cold:,.0f}"
        print_row(name, f"{size:,}", f"{rate:,.0f}", f"{size_of_one:,.0f}", shown)
        cases.append(line(f"{name}/{size:.0e}/written", rate, None, "queries/s", ratio=None))
        cases.append(line(f"{name}/{size:.0e}/size", size_of_one, None, "bytes", ratio=None))
    write(given.json, cases)


def text_of(number: int) -> str:
    """Returns the text of a query, in whose order keys rise."""
    return f"query {number:08}"


def records_of(bundle: Bundle) -> list[np.void]:
    """Returns the records of the bundle's cached queries."""
    kept = bundle.catalogue.cached_queries()
    return [np.frombuffer(record, bundle.catalogue.record)[0] for _, record in kept]


@contextlib.contextmanager
def embedded(
    bundle: Bundle, scratch: Path, *, queries: int
) -> Iterator[tuple[QueryTable, float, float, float | None]]:
    """Yields a table in a file, how fast it was written, its size, and P50 of the first calls."""
    path = scratch / "queries.mdb"
    spelt = [record.tobytes() for record in records_of(bundle)]
    rows = (
        (store.key(text), spelt[number % len(spelt)] + text.encode())
        for number, text in enumerate(map(text_of, range(queries)))
    )
    started = time.perf_counter()
    store.write_store(path, rows)
    rate = queries / (time.perf_counter() - started)
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    catalogue = dataclasses.replace(bundle.catalogue, queries=store.open_store(path))
    table = EmbeddedTable(catalogue=catalogue)
    cold, _ = timed(table, queries=queries, callers=1, calls=COLD_CALLS, seed=1)
    yield table, rate, path.stat().st_size / queries, float(np.median(cold))
    path.unlink()


@contextlib.contextmanager
def in_redis(
    bundle: Bundle, scratch: Path, *, queries: int
) -> Iterator[tuple[QueryTable, float, float, float | None] | None]:
    """Yields a table in Redis as `embedded` does; None where there is no server or no room."""
    records, values = records_of(bundle), Values.of(bundle)
    needed = queries * len(values.value(text_of(0), records[0]))
    if REDIS is None or needed > REDIS_SHARE * psutil.virtual_memory().available:
        why = "no redis-server is here" if REDIS is None else f"no room for {needed / 1e9:.0f} GB"
        print(f"Redis is left out: {why}")
        yield None
        return
    socket = scratch / "redis.sock"
    flags = {"port": "0", "unixsocket": socket, "save": "", "appendonly": "no"}
    command = [REDIS, *itertools.chain(*((f"--{name}", str(flags[name])) for name in flags))]
    with subprocess.Popen(command, cwd=scratch, stdout=subprocess.DEVNULL) as server:
        try:
            while not socket.exists():
                time.sleep(0.05)
            settings = RedisQueries(url=f"unix://{socket}", seconds=PATIENT)
            memory = psutil.Process(server.pid).memory_info
            before, started = memory().rss, time.perf_counter()
            load(RedisWriter(settings, values=values), records, values, queries=queries)
            rate = queries / (time.perf_counter() - started)
            table = settings.open(bundle)
            yield table, rate, (memory().rss - before) / queries, None
            table.close()
        finally:
            server.terminate()


def load(writer: RedisWriter, records: list[np.void], values: Values, *, queries: int) -> None:
    """Writes queries into Redis."""
    for start in range(0, queries, WRITTEN_AT_ONCE):
        numbers = range(start, min(start + WRITTEN_AT_ONCE, queries))
        rows = [
            (values.key(text), values.value(text, records[number % len(records)]))
            for number, text in zip(numbers, map(text_of, numbers), strict=True)
        ]
        writer.write(rows)
    writer.close()


def asked(name: str, table: QueryTable, *, queries: int, calls: int) -> Iterator[dict]:
    """Yields how soon a table answers."""
    for callers in CALLERS:
        timed(table, queries=queries, callers=callers, calls=calls // 10, seed=2)
        microseconds, seconds = timed(table, queries=queries, callers=callers, calls=calls, seed=3)
        middle, last = np.quantile(microseconds, [0.5, 0.99])
        rate = f"{len(microseconds) / seconds:,.0f}"
        print_row(name, f"{queries:,}", callers, f"{middle:,.0f}", f"{last:,.0f}", rate)
        case = f"{name}/{queries:.0e}/{callers} callers"
        yield line(f"{case}/P50", middle, None, "us", ratio=None)
        yield line(f"{case}/P99", last, None, "us", ratio=None)


def timed(
    table: QueryTable, *, queries: int, callers: int, calls: int, seed: int
) -> tuple[np.ndarray, float]:
    """Returns microseconds of every call, and the seconds that all took."""
    numbers = np.random.default_rng(seed).integers(0, queries, (callers, calls // callers))
    texts = [[text_of(number) for number in own] for own in numbers.tolist()]

    def call(caller: int, number: int) -> None:
        text = texts[caller][number]
        found = table.get(text, until=time.monotonic() + 2 * PATIENT)
        if found is None or found.text != text:
            raise InputError(f"{text!r} is not where it was written")

    milliseconds, seconds = of_callers(call, callers=callers, calls=calls // callers)
    return 1e3 * milliseconds, seconds


if __name__ == "__main__":
    main()
