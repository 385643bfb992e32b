"""Open connections: how many there may be, and how long a client may keep one waiting.

A client that connects and sends nothing, or half a header, or a byte a second, costs the server a
connection. Each such wait has a deadline, and where there is no room for a newcomer, one that waits
makes it. A connection whose request is whole is owed an answer, and is never closed for room.
"""

from __future__ import annotations

import asyncio
import collections
import enum
import ipaddress
import logging
import resource
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dsirm_jax.serving.http.settings import ServerSettings

log = logging.getLogger(__name__)
ACCEPTED_AT_ONCE = 64
"""Connections that one turn of the event loop takes on, before it answers those it has."""
OTHER_FILES = 256
"""Files that a server opens beside its connections, and connections on their way in or out."""


class Wait(enum.Enum):
    """What a connection waits for."""

    HEADER = "the rest of a request's header"
    BODY = "the rest of a request's body"
    ANSWER = "the server"
    NEXT = "a further request"


class Connection(H11Protocol):
    """A connection of uvicorn whose waits for its client have deadlines.

    Attributes:
      address: by which its client's connections are counted, see `counted_address`.
      waits_for: what of; None until it is open.
    """

    def __init__(self, *, room: Room, settings: ServerSettings, **uvicorns: Any):
        super().__init__(**uvicorns)
        self.address: bytes = b""
        self.waits_for: Wait | None = None
        self._room, self._settings = room, settings
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def never_asked(self) -> bool:
        """Whether no header of a request has come yet."""
        return self.cycle is None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Header and body of an answer are written one after the other: without this the kernel
        # holds the second back until the client has acknowledged the first, some 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = counted_address(self.client[0]) if self.client else b""
        if self._room.admit(self):
            self._enter(Wait.HEADER)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        self._room.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._enter(self._reached(Wait.HEADER))

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # one byte would end uvicorn's own deadline
        self._enter(self._reached(Wait.NEXT))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._deadline is None:
            self._set_deadline(self._settings.body_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.waits_for in (Wait.BODY, Wait.ANSWER):
            self._set_deadline(None)

    def send_400_response(self, msg: str) -> None:
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer has begun already
            self.transport.abort()

    def abort(self) -> None:
        """Closes at once, whatever is under way."""
        self.transport.abort()

    def _reached(self, between: Wait) -> Wait:
        """Returns how far the request is; `between` where there is none."""
        if self.cycle is None or self.cycle.response_complete:
            return between
        return Wait.BODY if self.cycle.more_body else Wait.ANSWER

    def _enter(self, wait: Wait) -> None:
        settings, closing = self._settings, self.transport.is_closing()
        seconds = {Wait.HEADER: settings.header_seconds, Wait.NEXT: settings.idle_seconds}
        if closing:  # as soon as the client has taken what is written
            self._set_deadline(settings.body_seconds)
        elif wait is not self.waits_for:  # or else a byte a second would put the deadline off
            self._set_deadline(seconds.get(wait))  # the gate sees to bodies
        self.waits_for = wait
        if wait is Wait.ANSWER:
            self._room.owe(self)
        elif wait is Wait.NEXT:
            self._room.wait(self)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        late = None if seconds is None else self.loop.call_later(seconds, self._late)
        self._deadline = late

    def _late(self) -> None:
        if self.transport.is_closing() or self.waits_for in (Wait.BODY, Wait.ANSWER):
            self.transport.abort()
        else:
            self.transport.close()  # which waits until the client has taken what is written
            self._set_deadline(self._settings.body_seconds)


class Room:
    """The open connections of a server, by their clients' addresses.

    Where there is no room for a newcomer, the address that has most connections waiting gives one
    up, or the newcomer's own where that has as many as it may: first one that never asked for
    anything, and of those the one that has waited longest.
    """

    def __init__(self, *, most: int, most_of_address: int):
        self._most, self._most_of_address = most, most_of_address
        self._open: set[Connection] = set()
        self._of: collections.Counter[bytes] = collections.Counter()
        # Dictionaries are sets in order here: the longest wait comes first.
        self._waiting: dict[bytes, dict[Connection, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, newcomer: Connection) -> bool:
        """Counts a newcomer; False where there is no room, as the others are owed an answer."""
        if self._of[newcomer.address] >= self._most_of_address:
            has_room = self._make_room(self._waiting.get(newcomer.address))
        elif len(self._open) >= self._most:
            has_room = self._make_room(max(self._waiting.values(), key=len, default=None))
        else:
            has_room = True
        if not has_room:
            return False
        self._open.add(newcomer)
        self._of[newcomer.address] += 1
        self.wait(newcomer)
        return True

    def _make_room(self, crowd: dict[Connection, None] | None) -> bool:
        """Closes one of the connections that wait, if any do."""
        if not crowd:
            return False
        longest = next(iter(crowd))
        given_up = next((one for one in crowd if one.never_asked), longest)
        self.leave(given_up)
        given_up.abort()
        return True

    def wait(self, connection: Connection) -> None:
        """Notes that a connection waits for its client from now on."""
        if connection in self._open:
            self.owe(connection)
            self._waiting.setdefault(connection.address, {})[connection] = None

    def owe(self, connection: Connection) -> None:
        """Notes that a connection's client waits for the server, or is gone."""
        crowd = self._waiting.get(connection.address, {})
        crowd.pop(connection, None)
        if not crowd:
            self._waiting.pop(connection.address, None)

    def leave(self, connection: Connection) -> None:
        """Forgets a connection; nothing happens where it is forgotten already."""
        if connection not in self._open:
            return
        self.owe(connection)
        self._open.remove(connection)
        self._of[connection.address] -= 1
        if not self._of[connection.address]:
            del self._of[connection.address]


def counted_address(address: str) -> bytes:
    """Returns what clients are told apart by: an IPv4 address, or the network of an IPv6 one.

    Whoever has an IPv6 address has the 2^64 of its network as well.
    """
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return b""
    if known.version == 4:
        return known.packed
    mapped = known.ipv4_mapped
    return mapped.packed if mapped else known.packed[:8]


def affordable(connections: int) -> int:
    """Returns how many connections this process may have open, up to those that are wanted.

    The soft limit of open files is raised as far as that takes and the hard one allows.
    """
    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted:
        return connections
    allowed = max(soft - OTHER_FILES, 1)
    log.warning(
        "%d connections instead of %d: this process may open %d files (ulimit -Hn)",
        allowed,
        connections,
        soft,
    )
    return allowed
