"""What is refused has a status and a reason."""

import asyncio
import json

import pytest
from fastapi.testclient import TestClient

from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.serving import Overloaded
from dsirm_jax.serving.http.gate import BODY_BYTES
from dsirm_jax.serving.http.messages import ITEMS
from dsirm_jax.serving.http.server import application
from dsirm_jax.serving.http.settings import ServerSettings
from tests.serving.http.clients import client_of, payload
from tests.serving.stand_in import StandIn


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        pytest.param("/api/sids", 422, "query.query: Field required", id="no query"),
        pytest.param(
            "/api/sids?query=%20", 422, "query.query: String should match", id="blank query"
        ),
        pytest.param(
            f"/api/sids?query={'x' * 1025}",
            422,
            "at most 1024 characters",
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
            payload(items=[]),
            422,
            "body.items: List should have at least 1 item",
            id="no items",
        ),
        pytest.param(
            payload(items=["x"] * (ITEMS + 1)),
            422,
            "body.items: List should have at most 1000",
            id="too many items",
        ),
        pytest.param(
            payload(items="x"),
            422,
            "body.items: Input should be a valid list",
            id="items not a list",
        ),
        pytest.param(
            payload(items=["x"]),
            404,
            "none of the items is in the catalogue",
            id="unknown items",
        ),
        pytest.param(
            payload(query=7),
            422,
            "body.query: Input should be a valid string",
            id="query not text",
        ),
        pytest.param(
            payload(query="\ud800"),
            422,
            "unable to parse raw data as a unicode string",
            id="query with a surrogate",
        ),
        pytest.param(
            payload() | {"\ud800": 1},
            422,
            "body: Input should be a valid string",
            id="name with a surrogate",
        ),
        pytest.param(
            payload() | {"x" * 9999: 1},
            422,
            f"body.{'x' * 64}: Extra inputs are not permitted",
            id="long name",
        ),
        pytest.param(
            payload(gin_file="x.gin"),
            422,
            "body.gin_file: Extra inputs are not permitted",
            id="unknown field",
        ),
        pytest.param(
            payload(deadline_ms="5"),
            422,
            "body.deadline_ms: Input should be a valid number",
            id="time as text",
        ),
        pytest.param(payload(items=[{}] * 9), 422, "; and 4 more", id="many faults"),
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


def test_a_damaged_file_is_not_the_clients_fault():
    class Damaged(StandIn):
        def query_sids(self, query, *, deadline=None):
            with naming("/secret/items.mdb", otherwise="no catalogue"):
                raise InputError("a page is gone")

    with client_of(Damaged()) as client:
        failed = client.get("/api/sids?query=x")
        assert (failed.status_code, failed.json()["code"]) == (500, "failed")
        assert "secret" not in failed.text
