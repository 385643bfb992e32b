"""The cached queries that a bundle holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.queries.table import CachedRow


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedTable:
    """The file of cached queries of a catalogue, mapped into memory.

    Attributes:
      catalogue: whose queries they are.
    """

    catalogue: BundleCatalogue

    def get(self, query: str, *, until: float) -> CachedRow | None:
        text = self.catalogue.spelling(query)
        cached = None if text is None else self.catalogue.cached(text)
        return None if text is None or cached is None else CachedRow(text, cached)

    def statistics(self) -> Mapping[str, float]:
        return {"cached_queries": len(self.catalogue.queries)}

    def close(self) -> None:
        """Leaves the file open, which others may have too."""
