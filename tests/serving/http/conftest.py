"""A stand-in of a scorer, and a client of it behind HTTP."""

import pytest

from tests.serving.http.clients import client_of, wait_until_ready
from tests.serving.stand_in import StandIn


@pytest.fixture(scope="module")
def scorer():
    return StandIn()


@pytest.fixture(scope="module")
def client(scorer):
    with client_of(scorer) as client:
        wait_until_ready(client)
        yield client
