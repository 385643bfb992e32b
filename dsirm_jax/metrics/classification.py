"""Metrics of binary relevance over a pool of (query, item) pairs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real, Shaped

CALIBRATION_BINS = 15
CELLS_AT_ONCE = 1 << 20


def check_finite(**arrays: Shaped[np.ndarray, " _"]) -> None:
    """Raises unless every array is finite and all have the same length.

    Args:
      **arrays: one-dimensional arrays by name.

    Raises:
      ValueError: naming the array and the first position at fault.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays of one length expected, got {lengths}")
    for name, array in arrays.items():
        bad = ~np.isfinite(array)
        if bad.any():
            at = int(bad.argmax())
            raise ValueError(f"{name} is {array[at]} at position {at}; metrics need finite numbers")


def roc_auc(labels: Shaped[np.ndarray, " pair"], scores: Real[np.ndarray, " pair"]) -> float:
    """Returns P(score of a relevant pair > score of an irrelevant one), ties counted half.

    Args:
      labels: bool or 0/1 `[pair]`.
      scores: `[pair]`, higher means more relevant.

    Returns:
      The area under the ROC curve; NaN when only one class is present.

    Raises:
      ValueError: an input is not finite. Source: scikit-learn's `roc_auc_score`.
    """
    from sklearn.metrics import roc_auc_score

    check_finite(labels=labels, scores=scores)
    if not _has_both_classes(labels):
        return float("nan")
    return float(roc_auc_score(labels, scores))


def pr_auc(labels: Shaped[np.ndarray, " pair"], scores: Real[np.ndarray, " pair"]) -> float:
    """Returns average precision, Σ_t (R_t − R_{t−1}) P_t over descending distinct scores t.

    Args:
      labels: bool or 0/1 `[pair]`.
      scores: `[pair]`, higher means more relevant.

    Returns:
      The area under the precision-recall curve; NaN when no pair is relevant.

    Raises:
      ValueError: an input is not finite. Source: scikit-learn's `average_precision_score`.
    """
    from sklearn.metrics import average_precision_score

    check_finite(labels=labels, scores=scores)
    if not np.any(labels):
        return float("nan")
    return float(average_precision_score(labels, scores))


def pair_log_losses(
    labels: Shaped[np.ndarray, " pair"], probabilities: Real[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """Returns −log P(label) of each pair in nats, float64 `[pair]`.

    Probabilities are clipped to one float64 epsilon from 0 and 1, as scikit-learn does, so that a
    confident mistake costs 36 nats rather than infinity.

    Args:
      labels: bool or 0/1 `[pair]`.
      probabilities: of being relevant, `[pair]` in [0, 1].
    """
    _check_probabilities(labels, probabilities)
    epsilon = np.finfo(np.float64).eps
    clipped = np.clip(np.asarray(probabilities, np.float64), epsilon, 1 - epsilon)
    return -np.where(np.asarray(labels, bool), np.log(clipped), np.log1p(-clipped))


def log_loss(
    labels: Shaped[np.ndarray, " pair"], probabilities: Real[np.ndarray, " pair"]
) -> float:
    """Returns the mean of −log P(label) in nats.

    Args:
      labels: bool or 0/1 `[pair]`.
      probabilities: of being relevant, `[pair]` in [0, 1].

    Returns:
      The mean over pairs; NaN when there are none.

    Raises:
      ValueError: an input is not finite or a probability lies outside [0, 1].

    Example:
      >>> round(log_loss(np.array([1, 0]), np.array([0.5, 0.5])), 6)  # ln 2
      0.693147
    """
    losses = pair_log_losses(labels, probabilities)
    return float(losses.mean()) if len(losses) else float("nan")


def calibration_bin(
    probabilities: Real[np.ndarray, " pair"], bins: int = CALIBRATION_BINS
) -> Int[np.ndarray, " pair"]:
    """Returns the equal-width bin of [0, 1] that holds each probability, int64 `[pair]`.

    Example:
      >>> calibration_bin(np.array([0.0, 0.26, 1.0]), bins=4).tolist()
      [0, 1, 3]
    """
    return np.minimum((np.asarray(probabilities, np.float64) * bins).astype(np.int64), bins - 1)


def ece(
    labels: Shaped[np.ndarray, " pair"],
    probabilities: Real[np.ndarray, " pair"],
    bins: int = CALIBRATION_BINS,
) -> float:
    """Returns Σ_b n_b/n · |mean label − mean probability| over equal-width bins b.

    Args:
      labels: bool or 0/1 `[pair]`.
      probabilities: of being relevant, `[pair]` in [0, 1].
      bins: number of bins of [0, 1].

    Returns:
      The expected calibration error in [0, 1]; NaN when there are no pairs.

    Raises:
      ValueError: an input is not finite or a probability lies outside [0, 1].
        Source: Naeini et al. 2015; 15 bins as in Guo et al. 2017, arXiv 1706.04599.

    Example:
      >>> ece(np.array([1, 0]), np.array([0.75, 0.25]), bins=2)
      0.25
    """
    _check_probabilities(labels, probabilities)
    if not len(labels):
        return float("nan")
    gaps = np.asarray(probabilities, np.float64) - np.asarray(labels, np.float64)
    sums = np.bincount(calibration_bin(probabilities, bins), weights=gaps, minlength=bins)
    return float(np.abs(sums).sum() / len(labels))


class Reliability(NamedTuple):
    """The pairs of the bins of [0, 1] that have any, one row a bin.

    Attributes:
      number: of the bin, from 0.
      pairs: how many it has.
      probability: mean of theirs.
      share: of them that are relevant; where probabilities are calibrated, the same.
    """

    number: Int[np.ndarray, " bin"]
    pairs: Int[np.ndarray, " bin"]
    probability: Float[np.ndarray, " bin"]
    share: Float[np.ndarray, " bin"]


def reliability(
    labels: Shaped[np.ndarray, " pair"],
    probabilities: Real[np.ndarray, " pair"],
    bins: int = CALIBRATION_BINS,
) -> Reliability:
    """Returns the points of a reliability diagram, over equal-width bins as in `ece`.

    Args:
      labels: bool or 0/1 `[pair]`.
      probabilities: of being relevant, `[pair]` in [0, 1].
      bins: number of bins of [0, 1].

    Raises:
      ValueError: an input is not finite or a probability lies outside [0, 1].
        Source: DeGroot & Fienberg 1983; as drawn by Guo et al. 2017, arXiv 1706.04599.

    Example:
      >>> found = reliability(np.array([1, 0]), np.array([0.75, 0.875]), bins=2)
      >>> found.number.tolist(), found.probability.tolist(), found.share.tolist()
      ([1], [0.8125], [0.5])
    """
    _check_probabilities(labels, probabilities)
    of_bin = calibration_bin(probabilities, bins)
    pairs = np.bincount(of_bin, minlength=bins)
    number = np.flatnonzero(pairs)
    probability, share = (
        np.bincount(of_bin, weights=np.asarray(values, np.float64), minlength=bins)[number]
        / pairs[number]
        for values in (probabilities, labels)
    )
    return Reliability(number, pairs[number], probability, share)


def ece_floor(
    probabilities: Real[np.ndarray, " pair"],
    *,
    bins: int = CALIBRATION_BINS,
    draws: int = 200,
    seed: int = 0,
) -> float:
    """Returns the ECE that one must expect of these probabilities though they were all true.

    `ece` is above 0 for chance alone, the more so the fewer pairs there are: this is its mean over
    labels that are drawn from the probabilities, each pair's on its own.

    Args:
      probabilities: of being relevant, `[pair]` in [0, 1].
      bins: number of bins of [0, 1].
      draws: of labels for all pairs.
      seed: of the draws.

    Returns:
      The floor in [0, 1]; NaN when there are no pairs.

    Raises:
      ValueError: a probability is not finite or lies outside [0, 1]. Source: this project.
    """
    probabilities = np.asarray(probabilities, np.float64)
    _check_probabilities(probabilities, probabilities)
    if not len(probabilities):
        return float("nan")
    generator = np.random.Generator(np.random.Philox(key=seed))
    of_bin, count = calibration_bin(probabilities, bins), len(probabilities)
    most, errors = max(1, CELLS_AT_ONCE // count), []
    for start in range(0, draws, most):
        rows = min(most, draws - start)
        labels = generator.random((rows, count)) < probabilities
        cells = np.arange(rows)[:, None] * bins + of_bin
        sums = np.bincount(cells.ravel(), (probabilities - labels).ravel(), rows * bins)
        errors.append(np.abs(sums.reshape(rows, bins)).sum(axis=1) / count)
    return float(np.mean(np.concatenate(errors)))


def _has_both_classes(labels: Shaped[np.ndarray, " pair"]) -> bool:
    return bool(np.any(labels) and not np.all(labels))


def _check_probabilities(
    labels: Shaped[np.ndarray, " pair"], probabilities: Real[np.ndarray, " pair"]
) -> None:
    check_finite(labels=labels, probabilities=probabilities)
    if len(probabilities) and not (np.min(probabilities) >= 0 and np.max(probabilities) <= 1):
        raise ValueError("probabilities outside [0, 1]")
