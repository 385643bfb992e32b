"""Requests that the schema allows, and requests that it forbids."""

import http.client
import json
from urllib.parse import urlsplit

import pytest
from schemathesis import GenerationMode

from dsirm_jax.serving.http.gate import BODY_BYTES
from dsirm_jax.serving.http.server import application
from dsirm_jax.serving.http.settings import ServerSettings
from tests.serving.hostile import drawn, forbidden, hostile_requests, operations
from tests.serving.http.clients import resident


def test_what_the_schema_forbids_is_refused(scorer):
    app = application(scorer, settings=ServerSettings(), hosts=("*",))
    # What is drawn depends on the modules that a process has imported, and some of it is not kept.
    cases = forbidden(app, most=20)
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
