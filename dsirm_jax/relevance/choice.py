"""Which of several heads ranks best on queries that it was not fitted to."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from dsirm_jax.io.checks import check_holds, is_whole
from dsirm_jax.metrics.classification import log_loss
from dsirm_jax.metrics.ranking import ndcg_at_k, per_query_auc
from dsirm_jax.relevance.calibration import LOGISTIC, calibrated_probabilities, fit_curve
from dsirm_jax.relevance.heads.head import Head, check_head
from dsirm_jax.relevance.pairs import LabelledPairs

NDCG, AUC, LOG_LOSS = METRICS = ("ndcg@10", "per_query_auc", "log_loss")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A choice between heads by cross-validation over the queries that teach them.

    Attributes:
      rivals: heads that are tried beside `relevance.run.head`, which stays where none is better.
      folds: parts of the queries, each scored by heads that are fitted to the others.
      metric: "ndcg@10" or "per_query_auc", within queries; "log_loss", over all pairs, of
        probabilities by a rising line that is fitted to these scores.
    """

    rivals: tuple[Head, ...]
    folds: int = 5
    metric: str = NDCG

    def __post_init__(self) -> None:
        check_holds(
            isinstance(self.rivals, tuple) and bool(self.rivals),
            binding="Choice.rivals",
            value=self.rivals,
            remedy="a tuple of one head or more",
        )
        for number, head in enumerate(self.rivals):
            check_head(head, binding=f"Choice.rivals[{number}]")
        check_holds(
            is_whole(self.folds, least=2),
            binding="Choice.folds",
            value=self.folds,
            remedy="a whole number of at least 2",
        )
        check_holds(
            self.metric in METRICS,
            binding="Choice.metric",
            value=self.metric,
            remedy=" or ".join(map(repr, METRICS)),
        )

    def worth(self, pairs: LabelledPairs, scores: Float[np.ndarray, " pair"]) -> float:
        """Returns the metric of scores of pairs, more where they are better.

        It is below any other where no query has what the metric wants.
        """
        if self.metric == NDCG:
            value = ndcg_at_k(pairs.queries, pairs.gains, scores, k=10)
        elif self.metric == AUC:
            value = per_query_auc(pairs.queries, pairs.labels, scores)
        else:
            columns = {"logits": scores, "labels": pairs.labels, "weights": pairs.weights}
            curve = fit_curve(LOGISTIC, **columns)
            value = -log_loss(pairs.labels, np.asarray(calibrated_probabilities(curve, scores)))
        return -np.inf if np.isnan(value) else float(value)
