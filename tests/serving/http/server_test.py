"""A server that is starting, busy, stopped or killed."""

import asyncio
import dataclasses
import http.client
import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import ScorerSettings
from dsirm_jax.serving.http.server import application, hosts_of, listen
from dsirm_jax.serving.http.settings import ServerSettings
from dsirm_jax.serving.scorer.arguments import query_text
from tests.serving.http.clients import (
    client_of,
    fetch,
    listening,
    payload,
    until,
    wait_until_ready,
)
from tests.serving.stand_in import Gated, StandIn, served


def test_more_than_may_wait_is_refused_at_once_and_the_rest_answered():
    scorer = Gated()
    app = application(scorer, settings=ServerSettings(workers=2, waiting=3))
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)

    async def crowd():
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            asking = [asyncio.create_task(client.get("/api/sids?query=toy")) for _ in range(20)]
            while sum(task.done() for task in asking) < 15:
                await asyncio.sleep(0.001)
            alive = await client.get("/health")  # the event loop is free though threads are not
            told = (await client.get("/metrics")).text
            scorer.gate.set()
            return alive, told, [await task for task in asking]

    alive, told, answers = asyncio.run(crowd())
    assert alive.status_code == 200
    assert "dsirm_admitted 5.0" in told and "dsirm_refused_total 15.0" in told
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(refused) == 15 and sum(answer.status_code == 200 for answer in answers) == 5
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert refused[0].json()["reason"] == "5 requests are running or waiting; try again"


def test_it_is_ready_after_the_first_call(scorer):
    gated = Gated()
    with client_of(gated) as client:
        waiting = client.get("/ready")
        assert (waiting.status_code, client.get("/health").status_code) == (503, 200)
        assert "warming up" in waiting.json()["reason"]
        assert gated.warmed == (1, 2, 4)  # as many as four threads may ask for at once
        gated.gate.set()
        wait_until_ready(client)


class LongTitle(StandIn):
    """The title of its first item is longer than a query may be, as a scorer has it."""

    def __init__(self):
        super().__init__(items=40)
        self._items[0] = dataclasses.replace(self._items[0], title="plush toy " * 200)

    def query_sids(self, query, *, deadline=None):
        query_text(query, most_characters=ScorerSettings().most_characters)
        return super().query_sids(query, deadline=deadline)


def test_it_is_ready_whatever_the_titles_of_its_items_are():
    scorer = LongTitle()
    with client_of(scorer, retry_seconds=0.01) as client:
        deadline = time.monotonic() + 60
        while client.get("/ready").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert client.get("/ready").status_code == 200


class Faltering(StandIn):
    """It cannot be warmed up before `attempts` have failed."""

    def __init__(self, attempts):
        super().__init__(items=40)
        self.attempts, self.gate = attempts, threading.Event()

    def warm(self, *batches):
        if self.attempts:
            self.attempts -= 1
            raise RuntimeError("a secret of the device")
        assert self.gate.wait(600)


def test_a_first_call_that_fails_is_told_logged_and_tried_again(caplog):
    scorer = Faltering(attempts=2)
    with client_of(scorer, retry_seconds=0.01) as client:
        while scorer.attempts:
            assert client.get("/ready").status_code == 503
        reason = client.get("/ready").json()["reason"]
        assert "could not be warmed up (RuntimeError; the server's log has it)" in reason
        assert "secret" not in reason
        scorer.gate.set()
        wait_until_ready(client)
    assert caplog.text.count("cannot be warmed up; trying again in 0.01 s") == 2
    assert "RuntimeError: a secret of the device" in caplog.text


def test_a_server_that_cannot_be_warmed_up_stops_when_it_is_told_to():
    with client_of(Faltering(attempts=10**9), retry_seconds=0.001) as client:
        while "could not" not in client.get("/ready").json()["reason"]:
            time.sleep(0.001)
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("workers", [1, 2], ids=["waiting", "under way"])
def test_a_stop_while_the_scorer_is_cold_answers_503(workers):
    scorer = Gated()  # the first thread is warming up, behind the gate
    with (
        ThreadPoolExecutor(3) as threads,
        listening(scorer, workers=workers, goodbye_seconds=1) as (server, port),
    ):
        asked = [threads.submit(ask_raw, port) for _ in range(3)]
        until(lambda: len(server.server_state.tasks) == 3)
        stopped = time.monotonic()
        server.should_exit = True  # as uvicorn does where SIGTERM comes
        answers = [one.result() for one in asked]
        until(lambda: not server.server_state.tasks)
        assert 0.9 < time.monotonic() - stopped < 30
        scorer.gate.set()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer.lower()
        assert b'{"code":"busy","reason":"the server is stopping; try again"}' in answer


def ask_raw(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /api/sids?query=toy HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("127.0.0.2", {"127.0.0.2", "127.0.0.1"}),
        ("127.1", {"127.1", "127.0.0.1"}),
        ("localhost", {"localhost", "127.0.0.1"}),
        ("::1", {"[::1]"}),
        ("0:0:0:0:0:0:0:1", {"[::1]", "[0:0:0:0:0:0:0:1]"}),
        ("::ffff:127.0.0.1", {"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.1"}),
    ],
    ids=["first", "second", "short", "name", "IPv6", "IPv6 in full", "IPv4 as IPv6"],
)
def test_every_loopback_address_checks_hosts(scorer, host, names):
    with listen(host, 0) as listener:
        hosts = hosts_of(listener, host=host)
    app = application(scorer, settings=ServerSettings(), hosts=hosts)
    with TestClient(app) as client:
        for name in ("evil.example", "127.0.0.1.evil.example", "0.0.0.0", "[::2]"):
            assert client.get("/health", headers={"host": name}).status_code == 400, name
        for name in names:
            for port in ("", ":8080"):
                assert client.get("/health", headers={"host": name + port}).status_code == 200


def test_any_other_address_takes_every_host():
    for host in ("0.0.0.0", "::"):
        with listen(host, 0) as listener:
            assert hosts_of(listener, host=host) == ("*",)


@pytest.mark.parametrize(
    ("name", "value", "bounds"),
    [
        ("workers", 0, "of at least 1"),
        ("workers", 1.5, "of at least 1"),
        ("waiting", -1, "of at least 0"),
        ("connections", 0, "of at least 1"),
        ("client_connections", 0, "of at least 1"),
        ("goodbye_seconds", -1, "of at least 0"),
        ("body_seconds", float("nan"), "seconds from 0 to"),
        ("header_seconds", float("inf"), "seconds from 0 to"),
        ("idle_seconds", -1, "seconds from 0 to"),
        ("retry_seconds", -0.5, "seconds from 0 to"),
    ],
)
def test_a_setting_that_no_server_can_have_is_refused_by_its_name(name, value, bounds):
    with pytest.raises(InputError, match=rf"ServerSettings\.{name} is .*{bounds}"):
        ServerSettings(**{name: value})


def test_metrics_tell_what_was_asked(scorer):
    first = scorer.items((), most=1)[0].title  # which the stand-in has in its cache
    with TestClient(
        application(scorer, settings=ServerSettings()), base_url="http://localhost"
    ) as client:
        while client.get("/ready").status_code == 503:
            time.sleep(0.01)
        for query in ("toy", "tablet", first):
            client.get("/api/sids", params={"query": query})
        client.get("/api/sids", params={"query": "toy", "deadline_ms": 0.1})
        client.post("/api/score", json=payload(items=["P0000000"] * 30))
        for path in ("/a", "/b", "/explorer/nothing.js"):
            assert client.get(path).status_code == 404
        told = client.get("/metrics").text
    for line in (
        'dsirm_answers_total{source="live"} 3.0',
        'dsirm_answers_total{source="cached"} 1.0',
        'dsirm_answers_total{source="fallback"} 1.0',
        'dsirm_batch_items_bucket{le="20.0"} 0.0',
        'dsirm_batch_items_bucket{le="50.0"} 1.0',
        'dsirm_request_seconds_count{path="/api/sids"} 4.0',
        'dsirm_responses_total{path="/api/score",status="200"} 1.0',
        'dsirm_responses_total{path="other",status="404"}',
        "dsirm_scorer_items 400.0",
        "process_resident_memory_bytes",
    ):
        assert line in told, line
    assert not re.search(r'path="/(a|b|explorer/nothing.js)"', told)


def ask(address, query):
    return json.loads(fetch(f"{address}/api/sids?query={quote(query)}"))


def test_head_over_a_socket_has_no_body_and_leaves_the_connection_open(address):
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    while fetch_status(connection, "GET", "/ready") == 503:
        time.sleep(0.01)
    for path in ("/ready", "/", "/metrics", "/api/about", "/ready"):
        assert fetch_status(connection, "HEAD", path) == 200
    connection.close()


def fetch_status(connection, method, path):
    connection.request(method, path)
    answer = connection.getresponse()
    assert (answer.read() == b"") == (method == "HEAD")
    return answer.status


@pytest.mark.slow
def test_a_kill_loses_only_what_was_under_way(scorer):
    queries = ["toy", "red tablet", "shoe", "plush toy"]
    expected = {query: scorer.query_sids(query).sids.tolist() for query in queries}
    stop, answered, lost = threading.Event(), [], []

    def client(number):
        for query in itertools.cycle(queries[number % 4 :] + queries[: number % 4]):
            if stop.is_set():
                return
            asked_at = time.monotonic()
            try:
                told = ask(at[0], query)
            except (OSError, http.client.HTTPException) as error:
                # Refused: nobody listens, and nothing is lost.
                if not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                    lost.append(asked_at)
                time.sleep(0.02)
            else:
                answered.append(number)
                assert [one["sid"] for one in told["sids"]] == expected[query]

    def until(more):
        before = len(answered)
        while len(answered) < before + more or set(answered[before:]) != set(range(8)):
            assert not any(one.done() for one in clients)
            time.sleep(0.01)

    at, clients = [], []
    with ThreadPoolExecutor(8) as threads:
        with served(seconds=0.005) as (process, address):
            at.append(address)
            clients += [threads.submit(client, number) for number in range(8)]
            until(100)
            process.kill()
            process.wait()
            dead = time.monotonic()
        with served(port=urlsplit(address).port):
            until(100)
            stop.set()
            for one in clients:
                one.result()
    assert set(answered[100:]) == set(range(8))
    assert all(asked_at < dead for asked_at in lost)


@pytest.mark.slow
def test_a_server_that_is_told_to_stop_finishes_what_is_under_way():
    with served(seconds=3.0) as (process, address), ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask, address, "toy")
        while b"dsirm_admitted 1.0" not in fetch(f"{address}/metrics"):
            assert not asked.done()
            time.sleep(0.01)
        process.terminate()
        assert asked.result()["sids"]
        process.wait(timeout=600)
        with pytest.raises(OSError, match="refused"):
            ask(address, "toy")


@pytest.mark.slow
def test_a_cold_server_that_is_told_to_stop_answers_503_and_stops_in_time():
    with (
        served(seconds=600.0, goodbye_seconds=2) as (process, address),
        ThreadPoolExecutor(6) as threads,
    ):
        asked = [threads.submit(ask_raw, urlsplit(address).port) for _ in range(6)]
        while b"dsirm_admitted 6.0" not in fetch(f"{address}/metrics"):
            time.sleep(0.01)
        told = time.monotonic()
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert 2 <= time.monotonic() - told < 10
        assert all(one.result().startswith(b"HTTP/1.1 503 ") for one in asked)


COMPILING = """
import time
import dsirm_jax.serving
from dsirm_jax.commands import serve
from tests.serving.stand_in import Gated, StandIn

class Compiling(StandIn):
    def close(self):
        time.sleep(600)

dsirm_jax.serving.Scorer.open = classmethod(lambda *_, **__: Compiling())
flags = {"bundle": "", "programs": None, "queries": None, "trust": False}
flags |= {"host": "127.0.0.1", "port": 0}
serve.run(flags, ())
"""


@pytest.mark.slow
def test_a_compilation_under_way_does_not_hold_the_process():
    command = [sys.executable, "-c", COMPILING]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"serving: ")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
