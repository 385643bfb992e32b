import asyncio
import contextlib
import dataclasses
import http.client
import itertools
import json
import re
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from schemathesis import GenerationMode

from dsirm_jax.serving import Overloaded, Scorer, ScorerSettings
from dsirm_jax.serving.http.messages import ITEMS, QUERY_LENGTH
from dsirm_jax.serving.http.server import BODY_BYTES, PAGE, ServerSettings, application
from tests.serving import tiny
from tests.serving.hostile import drawn, forbidden, hostile_requests, operations
from tests.serving.stand_in import StandIn, served

HOSTILE = "</script><img src=x onerror=alert(1)> & 'ṩ' 👟 שלום {{ 7 * 7 }} \u2028 \x00 ../../etc"


@contextlib.contextmanager
def client_of(scorer, **settings):
    """A client of an application whose lifespan has begun."""
    app = application(scorer, settings=ServerSettings(**settings))
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def wait_until_ready(client):
    while client.get("/ready").status_code == 503:
        time.sleep(0.01)


@pytest.fixture(scope="module")
def scorer():
    return StandIn()


@pytest.fixture(scope="module")
def client(scorer):
    with client_of(scorer) as client:
        wait_until_ready(client)
        yield client


def asked(query="plush toy", **others):
    return {"query": query, "items": ["P0000000"]} | others


def test_scores_are_the_scorers_in_the_order_asked(client, scorer):
    ids = [item.item_id for item in scorer.items((), most=5)]
    answer = client.post("/api/score", json=asked(items=[*ids[::-1], "unknown"], features=True))
    told, expected = answer.json(), scorer.score("plush toy", ids[::-1])
    assert [item["item_id"] for item in told["items"]] == ids[::-1]
    for name in ("probability", "dense_only", "features"):
        field = {"probability": "probabilities"}.get(name, name)
        values = np.array([item[name] for item in told["items"]], np.float32)
        np.testing.assert_array_equal(values, getattr(expected, field))
    assert (told["source"], told["unknown"]) == ("live", ["unknown"])
    without = client.post("/api/score", json=asked(items=ids)).json()
    assert [item["features"] for item in without["items"]] == [None] * 5


def test_what_is_not_known_is_null(scorer):
    class WithoutDense(StandIn):
        def score(self, query, item_ids, *, deadline=None):
            found = scorer.score(query, item_ids, deadline=deadline)
            nothing = np.full_like(found.dense_only, np.nan)
            return dataclasses.replace(found, dense_only=nothing)

    with TestClient(
        application(WithoutDense(), settings=ServerSettings()), base_url="http://localhost"
    ) as client:
        (item,) = client.post("/api/score", json=asked()).json()["items"]
    assert item["dense_only"] is None and 0 < item["probability"] < 1


def test_sids_items_and_candidates_are_the_scorers(client, scorer):
    query = "red plush toy"
    told = client.get("/api/sids", params={"query": query}).json()
    expected = scorer.query_sids(query)
    assert [one["sid"] for one in told["sids"]] == expected.sids.tolist()
    assert [one["probability"] for one in told["sids"]] == expected.probabilities.tolist()
    late = client.get("/api/sids", params={"query": query, "deadline_ms": 0.5}).json()
    assert late == {"source": "fallback", "sids": []}
    ids = scorer.candidates(query, most=7)
    found = client.get("/api/candidates", params={"query": query, "most": 7}).json()["items"]
    assert [item["item_id"] for item in found] == ids
    prefix = expected.sids[0, :2].tolist()
    below = client.get("/api/items", params={"prefix": "{}.{}".format(*prefix)}).json()["items"]
    assert all(item["sid"][:2] == prefix for item in below)
    assert len(below) == len(scorer.items(prefix))


def test_the_tree_counts_every_item_at_every_level(client, scorer):
    def items_below(prefix):
        branches = client.get("/api/tree", params={"prefix": ".".join(prefix)}).json()["branches"]
        sizes = [branch["items"] for branch in branches]
        assert sizes == sorted(sizes, reverse=True)
        if len(prefix) == 1:
            return sum(sizes)
        whole = sum(items_below((*prefix, str(branch["code"]))) for branch in branches)
        assert whole == sum(sizes)
        return whole

    about = client.get("/api/about").json()
    assert items_below(()) == about["items"] == 400
    assert about["sizes"] == list(scorer.sizes)
    assert about["examples"] == scorer.examples(most=8)
    assert [feature["name"] for feature in about["features"]] == [f.name for f in scorer.schema]


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        pytest.param("/api/sids", 422, "query.query: Field required", id="no query"),
        pytest.param(
            "/api/sids?query=%20", 422, "query.query: String should match", id="blank query"
        ),
        pytest.param(
            f"/api/sids?query={'x' * (QUERY_LENGTH + 1)}",
            422,
            "at most 1000 characters",
            id="long query",
        ),
        pytest.param(
            "/api/sids?query=x&deadline_ms=0",
            422,
            "query.deadline_ms: Input should be greater",
            id="no time",
        ),
        pytest.param(
            "/api/sids?query=x&bundle=/etc",
            422,
            "query.bundle: Extra inputs are not permitted",
            id="unknown field",
        ),
        pytest.param(
            "/api/tree?prefix=../x",
            422,
            "query.prefix: String should match",
            id="prefix of letters",
        ),
        pytest.param(
            "/api/tree?prefix=999999", 422, "no item has the prefix 999999", id="unknown prefix"
        ),
        pytest.param(
            "/api/tree?prefix=1.2.3.4", 422, "prefix: 4 codes; a SID has 3", id="prefix too deep"
        ),
        pytest.param(
            "/api/tree?prefix=" + ".".join("1" * 17),
            422,
            "query.prefix: String should match",
            id="prefix far too deep",
        ),
        pytest.param(
            "/api/tree?prefix=%D9%A1",
            422,
            "query.prefix: String should match",
            id="prefix in Arabic digits",
        ),  # an Arabic digit
        pytest.param(
            "/api/items?most=501",
            422,
            "query.most: Input should be less than or equal to 500",
            id="too many items",
        ),
        pytest.param("/api/nothing", 404, "Not Found", id="unknown address"),
        pytest.param("/api/score", 405, "Method Not Allowed", id="wrong method"),
        pytest.param("/explorer/../http.py", 404, "Not Found", id="out of the folder"),
        pytest.param("/explorer/%2e%2e/http.py", 404, "Not Found", id="out of the folder, escaped"),
    ],
)
def test_a_wrong_address_is_refused_with_a_reason(client, path, status, reason):
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json().keys() == {"code", "reason"}
    assert reason in answer.json()["reason"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        pytest.param(
            asked(items=[]), 422, "body.items: List should have at least 1 item", id="no items"
        ),
        pytest.param(
            asked(items=["x"] * (ITEMS + 1)),
            422,
            "body.items: List should have at most 1000",
            id="too many items",
        ),
        pytest.param(
            asked(items="x"), 422, "body.items: Input should be a valid list", id="items not a list"
        ),
        pytest.param(
            asked(items=["x"]), 404, "none of the items is in the catalogue", id="unknown items"
        ),
        pytest.param(
            asked(query=7), 422, "body.query: Input should be a valid string", id="query not text"
        ),
        pytest.param(
            asked(query="\ud800"),
            422,
            "unable to parse raw data as a unicode string",
            id="query with a surrogate",
        ),
        pytest.param(
            asked() | {"\ud800": 1},
            422,
            "body: Input should be a valid string",
            id="name with a surrogate",
        ),
        pytest.param(
            asked() | {"x" * 9999: 1},
            422,
            f"body.{'x' * 64}: Extra inputs are not permitted",
            id="long name",
        ),
        pytest.param(
            asked(gin_file="x.gin"),
            422,
            "body.gin_file: Extra inputs are not permitted",
            id="unknown field",
        ),
        pytest.param(
            asked(deadline_ms="5"),
            422,
            "body.deadline_ms: Input should be a valid number",
            id="time as text",
        ),
        pytest.param(asked(items=[{}] * 9), 422, "; and 4 more", id="many faults"),
        pytest.param([], 422, "body: Input should be", id="list"),
        pytest.param(b"", 422, "body: Field required", id="empty"),
        pytest.param(b"{", 422, "JSON decode error", id="half an object"),
        pytest.param(b"[" * 100_000, 400, "error parsing the body", id="nested deeply"),
        pytest.param(b"1" * 10_000, 400, "error parsing the body", id="long number"),
        pytest.param(b'{"query": "\xff"}', 400, "error parsing the body", id="not UTF-8"),
        pytest.param(
            b"x" * (BODY_BYTES + 1), 413, "the body has more than 524,288 bytes", id="too long"
        ),
        pytest.param(
            iter([b"x" * BODY_BYTES, b"x"]),
            413,
            "the body has more than 524,288 bytes",
            id="too long in parts",
        ),
    ],
)
def test_a_wrong_body_is_refused_with_a_reason(client, body, status, reason):
    content = json.dumps(body) if isinstance(body, dict | list) else body
    answer = client.post(
        "/api/score", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.json().keys() == {"code", "reason"}
    assert reason in answer.json()["reason"]
    assert len(answer.content) < 1000


def test_a_hostile_text_comes_back_as_data(client):
    answer = client.post("/api/score", json=asked(query=HOSTILE, items=["P0000000", HOSTILE]))
    assert answer.status_code == 200
    assert answer.json()["unknown"] == [HOSTILE]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_body_that_does_not_come_is_given_up(scorer):
    async def never():
        await asyncio.sleep(60)

    sent = []

    async def send(message):
        sent.append(message)

    app = application(scorer, settings=ServerSettings(body_seconds=0.02))
    scope = {"type": "http", "method": "POST", "path": "/api/score", "query_string": b""}
    asyncio.run(app(scope | {"headers": [(b"host", b"localhost")]}, never, send))
    assert sent[0]["status"] == 408
    assert "did not come within 0.02 s" in json.loads(sent[1]["body"])["reason"]


@pytest.mark.parametrize("path", ["/", "/api/about", "/explorer/main.js", "/health"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evil:80", "[::2]", ""])
def test_a_name_that_somebody_made_point_here_is_turned_away(client, path, host):
    answer = client.get(path, headers={"host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "unreadable")
    named = repr(host.removesuffix(":80"))
    assert f"the header Host names {named}; call the server by 127.0.0.1" in answer.json()["reason"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_its_own_names_are_let_in_with_any_port_and_all_where_it_is_told_so(client, scorer):
    for host in ("127.0.0.1:8080", "LocalHost", "[::1]", "[::1]:1"):
        assert client.get("/api/about", headers={"host": host}).status_code == 200
    app = application(scorer, settings=ServerSettings(), hosts=("*",))
    with TestClient(app, base_url="http://evil.example") as open_to_all:
        assert open_to_all.get("/health").status_code == 200


class Gated(StandIn):
    """Every call waits until it is let through."""

    def __init__(self):
        super().__init__(items=40)
        self.gate = threading.Event()

    def query_sids(self, query, *, deadline=None):
        assert self.gate.wait(600)
        return super().query_sids(query, deadline=deadline)


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


def test_a_scorer_that_fails_or_is_full_has_an_answer():
    class Failing(StandIn):
        def query_sids(self, query, *, deadline=None):
            raise Overloaded("9 queries wait") if query == "full" else RuntimeError("a secret")

    with client_of(Failing()) as client:
        full = client.get("/api/sids?query=full")
        assert (full.status_code, full.headers["retry-after"]) == (503, "1")
        failed = client.get("/api/sids?query=x")
        assert (failed.status_code, failed.json()["code"]) == (500, "failed")
        assert "secret" not in failed.text


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
        client.post("/api/score", json=asked(items=["P0000000"] * 30))
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


def test_the_page_loads_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert (
        answer.status_code == 200
        and "default-src 'none'" in answer.headers["content-security-policy"]
    )
    loaded = re.findall(r'(?:src|href)="(explorer/[^"]+)"', answer.text)
    assert {"explorer/report.css", "explorer/explorer.css", "explorer/main.js"} == set(loaded)
    for path in (*loaded, *(f"explorer/{file.name}" for file in PAGE.iterdir())):
        assert client.get(f"/{path}").status_code == 200
    for file in (*PAGE.iterdir(), Path("dsirm_jax/report/page.css")):
        assert not re.search(
            r"https?://|@import|url\(|eval\(|innerHTML", file.read_text("utf-8")
        ), file


def test_what_the_schema_forbids_is_refused(scorer):
    app = application(scorer, settings=ServerSettings(), hosts=("*",))
    cases = forbidden(app, most=12)
    assert len(cases) >= 45
    for case in cases:
        answer = case.call(app=app, base_url="http://localhost")
        assert 400 <= answer.status_code < 500, case.as_curl_command()
        assert answer.json()["reason"]


def test_what_the_schema_allows_is_answered_as_it_says(scorer):
    app = application(scorer, settings=ServerSettings(), hosts=("*",))
    for operation in operations(app):
        for case in drawn(operation, mode=GenerationMode.POSITIVE, most=10):
            answer = case.call(app=app, base_url="http://localhost")
            assert answer.status_code in (200, 404, 422), answer.text  # unknown ids and prefixes
            operation.validate_response(answer)


@pytest.mark.slow
def test_a_bundle_is_served(made):
    opened = Scorer.open(made, settings=ScorerSettings(warm=(), deadline=600.0))
    with opened as scorer, client_of(scorer, workers=1) as client:
        wait_until_ready(client)
        about = client.get("/api/about").json()
        assert (about["sizes"], about["items"]) == (list(tiny.SIZES), 60)
        assert set(about["examples"]) <= set(tiny.QUERIES)
        query = tiny.QUERIES[0]
        for path in ("sids", "candidates"):
            assert client.get(f"/api/{path}", params={"query": query}).status_code == 200
        ids = [f"item {number}" for number in range(30)]
        told = client.post("/api/score", json=asked(query=query, items=ids, features=True)).json()
        expected = scorer.score(query, ids)
        shown = [item["probability"] for item in told["items"]]
        np.testing.assert_array_equal(np.array(shown, np.float32), expected.probabilities)
        assert told["source"] == expected.source
        assert len(told["items"][0]["features"]) == len(about["features"])
        branches = client.get("/api/tree").json()["branches"]
        assert sum(branch["items"] for branch in branches) == 60
        asked_for = {"prefix": branches[0]["code"], "most": 60}
        first = client.get("/api/items", params=asked_for).json()["items"]
        assert len(first) == branches[0]["items"]


def fetch(url):
    with urllib.request.urlopen(url, timeout=600) as answer:
        return answer.read()


def resident(address):
    """Returns the bytes of memory that a server has now."""
    text = fetch(f"{address}/metrics").decode()
    return float(re.search(r"^process_resident_memory_bytes (\S+)", text, re.M)[1])


@pytest.mark.slow
def test_ten_thousand_hostile_requests_leave_no_trace(address, scorer):
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    used = []
    for number, (method, path, body) in enumerate(hostile_requests(9500)):
        if number % 1000 == 0:
            used.append(resident(address))
        headers = {"content-type": "application/json"}
        if number % 500 == 0:
            method, path, body = "POST", "/api/score", b"x" * (BODY_BYTES + 1 + number)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            told = answer.read()
        except (BrokenPipeError, ConnectionResetError):  # a body too large is not read to its end
            connection.close()
            continue
        assert 400 <= answer.status < 500, (method, path, body[:200], told)
        assert json.loads(told)["reason"]
    for case in forbidden(application(scorer, settings=ServerSettings()), most=100):
        answer = case.call(base_url=address)
        assert 400 <= answer.status_code < 500, case.as_curl_command()
    used.append(resident(address))
    # The first thousand warm up caches of the libraries.
    assert max(used[2:]) < used[1] + 16e6, used


def ask(address, query):
    return json.loads(fetch(f"{address}/api/sids?query={quote(query)}"))


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
