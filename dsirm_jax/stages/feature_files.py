"""Writes the features of pairs, for a ranker of a user's own to be taught by and judged on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped

from dsirm_jax.io.files import replacing
from dsirm_jax.run.layout import Layout

if TYPE_CHECKING:
    import pyarrow as pa

    from dsirm_jax.relevance.schema import FeatureTable


def write(
    layout: Layout,
    halves: Sequence[Layout],
    tables: Sequence[FeatureTable],
    *,
    queries: Sequence[str],
    item_ids: pa.ChunkedArray,
    scores: Float[np.ndarray, " pair"],
) -> None:
    """Writes `features.parquet`, and LETOR text of the judged pairs that may teach and judge.

    A pair's features are those of the first half of a cross-fit that was not fitted to its query. A
    query that all of them were fitted to is of the split `train` and in no LETOR file: its SIDs and
    probabilities flatter, as those of a query to come do not.

    Args:
      layout: the run.
      halves: of the run's cross-fit, or the run alone.
      tables: features of the pairs by each half.
      queries: of each pair, as the run spells it.
      item_ids: of each pair.
      scores: the full model's probability of each.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.schema import HEAD, TEST, TRAIN
    from dsirm_jax.relevance.letor import feature_map, grades_of, letor_lines
    from dsirm_jax.relevance.tables import GROUP_KEY, first_of
    from dsirm_jax.sids.codes import VERSION_KEY

    pairs = pa.table({"query": pa.array(queries, pa.string()), "item_id": item_ids})
    splits = np.stack([_splits(half, pairs) for half in halves])
    features = first_of(tables, where=splits != TRAIN)
    # That of the half which the features come from.
    split = splits[(splits != TRAIN).argmax(axis=0), np.arange(len(pairs))]
    judged = _found(layout.judgements, ["label", "gain"], pairs, keys=["query", "item_id"])
    table = pairs.append_column("split", pa.array(split, pa.string()))
    for name in judged.column_names:
        table = table.append_column(name, judged[name])
    table = table.append_column("score", pa.array(scores, pa.float32()))
    named = zip(features.names, features.groups, strict=True)
    fields = [pa.field(name, pa.float32(), metadata={GROUP_KEY: group}) for name, group in named]
    for field, column in zip(fields, features.values.T, strict=True):
        table = table.append_column(field, pa.array(column))
    version = pq.read_schema(layout.sids).metadata[VERSION_KEY]
    with replacing(layout.asked_features) as partial:
        pq.write_table(table.replace_schema_metadata({VERSION_KEY: version}), partial)

    gains = judged["gain"].to_numpy()
    known = pq.read_table(layout.judgements, columns=["gain"])["gain"].to_numpy()
    for part in (HEAD, TEST):
        rows = np.flatnonzero((split == part) & ~np.isnan(gains))
        of_part = pairs.take(rows)
        lines = letor_lines(
            features.rows(rows),
            queries=np.array(of_part["query"].to_pylist(), str),
            item_ids=of_part["item_id"].to_pylist(),
            grades=grades_of(gains[rows], known=known),
        )
        _write_lines(layout.asked_letor / f"{part}.txt", lines)
    _write_lines(layout.asked_letor / "features.tsv", feature_map(features))


def _splits(half: Layout, pairs: pa.Table) -> Shaped[np.ndarray, " pair"]:
    """Returns the split of each pair's query, None of one that a run has no judgement of."""
    return _found(half.judgements, ["split"], pairs, keys=["query"])["split"].to_numpy()


def _found(
    judgements: Path, columns: Sequence[str], pairs: pa.Table, *, keys: Sequence[str]
) -> pa.Table:
    """Returns columns of the judgements that pairs are of, row by row; null where there is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = pq.read_table(judgements, columns=[*keys, *columns])
    firsts = known.group_by(keys, use_threads=False).aggregate(
        [(name, "first") for name in columns]
    )
    numbered = pairs.select(keys).append_column("row", pa.array(np.arange(len(pairs))))
    rows = numbered.join(firsts, keys).sort_by("row")
    return pa.table({name: rows[f"{name}_first"] for name in columns})


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
