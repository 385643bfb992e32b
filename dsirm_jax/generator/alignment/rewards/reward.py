"""What writing an item's SID for a query is worth to alignment.

A kind is a file in this folder, or in a module of the user's own, and `alignment.Alignment.reward`
in gin.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int


class PairRewards(NamedTuple):
    """What some pairs of a training query and an item are worth; pairs not among them, nothing.

    Attributes:
      query_index: row of the queries table.
      item_index: row of the items table.
      reward: from 0 to 1.
    """

    query_index: Int[np.ndarray, " pair"]
    item_index: Int[np.ndarray, " pair"]
    reward: Float[np.ndarray, " pair"]


@runtime_checkable
class Reward(Protocol):
    """A frozen dataclass of settings."""

    def files(self) -> list[str]:
        """Returns the user's files that it reads."""
        ...

    def of_pairs(self, *, items: Path, queries: Path, judgements: Path) -> PairRewards:
        """Returns what pairs are worth, none of another split than `train` among them.

        Args:
          items: `prepare/items.parquet`.
          queries: `prepare/queries.parquet`.
          judgements: `prepare/judgements.parquet`.

        Raises:
          InputError: no pair of a training query is worth anything.
        """
        ...
