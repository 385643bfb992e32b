"""Says in words what the lifts say in numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dsirm_jax.relevance.evaluate import BASELINE, LOWER_IS_BETTER
from dsirm_jax.run.layout import FULL

RUNG_NAMES = {
    BASELINE: "no SID",
    "unsupervised": "unsupervised SIDs",
    FULL: "full model",
    "full_on_seen": "head of seen queries",
}
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "per_query_auc": "AUC per query",
    "pr_auc": "PR-AUC",
    "log_loss": "log-loss",
    "ece": "ECE",
    "ndcg@10": "nDCG@10",
    "mrr": "MRR",
    "recall@5": "recall@5",
}
TASK_NAMES = {
    "task_1_ndcg": "task 1, ranking: nDCG",
    "task_2_micro_f1": "task 2, four classes: micro F1",
    "task_2_macro_f1": "task 2: macro F1",
    "task_3_micro_f1": "task 3, substitutes: micro F1",
    "task_3_macro_f1": "task 3: macro F1",
}
"""Metrics of `metrics.esci`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether SIDs help.

    Attributes:
      outcome: `better`, `worse` or `unclear`.
      headline: one sentence.
      details: further sentences.
    """

    outcome: str
    headline: str
    details: tuple[str, ...]


def rung_name(rung: str) -> str:
    """Returns how the page calls a rung."""
    return RUNG_NAMES.get(rung, rung.replace("_", " "))


def signed(value: float) -> str:
    """Returns a difference with its sign, to four places."""
    return f"{value:+.4f}".replace("-", "−")


def outcome(lift: Mapping[str, float], metric: str) -> str:
    """Returns `better` or `worse` when the interval leaves out zero, else `unclear`."""
    if lift["low"] <= 0 <= lift["high"]:
        return "unclear"
    return "worse" if (lift["low"] > 0) == (metric in LOWER_IS_BETTER) else "better"


def verdict(metrics: Mapping[str, Any]) -> Verdict | None:
    """Returns the verdict on ROC-AUC of the test queries, None where it was not compared.

    Args:
      metrics: contents of `metrics.json`.
    """
    lifts = {
        lift["over"]: lift["roc_auc"]
        for lift in metrics["lifts"].values()
        if lift["rung"] == FULL and "roc_auc" in lift
    }
    if BASELINE not in lifts:
        return None
    lift = lifts.pop(BASELINE)
    kind = outcome(lift, "roc_auc")
    phrase = {
        "better": "SIDs raise ROC-AUC by",
        "worse": "SIDs lower ROC-AUC:",
        "unclear": "SIDs make no measurable difference to ROC-AUC:",
    }[kind]
    before, after = (metrics["rungs"][rung]["roc_auc"]["value"] for rung in (BASELINE, FULL))
    relative = f"{100 * lift['relative']:+.1f}".replace("-", "−")
    return Verdict(
        outcome=kind,
        headline=f"{phrase} {_with_interval(lift)} over no SID.",
        details=(
            f"From {before:.4f} to {after:.4f}, {relative} % relative, on "
            f"{metrics['queries']:,} test queries that no stage had seen.",
            *(_against(over, lift) for over, lift in lifts.items()),
        ),
    )


def _against(over: str, lift: Mapping[str, float]) -> str:
    phrase = {
        "better": "does better than",
        "worse": "does worse than",
        "unclear": "cannot be told apart from",
    }[outcome(lift, "roc_auc")]
    return f"The full model {phrase} {rung_name(over)}: {_with_interval(lift)}."


def _with_interval(lift: Mapping[str, float]) -> str:
    return f"{signed(lift['value'])} [{signed(lift['low'])}, {signed(lift['high'])}]"
