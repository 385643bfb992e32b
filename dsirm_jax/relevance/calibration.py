"""Log-odds of pairs that a head was not fitted to, and their labels, to honest probabilities."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.sids.arrays import AnyArray

TEMPERATURE, LOGISTIC, ISOTONIC = CALIBRATIONS = ("temperature", "logistic", "isotonic")
TEMPERATURES = (0.1, 10.0)
LEAST_SLOPE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """How probabilities are made honest.

    Attributes:
      kind: "temperature", one number that log-odds are divided by; "logistic", a rising line, for
        heads whose scores have no zero, of the loss "ranking"; "isotonic", a rising curve, for
        heads that are off in other ways and some thousands of pairs.
      folds: parts of the queries, each scored by a head that is fitted to the others; the head
        itself is fitted to all. Costs as many fits more; for few queries.
      share: where `folds` is 0, share of the queries that the head is not fitted to and that
        calibrate it instead; 0 leaves the log-odds as they are.
    """

    kind: str = TEMPERATURE
    folds: int = 0
    share: float = 0.2

    def __post_init__(self) -> None:
        check_holds(
            self.kind in CALIBRATIONS,
            binding="Calibration.kind",
            value=self.kind,
            remedy=f"{TEMPERATURE!r}, {LOGISTIC!r} or {ISOTONIC!r}",
        )
        check_holds(
            is_whole(self.folds, least=0) and self.folds != 1,
            binding="Calibration.folds",
            value=self.folds,
            remedy="0, or a whole number of at least 2",
        )
        check_holds(
            0 <= self.share < 1,
            binding="Calibration.share",
            value=self.share,
            remedy="a share of at least 0 and below 1",
        )


class Curve(NamedTuple):
    """A rising map of log-odds: straight between its knots, and on as it ends beyond them.

    Attributes:
      knots: log-odds of the head, float32 `[knot]`, rising; at least two.
      values: calibrated log-odds, likewise.
    """

    knots: Float[AnyArray, " knot"]
    values: Float[AnyArray, " knot"]


def divided_by(temperature: float) -> Curve:
    """Returns the curve that divides log-odds by a number."""
    knots = np.array([-1, 1], np.float32)
    return Curve(knots, knots / np.float32(temperature))


AS_IT_IS = divided_by(1.0)


def calibrated(curve: Curve, logits: Float[AnyArray, " pair"]) -> Float[Array, " pair"]:
    """Returns calibrated log-odds."""
    return jnp.interp(logits, *curve, left="extrapolate", right="extrapolate")


def fit_curve(
    kind: str,
    *,
    logits: Float[np.ndarray, " pair"],
    labels: Bool[np.ndarray, " pair"],
    weights: Real[np.ndarray, " pair"],
) -> Curve:
    """Fits a curve of a kind to pairs; `AS_IT_IS` when one class is missing, for no curve is best.

    Args:
      kind: of `CALIBRATIONS`.
      logits: log-odds of pairs that the head was not fitted to.
      labels: whether each pair is relevant.
      weights: importance of each pair.
    """
    counted = weights > 0
    logits, labels, weights = logits[counted], labels[counted], weights[counted]
    if not (labels.any() and not labels.all()):
        return AS_IT_IS
    columns = np.asarray(logits, np.float64), labels, np.asarray(weights, np.float64)
    if kind == ISOTONIC:
        return rising_curve(*columns)
    if kind == LOGISTIC:
        return rising_line(*columns)
    return divided_by(fit_temperature(*columns))


def fit_temperature(
    logits: Float[np.ndarray, " pair"],
    labels: Bool[np.ndarray, " pair"],
    weights: Real[np.ndarray, " pair"],
) -> float:
    """Returns the temperature t that minimises the weighted log-loss of sigmoid(logits / t).

    Args:
      logits: uncalibrated log-odds.
      labels: whether each pair is relevant, some of each class.
      weights: importance of each pair.

    Returns:
      t within `TEMPERATURES`. Source: Guo et al. 2017, arXiv 1706.04599.
    """
    from scipy.optimize import minimize_scalar

    signed = np.where(labels, logits, -logits)

    def loss(log_temperature: float) -> float:
        losses = np.logaddexp(0.0, -signed / np.exp(log_temperature))
        return float(np.sum(weights * losses))

    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def rising_line(
    logits: Float[np.ndarray, " pair"],
    labels: Bool[np.ndarray, " pair"],
    weights: Real[np.ndarray, " pair"],
) -> Curve:
    """Returns the rising line of log-odds over scores that minimises the weighted log-loss.

    Args:
      logits: scores on any scale.
      labels: whether each pair is relevant, some of each class.
      weights: importance of each pair.

    Returns:
      A line whose slope is at least `LEAST_SLOPE` over the scores' deviation, so that order is kept
      also where scores say nothing. Source: Platt 1999.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    centre = np.average(logits, weights=weights)
    spread = np.sqrt(np.average((logits - centre) ** 2, weights=weights)) or 1.0
    scores, signs = (logits - centre) / spread, np.where(labels, 1.0, -1.0)
    shares = weights / weights.sum()

    def loss(line: Float[np.ndarray, "2"]) -> tuple[float, Float[np.ndarray, "2"]]:
        margins = signs * (line[0] * scores + line[1])
        slopes = -shares * signs * expit(-margins)
        value = float(np.sum(shares * np.logaddexp(0.0, -margins)))
        return value, np.array([slopes @ scores, slopes.sum()])

    odds = np.log(np.sum(shares[labels]) / np.sum(shares[~labels]))
    bounds = [(LEAST_SLOPE, None), (None, None)]
    start = np.array([1.0, odds])
    slope, height = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14}
    ).x
    knots = centre + spread * np.array([-1.0, 1.0])
    values = np.array([height - slope, height + slope])
    return Curve(knots.astype(np.float32), values.astype(np.float32))


def rising_curve(
    logits: Float[np.ndarray, " pair"],
    labels: Bool[np.ndarray, " pair"],
    weights: Real[np.ndarray, " pair"],
) -> Curve:
    """Returns isotonic regression, its steps made slopes so that no two log-odds become one.

    A block of the regression is one knot, at its mean log-odds, with half a pair of each class
    added so that none is certain. Beyond the outer knots the curve rises with slope 1.

    Args:
      logits: uncalibrated log-odds.
      labels: whether each pair is relevant.
      weights: importance of each pair, above 0.

    Returns:
      A strictly rising curve. Source: Zadrozny & Elkan 2002; knots at the centres of blocks after
      Oron & Flournoy 2017, arXiv 1701.05964.
    """
    places, place = np.unique(logits, return_inverse=True)  # ties go together
    total = np.bincount(place, weights=weights)
    blocks = _pooled(places, total, np.bincount(place, weights=weights * labels), added=0.0)
    before = 0
    # With half pairs added, a small block can have come to lie behind a large one.
    while len(blocks[0]) != before:
        before = len(blocks[0])
        blocks = _pooled(*blocks, added=0.5)
    places, total, hits = blocks
    values = np.log((hits + 0.5) / (total - hits + 0.5))
    return Curve(
        knots=np.array([places[0] - 1, *places, places[-1] + 1], np.float32),
        values=np.array([values[0] - 1, *values, values[-1] + 1], np.float32),
    )


def _pooled(
    places: np.ndarray, total: np.ndarray, hits: np.ndarray, *, added: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pools neighbours whose share of hits does not rise; returns the blocks' own mean and sums."""
    from sklearn.isotonic import isotonic_regression

    shares = (hits + added) / (total + 2 * added)
    steps = isotonic_regression(shares, sample_weight=total)
    block = np.cumsum(np.diff(steps, prepend=steps[0]) > 0)
    weight, hits, sums = (
        np.bincount(block, weights=values) for values in (total, hits, total * places)
    )
    return sums / weight, weight, hits


def calibrated_probabilities(
    curve: Curve, logits: Float[AnyArray, " pair"]
) -> Float[Array, " pair"]:
    """Returns calibrated probabilities of being relevant."""
    return jax.nn.sigmoid(calibrated(curve, logits))
