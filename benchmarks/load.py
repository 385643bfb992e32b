"""A bundle behind HTTP under load, against the same scorer called in-process.

    python benchmarks/load.py --bundle DIR [--quick] [--json FILE]

The server is `dsirm serve` in a process of its own, its clients are threads of this one, each with
a connection that stays open; in-process the same threads call the scorer. A request is a query with
its candidates, at most 100 items; `cached` queries are those of the bundle, `live` ones are titles
of items, whose SIDs the generator has to write. One client, for 10 s, then 32 for 60 s, as fast as
they are answered. Overload are 256 clients for 20 s, four times as many as may wait, which come
back a second after they were refused: what is refused, and how soon.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from lines import line, print_heading, print_row, write

from dsirm_jax.serving import Scorer, ScorerSettings

CLIENTS, CROWD, ITEMS, QUERIES = 32, 256, 100, 200
ANSWERED, REFUSED, FAILED = 200, 503, 0
Pairs = tuple[str, Sequence[str]]
"""A query and the ids of items."""
Ask = Callable[[Pairs], int]
"""Asks for the scores of pairs and returns the status."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What came of requests for a while.

    Attributes:
      seconds: how long requests came.
      statuses: of each request, `FAILED` where there was no answer. `[request]`
      milliseconds: that each took. `[request]`
    """

    seconds: float
    statuses: np.ndarray
    milliseconds: np.ndarray

    def rate(self) -> float:
        return float((self.statuses == ANSWERED).sum() / self.seconds)

    def time(self, quantile: float, *, status: int = ANSWERED) -> float:
        of = self.milliseconds[self.statuses == status]
        return float(np.quantile(of, quantile)) if len(of) else float("nan")

    def failures(self) -> int:
        return int((~np.isin(self.statuses, (ANSWERED, REFUSED))).sum())


def main() -> None:
    """Prints a table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a sixth of the time")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    seconds = {1: 10.0, CLIENTS: 60.0, CROWD: 20.0}
    if given.quick:
        seconds = {clients: of / 6 for clients, of in seconds.items()}
    with Scorer.open(given.bundle, settings=ScorerSettings(warm=(1, 2, 4, 8, 16, 32))) as scorer:
        titles = [item.title for item in scorer.items((), most=QUERIES)]
        requests = {
            name: [(query, scorer.candidates(query, most=ITEMS)) for query in queries]
            for name, queries in (("cached", scorer.examples(most=QUERIES)), ("live", titles))
        }

        def call(pairs: Pairs) -> int:
            scorer.score(*pairs)
            return ANSWERED

        plan = [(name, clients) for name in requests for clients in (1, CLIENTS)]
        direct = [
            load(lambda: call, requests[name], clients=clients, seconds=seconds[clients])
            for name, clients in plan
        ]
    cases = []
    print_heading(
        *("queries, clients", "requests/s", "in-process", "p50 ms", "in-process", "p99 ms"),
        *("in-process", "refused", "failed"),
    )
    with served(given.bundle) as address:

        def connect() -> Ask:
            return over_http(address)

        for (name, clients), other in zip(plan, direct):
            over = load(connect, requests[name], clients=clients, seconds=seconds[clients])
            cases += compared(f"{name}, {clients}", over, other)
        before = resident(address)
        over = load(connect, requests["live"], clients=CROWD, seconds=seconds[CROWD])
        cases += compared(f"live, {CROWD}", over, None)
        waited = [over.time(quantile, status=REFUSED) for quantile in (0.5, 0.99)]
        grown = resident(address) - before
    print(f"\nrefused after {waited[0]:.1f} ms (p50), {waited[1]:.1f} ms (p99); +{grown:.0f} MB")
    cases.append(line("overload/refused p99", waited[1], None, "ms", ratio=None))
    write(given.json, cases)


def compared(case: str, over: Load, other: Load | None) -> list[dict]:
    """Prints a row and returns its cases."""
    refused = int((over.statuses == REFUSED).sum())
    p50, p99 = over.time(0.5), over.time(0.99)
    if other is None:
        print_row(
            *(case, f"{over.rate():,.0f}", "–", f"{p50:.1f}", "–", f"{p99:.1f}", "–"),
            *(f"{refused:,}", over.failures()),
        )
        return [line(f"{case}/rate", over.rate(), None, "requests/s", ratio=None)]
    print_row(
        *(case, f"{over.rate():,.0f}", f"{other.rate():,.0f}", f"{p50:.1f}"),
        *(f"{other.time(0.5):.1f}", f"{p99:.1f}", f"{other.time(0.99):.1f}"),
        *(f"{refused:,}", over.failures()),
    )
    ratio = over.rate() / other.rate()
    return [
        line(f"{case}/rate", over.rate(), other.rate(), "requests/s", ratio=ratio),
        line(f"{case}/p50", p50, other.time(0.5), "ms", ratio=other.time(0.5) / p50),
        line(f"{case}/failures", over.failures(), 0, "requests", ratio=None),
    ]


def load(
    connect: Callable[[], Ask], requests: Sequence[Pairs], *, clients: int, seconds: float
) -> Load:
    """Asks from several threads, each again as soon as it has an answer.

    Args:
      connect: makes what a thread asks with.
      requests: sent in turn, from another one on by each thread.
      clients: number of threads.
      seconds: how long no thread stops asking.
    """
    taken: list[tuple[int, float]] = []
    started = time.perf_counter()

    def run(number: int) -> None:
        ask = connect()
        for pairs in itertools.islice(itertools.cycle(requests), number, None):
            begun = time.perf_counter()
            if begun > started + seconds:
                return
            try:
                status = ask(pairs)
            except OSError:
                status, ask = FAILED, connect()
            taken.append((status, 1e3 * (time.perf_counter() - begun)))
            if status == REFUSED:
                time.sleep(1)  # as Retry-After says

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses, milliseconds = map(np.array, zip(*taken))
    return Load(seconds=time.perf_counter() - started, statuses=statuses, milliseconds=milliseconds)


def over_http(address: str) -> Ask:
    """Returns what asks a server, over a connection of its own."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)

    def ask(pairs: Pairs) -> int:
        query, ids = pairs
        body = json.dumps({"query": query, "items": ids})
        connection.request("POST", "/api/score", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status

    return ask


@contextlib.contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serves a bundle, and yields its address when it is ready."""
    command = [sys.executable, "-m", "dsirm_jax", "serve", f"--bundle={bundle}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[1].rstrip("/")
            while fetched(address, "/ready")[0] != ANSWERED:
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()


def fetched(address: str, path: str) -> tuple[int, str]:
    """Returns status and text of a page."""
    connection = HTTPConnection(urlsplit(address).netloc)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def resident(address: str) -> float:
    """Returns the MB of memory that the server has now."""
    _, text = fetched(address, "/metrics")
    return float(re.search(r"^process_resident_memory_bytes (\S+)", text, re.M)[1]) / 1e6


if __name__ == "__main__":
    main()
