"""The ablation ladder: the whole job once a fold and a seed, every rung judged on all queries.

A fold is a run of its own in `MODEL_DIR/folds/`, whose test queries no stage of it has seen, so
nothing can leak between folds. Each query is a test query of one fold; the scores of all folds are
judged together.
"""

from __future__ import annotations

import dataclasses

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
    import pyarrow.parquet as pq

    from dsirm_jax.data.identity import identity_in
    from dsirm_jax.data.schema import TEST
    from dsirm_jax.relevance import fine_grained
    from dsirm_jax.relevance.evaluate import evaluate, lifts_between
    from dsirm_jax.relevance.tables import ABOUT_THE_PAIR, pooled, write_predictions
    from dsirm_jax.report.plot import lift_plot
    from dsirm_jax.stages.relevance import language_of

    pairs, scores = pooled(folds)
    judged = pq.read_table(folds[0][0].judgements, columns=[*ABOUT_THE_PAIR, "item_index"])
    judged = {name: judged[name].to_numpy() for name in judged.column_names}
    judged["split"] = np.full(len(judged["split"]), TEST)
    write_predictions(
        layout.ladder_predictions,
        judged=judged,
        scores={rung: runs.mean(axis=0) for rung, runs in scores.items()},
        identity=identity_in(folds[0][0].queries),
    )
    lifts = lifts_between(scores)
    metrics = evaluate(pairs=pairs, scores=scores, lifts=lifts, esci_gains=esci_gains, seed=seed)
    metrics["fine_grained"] = fine_grained.measure(
        fine_grained.Judged(pairs.query_index, judged["item_index"], pairs.gain),
        scores,
        at=folds[0][0],
        language=language_of(folds[0][0]),
        lifts=lifts,
        seed=seed,
    )
    metrics |= {"folds": len(folds[0]), "seeds": len(folds)}
    write_json(layout.ladder, metrics)
    write_text(layout.ladder_plot, lift_plot(metrics))


STAGE = Stage(name="ablate", function=run, alone=True)
