"""Two finished runs side by side: metrics over the pairs that both tested, and what differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsirm_jax.data.identity import QueryIdentity, identity_in
from dsirm_jax.data.schema import TEST
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.evaluate import evaluate
from dsirm_jax.relevance.metrics_table import metrics_table
from dsirm_jax.relevance.pairs import JudgedPairs
from dsirm_jax.relevance.tables import ABOUT_THE_PAIR
from dsirm_jax.report.compare_generators import generators_table
from dsirm_jax.run import configuration
from dsirm_jax.run.layout import CONFIG, Layout
from dsirm_jax.run.record import StageRecord, faults, read_record

KEYS = ["query", "item_id"]


def compare_runs(first: Path, second: Path) -> str:
    """Returns as text how two runs differ, of every rung that both have.

    Args:
      first: a MODEL_DIR, `A`; of its ladder where both have one, else of its stage relevance.
      second: another, `B`.

    Raises:
      InputError: a run is not finished, they tested no query in common, or they do not agree on
        which items are relevant, or on what an item gains.
    """
    runs = [Layout(model_dir=folder) for folder in (first, second)]
    ladders = all(at.ladder_predictions.is_file() for at in runs)
    paths = [at.ladder_predictions if ladders else at.predictions for at in runs]
    for path in paths:
        _check_whole(path.parent)
    one, other = map(_tested, paths)
    both = one.join(other, KEYS, right_suffix=" of B", join_type="inner").sort_by(
        [(name, "ascending") for name in KEYS]
    )
    if not len(both):
        raise InputError(f"{paths[0]} and {paths[1]} have no tested query and item in common")
    _check_agreement(both, paths)
    queries, query_index = np.unique(both["query"].to_numpy(), return_inverse=True)
    identity = _coarser(*map(identity_in, paths))
    pairs = JudgedPairs(
        query_index=query_index,
        identity=identity.numbers(queries.tolist())[query_index],
        relevant=both["relevant"].to_numpy(),
        gain=both["gain"].to_numpy(),
        label=both["label"].to_numpy(),
        segments={},
    )
    lines = [
        f"A: {paths[0]} ({_counted(one)})",
        f"B: {paths[1]} ({_counted(other)})",
        f"compared: {_counted(both)} that both tested",
    ]
    for rung in one.column_names:
        if rung not in ABOUT_THE_PAIR and f"{rung} of B" in both.column_names:
            scores = {"A": both[rung].to_numpy(), "B": both[f"{rung} of B"].to_numpy()}
            metrics = evaluate(pairs=pairs, scores=scores, lifts=(("B", "A"),))
            lines += ["", f"── {rung} ──", metrics_table(metrics)]
            generators = [at.for_rung(rung) for at in runs]
            if not ladders and all(at.hits.is_file() for at in generators):
                for at in generators:
                    _check_whole(at.stage("generate"))
                lines += generators_table(generators, identity=identity)
    return "\n".join([*lines, "", *_differences([path.parent / CONFIG for path in paths])])


def _check_whole(folder: Path) -> None:
    """Raises InputError where what a stage made is not what was written, as far as it is sealed."""
    record = read_record(folder)
    if isinstance(record, StageRecord) and (wrong := faults(folder, record, trust=False)):
        raise InputError(f"{wrong[0]}; `dsirm {folder.name}` makes it again")


def _tested(path: Path) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path}: no such file; run `dsirm run` there first")
    return pq.read_table(path, filters=[("split", "=", TEST)])


def _check_agreement(both: pa.Table, paths: list[Path]) -> None:
    """Raises InputError where two runs take a pair for relevant and not, or for of other gain."""
    for column, disagreement, binding in (
        ("relevant", "whether item {item!r} is relevant to {query!r}", "relevant_labels"),
        ("gain", "what item {item!r} gains for {query!r}", "label_gains"),
    ):
        differs = both.filter(pc.not_equal(both[column], both[f"{column} of B"]))
        if len(differs):
            row = differs.slice(0, 1).to_pylist()[0]
            said = disagreement.format(item=row["item_id"], query=row["query"])
            raise InputError(
                f"{paths[0]} and {paths[1]} do not agree {said} ({row[column]} and "
                f"{row[f'{column} of B']}; {len(differs):,} of {len(both):,} common pairs): bind "
                f"the same {binding}"
            )


def _coarser(one: QueryIdentity, other: QueryIdentity) -> QueryIdentity:
    """Returns under which two queries are one where they are so under either."""
    return QueryIdentity(
        punctuation=one.punctuation or other.punctuation,
        word_order=one.word_order or other.word_order,
    )


def _counted(tested: pa.Table) -> str:
    """Returns how many queries and pairs a table has."""
    queries = pc.count_distinct(tested["query"]).as_py()
    return f"{queries:,} queries, {len(tested):,} pairs"


def _differences(paths: list[Path]) -> list[str]:
    """Returns the bindings that differ, each as in A and as in B.

    Args:
      paths: the configuration of the stage that is compared, of both.
    """
    # Version 0.2 kept that of the last command alone.
    paths = [path if path.is_file() else path.parents[1] / CONFIG for path in paths]
    one, other = (configuration.bindings(path) for path in paths)
    lines = [f"bindings that differ ({paths[0]}, {paths[1]}):"]
    for name in sorted(set(one) | set(other)):
        if one.get(name) != other.get(name):
            lines += [f"  {name}", f"    A  {one.get(name, '–')}", f"    B  {other.get(name, '–')}"]
    return lines
