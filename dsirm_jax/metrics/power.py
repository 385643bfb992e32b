"""What lift in ROC-AUC so many queries can tell from none, and how many queries a lift takes.

A lift is detectable that a two-sided test at 5 % finds in 80 % of samples: (1.960 + 0.842) standard
errors. A standard error falls with the root of the number of queries.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Int, Integer, Shaped

ERRORS = 1.959964 + 0.841621
"""Standard errors of a detectable lift."""
TARGET = 0.0154
"""The paper's lift of ROC-AUC, relative. Source: Wang et al. 2026, arXiv 2606.04374."""
USUAL_AUC = 0.8
USUAL_CORRELATION = 0.95
"""Between the AUCs of two rungs on the same pairs; .90 to .97 where it was measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Power:
    """What a comparison can tell.

    Attributes:
      standard_error: of a lift in ROC-AUC.
      detectable: the least lift that is found in 80 % of samples.
      target_queries: the queries at which `TARGET` is detectable.
    """

    standard_error: float
    detectable: float
    target_queries: int


def power(*, standard_error: float, auc: float, queries: int) -> Power | None:
    """Returns what a comparison can tell.

    Args:
      standard_error: of its lift in ROC-AUC.
      auc: ROC-AUC of the baseline.
      queries: that it was measured on.

    Returns:
      None where one of them is not finite, or the AUC is 0.
    """
    if not (math.isfinite(standard_error) and math.isfinite(auc) and auc > 0):
        return None
    detectable = ERRORS * standard_error
    needed = math.ceil(queries * (detectable / (TARGET * auc)) ** 2)
    return Power(standard_error=standard_error, detectable=detectable, target_queries=needed)


def design_effect(
    labels: Shaped[np.ndarray, " pair"], queries: Integer[np.ndarray, " pair"]
) -> float:
    """Returns by how much pairs of one query being alike multiplies a variance, at least 1.

    1 + (m − 1) ρ, where m is the size-weighted mean number of pairs of a query, and ρ the
    correlation of labels within queries (analysis of variance): what is known before there are
    scores.

    Args:
      labels: bool or 0/1 `[pair]`.
      queries: integer query of each pair, spellings as one. Source: Kish 1965; Donner 1986.
    """
    index, sizes = _sizes(queries)
    pairs, groups = len(index), len(sizes)
    if groups < 2 or pairs == groups:
        return 1.0
    values = np.asarray(labels, np.float64)
    means = np.bincount(index, values) / sizes
    among = sizes @ (means - values.mean()) ** 2 / (groups - 1)
    inside = ((values - means[index]) ** 2).sum() / (pairs - groups)
    usual = (pairs - (sizes**2).sum() / pairs) / (groups - 1)
    spread = among + (usual - 1) * inside
    alike = max((among - inside) / spread, 0.0) if spread > 0 else 0.0
    return float(1 + ((sizes**2).sum() / pairs - 1) * alike)


def expected_error(
    labels: Shaped[np.ndarray, " pair"],
    queries: Integer[np.ndarray, " pair"],
    *,
    auc: float = USUAL_AUC,
    correlation: float = USUAL_CORRELATION,
) -> float:
    """Returns the standard error that a lift in ROC-AUC will have, before there are scores.

    √(2 (1 − correlation) · design effect · V), V being the variance of an AUC of independent pairs
    whose scores are exponential.

    Args:
      labels: bool or 0/1 `[pair]`.
      queries: as in `design_effect`.
      auc: expected of either rung.
      correlation: expected of the AUCs of both.

    Returns:
      NaN where a class is missing. Source: Hanley & McNeil 1982 and 1983.
    """
    relevant = int(np.count_nonzero(labels))
    irrelevant = len(labels) - relevant
    if not relevant or not irrelevant:
        return math.nan
    of_relevant = (relevant - 1) * (auc / (2 - auc) - auc**2)
    of_irrelevant = (irrelevant - 1) * (2 * auc**2 / (1 + auc) - auc**2)
    variance = (auc * (1 - auc) + of_relevant + of_irrelevant) / (relevant * irrelevant)
    return math.sqrt(2 * (1 - correlation) * design_effect(labels, queries) * variance)


def _sizes(
    queries: Integer[np.ndarray, " pair"],
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " query"]]:
    _, index, sizes = np.unique(queries, return_inverse=True, return_counts=True)
    return index, sizes
