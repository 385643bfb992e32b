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
      connections: open connections; any more are refused at once.
      body_seconds: how long a request's body may take to come.
      goodbye_seconds: how long what is under way may take when the server is told to stop.
      retry_seconds: between attempts to warm up, when one has failed.

    Raises:
      InputError: one of them is not what it has to be; the message names it.
    """

    workers: int = 4
    waiting: int = 60
    connections: int = 1000
    body_seconds: float = 10.0
    goodbye_seconds: int = 30
    retry_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name, least in (
            ("workers", 1),
            ("waiting", 0),
            ("connections", 1),
            ("goodbye_seconds", 0),
        ):
            whole(f"ServerSettings.{name}", getattr(self, name), least=least)
        for name in ("body_seconds", "retry_seconds"):
            value = getattr(self, name)
            seconds(f"ServerSettings.{name}", value, most=threading.TIMEOUT_MAX)
