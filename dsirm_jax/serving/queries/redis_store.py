"""Cached queries in Redis, or what speaks its protocol, which any number of machines share."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from dsirm_jax.io import secrets
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.counts import Counts
from dsirm_jax.serving.limits import seconds
from dsirm_jax.serving.queries.table import CachedRow
from dsirm_jax.serving.queries.values import Values
from dsirm_jax.serving.scorer.batching import Batcher, Overloaded

if TYPE_CHECKING:
    import redis

log = logging.getLogger(__name__)
SCHEMES = ("redis://", "rediss://", "unix://")
HITS, MISSES, DAMAGED = "store_hits", "store_misses", "store_damaged"
FAILED, SKIPPED = "store_failed", "store_skipped"
COUNTS = (HITS, MISSES, DAMAGED, FAILED, SKIPPED)
KEYS_AT_ONCE = 64
WAITING = 256
"""Look-ups that may wait; a further one has failed at once."""
SHARE = 0.5
"""Of the time that is left to a request, how much it may wait for the store."""
LOADING_SECONDS, LOADING_ATTEMPTS = 10.0, 3
MOST_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RedisQueries:
    """A Redis that has cached queries, see `values` for how they lie there.

    Attributes:
      url: `redis://`, `rediss://` (TLS) or `unix://`; a password is `${NAME}`, percent-encoded in
        that environment variable: `redis://:${PASSWORD}@host:6379/0`.
      seconds: most that a request waits for it, and half of what is left of its deadline at most.
      rest: seconds for which it is not asked when it has not answered.

    Raises:
      InputError: one of them is not what it has to be; the message names it.
    """

    url: str
    seconds: float = 0.02
    rest: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.url, str) or not self.url.startswith(SCHEMES):
            shown = secrets.masked(repr(self.url))
            raise InputError(
                f"RedisQueries.url is {shown}; give a URL such as "
                f"redis://:${{PASSWORD}}@host:6379/0, or one of {', '.join(SCHEMES)}"
            )
        secrets.check_public("RedisQueries.url", self.url)
        seconds("RedisQueries.seconds", self.seconds, most=MOST_SECONDS)
        seconds("RedisQueries.rest", self.rest, most=MOST_SECONDS)
        if not self.seconds:
            raise InputError("RedisQueries.seconds is 0; give seconds above 0, such as 0.02")

    def open(self, bundle: Bundle) -> RedisTable:
        """Returns the table of a bundle's version, whether or not the server is there yet."""
        return RedisTable(self, values=Values.of(bundle))

    @property
    def public(self) -> str:
        """What messages show of the URL."""
        return secrets.public_url(self.url)

    def shown(self, error: Exception) -> str:
        """Returns what may be shown of an error of the client, in one line."""
        said = " ".join(secrets.erased(str(error), self.url).split())[:200]
        return f"{type(error).__name__}: {said}" if said else type(error).__name__

    def client(self, *, timeout: float, attempts: int = 0) -> redis.Redis:
        """Returns a client, which connects when it is first asked.

        Args:
          timeout: seconds to connect, and for each answer.
          attempts: further ones of a command that failed.

        Raises:
          InputError: the package is missing, or the URL is none, or an environment variable is not
            set.
        """
        try:
            import redis
            from redis.backoff import ExponentialBackoff
            from redis.connection import parse_url
            from redis.retry import Retry
        except ModuleNotFoundError as error:
            raise InputError(
                "cached queries in Redis need the package redis: pip install '.[redis]' in a "
                "checkout"
            ) from error
        url = secrets.resolved(self.url, binding="RedisQueries.url")
        try:
            options = dict(parse_url(url))
            # What is said here counts, whatever the URL says.
            options |= {"socket_timeout": timeout, "socket_connect_timeout": timeout}
            options |= {"retry": Retry(ExponentialBackoff(), attempts), "protocol": 2}
            options |= {"decode_responses": False, "health_check_interval": 0}
            return redis.Redis(connection_pool=redis.ConnectionPool(**options))
        except (ValueError, TypeError) as error:
            raise InputError(f"RedisQueries.url is no URL of Redis ({self.shown(error)})") from None


class RedisTable:
    """A table, of which one thread asks the server for all that is wanted at the time.

    Callers wait for that thread as long as they may and no longer, so that a server that hangs
    holds none of theirs. Where it has not answered, nobody asks or waits until it has rested.
    """

    def __init__(self, settings: RedisQueries, *, values: Values):
        self._settings, self._values = settings, values
        self._client = settings.client(timeout=settings.seconds)
        self._counts = Counts(COUNTS)
        self._rests_until, self._is_away = 0.0, False
        self._batcher = Batcher(self._asked, most=KEYS_AT_ONCE, waiting=WAITING)

    def get(self, query: str, *, until: float) -> CachedRow | None:
        now = time.monotonic()
        if now < self._rests_until:
            return self._counted(SKIPPED)
        wait = max(min(self._settings.seconds, SHARE * (until - now)), 0)
        try:
            future = self._batcher.submit(self._values.key(query))
        except Overloaded:
            return self._counted(FAILED)
        try:
            found = future.result(timeout=wait)
        except (TimeoutError, CancelledError):  # late, or closed meanwhile
            future.cancel()
            return self._counted(FAILED)
        if isinstance(found, str):
            return self._counted(found)
        row = self._values.row(query, found)
        return self._counted(DAMAGED if row is None else HITS, row)

    def statistics(self) -> Mapping[str, float]:
        """Returns how look-ups ended.

        `store_hits` and `store_misses`: it was there, or not; `store_damaged`: what is there is
        not what was written; `store_failed`: no answer, or not in time; `store_skipped`: not asked,
        as the server rests.
        """
        return self._counts.now()

    def close(self) -> None:
        self._batcher.close()
        self._client.close()

    def _asked(self, keys: Sequence[bytes]) -> list[bytes | str]:
        """Returns what is at some keys, or how the look-up ended where that is nothing."""
        if time.monotonic() < self._rests_until:
            return [SKIPPED] * len(keys)
        try:
            values = self._client.mget(keys)
        except Exception as error:  # whatever the client makes of an answer: no request fails
            self._rests_until = time.monotonic() + self._settings.rest
            if not self._is_away:
                self._is_away = True
                log.warning(
                    "%s does not answer (%s); queries that it caches are live until it does",
                    *(self._settings.public, self._settings.shown(error)),
                )
            return [FAILED] * len(keys)
        if self._is_away:
            self._is_away = False
            log.warning("%s answers again", self._settings.public)
        return [MISSES if value is None else value for value in values]

    def _counted(self, name: str, row: CachedRow | None = None) -> CachedRow | None:
        self._counts.add(name)
        return row


class RedisWriter:
    """What writes cached queries of a bundle; a command that fails is tried again."""

    def __init__(self, settings: RedisQueries, *, values: Values):
        self._settings, self._values = settings, values
        self._client = settings.client(timeout=LOADING_SECONDS, attempts=LOADING_ATTEMPTS)

    def has(self, queries: Sequence[str]) -> list[bool]:
        """Returns whether each query is there, whole.

        Raises:
          InputError: the server does not answer.
        """
        with self._telling():
            found: list[Any] = self._client.mget([self._values.key(query) for query in queries])
        return [
            value is not None and self._values.row(query, value) is not None
            for query, value in zip(queries, found, strict=True)
        ]

    def write(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Writes keys and values, all of them in one exchange.

        Raises:
          InputError: the server does not answer, or has no room.
        """
        with self._telling(), self._client.pipeline(transaction=False) as pipeline:
            for key, value in rows:
                pipeline.set(key, value)
            pipeline.execute()

    def close(self) -> None:
        self._client.close()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        import redis

        try:
            yield
        except (redis.RedisError, OSError) as error:
            raise InputError(
                f"{self._settings.public} takes no queries ({self._settings.shown(error)}); what "
                f"was written stays, and the same command goes on from there"
            ) from None
