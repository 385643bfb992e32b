"""Runs of equal values in sorted arrays."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer


def runs(
    ascending: Integer[np.ndarray, " row"],
) -> tuple[Integer[np.ndarray, " run"], Integer[np.ndarray, " run"]]:
    """Returns the distinct values of an ascending array that is not empty, and where each starts.

    Example:
      >>> values, starts = runs(np.array([3, 3, 5, 7, 7, 7]))
      >>> values.tolist(), starts.tolist()
      ([3, 5, 7], [0, 2, 3])
    """
    starts = np.flatnonzero(np.diff(ascending, prepend=ascending[0] - 1))
    return ascending[starts], starts
