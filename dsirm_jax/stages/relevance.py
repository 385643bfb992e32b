"""Stage `relevance`: features to calibrated probabilities and metrics."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dsirm_jax.io.files import write_json
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import features, generate, match, prepare
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.relevance.calibration import Calibration
    from dsirm_jax.relevance.fitted import FittedHead
    from dsirm_jax.relevance.model import Head
    from dsirm_jax.relevance.schema import FeatureTable
    from dsirm_jax.training.settings import Training

ON_SEEN = "full_on_seen"
"""The full model's head, trained on the queries that earlier stages saw."""


def run(
    layout: Layout,
    *,
    seed: int,
    rungs: dict[str, tuple[str, ...]],
    sid_rungs: tuple[str, ...],
    head: Head,
    training: Training,
    calibration: Calibration,
    halves: tuple[Layout, ...],
) -> None:
    """features -> calibrated probabilities of every rung, and their metrics.

    A pair's features come from a half of the cross-fit that has not seen its query: of a test query
    that is both, whose probabilities are averaged. Without a cross-fit there is one half.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.data.pairs import judged
    from dsirm_jax.data.schema import TEST, TRAIN
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.evaluate import evaluate, evaluate_hits, lifts_between
    from dsirm_jax.relevance.score import esci_probabilities, mean_of_halves, score
    from dsirm_jax.relevance.train import train

    pairs = judged(layout.judgements, *tables.ABOUT_THE_PAIR, "weight")
    tested = pairs["split"] == TEST
    splits = np.stack([judged(half.judgements, "split")["split"] for half in halves])
    seen = splits == TRAIN  # [half, pair]
    kept = ~seen.all(axis=0)

    def fit(
        name: str, of_halves: list[FeatureTable], *, where: np.ndarray, rows: np.ndarray
    ) -> FittedHead:
        some = [half.rows(rows) for half in of_halves]
        return train(
            name=f"relevance {name}",
            features=tables.first_of(some, where=where[:, rows]),
            labels=pairs["relevant"][rows],
            gains=pairs["gain"][rows],
            weights=pairs["weight"][rows],
            queries=pairs["query"][rows],
            head=head,
            training=training,
            calibration=calibration,
            directory=layout.stage("relevance") / name,
            seed=seed,
        )

    grade_of = dict(zip(pairs["label"], zip(pairs["gain"].tolist(), pairs["relevant"].tolist())))
    scores, grades, on_seen = {}, {}, None
    for rung in rungs:
        # A rung without SIDs of its own takes its SID features, if any, from the full model.
        at = [half.for_rung(rung if rung in sid_rungs else FULL) for half in halves]
        sources = [(half.features, half.sid_features) for half in at]
        of_halves = tables.read_halves(sources, groups=rungs[rung], rung=rung)
        fitted = fit(rung, of_halves, where=~seen, rows=kept & ~tested)
        processes.first(functools.partial(heads.save, layout.head(rung), fitted))
        scores[rung] = mean_of_halves(
            [score(fitted, half.rows(kept)) for half in of_halves], where=~seen[:, kept]
        )
        tests = [half.rows(tested) for half in of_halves]
        of_grades = [esci_probabilities(fitted, half, grade_of=grade_of) for half in tests]
        grades[rung] = None if of_grades[0] is None else np.mean(of_grades, axis=0)
        if rung == FULL:
            rows = seen.any(axis=0) & ~tested
            flattered = fit(ON_SEEN, of_halves, where=seen, rows=rows)
            on_seen = np.mean([score(flattered, half) for half in tests], axis=0)
    tables.write_predictions(
        layout.predictions,
        judged={name: values[kept] for name, values in pairs.items()},
        scores=scores,
    )
    asked = tables.read_judged_pairs(
        queries=layout.queries, items=layout.items, judgements=layout.judgements
    ).where(tested)
    of_tests = {rung: values[tested[kept]] for rung, values in scores.items()}
    lifts = lifts_between(rungs)
    metrics = evaluate(pairs=asked, scores=of_tests, grades=grades, lifts=lifts, seed=seed)
    metrics["hits"] = evaluate_hits(
        {rung: tables.read_hits(layout.for_rung(rung).hits) for rung in (FULL, *sid_rungs)},
        segment=pq.read_table(layout.queries, columns=["segment"])["segment"].to_numpy(),
        lifts=lifts,
        seed=seed,
    )
    if FULL in rungs:
        both = {FULL: of_tests[FULL], ON_SEEN: on_seen}
        metrics["leak"] = evaluate(pairs=asked, scores=both, lifts=((ON_SEEN, FULL),), seed=seed)
    write_json(layout.metrics, metrics)


def check(bindings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where a rung names a group of features that no stage computes.

    Args:
      bindings: of this stage, `match` and `features`, by the name of the stage.
    """
    from dsirm_jax.relevance.groups import check_rungs

    match_bindings, feature_bindings = bindings["match"], bindings["features"]
    check_rungs(
        bindings["relevance"]["rungs"],
        beams=match_bindings.get("beams", ()),
        extra=[
            *feature_bindings.get("extra_groups", ()),
            *match_bindings.get("extra_groups", ()),
        ],
    )


STAGE = Stage(
    name="relevance",
    function=run,
    check=check,
    needs=(prepare.STAGE, generate.STAGE, features.STAGE, match.STAGE),
)
