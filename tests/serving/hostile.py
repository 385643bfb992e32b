"""Requests that are made to break a server."""

import json
import random
from urllib.parse import quote

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode


def operations(app):
    """The endpoints over the scorer, as schemathesis reads them from the schema."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    found = [result.ok() for result in schema.get_all_operations()]
    return [operation for operation in found if operation.path.startswith("/api/")]


def drawn(operation, *, mode, most):
    """Draws calls of an operation, in one go: hypothesis would end at the first that fails."""
    cases = []

    def keep(case):
        cases.append(case)

    quiet = {"database": None, "suppress_health_check": list(HealthCheck), "deadline": None}
    once = settings(max_examples=most, phases=[Phase.generate], **quiet)
    once(seed(0)(given(case=operation.as_strategy(generation_mode=mode))(keep)))()
    return cases


def forbidden(app, *, most):
    """Draws calls that the schema forbids."""
    return [
        case
        for operation in operations(app)
        if operation.path != "/api/about"  # which has nothing to get wrong
        for case in drawn(operation, mode=GenerationMode.NEGATIVE, most=most)
        # What is empty is not sent, and without it nothing may be wrong; a number is sent as its
        # digits, which are a prefix.
        if all(value not in ([], {}) for value in (case.query or {}).values())
        and not str((case.query or {}).get("prefix", ".")).isdecimal()
    ]


def hostile_requests(count):
    """Draws requests that are wrong by how they are made: (method, path, body)."""
    draw = random.Random(0)
    letters = "aé漢👟\u202e\x00\ud800%&=#/.\\\"' "

    def junk(length):
        return "".join(draw.choices(letters, k=length))

    def wrong():
        return draw.choice(([], {}, None, True, 1e300, -1, 10**30, junk(9), [[]], {"a": [1]}))

    def scores(**changed):
        body = {"query": "toy", "items": ["P0000000"]} | changed
        return "POST", "/api/score", json.dumps(body).encode()

    def raw(body):
        return "POST", "/api/score", body

    def get(path, text=""):
        return "GET", path + quote(text.encode("utf-8", "surrogatepass")), b""

    kinds = (
        lambda: scores(items=[junk(8) + "?"] * draw.randint(1, 99)),
        lambda: scores(query=junk(draw.randint(1025, 9999))),
        lambda: scores(query=wrong(), items=wrong()),
        lambda: scores(items=[wrong()] * draw.randint(1, 2000)),
        lambda: scores(**{junk(20): wrong()}),
        lambda: raw(draw.choice((b"[", b'{"query":')) * draw.randint(1, 50_000)),
        lambda: raw(draw.randbytes(draw.randint(1, 2000))),
        lambda: get(f"/api/tree?prefix={draw.randint(10**3, 10**40)}"),
        lambda: get(f"/api/tree?prefix={'1.' * draw.randint(3, 2000)}1"),
        lambda: get("/api/items?prefix=1x", junk(9)),
        lambda: get("/api/items?most=", draw.choice(("-1", "1e9", "NaN", "501", "\0", "1.5"))),
        lambda: get("/api/sids?query=a&x=", junk(9)),
        lambda: get("/api/candidates?query=a&most=x", junk(3)),
        lambda: get("/x", junk(20)),
        lambda: get(f"/explorer/{'%2e%2e/' * draw.randint(1, 9)}etc/passwd"),
        lambda: (draw.choice(("PUT", "DELETE", "PATCH", "TRACE")), "/api/score", b"{}"),
    )
    for number in range(count):
        yield kinds[number % len(kinds)]()
