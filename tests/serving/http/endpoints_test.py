"""What endpoints answer is what the scorer answers."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.http.endpoints import PAGE
from dsirm_jax.serving.http.server import application
from dsirm_jax.serving.http.settings import ServerSettings
from tests.serving import tiny
from tests.serving.http.clients import client_of, payload, wait_until_ready
from tests.serving.stand_in import StandIn

HOSTILE = "</script><img src=x onerror=alert(1)> & 'ṩ' 👟 שלום {{ 7 * 7 }} \u2028 \x00 ../../etc"


def test_scores_are_the_scorers_in_the_order_asked(client, scorer):
    ids = [item.item_id for item in scorer.items((), most=5)]
    answer = client.post("/api/score", json=payload(items=[*ids[::-1], "unknown"], features=True))
    told, expected = answer.json(), scorer.score("plush toy", ids[::-1])
    assert [item["item_id"] for item in told["items"]] == ids[::-1]
    for name in ("probability", "dense_only", "features"):
        field = {"probability": "probabilities"}.get(name, name)
        values = np.array([item[name] for item in told["items"]], np.float32)
        np.testing.assert_array_equal(values, getattr(expected, field))
    assert (told["source"], told["unknown"]) == ("live", ["unknown"])
    without = client.post("/api/score", json=payload(items=ids)).json()
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
        (item,) = client.post("/api/score", json=payload()).json()["items"]
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


def test_a_hostile_text_comes_back_as_data(client):
    answer = client.post("/api/score", json=payload(query=HOSTILE, items=["P0000000", HOSTILE]))
    assert answer.status_code == 200
    assert answer.json()["unknown"] == [HOSTILE]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


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


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/health", 200),
        ("/ready", 200),
        ("/metrics", 200),
        ("/", 200),
        ("/openapi.json", 200),
        ("/explorer/main.js", 200),
        ("/explorer/report.css", 200),
        ("/api/about", 200),
        ("/api/tree", 200),
        ("/api/sids?query=toy", 200),
        ("/api/sids", 422),
        ("/api/score", 405),
        ("/nothing", 404),
    ],
)
def test_head_has_the_status_and_headers_of_get_and_no_body(client, path, status):
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code == status
    assert head.content == b"" and got.content
    for name in ("content-type", "x-content-type-options", "content-security-policy"):
        assert head.headers[name] == got.headers[name]
    if path != "/metrics":  # whose text grows with every request
        assert head.headers["content-length"] == got.headers["content-length"]


@pytest.mark.slow
def test_a_bundle_is_served(made):
    opened = Scorer.open(made, settings=ScorerSettings(warm=(), deadline=600.0))
    with opened as scorer, client_of(scorer, workers=1) as client:
        wait_until_ready(client)
        about = client.get("/api/about").json()
        assert (about["sizes"], about["items"]) == (list(tiny.SIZES), 60)
        assert about["examples"] and set(about["examples"]) <= set(tiny.QUERIES)
        query = tiny.QUERIES[0]
        for path in ("sids", "candidates"):
            assert client.get(f"/api/{path}", params={"query": query}).status_code == 200
        ids = [f"item {number}" for number in range(30)]
        told = client.post("/api/score", json=payload(query=query, items=ids, features=True)).json()
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
