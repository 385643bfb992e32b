"""Judged pairs of a query and an item: those that teach a head, and those that judge it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledPairs:
    """Pairs that a head is fitted to.

    Attributes:
      features: float32 `[pair, feature]`, finite.
      labels: bool `[pair]`, whether the item is relevant; both occur.
      grades: int32 `[pair]`, number of the pair's grade, from 0 in the order of gains.
      gains: float32 `[pair]`, what the grade is worth.
      weights: float32 `[pair]`, importance, above 0.
      queries: int32 `[pair]`, number of the pair's query.
      relevant: whether each grade counts as relevant, the grades of no pair among them.
    """

    features: Float[np.ndarray, "pair feature"]
    labels: Bool[np.ndarray, " pair"]
    grades: Int[np.ndarray, " pair"]
    gains: Float[np.ndarray, " pair"]
    weights: Float[np.ndarray, " pair"]
    queries: Int[np.ndarray, " pair"]
    relevant: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, kept: np.ndarray) -> LabelledPairs:
        """Returns the pairs that a mask, or row numbers, keep."""
        columns = {name: values[kept] for name, values in vars(self).items() if name != "relevant"}
        return LabelledPairs(**columns, relevant=self.relevant)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedPairs:
    """The test pairs that rungs are judged on.

    Attributes:
      query_index: int64 `[pair]`.
      identity: int64 `[pair]`, a number that all spellings of the pair's query share.
      relevant: bool `[pair]`.
      gain: float `[pair]`, what nDCG counts.
      label: str `[pair]`, the grade; None where it is not known.
      segments: bool `[pair]`, by name: the pairs of each segment that is judged on its own too.
    """

    query_index: np.ndarray
    identity: np.ndarray
    relevant: np.ndarray
    gain: np.ndarray
    label: np.ndarray
    segments: Mapping[str, np.ndarray]

    def where(self, kept: np.ndarray) -> JudgedPairs:
        """Returns the pairs that a mask keeps."""
        return JudgedPairs(
            query_index=self.query_index[kept],
            identity=self.identity[kept],
            relevant=self.relevant[kept],
            gain=self.gain[kept],
            label=self.label[kept],
            segments={name: members[kept] for name, members in self.segments.items()},
        )
