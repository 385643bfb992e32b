"""What clients make a server log is bounded, and holds nothing that they could have written."""

import asyncio
import logging
import socket

from dsirm_jax.serving.http.logs import Bound, bounded_logs, described
from tests.serving.http.clients import client_of, listening
from tests.serving.stand_in import StandIn

HOSTILE = "a\nERROR: a line of its own \x1b[31m\u202e é"
ESCAPED = r"a\nERROR: a line of its own \x1b[31m\u202e \xe9"


def test_hostile_requests_are_logged_at_a_bounded_rate(scorer, caplog):
    with listening(scorer) as (_, port):
        for number in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"%d\x1b[31m \xff\xfe secret\r\n\r\n" % number)
                assert client.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
    said = "Invalid HTTP request received."
    assert caplog.messages == [said] * 3 + [f"{said} (17 more like this)"]


class Failing(StandIn):
    def query_sids(self, query, *, deadline=None):
        raise (ValueError if "value" in query else KeyError)(query)


def test_failures_are_logged_a_few_of_each_type_and_quote_nothing_raw(caplog):
    with client_of(Failing(items=40), retry_seconds=600) as client:
        for _ in range(10):
            answer = client.get("/api/sids", params={"query": HOSTILE})
            assert (answer.status_code, answer.json()["code"]) == (500, "failed")
            assert answer.headers["x-content-type-options"] == "nosniff"
        client.get("/api/sids", params={"query": f"value {HOSTILE}"})
        told = client.get("/metrics").text
    assert 'dsirm_responses_total{path="/api/sids",status="500"} 11.0' in told
    failed = [record for record in caplog.records if record.getMessage() == "a request failed"]
    assert len(failed) == 4
    assert "a request failed (7 more like this)" in caplog.text
    assert HOSTILE not in caplog.text and "\x1b" not in caplog.text
    assert f"ValueError: value {ESCAPED}" in caplog.text
    assert "in query_sids" in caplog.text


def test_what_was_left_out_is_told_while_the_server_runs(caplog):
    logger = logging.getLogger("asyncio")

    async def scenario():
        async with bounded_logs(seconds=0.01) as bound:
            for _ in range(5):
                logger.warning("wrong")
            while "more" not in caplog.text:
                await asyncio.sleep(0.01)
            logger.warning("wrong")  # a new minute
            return bound

    bound = asyncio.run(scenario())
    assert caplog.messages == [*["wrong"] * 3, "wrong (2 more like this)", "wrong"]
    assert bound not in logger.filters


def test_a_kind_is_a_line_of_code_and_a_type_of_exception():
    bound = Bound(most=1)

    def record(line, text, error=None):
        info = (type(error), error, None) if error else None
        return logging.LogRecord("x", logging.ERROR, "x.py", line, text, (), info)

    assert bound.filter(record(1, "made up 1"))
    assert not bound.filter(record(1, "made up 2"))  # asyncio writes what differs into the text
    assert bound.filter(record(2, "made up 1"))
    assert bound.filter(record(1, "made up 1", KeyError()))
    assert bound.filter(record(1, "made up 1", ValueError()))
    assert not bound.filter(record(1, "made up 1", ValueError()))


def test_an_exception_is_described_with_what_led_to_it():
    try:
        try:
            raise KeyError(HOSTILE)
        except KeyError as first:
            raise RuntimeError("x" * 9999) from first
    except RuntimeError as error:
        first, second = described(error).split("\n\n")
    assert first.splitlines()[-1].startswith("KeyError: ") and "\u202e" not in first
    assert second.splitlines()[-1] == "RuntimeError: " + "x" * 500
