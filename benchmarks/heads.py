"""Relevance heads beside each other on the features of a finished run, over its default head.

    python benchmarks/heads.py MODEL_DIR [--rung full] [--only NAME NAME] [--json FILE]

Each head is fitted to four fifths of the queries of the split `head`, calibrated by the others, as
the small models are, and judged on the split `test`; intervals are of 1,000 resamples of queries,
the same for all heads. Nothing is tuned here: weights of losses within queries are 1, and trees
have the settings of `BoostedTrees`.
The run stays as it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from lines import print_heading, print_row, write

from dsirm_jax.data.pairs import read_judgements
from dsirm_jax.data.schema import TEST
from dsirm_jax.relevance import groups, tables
from dsirm_jax.relevance.calibration import ISOTONIC, LOGISTIC, Calibration
from dsirm_jax.relevance.choice import Choice
from dsirm_jax.relevance.evaluate import evaluate
from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.lessons import lessons_of
from dsirm_jax.relevance.lists import list_names
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.relevance.train import train
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.training.settings import Training

DEFAULT = "default"
METRICS = ("roc_auc", "per_query_auc", "ndcg@10", "log_loss", "ece")
RISING = ("cosine", "bm25", "bm25_share", "overlap", "coverage", "phrase", "prf_mean", "prf_max")
EVERY = ("*",)
BLEND = Blend(heads=(Linear(), BoostedTrees()))
RANKED = Blend(heads=(Linear(pairwise=1.0), BoostedTrees()))
MONOTONE = Blend(heads=(Linear(rising=RISING), BoostedTrees(rising=RISING)))
STARTED = LambdaMart(start=BLEND)
HEADS: dict[str, dict[str, Any]] = {
    DEFAULT: {"head": BLEND},
    "default, in lists": {"head": BLEND, "in_lists": EVERY},
    "default, monotone": {"head": MONOTONE},
    "linear": {"head": Linear()},
    "linear, pairwise": {"head": Linear(pairwise=1.0)},
    "linear, listwise": {"head": Linear(listwise=1.0)},
    "linear, only pairwise": {"head": Linear(loss="ranking", pairwise=1.0)},
    "linear pairwise and trees": {"head": RANKED},
    "linear pairwise and trees, in lists": {"head": RANKED, "in_lists": EVERY},
    "LambdaMART": {"head": LambdaMart()},
    "LambdaMART, in lists": {"head": LambdaMart(), "in_lists": EVERY},
    "LambdaMART on default": {"head": STARTED},
    "LambdaMART on default, in lists": {"head": STARTED, "in_lists": EVERY},
    "chosen by ndcg@10": {
        "head": BLEND,
        "choice": Choice(rivals=(RANKED, MONOTONE, STARTED, LambdaMart())),
    },
    "chosen by ndcg@10, in lists": {
        "head": BLEND,
        "choice": Choice(rivals=(RANKED, MONOTONE, STARTED, LambdaMart())),
        "in_lists": EVERY,
    },
}


def main() -> None:
    """Prints a table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, metavar="MODEL_DIR")
    parser.add_argument("--rung", default=FULL, help="whose features heads read")
    parser.add_argument("--without", nargs="*", default=(), help="groups that they do not")
    parser.add_argument("--only", nargs="*", choices=HEADS, default=HEADS)
    parser.add_argument("--kind", choices=(LOGISTIC, ISOTONIC), default=LOGISTIC)
    parser.add_argument("--folds", type=int, default=0, help="0: a fifth of queries calibrates")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    layout = Layout(model_dir=given.run)
    names = list(dict.fromkeys((DEFAULT, *given.only)))
    scores, seconds = {}, {}
    features, pairs = features_of(layout, rung=given.rung, without=given.without)
    for name in names:
        begun = time.perf_counter()
        calibration = Calibration(kind=given.kind, folds=given.folds)
        scores[name] = scores_of(layout, features, pairs, calibration=calibration, **HEADS[name])
        seconds[name] = time.perf_counter() - begun
        print(f"fitted {name}", flush=True)
    judging = tables.read_judged_pairs(
        queries=layout.queries,
        items=layout.items,
        judgements=layout.judgements,
        rows=pairs["split"] == TEST,
    )
    # Over all pairs alone: neither segments nor the tasks of ESCI, which take most of the time.
    judging = dataclasses.replace(judging, segments={}, label=np.full(len(judging.label), ""))
    lifts = [(name, DEFAULT) for name in names if name != DEFAULT]
    metrics = evaluate(pairs=judging, scores=scores, lifts=lifts)
    print(f"{metrics['queries']:,} test queries, {metrics['pairs']:,} pairs")
    print_heading("head", *METRICS, "seconds")
    cases = []
    over = {lift["rung"]: lift for lift in metrics["lifts"].values()}
    for name in names:
        values = metrics["rungs"][name]
        print_row(name, *(f"{values[m]['value']:.4f}" for m in METRICS), f"{seconds[name]:.0f}")
        cases.append({"head": name, "seconds": seconds[name], "metrics": values})
        if name in over:
            lift = over[name]
            shown = (
                f"{lift[m]['value']:+.4f} [{lift[m]['low']:+.4f}, {lift[m]['high']:+.4f}]"
                for m in METRICS
            )
            print_row("  − default", *shown, "")
            cases[-1]["lift"] = lift
    write(given.json, cases)


def features_of(
    layout: Layout, *, rung: str, without: tuple[str, ...]
) -> tuple[FeatureTable, dict[str, np.ndarray]]:
    """Returns the features of all judged pairs, and the columns of these."""
    pairs = read_judgements(
        layout.judgements, *tables.ABOUT_THE_ROW, *tables.ABOUT_THE_PAIR, "weight"
    )
    at = layout.for_rung(rung)
    named = [name for name in groups.all_groups() if name not in without]
    [table] = tables.read_halves([(at.features, at.sid_features)], groups=named, rung=rung)
    return table, pairs


def scores_of(
    layout: Layout, features: FeatureTable, pairs: dict[str, np.ndarray], **settings: Any
) -> np.ndarray:
    """Returns the probabilities of the test pairs by a head of some settings."""
    tested, seen = pairs["split"] == TEST, pairs["split"] == "train"
    rows = lessons_of((FULL,), seen=seen[None], tested=tested)[FULL].rows
    lists = pairs["query_index"]
    with tempfile.TemporaryDirectory() as scratch:
        fitted = train(
            name="head",
            features=features.rows(rows),
            labels=pairs["relevant"][rows],
            gains=pairs["gain"][rows],
            weights=pairs["weight"][rows],
            queries=tables.first_spellings(layout.queries)[lists][rows],
            lists=lists[rows],
            training=Training(epochs=40, batch_size=256, learning_rate=3e-3),
            directory=Path(scratch),
            elsewhere=frozenset((*RISING, *list_names(RISING))),
            seed=0,
            **settings,
        )
    return score(fitted, features.rows(tested), lists=lists[tested])


if __name__ == "__main__":
    main()
