"""Classes of pairs as scikit-learn's classifiers know them, and a head's outputs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.pairs import LabelledPairs

ABSENT_LOGIT = -30.0  # Log-probability, but for a constant, of a class that no pair has.


def classes_of(pairs: LabelledPairs, *, outputs: int) -> Int[np.ndarray, " pair"]:
    """Returns the class of each pair: whether it is relevant, or its grade, an output each."""
    return pairs.labels.astype(int) if outputs == 1 else pairs.grades


def class_outputs(
    classes: Int[np.ndarray, " pair"], *, outputs: int
) -> tuple[Int[np.ndarray, " column"], Float[np.ndarray, " output"]]:
    """Returns the outputs that a fitted classifier has a number for, and what all start from.

    Of two classes scikit-learn has the log-odds of the second alone.

    Args:
      classes: of each pair, from 0; at least two occur.
      outputs: 1, the log-odds of class 1 of two, or one per class of more.

    Returns:
      Numbers of outputs in the order of the classifier's, and 0 for each output, `ABSENT_LOGIT` for
      that of a class that no pair has.
    """
    if outputs == 1:
        return np.zeros(1, int), np.zeros(1, np.float32)
    present = np.unique(classes)
    start = np.full(outputs, ABSENT_LOGIT, np.float32)
    start[present] = 0
    return present if len(present) > 2 else present[1:], start
