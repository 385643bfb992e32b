"""Says in words what the lifts say in numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dsirm_jax.relevance.evaluate import BASELINE, LOWER_IS_BETTER, SHARE_WITHIN
from dsirm_jax.relevance.metrics_table import power_text
from dsirm_jax.run.layout import FULL

RUNG_NAMES = {
    BASELINE: "no SID",
    "unsupervised": "unsupervised SIDs",
    FULL: "full model",
    "full_on_seen": "head of seen queries",
    "no_prf": "neither feedback nor votes",
    "prf": "feedback without votes",
    "judged": "judged neighbours by kernel",
}
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "auc_between": "AUC between queries",
    "auc_within": "AUC within queries",
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
RANKING = ("auc_within", "ndcg@10")
"""Metrics of the order of one query's items."""
BETWEEN = {
    "better": "tells good queries from bad",
    "worse": "tells good queries from bad less well",
    "unclear": "does not tell good queries from bad better",
}
WITHIN = {
    "better": "ranks items better within a query",
    "worse": "ranks items worse within a query",
    "unclear": "does not rank their items better",
}
MOST_COMPARISONS = 4
"""With more than that, the verdict is on controls alone."""


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


def strongest_control(metrics: Mapping[str, Any]) -> str | None:
    """Returns the rung without codes that is hardest to beat: that of the greatest ROC-AUC.

    It is chosen on the test queries, which is in the control's favour.

    Args:
      metrics: contents of `metrics.json`; of an earlier version, whose only control is no SID.

    Returns:
      None where the full model is compared with no control.
    """
    named = metrics.get("controls", [BASELINE])
    controls = [rung for rung in named if "roc_auc" in lift_over(metrics, rung)]
    return max(controls, key=lambda rung: metrics["rungs"][rung]["roc_auc"]["value"], default=None)


def lift_over_control(metrics: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Returns the strongest control, and all lifts of the full model over it; empty without one.

    Args:
      metrics: contents of `metrics.json`.
    """
    control = strongest_control(metrics)
    return control, lift_over(metrics, control) if control else {}


def verdict(metrics: Mapping[str, Any]) -> Verdict | None:
    """Returns the verdict on ROC-AUC over the strongest control, None where there is none.

    Args:
      metrics: contents of `metrics.json`.
    """
    control, whole = lift_over_control(metrics)
    if control is None:
        return None
    lift = whole["roc_auc"]
    kind = outcome(lift, "roc_auc")
    phrase = {
        "better": "SIDs raise ROC-AUC by",
        "worse": "SIDs lower ROC-AUC:",
        "unclear": "SIDs make no measurable difference to ROC-AUC:",
    }[kind]
    before, after = (metrics["rungs"][rung]["roc_auc"]["value"] for rung in (control, FULL))
    relative = f"{100 * lift['relative']:+.1f}".replace("-", "−")
    controls = metrics.get("controls", [BASELINE])
    among = f", the strongest of {len(controls)} controls without codes" if controls[1:] else ""
    return Verdict(
        outcome=kind,
        headline=f"{phrase} {_with_interval(lift)} over {rung_name(control)}{among}.",
        details=(
            f"From {before:.4f} to {after:.4f}, {relative} % relative, on "
            f"{metrics['queries']:,} test queries that no stage had seen.",
            *_kinds_of_gain(metrics, whole),
            *_powers(whole),
            *(_against(over, other) for over, other in _others(metrics, control).items()),
        ),
    )


def lift_over(of: Mapping[str, Any], rung: str) -> Mapping[str, Any]:
    """Returns the lift of the full model over a rung, by metric; empty without one.

    Args:
      of: what has `lifts`: `metrics.json`, one of its segments, its fine-grained part.
      rung: that it is compared with.
    """
    for lift in of["lifts"].values():
        if (lift["rung"], lift["over"]) == (FULL, rung):
            return lift
    return {}


def _others(metrics: Mapping[str, Any], control: str) -> dict[str, Mapping[str, float]]:
    """Returns the lifts in ROC-AUC of the full model over other rungs that are told of."""
    others = {
        lift["over"]: lift["roc_auc"]
        for lift in metrics["lifts"].values()
        if lift["rung"] == FULL and lift["over"] != control and "roc_auc" in lift
    }
    if len(others) <= MOST_COMPARISONS:
        return others
    return {over: lift for over, lift in others.items() if over in metrics.get("controls", ())}


def _kinds_of_gain(metrics: Mapping[str, Any], lift: Mapping[str, Any]) -> list[str]:
    """Returns a sentence on gains between queries and within them, where they are told apart."""
    if "auc_between" not in lift or SHARE_WITHIN not in metrics:
        return []
    between, within = outcome(lift["auc_between"], "auc_between"), ranking_outcome(lift)
    share = 100 * (1 - metrics[SHARE_WITHIN]["value"])
    names = {
        "auc_between": f"between queries ({share:.4g} % of all comparisons)",
        "auc_within": "within a query",
        "ndcg@10": METRIC_NAMES["ndcg@10"],
    }
    shown = [f"{name} {_with_interval(lift[kind])}" for kind, name in names.items() if kind in lift]
    return [f"The full model {BETWEEN[between]}; it {WITHIN[within]}: {', '.join(shown)}."]


def ranking_outcome(lift: Mapping[str, Any]) -> str:
    """Returns `better` where a metric of ranking is and none is worse, `worse` the other way round.

    Args:
      lift: of all metrics, one of `lifts` of `metrics.json`.
    """
    outcomes = {outcome(lift[metric], metric) for metric in RANKING if metric in lift}
    outcomes.discard("unclear")
    return outcomes.pop() if len(outcomes) == 1 else "unclear"


def _powers(lift: Mapping[str, Any]) -> list[str]:
    """Returns a sentence on what so many queries can tell, where it was measured."""
    if "power" not in lift:
        return []
    text = power_text(lift["power"])
    return [f"{text[0].upper()}{text[1:]}."]


def _against(over: str, lift: Mapping[str, float]) -> str:
    phrase = {
        "better": "does better than",
        "worse": "does worse than",
        "unclear": "cannot be told apart from",
    }[outcome(lift, "roc_auc")]
    return f"The full model {phrase} {rung_name(over)}: {_with_interval(lift)}."


def _with_interval(lift: Mapping[str, float]) -> str:
    return f"{signed(lift['value'])} [{signed(lift['low'])}, {signed(lift['high'])}]"
