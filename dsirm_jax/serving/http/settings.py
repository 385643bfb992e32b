"""How much a server takes on at once."""

from __future__ import annotations

import dataclasses
import threading

from dsirm_jax.serving.limits import seconds, whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How much a server takes on at once.

    Attributes:
      workers: threads that call the scorer; the more of them compute, the longer the event loop
        waits for its turn.
      waiting: further requests that may wait for a thread; any more are refused at once.
      connections: open connections, as far as the system's limit of open files allows; where there
        is no room for another, one that waits for its client is closed.
      client_connections: of one address, or one IPv6 network of 64 bits, likewise. Clients behind a
        proxy share its address: where all of them are, give as many as `connections`.
      header_seconds: how long a request's header may take to come, and the first one's from when
        the connection is made.
      idle_seconds: how long a connection may wait for a further request.
      body_seconds: how long a request's body may take to come, and an answer to be taken.
      goodbye_seconds: how long what is under way may take when the server is told to stop.
      retry_seconds: between attempts to warm up, when one has failed.

    Raises:
      InputError: one of them is not what it has to be; the message names it.
    """

    workers: int = 4
    waiting: int = 60
    connections: int = 4000
    client_connections: int = 2000
    header_seconds: float = 10.0
    # Longer than the 60 s for which common proxies keep theirs: the proxy is to close first.
    idle_seconds: float = 75.0
    body_seconds: float = 10.0
    goodbye_seconds: int = 30
    retry_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (
            ("workers", 1),
            ("waiting", 0),
            ("connections", 1),
            ("client_connections", 1),
            ("goodbye_seconds", 0),
        ):
            whole(f"ServerSettings.{name}", getattr(self, name), least=least)
        for name in ("header_seconds", "idle_seconds", "body_seconds", "retry_seconds"):
            value = getattr(self, name)
            seconds(f"ServerSettings.{name}", value, most=threading.TIMEOUT_MAX)
