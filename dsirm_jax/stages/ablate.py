"""The ablation ladder: the whole job once a fold and a seed, every rung judged on all queries.

A fold is a run of its own in `MODEL_DIR/folds/`, whose test queries no stage of it has seen, so
nothing can leak between folds. Each query is a test query of one fold; the scores of all folds are
judged together.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from dsirm_jax.io.checks import check_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_json, write_text
from dsirm_jax.run.layout import Layout
from dsirm_jax.run.runner import Stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    """How much evidence to gather. The rungs are `relevance.run.rungs` and `Job.rungs`.

    Attributes:
      folds: parts that the queries are divided into; each is for evaluation once.
      seeds: of everything but the data; metrics are averaged over them.
      crossfit: see `Job.crossfit`.
    """

    folds: int = 5
    seeds: tuple[int, ...] = (0,)
    crossfit: bool = False

    def __post_init__(self) -> None:
        check_whole("Ladder.folds", self.folds, least=2)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(
                f"gin binding Ladder.seeds is {self.seeds!r}; bind a tuple of different seeds"
            )
        for seed in self.seeds:
            check_whole("Ladder.seeds", seed, least=0)


def run(layout: Layout, *, folds: list[list[Layout]], seed: int, esci_gains: str = "paper") -> None:
    """predictions of all folds -> metrics of every rung with intervals, and lifts between rungs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.identity import identity_in
    from dsirm_jax.data.schema import TEST
    from dsirm_jax.relevance import fine_grained
    from dsirm_jax.relevance.evaluate import BASELINE, evaluate, lifts_between
    from dsirm_jax.relevance.tables import ABOUT_THE_PAIR, pooled, write_predictions
    from dsirm_jax.report.plot import lift_plot
    from dsirm_jax.stages.relevance import language_of

    pairs, scores = pooled(folds)
    judged = pq.read_table(folds[0][0].judgements, columns=[*ABOUT_THE_PAIR, "item_index"])
    place = judged.schema.get_field_index("split")
    judged = judged.set_column(place, "split", pa.repeat(TEST, len(judged)))
    write_predictions(
        layout.ladder_predictions,
        judged=judged,
        scores={rung: runs.mean(axis=0) for rung, runs in scores.items()},
        identity=identity_in(folds[0][0].queries),
    )
    lifts = lifts_between(scores)
    metrics = evaluate(pairs=pairs, scores=scores, lifts=lifts, esci_gains=esci_gains, seed=seed)
    metrics["fine_grained"] = fine_grained.measure(
        fine_grained.Judged(pairs.query_index, judged["item_index"].to_numpy(), pairs.gain),
        scores,
        at=folds[0][0],
        language=language_of(folds[0][0]),
        lifts=lifts,
        seed=seed,
    )
    of_fold = json.loads(folds[0][0].metrics.read_text("utf-8"))
    controls = [rung for rung in of_fold.get("controls", [BASELINE]) if rung in scores]
    metrics |= {"folds": len(folds[0]), "seeds": len(folds), "controls": controls}
    write_json(layout.ladder, metrics)
    write_text(layout.ladder_plot, lift_plot(metrics))


def outlook(at: Layout, *, former: Path) -> str:
    """Returns in words what lift a ladder can tell from none, before it runs.

    Args:
      at: a run whose queries are prepared.
      former: the `ablation.json` of a ladder that ran before, if any, whose standard error is then
        taken: that of full over its strongest control.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.data.identity import identities_in
    from dsirm_jax.metrics.power import (
        USUAL_AUC,
        USUAL_CORRELATION,
        design_effect,
        expected_error,
        power,
    )
    from dsirm_jax.relevance.metrics_table import power_text
    from dsirm_jax.report.verdict import lift_over_control

    table = pq.read_table(at.judgements, columns=["query_index", "relevant"])
    query, relevant = (table[name].to_numpy() for name in ("query_index", "relevant"))
    identity = identities_in(at.queries)[query]
    queries = len(np.unique(query))
    before = json.loads(former.read_text("utf-8")) if former.is_file() else {}
    control, lift = lift_over_control(before) if before else (None, {})
    if control and "power" in lift:
        error = lift["power"]["standard_error"] * (before["queries"] / queries) ** 0.5
        auc = before["rungs"][control]["roc_auc"]["value"]
        basis = f"as full over {control} had on {before['queries']:,} queries"
    else:
        error, auc = expected_error(relevant, identity), USUAL_AUC
        basis = (
            f"if ROC-AUC is {USUAL_AUC:g} and correlates at {USUAL_CORRELATION:g} between rungs; "
            f"design effect {design_effect(relevant, identity):.2f}"
        )
    told = power(standard_error=error, auc=auc, queries=queries)
    size = f"{queries:,} queries, {len(query):,} pairs"
    return f"{size}: {power_text(dataclasses.asdict(told))} ({basis})" if told else size


STAGE = Stage(name="ablate", function=run, alone=True)
