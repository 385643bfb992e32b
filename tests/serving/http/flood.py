"""Connections that keep a server waiting, and what honest clients have of it meanwhile.

    python -m tests.serving.http.flood [--connections=1100] [--seconds=60] [--insistent]

serves a stand-in of a scorer and holds connections open to it: a third send nothing, a third half
a header, a third a byte a second. One that the server closes is opened again a second later, or at
once where they are insistent. Meanwhile /health is asked over new connections, up to fifty times a
second, and four honest clients ask for scores, two of them over connections that stay open.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import http.client
import json
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np

from tests.serving.http.clients import payload
from tests.serving.stand_in import served

HONEST, HEALTH_SECONDS = 4, 0.02
HALF = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Half: "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """What honest clients had.

    Attributes:
      health: milliseconds that each /health took. `[request]`
      scores: likewise each request for scores. `[request]`
      failures: what became of the requests that were not answered.
      opened: connections that the flood opened, those again included.
    """

    health: np.ndarray
    scores: np.ndarray
    failures: list[str]
    opened: int


def flooded(address, *, connections, seconds, insistent=False):
    """Returns the service that a server gives while a flood is held for some seconds."""
    flags = [f"--connections={connections}", f"--address={urlsplit(address).netloc}"]
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, *flags]
    command += ["--insistent"] * insistent
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as flood:
        try:
            assert flood.stdout.readline() == "held\n"
            health, scores, failures = honest_service(address, seconds=seconds)
            opened = int(flood.communicate()[0])
        finally:
            flood.kill()
    return Service(health=health, scores=scores, failures=failures, opened=opened)


def honest_service(address, *, seconds):
    failures, stop = [], threading.Event()

    def ask(connection, method, path, body=None):
        started = time.perf_counter()
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failures.append(f"{path}: {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{path}: {error!r}")
            connection.close()
        return 1000 * (time.perf_counter() - started)

    def client(number):
        connection, took = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60), []
        while not stop.is_set():
            took.append(ask(connection, "POST", "/api/score", json.dumps(payload())))
            if number % 2:
                connection.close()
            time.sleep(0.01)
        return took

    def probe():
        took = []
        while not stop.is_set():
            connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
            took.append(ask(connection, "GET", "/health"))
            connection.close()
            time.sleep(HEALTH_SECONDS)
        return took

    with ThreadPoolExecutor(HONEST + 1) as threads:
        probing = threads.submit(probe)
        clients = [threads.submit(client, number) for number in range(HONEST)]
        time.sleep(seconds)
        stop.set()
        scores = [took for one in clients for took in one.result()]
        return np.array(probing.result()), np.array(scores), failures


async def hold(netloc, *, connections, insistent):
    """Holds connections until standard input ends, and returns how many were opened."""
    host, port = netloc.split(":")
    opened = 0

    async def one(kind):
        nonlocal opened
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                opened += 1
                if kind:
                    writer.write(HALF)
                if kind == 2:
                    dripping = asyncio.create_task(drip(writer))
                with contextlib.suppress(OSError):
                    await reader.read()
                if kind == 2:
                    dripping.cancel()
                writer.close()
            if not insistent:
                await asyncio.sleep(1)

    async def drip(writer):
        while not writer.is_closing():
            await asyncio.sleep(1)
            writer.write(b"x")

    holding = [asyncio.create_task(one(number % 3)) for number in range(connections)]
    while opened < connections:
        await asyncio.sleep(0.01)
    print("held", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in holding:
        task.cancel()
    return opened


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=1100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--insistent", action="store_true")
    parser.add_argument("--address", help="of a server to flood until standard input ends")
    given = parser.parse_args()
    flood = {"connections": given.connections, "insistent": given.insistent}
    if given.address:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        print(asyncio.run(hold(given.address, **flood)))
        return
    with served() as (_, address):
        service = flooded(address, seconds=given.seconds, **flood)
    for name, took in (("/health", service.health), ("/api/score", service.scores)):
        middle, late = np.quantile(took, (0.5, 0.99))
        print(f"{name}: {len(took)} requests, P50 {middle:.1f} ms, P99 {late:.1f} ms")
    print(f"not answered: {len(service.failures)} {service.failures[:5]}")
    print(f"connections opened: {service.opened}")


if __name__ == "__main__":
    main()
