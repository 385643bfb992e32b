"""Fits logistic regression on normal scores with scikit-learn."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.relevance.classes import outputs_told
from dsirm_jax.relevance.model import Linear, LinearParams, normal_scores

ALIKE = 1e-3
"""Values this near, in standard deviations, are one: rounding errors have no ranks."""


def fit_linear(
    head: Linear,
    *,
    features: Float[np.ndarray, "pair feature"],
    classes: Int[np.ndarray, " pair"],
    outputs: int,
    weights: Float[np.ndarray, " pair"],
) -> LinearParams:
    """Fits a linear head to pairs.

    Args:
      head: its shape.
      features: of the pairs, float32, finite.
      classes: of each pair, from 0; at least two occur.
      outputs: 1, the log-odds of class 1 of two, or one per class of more.
      weights: importance of each pair, above 0.

    Returns:
      What `model.outputs` applies. Source: this project; normal scores after van der Waerden 1952.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    columns, bias = outputs_told(classes, outputs=outputs)
    ranked = [rank_knots(column, most=head.knots) for column in features.T]
    knots, scores = (np.stack(part) for part in zip(*ranked, strict=True))
    params = LinearParams(
        knots=knots,
        scores=scores,
        weight=np.zeros((outputs, features.shape[1]), np.float32),
        bias=bias,
    )
    # Several threads add up in another order.
    with threadpool_limits(1):
        fitted = LogisticRegression(C=1 / head.l2, tol=1e-7, max_iter=1000).fit(
            np.asarray(normal_scores(params, features), np.float64), classes, sample_weight=weights
        )
    params.weight[columns] = fitted.coef_
    params.bias[columns] = fitted.intercept_
    return params


def rank_knots(
    values: Float[np.ndarray, " pair"], *, most: int
) -> tuple[Float[np.ndarray, " most"], Float[np.ndarray, " most"]]:
    """Returns some of a feature's values, and the normal quantile of the rank of each.

    The rank of a value is the share of pairs below it and half the share of those that have it, all
    values rounded to multiples of `ALIKE` standard deviations. Of more than `most` values those are
    kept whose ranks are spread evenly, the least and the greatest among them.

    Args:
      values: of all pairs.
      most: values returned; where there are fewer, the last is repeated.

    Returns:
      float32 values, rising, and their scores.
    """
    from scipy.special import ndtri

    step = ALIKE * values.std(dtype=np.float64) or 1.0
    found, counts = np.unique(np.round(values / step), return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(values)
    kept = np.arange(len(found))
    if len(found) > most:
        kept = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], most)))
    kept = np.pad(kept, (0, most - len(kept)), mode="edge")
    return np.float32(found[kept] * step), ndtri(ranks[kept]).astype(np.float32)
