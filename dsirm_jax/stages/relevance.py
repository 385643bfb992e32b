"""Stage `relevance`: features to calibrated probabilities and metrics."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_json
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.run.record import RECORD, read_record
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import features, generate, match, prepare
from dsirm_jax.training import processes

if TYPE_CHECKING:
    from dsirm_jax.relevance.calibration import Calibration
    from dsirm_jax.relevance.choice import Choice
    from dsirm_jax.relevance.fitted import FittedHead
    from dsirm_jax.relevance.heads.head import Head
    from dsirm_jax.relevance.lessons import Lesson
    from dsirm_jax.relevance.schema import FeatureTable
    from dsirm_jax.training.settings import Training


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
    esci_gains: str = "paper",
    in_lists: tuple[str, ...] = (),
    choice: Choice | None = None,
) -> None:
    """features -> calibrated probabilities of every rung, and their metrics.

    Of the features named by `in_lists`, or by its patterns such as 'prefix_*', heads read also how
    they compare with those of the query's other pairs.

    A pair's features come from a half of the cross-fit that has not seen its query: of a test query
    that is both, whose probabilities are averaged. Without a cross-fit there is one half.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.identity import identities_in, identity_in
    from dsirm_jax.data.pairs import read_judgements
    from dsirm_jax.data.schema import TEST, TRAIN
    from dsirm_jax.relevance import belief, fine_grained, tables
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance.evaluate import evaluate, evaluate_hits, lifts_between
    from dsirm_jax.relevance.lessons import ON_SEEN, lessons_of
    from dsirm_jax.relevance.lists import list_names, named_by
    from dsirm_jax.relevance.score import esci_probabilities, mean_of_halves, score

    pairs = read_judgements(layout.judgements, *tables.ABOUT_THE_ROW, "gain", "relevant", "weight")
    tested = _are_of(layout, TEST)
    seen = np.stack([_are_of(half, TRAIN) for half in halves])  # [half, pair]
    scored = np.any(~seen, axis=0)
    # Spellings of a query calibrate together, or teach together.
    named = tables.first_spellings(layout.queries)[pairs["query_index"]]
    lessons = lessons_of(rungs, seen=seen, tested=tested)
    lists = pairs["query_index"]
    columns = tables.feature_names(halves[0].features, halves[0].for_rung(FULL).sid_features)
    _check_in_lists(in_lists, columns)

    grade_of = _grades(layout.judgements)
    scores, grades, leak_scores = {}, {}, {}
    for rung, groups in rungs.items():
        # A rung without SIDs of its own takes its SID features, if any, from the full model.
        at = [half.for_rung(rung if rung in sid_rungs else FULL) for half in halves]
        _check_rows(at, pairs=pairs)
        sources = [(half.features, half.sid_features) for half in at]
        read = functools.partial(tables.read_halves, sources, groups=groups, rung=rung)
        fit = functools.partial(
            _fit,
            layout,
            read=read,
            pairs=pairs,
            queries=named,
            head=head,
            training=training,
            calibration=calibration,
            seed=seed,
            in_lists=in_lists,
            lists=lists,
            elsewhere=frozenset((*columns, *list_names(named_by(in_lists, columns)))),
            choice=choice,
        )
        fitted = fit(rung, lesson=lessons[rung])
        processes.first(functools.partial(heads.save, layout.head(rung), fitted))
        of_halves = read(rows=scored)
        scores[rung] = mean_of_halves(
            [score(fitted, half, lists=lists[scored]) for half in of_halves],
            where=~seen[:, scored],
        )
        tests = [half.rows(tested[scored]) for half in of_halves]
        del of_halves  # before another head is fitted
        by_half = [
            esci_probabilities(fitted, half, grade_of=grade_of, lists=lists[tested])
            for half in tests
        ]
        if told_apart := [part for part in by_half if part is not None]:
            grades[rung] = np.mean(told_apart, axis=0)
        if rung == FULL:
            on_seen = fit(ON_SEEN, lesson=lessons[ON_SEEN])
            leak_scores[ON_SEEN] = np.mean(
                [score(on_seen, half, lists=lists[tested]) for half in tests], axis=0
            )
    judged = pq.read_table(layout.judgements, columns=list(tables.ABOUT_THE_PAIR))
    tables.write_predictions(
        layout.predictions,
        judged=judged.filter(pa.array(scored)),
        scores=scores,
        identity=identity_in(layout.queries),
    )

    judging = tables.read_judged_pairs(
        queries=layout.queries, items=layout.items, judgements=layout.judgements, rows=tested
    )
    test_scores = {rung: values[tested[scored]] for rung, values in scores.items()}
    lifts = lifts_between(rungs)
    measured = functools.partial(evaluate, pairs=judging, esci_gains=esci_gains, seed=seed)
    metrics = measured(scores=test_scores, grades=grades, lifts=lifts)
    metrics["controls"] = tables.controls(rungs, features=layout.features)
    with_sids = {rung: layout.for_rung(rung) for rung in (FULL, *sid_rungs)}
    metrics["hits"] = evaluate_hits(
        {rung: tables.read_hits(at.hits) for rung, at in with_sids.items()},
        segment=pq.read_table(layout.queries, columns=["segment"])["segment"].to_numpy(),
        identity=identities_in(layout.queries),
        lifts=lifts,
        seed=seed,
    )
    metrics["belief"] = belief.measure(with_sids, language=language_of(layout), seed=seed)
    metrics["fine_grained"] = fine_grained.measure(
        fine_grained.Judged(
            pairs["query_index"][tested], pairs["item_index"][tested], judging.gain
        ),
        test_scores,
        at=layout,
        language=language_of(layout),
        lifts=lifts,
        seed=seed,
    )
    if leak_scores:
        both = {FULL: test_scores[FULL]} | leak_scores
        metrics["leak"] = measured(
            pairs=dataclasses.replace(judging, segments={}), scores=both, lifts=[(ON_SEEN, FULL)]
        )
    write_json(layout.metrics, metrics)


def language_of(layout: Layout) -> str | None:
    """Returns the language of titles that the stage `features` ran with, None where it had none."""
    folder = layout.stage(features.STAGE.name)
    record = read_record(folder) if (folder / RECORD).is_file() else None
    return features.type_language(record.bindings) if record else None


def _check_in_lists(in_lists: Sequence[str], columns: Sequence[str]) -> None:
    """Raises InputError where a name or pattern is of no column."""
    from dsirm_jax.relevance.lists import named_by

    for name in in_lists:
        if not named_by((name,), columns):
            raise InputError(
                f"gin binding relevance.run.in_lists names {name!r}; bind some of "
                f"{', '.join(columns)}, or patterns of them"
            )


def _are_of(layout: Layout, split: str) -> Bool[np.ndarray, " pair"]:
    """Returns which judged pairs are of a split."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    splits = pq.read_table(layout.judgements, columns=["split"])["split"]
    return pc.equal(splits, split).to_numpy()


def _grades(judgements: Path) -> dict[str, tuple[float, bool]]:
    """Returns the gain of each label, and whether it counts as relevant."""
    import pyarrow.parquet as pq

    columns = ["label", "gain", "relevant"]
    distinct = pq.read_table(judgements, columns=columns).group_by(columns).aggregate([])
    return {
        label: (gain, relevant) for label, gain, relevant in zip(*distinct.to_pydict().values())
    }


def _check_rows(halves: Sequence[Layout], *, pairs: Mapping[str, np.ndarray]) -> None:
    """Raises InputError where a table of features is of other pairs, or of other SIDs."""
    import pyarrow.parquet as pq

    from dsirm_jax.relevance.tables import ABOUT_THE_ROW
    from dsirm_jax.sids.codes import check_same_version

    for half in halves:
        check_same_version(half.sids, half.sid_features)
        for path, stage in ((half.features, "features"), (half.sid_features, "match")):
            rows = pq.read_table(path, columns=list(ABOUT_THE_ROW))
            if any(not np.array_equal(rows[name], pairs[name]) for name in ABOUT_THE_ROW):
                raise InputError(
                    f"{path}: its rows are not the judged pairs of {half.judgements}; run "
                    f"`dsirm {stage}` again"
                )


def _fit(
    layout: Layout,
    name: str,
    *,
    lesson: Lesson,
    read: Callable[..., Sequence[FeatureTable]],
    pairs: Mapping[str, np.ndarray],
    queries: np.ndarray,
    lists: np.ndarray,
    **settings: Any,
) -> FittedHead:
    """Returns the head that a lesson teaches; `queries` names each pair's, however it is spelt."""
    from dsirm_jax.relevance.tables import first_of
    from dsirm_jax.relevance.train import train

    rows = lesson.rows
    return train(
        name=f"relevance {name}",
        features=first_of(read(rows=rows), where=lesson.halves[:, rows]),
        labels=pairs["relevant"][rows],
        gains=pairs["gain"][rows],
        weights=pairs["weight"][rows],
        queries=queries[rows],
        lists=lists[rows],
        directory=layout.stage("relevance") / name,
        **settings,
    )


def check(bindings: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises InputError where a rung names a group of features that no stage computes.

    It does too where the gains of ESCI's task 1 are none that there are.

    Args:
      bindings: of this stage, `match` and `features`, by the name of the stage.
    """
    from dsirm_jax.metrics import esci
    from dsirm_jax.relevance.groups import check_rungs, controls_named

    esci.check_gains(bindings["relevance"].get("esci_gains", esci.PAPER))
    match_bindings, feature_bindings = bindings["match"], bindings["features"]
    check_rungs(
        bindings["relevance"]["rungs"],
        beams=match_bindings.get("beams", ()),
        extra=[
            *feature_bindings.get("extra_groups", ()),
            *controls_named(feature_bindings.get("control_groups", ())),
            *match_bindings.get("extra_groups", ()),
        ],
    )


STAGE = Stage(
    name="relevance",
    function=run,
    check=check,
    needs=(prepare.STAGE, generate.STAGE, features.STAGE, match.STAGE),
)
