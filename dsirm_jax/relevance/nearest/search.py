"""What a search for the nearest vectors is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int

ITEMS, VOTERS = "items", "voters"
"""Names of what is searched: all items, and the training queries that vote."""

TEMPERATURE = 0.1


class Neighbours(NamedTuple):
    """The nearest candidates of each query, nearest first.

    Attributes:
      row: of each candidate, int32 `[query, neighbour]`.
      cosine: float32 `[query, neighbour]`; −inf where there are too few candidates.
    """

    row: Int[np.ndarray, "query neighbour"]
    cosine: Float[np.ndarray, "query neighbour"]

    def take(self, rows: Int[np.ndarray, " row"]) -> Neighbours:
        """Returns those of some queries."""
        return Neighbours(self.row[rows], self.cosine[rows])

    def weights(self) -> Float[np.ndarray, "query neighbour"]:
        """Softmax of cosine / `TEMPERATURE` over the neighbours; 0 where there is none."""
        nearest = np.maximum(self.cosine[:, :1], -1.0)
        exponentials = np.exp((self.cosine - nearest) / TEMPERATURE)
        return exponentials / np.maximum(exponentials.sum(axis=1, keepdims=True), 1e-9)


class Search(Protocol):
    """Finds the nearest of some vectors. Several threads may search at once."""

    def nearest(
        self,
        queries: Float[np.ndarray, "query dim"],
        *,
        k: int,
        own: Int[np.ndarray, " query"] | None = None,
    ) -> Neighbours:
        """Returns the k candidates of greatest cosine to each query.

        Args:
          queries: vectors of any length, in memory.
          k: neighbours per query; fewer when there are fewer candidates.
          own: the candidate that is the query itself and must not count, −1 where there is none.

        Returns:
          `Neighbours` of `min(k, candidates)` columns; of equal candidates the first come first.
        """
        ...


SearchOf = Callable[[str, Float[np.ndarray, "candidate dim"]], Search]
"""Makes the search of vectors of length 1, in memory or memory-mapped, that have a name."""
