"""The cached queries of a scorer, whichever table has them."""

from __future__ import annotations

import collections
import functools
import threading
from collections.abc import Mapping, Sequence

from dsirm_jax.data.identity import PLAIN
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.queries.embedded import EmbeddedTable
from dsirm_jax.serving.queries.table import QueryTable
from dsirm_jax.serving.scorer.evidence import CachedQuery, Evidence, cached_query
from dsirm_jax.serving.scorer.settings import ScorerSettings


def cached_queries(
    bundle: Bundle, evidence: Evidence, *, settings: ScorerSettings
) -> CachedQueries:
    """Returns the cached queries of a bundle and, behind them, those of a store."""
    tables: list[QueryTable] = [EmbeddedTable(catalogue=bundle.catalogue)]
    if settings.queries is not None:
        tables.append(settings.queries.open(bundle))
    return CachedQueries(evidence, tables=tables, remembered=settings.remembered)


class CachedQueries:
    """Tables of cached queries, asked one after the other; what was read lately is remembered.

    That a query is in none is not remembered: a shared table grows, or was away.
    """

    def __init__(self, evidence: Evidence, *, tables: Sequence[QueryTable], remembered: int):
        """Takes tables over.

        Args:
          evidence: of the bundle.
          tables: the fastest first.
          remembered: queries that are kept.
        """
        self._evidence, self._tables, self._room = evidence, tables, remembered
        identity = evidence.catalogue.identity or PLAIN
        self._identity = functools.lru_cache(remembered)(identity.of)
        self._kept: collections.OrderedDict[str, CachedQuery] = collections.OrderedDict()
        self._keeping = threading.Lock()

    def get(self, query: str, *, until: float) -> CachedQuery | None:
        """Returns what is known of a query by any of its spellings; None where it is in no table.

        Args:
          query: its text, cleaned.
          until: see `QueryTable.get`.
        """
        identity = self._identity(query)
        with self._keeping:
            if (kept := self._kept.get(identity)) is not None:
                self._kept.move_to_end(identity)
                return kept
        for table in self._tables:
            if (row := table.get(query, until=until)) is not None:
                break
        else:
            return None
        found = cached_query(self._evidence, row)
        with self._keeping:
            self._kept[identity] = found
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return found

    def statistics(self) -> Mapping[str, float]:
        """Returns the counts of all tables."""
        return dict(collections.ChainMap(*(dict(table.statistics()) for table in self._tables)))

    def close(self) -> None:
        """Closes the tables."""
        for table in self._tables:
            table.close()
