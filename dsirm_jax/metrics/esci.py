"""The three tasks of the Shopping Queries data (ESCI), by their official definitions.

Each metric is a `bootstrap.Statistic`: its value, once every query is drawn once, is the official
one. Source: Reddy et al. 2022, arXiv 2206.06588, and github.com/amazon-science/esci-data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Integer, Real

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics.bootstrap import Statistic, f1_scores, mean_over_queries
from dsirm_jax.metrics.classification import check_finite
from dsirm_jax.metrics.ranking import ndcg_per_query

LABELS = ("E", "S", "C", "I")
SUBSTITUTE = "S"
PAPER = "paper"
SCRIPT = "script"
GAINS = {
    PAPER: {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0},
    SCRIPT: {"E": 1.0, "S": 0.01, "C": 0.1, "I": 0.0},
}
"""What labels are worth in task 1: in the paper, and in the data's own `ranking/` scripts."""


def are_labels(labels: Sequence[str | None]) -> bool:
    """Returns whether all labels are E, S, C or I, and there are any."""
    return len(labels) > 0 and set(labels) <= set(LABELS)


def check_gains(name: str) -> None:
    """Raises InputError where `GAINS` has no gains of that name."""
    if name not in GAINS:
        raise InputError(
            f"gin binding relevance.run.esci_gains is {name!r}; bind {PAPER!r} (S .1, C .01) or "
            f"{SCRIPT!r} (S .01, C .1)"
        )


def ranking(
    queries: Integer[np.ndarray, " pair"],
    labels: Sequence[str],
    scores: Real[np.ndarray, " pair"],
    *,
    gains: str = PAPER,
) -> Statistic:
    """Returns the metric of task 1: nDCG over all ranks, of all queries.

    As with `trec_eval -c`, which the task takes it from, a query without a gain counts as 0. Ties
    are as in `ndcg_per_query`.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: E, S, C or I `[pair]`.
      scores: `[pair]`, higher ranks first.
      gains: whose gains, see `GAINS`: section 4 of the paper has S .1 and C .01; the command in the
        official `prepare_trec_eval_files.py`, under its numbers of the labels, C .1 and S .01.

    Returns:
      The mean over queries; NaN when there are none.

    Raises:
      ValueError: a score is not finite, or a label is none of the four.
    """
    _check_labels(labels)
    worth = np.array([GAINS[gains][label] for label in labels])
    of_query = ndcg_per_query(queries, worth, scores, k=max(len(labels), 1))
    return mean_over_queries(np.nan_to_num(of_query))


def classification(
    queries: Integer[np.ndarray, " pair"], labels: Sequence[str], predicted: Sequence[str]
) -> dict[str, Statistic]:
    """Returns the metrics of task 2, `micro_f1` (the official one) and `macro_f1`.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: E, S, C or I `[pair]`.
      predicted: likewise.

    Returns:
      By name; NaN when there are no pairs.

    Raises:
      ValueError: a label is none of the four, or their numbers differ.
    """
    _check_labels(labels)
    _check_labels(predicted)
    return f1_scores(queries, np.asarray(labels, str), np.asarray(predicted, str))


def substitutes(
    queries: Integer[np.ndarray, " pair"],
    labels: Sequence[str],
    probabilities: Real[np.ndarray, " pair"],
) -> dict[str, Statistic]:
    """Returns the metrics of task 3, `micro_f1` (the official one) and `macro_f1`.

    Args:
      queries: integer query of each pair, `[pair]`.
      labels: E, S, C or I `[pair]`.
      probabilities: of being a substitute, `[pair]`; one of at least a half says that it is.

    Returns:
      By name, over the classes substitute and other; NaN when there are no pairs.

    Raises:
      ValueError: a label is none of the four, or a probability is not finite.
    """
    _check_labels(labels)
    probabilities = np.asarray(probabilities, np.float64)
    check_finite(probabilities=probabilities)
    return f1_scores(queries, np.asarray(labels, str) == SUBSTITUTE, probabilities >= 0.5)


def _check_labels(labels: Sequence[str]) -> None:
    unknown = sorted({str(label) for label in labels} - set(LABELS))
    if unknown:
        raise ValueError(f"labels {unknown} are none of {list(LABELS)}")
