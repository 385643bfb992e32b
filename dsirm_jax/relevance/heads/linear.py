"""Logistic regression on normal scores, fitted with scikit-learn, or to rank by SciPy."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.io.records import LATER
from dsirm_jax.relevance.heads import within_queries
from dsirm_jax.relevance.heads.classes import class_outputs, classes_of
from dsirm_jax.relevance.heads.head import (
    BINARY,
    GRADED,
    RANKING,
    Fitting,
    check_loss,
    check_ranking,
    num_outputs,
    ranks,
)
from dsirm_jax.relevance.heads.monotone import check_directions, directions, is_free
from dsirm_jax.relevance.heads.onnx_graph import Graph, interpolated
from dsirm_jax.relevance.pairs import LabelledPairs
from dsirm_jax.sids.arrays import AnyArray

if TYPE_CHECKING:
    from dsirm_jax.training.settings import Training

ALIKE = 1e-3
"""Values this near, in standard deviations, are one: rounding errors have no ranks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """Logistic regression on normal scores: each feature as the normal quantile of its rank.

    Attributes:
      l2: penalty: half of it times the squared weights is added to the pairs' cross-entropies,
        which are summed.
      knots: values of a feature whose ranks are kept; between them scores are interpolated.
      loss: "binary" or "graded" as in `Mlp`; "ranking": nothing but the two that follow.
      listwise: weight of `losses.listwise_loss`, that is added; it is a mean over queries and
        counts as much as the sum over pairs does, beside which `l2` stands.
      pairwise: likewise of `losses.pairwise_loss`.
      rising: names of features whose weights may not be below 0.
      falling: names of features whose weights may not be above 0.
    """

    l2: float = 100.0
    knots: int = 64
    loss: str = BINARY
    listwise: float = dataclasses.field(default=0.0, metadata=LATER)
    pairwise: float = dataclasses.field(default=0.0, metadata=LATER)
    rising: tuple[str, ...] = dataclasses.field(default=(), metadata=LATER)
    falling: tuple[str, ...] = dataclasses.field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        check_holds(
            0 < self.l2 < math.inf,
            binding="Linear.l2",
            value=self.l2,
            remedy="a number above 0",
        )
        check_holds(
            is_whole(self.knots, least=2),
            binding="Linear.knots",
            value=self.knots,
            remedy="a whole number of at least 2",
        )
        check_loss(self, losses=(BINARY, GRADED, RANKING))
        check_ranking(self)
        check_holds(
            self.loss != GRADED or not (self.listwise or self.pairwise),
            binding="Linear.loss",
            value=self.loss,
            remedy=f"{BINARY!r} or {RANKING!r} where Linear.listwise or Linear.pairwise is bound",
        )
        check_directions(self)

    def params_like(self, *, features: int, grades: int) -> LinearParams:
        outputs = num_outputs(self, grades=grades)
        return jax.eval_shape(
            lambda: LinearParams(
                knots=jnp.zeros((features, self.knots), jnp.float32),
                scores=jnp.zeros((features, self.knots), jnp.float32),
                weight=jnp.zeros((outputs, features), jnp.float32),
                bias=jnp.zeros(outputs, jnp.float32),
            )
        )

    def fit(self, pairs: LabelledPairs, fitting: Fitting) -> LinearParams:
        """Fits by scikit-learn's LogisticRegression, or with other losses or signs by L-BFGS-B.

        Raises:
          InputError: a name of `rising` or `falling` is of no rung.
            Source: this project; normal scores after van der Waerden 1952.
        """
        from sklearn.linear_model import LogisticRegression
        from threadpoolctl import threadpool_limits

        outputs = num_outputs(self, grades=len(pairs.relevant))
        classes = classes_of(pairs, outputs=outputs)
        columns, bias = class_outputs(classes, outputs=outputs)
        ranked = [rank_knots(column, most=self.knots) for column in pairs.features.T]
        knots, scores = (np.stack(part) for part in zip(*ranked, strict=True))
        weight = np.zeros((outputs, len(knots)), np.float32)
        inputs = np.empty(pairs.features.shape)
        for place in range(len(knots)):  # of all columns at once some arrays more would be held
            here = slice(place, place + 1)
            inputs[:, here] = normal_scores(pairs.features[:, here], knots[here], scores[here])
        # Several threads add up in another order.
        with threadpool_limits(1):
            if self.loss == GRADED or (self.loss == BINARY and is_free(self) and not ranks(self)):
                regression = LogisticRegression(C=1 / self.l2, tol=1e-7, max_iter=1000).fit(
                    inputs, classes, sample_weight=pairs.weights
                )
                weight[columns] = regression.coef_
                bias[columns] = regression.intercept_
            else:
                weight[0], bias[0] = self._line(inputs, pairs, fitting)
        return LinearParams(knots=knots, scores=scores, weight=weight, bias=bias)

    def _line(
        self, inputs: Float[np.ndarray, "pair feature"], pairs: LabelledPairs, fitting: Fitting
    ) -> tuple[Float[np.ndarray, " feature"], float]:
        """Returns weights and bias by the losses that are bound."""
        losses = [(1.0, within_queries.pointwise(pairs))] if self.loss == BINARY else []
        if self.listwise:
            losses.append((self.listwise, within_queries.listwise(pairs)))
        if self.pairwise:
            of = within_queries.contests(pairs)
            losses.append((self.pairwise, within_queries.pairwise(of)))
        return within_queries.best_line(
            inputs,
            tuple(losses),
            l2=self.l2 / float(pairs.weights.sum(dtype=float)),
            signs=directions(self, fitting, features=inputs.shape[1]),
            with_bias=self.loss == BINARY,
        )

    def outputs(
        self, params: LinearParams, features: Float[Array, "pair feature"], *, grades: int
    ) -> Float[Array, "pair output"]:
        scores = normal_scores(features, params.knots, params.scores)
        return scores @ params.weight.T + params.bias

    def add_to(self, graph: Graph, params: LinearParams, features: str, *, grades: int) -> str:
        knots, heights = np.asarray(params.knots), np.asarray(params.scores)
        scores = interpolated(graph, features, knots=knots, heights=heights, extrapolated=False)
        weighted = graph.add("MatMul", scores, np.asarray(params.weight).T)
        return graph.add("Add", weighted, np.asarray(params.bias))

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[()]:
        return ()


class LinearParams(struct.PyTreeNode):
    """What `Linear` has learnt.

    Attributes:
      knots: some values of each feature among the training pairs, float32 `[feature, knot]`, rising
        but for repetitions of the last.
      scores: normal quantile of the rank of each, likewise.
      weight: of each feature's score, float32 `[output, feature]`.
      bias: float32 `[output]`.
    """

    knots: Float[AnyArray, "feature knot"]
    scores: Float[AnyArray, "feature knot"]
    weight: Float[AnyArray, "output feature"]
    bias: Float[AnyArray, " output"]


def normal_scores(
    features: Float[AnyArray, "pair feature"],
    knots: Float[AnyArray, "feature knot"],
    scores: Float[AnyArray, "feature knot"],
) -> Float[Array, "pair feature"]:
    """Returns the score of each feature; one outside what training saw has that of the nearest.

    Args:
      features: as they come.
      knots: see `LinearParams`.
      scores: likewise.
    """
    by_column = jax.vmap(jnp.interp, in_axes=(1, 0, 0), out_axes=1)
    return by_column(jnp.asarray(features), knots, scores)


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
    distinct, counts = np.unique(np.round(values / step), return_counts=True)
    ranks = (np.cumsum(counts) - counts / 2) / len(values)
    kept = np.arange(len(distinct))
    if len(distinct) > most:
        kept = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], most)))
    kept = np.pad(kept, (0, most - len(kept)), mode="edge")
    return (distinct[kept] * step).astype(np.float32), ndtri(ranks[kept]).astype(np.float32)
