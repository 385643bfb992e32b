"""Losses within queries and their slopes in float64, and the linear score that minimises them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.pairs import LabelledPairs

Loss = Callable[[Float[np.ndarray, " pair"]], tuple[float, Float[np.ndarray, " pair"]]]
"""From scores to a loss and its slopes."""
TOLERANCE = 1e-10
MOST_STEPS = 2000


class Contests(NamedTuple):
    """Pairs of pairs of one query that differ in gain.

    Attributes:
      better: row of the pair of more gain.
      worse: row of the other.
      share: what each counts; they add up to 1.
    """

    better: Int[np.ndarray, " contest"]
    worse: Int[np.ndarray, " contest"]
    share: Float[np.ndarray, " contest"]


def contests(pairs: LabelledPairs) -> Contests:
    """Returns all contests of some pairs, weighted as in `losses.pairwise_loss`."""
    order = np.argsort(pairs.queries, kind="stable")
    borders = np.flatnonzero(np.diff(pairs.queries[order])) + 1
    better, worse, shares = [], [], []
    for rows in np.split(order, borders):
        gains, weights = pairs.gains[rows], pairs.weights[rows].astype(float)
        one, other = np.nonzero(gains[:, None] > gains)
        if len(one):
            counts = weights[one] * weights[other]
            better.append(rows[one])
            worse.append(rows[other])
            shares.append(counts / counts.sum())
    if not shares:
        return Contests(np.empty(0, int), np.empty(0, int), np.empty(0))
    return Contests(
        np.concatenate(better), np.concatenate(worse), np.concatenate(shares) / len(shares)
    )


def pairwise(of: Contests) -> Loss:
    """Returns `losses.pairwise_loss` of contests."""
    from scipy.special import expit

    def loss(scores: Float[np.ndarray, " pair"]) -> tuple[float, Float[np.ndarray, " pair"]]:
        ahead = scores[of.better] - scores[of.worse]
        slope = of.share * expit(-ahead)
        fewest = len(scores)
        slopes = np.bincount(of.worse, slope, fewest) - np.bincount(of.better, slope, fewest)
        return float(of.share @ np.logaddexp(0.0, -ahead)), slopes.astype(float)

    return loss


def listwise(pairs: LabelledPairs) -> Loss:
    """Returns `losses.listwise_loss` of pairs."""
    queries = np.unique(pairs.queries, return_inverse=True)[1]
    count = queries.max() + 1
    gains = (pairs.weights * pairs.gains).astype(float)
    worth = np.bincount(queries, gains)
    listed = worth > 0
    shares = gains / np.where(listed, worth, 1.0)[queries] / max(listed.sum(), 1)
    of_query = np.bincount(queries, shares)

    def loss(scores: Float[np.ndarray, " pair"]) -> tuple[float, Float[np.ndarray, " pair"]]:
        highest = np.full(count, -np.inf)
        np.maximum.at(highest, queries, scores)
        shifted = scores - highest[queries]
        total = np.bincount(queries, np.exp(shifted))
        logs = shifted - np.log(total)[queries]
        return float(-shares @ logs), of_query[queries] * np.exp(logs) - shares

    return loss


def pointwise(pairs: LabelledPairs) -> Loss:
    """Returns `losses.binary_loss` of pairs."""
    from scipy.special import expit

    signs = np.where(pairs.labels, 1.0, -1.0)
    shares = pairs.weights / pairs.weights.sum(dtype=float)

    def loss(scores: Float[np.ndarray, " pair"]) -> tuple[float, Float[np.ndarray, " pair"]]:
        margins = signs * scores
        return float(shares @ np.logaddexp(0.0, -margins)), -shares * signs * expit(-margins)

    return loss


def best_line(
    inputs: Float[np.ndarray, "pair feature"],
    losses: tuple[tuple[float, Loss], ...],
    *,
    l2: float,
    signs: Int[np.ndarray, " feature"],
    with_bias: bool,
) -> tuple[Float[np.ndarray, " feature"], float]:
    """Returns the weights and the bias of the linear score of least loss.

    Args:
      inputs: float64.
      losses: what each counts, and the loss.
      l2: half of it times the squared weights is added.
      signs: 1 where a weight may not be below 0, -1 where it may not be above, else 0.
      with_bias: whether there is a bias; losses within queries do not see any.

    Returns:
      The minimum, which is the only one. Source: Byrd et al. 1995, L-BFGS-B, projects on bounds.
    """
    from scipy.optimize import minimize

    def objective(line: Float[np.ndarray, " number"]) -> tuple[float, Float[np.ndarray, " number"]]:
        weights, bias = line[:-1], line[-1]
        scores = inputs @ weights + bias
        value, slopes = l2 / 2 * float(weights @ weights), np.zeros(len(scores))
        for counts, loss in losses:
            one, slope = loss(scores)
            value, slopes = value + counts * one, slopes + counts * slope
        return value, np.append(inputs.T @ slopes + l2 * weights, slopes.sum())

    ends = {1: (0.0, None), -1: (None, 0.0), 0: (None, None)}
    bounds = [*(ends[sign] for sign in signs.tolist()), (None, None) if with_bias else (0.0, 0.0)]
    options = {
        "ftol": TOLERANCE,
        "gtol": TOLERANCE,
        "maxiter": MOST_STEPS,
        "maxfun": 2 * MOST_STEPS,
    }
    line = minimize(
        objective,
        np.zeros(len(bounds)),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options=options,
    ).x
    return line[:-1], float(line[-1])
