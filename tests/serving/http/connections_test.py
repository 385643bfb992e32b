"""Clients that keep a connection waiting lose it; those that are owed an answer do not."""

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from dsirm_jax.serving.http.connections import Connection, Room, counted_address
from tests.serving.http.clients import listening, payload, until
from tests.serving.http.flood import HALF, flooded
from tests.serving.stand_in import Gated, served

WHOLE = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(port, *, source="127.0.0.1"):
    return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))


def is_closed(client):
    """Tells whether the server has closed a connection that it owes nothing."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    finally:
        client.settimeout(60)


def answered(client, request=WHOLE):
    client.sendall(request)
    answer = http.client.HTTPResponse(client)
    answer.begin()
    answer.read()
    return answer.status


@pytest.mark.parametrize("asked", [False, True], ids=["first request", "further request"])
@pytest.mark.parametrize(
    ("begun", "drip"),
    [(b"", b""), (HALF, b""), (HALF, b"x")],
    ids=["nothing", "half a header", "bytes one by one"],
)
def test_a_header_that_does_not_come_in_time_ends_the_connection(scorer, asked, begun, drip):
    with (
        listening(scorer, header_seconds=0.4, idle_seconds=0.4) as (_, port),
        connect(port) as client,
    ):
        if asked:
            assert answered(client) == 200
        started = time.monotonic()
        client.sendall(begun)
        while not is_closed(client):
            assert time.monotonic() - started < 60
            with contextlib.suppress(OSError):
                client.sendall(drip)
            time.sleep(0.05)
        assert time.monotonic() - started > 0.3
        with connect(port) as another:
            assert answered(another) == 200


def test_no_answer_waits_for_the_client_to_acknowledge_its_header(scorer):
    with listening(scorer) as (server, port), connect(port) as client:
        assert answered(client) == 200
        (connection,) = server.server_state.connections
        of_server = connection.transport.get_extra_info("socket")
        assert of_server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_connection_at_rest_has_a_deadline_of_its_own(scorer):
    with (
        listening(scorer, header_seconds=60, idle_seconds=0.3) as (_, port),
        connect(port) as silent,
        connect(port) as client,
    ):
        for _ in range(3):  # each answer begins it anew
            assert answered(client) == 200
            time.sleep(0.15)
            assert not is_closed(client)
        until(lambda: is_closed(client))
        assert not is_closed(silent)


def test_a_body_that_is_refused_does_not_keep_the_connection(scorer):
    with (
        listening(scorer, header_seconds=0.2, idle_seconds=0.2, body_seconds=0.2) as (server, port),
        connect(port) as client,
    ):
        head = b"POST /api/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
        assert answered(client, head) == 408
        until(lambda: dripped(client) or not server.server_state.connections)


def dripped(client):
    with contextlib.suppress(OSError):
        client.sendall(b"x")


def test_a_client_that_does_not_take_its_answers_loses_the_connection(scorer):
    large = b"GET /api/items?most=400 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with listening(scorer, body_seconds=0.2, idle_seconds=60) as (server, port):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.sendall(large * 200)  # some 10 MB of answers
        until(lambda: server.server_state.tasks)
        until(lambda: not server.server_state.connections)
        client.close()


def test_a_last_answer_that_is_not_taken_does_not_keep_the_connection(scorer):
    last = b"GET /api/items?most=150 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with listening(scorer, body_seconds=0.5) as (server, port):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", port))
        until(lambda: server.server_state.connections)
        (connection,) = server.server_state.connections
        of_server = connection.transport.get_extra_info("socket")
        of_server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        client.sendall(last)
        until(connection.transport.is_closing)
        assert 0 < connection.transport.get_write_buffer_size() < 1 << 16  # too little for a pause
        until(lambda: not server.server_state.connections)
        client.close()


def test_a_wrong_chunk_behind_an_answer_ends_the_connection_and_is_no_fault(scorer, caplog):
    head = b"POST /api/score HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n"
    with listening(scorer) as (_, port), connect(port) as client:
        assert answered(client, head) == 400
        client.sendall(b"no chunk\r\n")
        until(lambda: is_closed(client))
    # asyncio would write of a fatal error.
    assert caplog.messages == ["Invalid HTTP request received."]


def test_a_newcomer_takes_the_room_of_whoever_has_waited_longest_in_silence(scorer):
    with listening(scorer, connections=4) as (_, port), contextlib.ExitStack() as stack:
        resting = stack.enter_context(connect(port))
        assert answered(resting) == 200
        silent = []
        for _ in range(3):
            silent.append(stack.enter_context(connect(port)))
            silent[-1].sendall(HALF)
        for newcomers in range(1, 4):
            newcomer = stack.enter_context(connect(port))
            assert answered(newcomer) == 200
            until(lambda gone=newcomers: is_closed(silent[gone - 1]))
            assert [is_closed(one) for one in silent] == [number < newcomers for number in range(3)]
        assert answered(resting) == 200


def test_a_connection_that_is_owed_an_answer_is_not_closed_for_room():
    scorer = Gated()
    asked = b"GET /api/sids?query=toy HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with listening(scorer, connections=2) as (server, port), contextlib.ExitStack() as stack:
        owed = [stack.enter_context(connect(port)) for _ in range(2)]
        for one in owed:
            one.sendall(asked)
        until(lambda: len(server.server_state.tasks) == 2)
        late = stack.enter_context(connect(port))
        until(lambda: is_closed(late))  # for all the room there is is owed
        scorer.gate.set()
        assert [answered(one, b"") for one in owed] == [200, 200]
        assert answered(stack.enter_context(connect(port))) == 200


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is this machine on Linux alone")
def test_an_address_cannot_take_the_room_of_others(scorer):
    settings = {"connections": 5, "client_connections": 3}
    with listening(scorer, **settings) as (_, port), contextlib.ExitStack() as stack:
        other = [stack.enter_context(connect(port, source="127.0.0.2")) for _ in range(2)]
        many = [stack.enter_context(connect(port)) for _ in range(9)]
        until(lambda: sum(map(is_closed, many)) == 6)
        assert [is_closed(one) for one in many] == [True] * 6 + [False] * 3
        assert not any(map(is_closed, other))


class Waiting(Connection):
    """A connection without a transport."""

    def __init__(self, address, *, never_asked=True):
        self.address, self.silent, self.is_open = address, never_asked, True

    @property
    def never_asked(self):
        return self.silent

    def abort(self):
        self.is_open = False


def test_the_address_with_most_connections_waiting_makes_room():
    room = Room(most=6, most_of_address=6)
    few = [Waiting(b"a"), Waiting(b"b")]
    asked = Waiting(b"c", never_asked=False)
    many = [Waiting(b"c") for _ in range(3)]
    for one in (*few, asked, *many):
        assert room.admit(one)
    room.owe(many[0])
    newcomers = [Waiting(b"d"), Waiting(b"e")]
    assert room.admit(newcomers[0]) and [one.is_open for one in many] == [True, False, True]
    assert room.admit(newcomers[1]) and [one.is_open for one in many] == [True, False, False]
    assert all(one.is_open for one in (*few, asked, *newcomers)) and len(room) == 6
    for one in (*few, asked, *newcomers):
        room.owe(one)
    assert not room.admit(Waiting(b"f")) and len(room) == 6
    room.leave(few[0])
    room.leave(few[0])
    assert len(room) == 5 and room.admit(Waiting(b"f"))


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
    ids=["one", "two", "IPv4 as IPv6", "one network", "two networks", "with an interface"],
)
def test_clients_are_told_apart_by_address_or_network(first, second, same):
    assert (counted_address(first) == counted_address(second)) == same


LIMITED = """
import resource
from dsirm_jax.serving.http.connections import affordable
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1000))
print(affordable(500), resource.getrlimit(resource.RLIMIT_NOFILE))
print(affordable(4000), resource.getrlimit(resource.RLIMIT_NOFILE))
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
print(affordable(4000))
"""


def test_there_are_no_more_connections_than_files_may_be_open():
    command = [sys.executable, "-c", LIMITED]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["500 (756, 1000)", "744 (1000, 1000)", "1"]
    assert "744 connections instead of 4000: this process may open 1000 files" in told.stderr


@pytest.mark.slow
@pytest.mark.parametrize("insistent", [False, True], ids=["patient", "insistent"])
def test_honest_clients_are_served_in_a_flood(insistent):
    with served() as (_, address):
        service = flooded(address, connections=1100, seconds=12.0, insistent=insistent)
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        connection.request(
            "POST", "/api/score", json.dumps(payload()), {"content-type": "application/json"}
        )
        assert connection.getresponse().status == 200
        connection.close()
    assert service.opened > 1100  # for the first lost their connections
    assert service.failures == []
    assert np.quantile(service.health, 0.99) <= 100 and len(service.health) > 100
