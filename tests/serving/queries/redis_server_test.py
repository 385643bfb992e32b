"""A Redis that is killed, stopped and back while a server is under load."""

import contextlib
import itertools
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.queries.loading import load_queries
from dsirm_jax.serving.queries.redis_store import RedisQueries
from dsirm_jax.serving.scorer.generation import generate
from tests.serving.http.clients import listening, until

REDIS = shutil.which("redis-server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REDIS, reason="no redis-server here: apt-get install redis-server"),
]
QUERIES = [f"grau phone case {number}" for number in range(8)]
LATE = 1.0
"""Seconds that the generator takes; callers wait for half a second, so that it is always late."""


@contextlib.contextmanager
def redis_server(folder, port):
    """Starts a Redis whose rows are on the disk before it says so, and yields its process."""
    flags = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": ""}
    flags |= {"appendonly": "yes", "appendfsync": "always", "daemonize": "no"}
    command = [REDIS, *itertools.chain(*((f"--{name}", str(flags[name])) for name in flags))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: accepts(port))
            yield process
        finally:
            process.kill()


def accepts(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def late(*given):
    time.sleep(LATE)
    return generate(*given)


@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_no_request_fails_fallbacks_are_counted_and_it_is_back_by_itself(
    bundle, made, tmp_path, what
):
    port = free_port()
    store = RedisQueries(url=f"redis://127.0.0.1:{port}/0", seconds=0.2, rest=0.2)
    (tmp_path / "queries.csv").write_text("\n".join(["query", *QUERIES]))
    settings = ScorerSettings(deadline=0.5, remembered=0, waiting=1024, queries=store)
    stop, answers = threading.Event(), []

    def client(number, url):
        with httpx2.Client(base_url=url, timeout=60) as calls:
            for query in itertools.cycle(QUERIES[number:] + QUERIES[:number]):
                if stop.is_set():
                    return
                told = calls.post("/api/score", json={"query": query, "items": ["item 1"]})
                answers.append((told.status_code, told.json().get("source")))

    def come(source, number=20):
        """Waits until so many further answers are of a source."""
        before = len(answers)
        until(lambda: sum(of == source for _, of in answers[before:]) >= number)

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(redis_server(tmp_path, port))
        assert load_queries(made, queries=str(tmp_path / "queries.csv"), store=store) == 8
        scorer = stack.enter_context(Scorer(bundle, settings=settings, run=late))
        _, at = stack.enter_context(listening(scorer, workers=4))
        url = f"http://127.0.0.1:{at}"
        until(lambda: httpx2.get(f"{url}/ready").status_code == 200)
        threads = stack.enter_context(ThreadPoolExecutor(4))
        clients = [threads.submit(client, number, url) for number in range(4)]
        stack.callback(stop.set)
        come("cached")
        running = threading.active_count()
        first.send_signal(what)
        come("fallback")
        until(lambda: scorer.statistics()["store_skipped"] >= 10)
        assert threading.active_count() <= running + 2
        if what == signal.SIGKILL:
            first.wait()
            stack.enter_context(redis_server(tmp_path, port))
        else:
            first.send_signal(signal.SIGCONT)
        come("cached")
        stop.set()
        for one in clients:
            one.result()
        counts, metrics = scorer.statistics(), httpx2.get(f"{url}/metrics").text
    assert {status for status, _ in answers} == {200}
    assert counts["fallback"] == sum(of == "fallback" for _, of in answers) >= 20
    assert counts["store_failed"] >= 1 and counts["store_skipped"] >= 10
    assert counts["store_hits"] == sum(of == "cached" for _, of in answers)
    assert f"dsirm_scorer_store_hits {float(counts['store_hits'])}" in metrics
