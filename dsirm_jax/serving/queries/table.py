"""What a table of cached queries is to a scorer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from dsirm_jax.serving.bundle.cached import Cached

if TYPE_CHECKING:
    from dsirm_jax.serving.bundle.contents import Bundle


class CachedRow(NamedTuple):
    """A row of a table.

    Attributes:
      text: the spelling under which the query is cached.
      cached: what is known of it.
    """

    text: str
    cached: Cached


class QueryTable(Protocol):
    """Cached queries, open; threads share it."""

    def get(self, query: str, *, until: float) -> CachedRow | None:
        """Returns what is known of a query by any of its spellings.

        A table that is slow, gone or damaged raises nothing: the query is as one not cached.

        Args:
          query: its text, cleaned.
          until: time of `time.monotonic` by which the caller wants its whole answer.

        Returns:
          The row, all of whose items, training queries and SIDs are the bundle's; None where there
          is none, or not in time.
        """

    def statistics(self) -> Mapping[str, float]:
        """Returns counts since it was opened, by names that no other kind has."""

    def close(self) -> None:
        """Lets go of what it holds."""


class QueryStore(Protocol):
    """Where a shared table is, and how it is asked: settings of a kind."""

    def open(self, bundle: Bundle) -> QueryTable:
        """Returns the table of a bundle's version; no row of another one is ever read."""
