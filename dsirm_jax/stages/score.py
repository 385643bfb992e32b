"""Scores (query, item) pairs of a user's own with a finished run, which stays as it is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import feature_files, relevance
from dsirm_jax.stages.further_pairs import Computation, features_of_pairs

if TYPE_CHECKING:
    import pyarrow as pa

    from dsirm_jax.encoder.kinds.protocol import DenseEncoder
    from dsirm_jax.ingestion.query_files import Pairs
    from dsirm_jax.relevance.features.group import Group


def run(
    layout: Layout,
    *,
    pairs: str,
    columns: dict[str, str],
    run_columns: dict[str, str],
    queries: str | None,
    encoder: DenseEncoder,
    beams: int,
    match_beams: tuple[int | str, ...],
    pair_groups: tuple[Group, ...],
    sid_groups: tuple[Group, ...],
    language: str | None,
    max_rejected_share: float,
    halves: tuple[Layout, ...],
    features: bool = False,
) -> None:
    """a table of (query, item_id) -> the full model's probabilities, from the run as it is.

    A row that is no pair of a query and a known item has no score and stands in `rejected.parquet`.
    A pair of `predictions.parquet` has the probability that it has there, unless the head compares
    a query's pairs: then those of the file are compared, each item once. A query that the run has
    under another spelling is read as that.

    Args:
      layout: the run.
      pairs: the file, see `query_files.read_pair_file`.
      columns: our column name to that of the file, where they differ.
      run_columns: likewise of the run's judgements, where the file calls them so.
      queries: file of the queries' texts by id, where the file has ids.
      encoder: that of the run.
      beams: SIDs that the generator writes for a query.
      match_beams: `beams` of `match.run`.
      pair_groups: `extra_groups` of `features.run`.
      sid_groups: `extra_groups` of `match.run`.
      language: as in `features.run`.
      max_rejected_share: share of the rows that may have no score.
      halves: of the run's cross-fit, or the run alone; probabilities are averaged over them.
      features: whether to write the features of the pairs, too, see `feature_files.write`.

    Raises:
      InputError: the file cannot be read, or too few of its rows are pairs; a query has no vector
        among those of your own.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.ingestion.query_files import read_pair_file
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance.score import score

    ids = pq.read_table(layout.items, columns=["item_id"])["item_id"]
    read = read_pair_file(pairs, item_ids=ids, columns=columns, of_run=run_columns, queries=queries)
    kept, items, rejected = read.kept, read.items, read.rejected
    with replacing(layout.scores.with_name("rejected.parquet")) as partial:
        pq.write_table(rejected, partial)
    _check(pairs, read, most=max_rejected_share)
    names = as_spelt_in_run(layout, kept["query"].to_pylist())
    head = heads.load(layout.head(FULL))
    if head.in_lists:
        scores = np.full(len(names), np.nan, np.float32)
    else:
        scores = predicted(layout, names, kept["item_id"])
    is_new = np.isnan(scores)
    wanted = np.flatnonzero(is_new | features)
    asked, numbers, row = distinct([names[place] for place in wanted], items[wanted].tolist())
    computation = Computation(
        encoder=encoder,
        beams=beams,
        match_beams=match_beams,
        pair_groups=pair_groups,
        sid_groups=sid_groups,
        language=language,
    )
    tables = []
    if asked:
        scratch = layout.stage("score")
        compute = functools.partial(features_of_pairs, computation=computation, scratch=scratch)
        tables = [compute(half, asked, numbers) for half in halves]
    if is_new.any():
        lists = np.unique(asked, return_inverse=True)[1]
        anew = np.mean([score(head, table, lists=lists) for table in tables], axis=0)[row]
        scores[is_new] = anew[is_new[wanted]]
    _write_scores(layout.scores, kept, rejected, scores=scores)
    if features:
        of_rows = [table.rows(row) for table in tables]
        feature_files.write(
            layout, halves, of_rows, queries=names, item_ids=kept["item_id"], scores=scores
        )


def distinct(
    names: Sequence[str], items: Sequence[int]
) -> tuple[list[str], Int[np.ndarray, " pair"], Int[np.ndarray, " row"]]:
    """Returns the pairs of some rows, each once and in the order in which they come.

    Args:
      names: query of each row.
      items: item of each, by their numbers.

    Returns:
      Query and item of each pair; the pair of each row.
    """
    places: dict[tuple[str, int], int] = {}
    pairs = zip(names, items, strict=True)
    rows = [places.setdefault(pair, len(places)) for pair in pairs]
    queries, numbers = zip(*places, strict=True) if places else ((), ())
    return list(queries), np.array(numbers, int), np.array(rows, int)


def as_spelt_in_run(layout: Layout, names: Sequence[str]) -> list[str]:
    """Returns queries as a run has them: as they are, else in the commonest of their spellings.

    A query that the run does not have stays as it is.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.data.identity import identity_in
    from dsirm_jax.relevance.tables import commonest_spellings

    known = pq.read_table(layout.queries, columns=["query"])["query"].to_pylist()
    present, identity = frozenset(known), identity_in(layout.queries)
    if present.issuperset(names):
        return list(names)
    rows = commonest_spellings(layout.queries, identity=identity.numbers(known))
    spelling = {identity.of(known[row]): known[row] for row in rows}
    found = {name: spelling.get(identity.of(name), name) for name in {*names} - present}
    return [found.get(name, name) for name in names]


def predicted(
    layout: Layout, names: Sequence[str], item_ids: pa.ChunkedArray
) -> Float[np.ndarray, " pair"]:
    """Returns what a run's predictions say of pairs, float32; NaN of those that they lack.

    Computed anew, a feature may differ in its last digits, and the branch of a tree with it.

    Args:
      layout: the run.
      names: query of each pair.
      item_ids: item of each.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    keys = ["query", "item_id"]
    wanted = pa.table({"query": names, "item_id": item_ids, "row": np.arange(len(names))})
    known = pq.read_table(layout.predictions, columns=[*keys, FULL])
    found = wanted.join(known, keys).sort_by("row")
    return found[FULL].to_numpy().astype(np.float32)


def _check(file: str, pairs: Pairs, *, most: float) -> None:
    rejected = pairs.rejected
    read = len(pairs.kept) + len(rejected)
    if not len(pairs.kept) or len(rejected) > most * read:
        first = "".join(
            f"; the first: row {row['row']} column {row['column']} = {row['value']!r} "
            f"({row['reason']})"
            for row in rejected.slice(0, 1).to_pylist()
        )
        raise InputError(
            f"{file}: {len(rejected)} of {read} rows cannot be scored{first}; "
            f"{f'{pairs.hint}; ' if pairs.hint else ''}fix them or raise "
            f"prepare.run.max_rejected_share ({most})"
        )


def _write_scores(path: Path, kept: pa.Table, rejected: pa.Table, *, scores: np.ndarray) -> None:
    """Writes all rows of the file in its order; one that was rejected has no score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["query", "item_id"]
    rows = pa.concat_tables(
        [
            kept.select(columns).append_column("score", pa.array(scores, pa.float32())),
            rejected.select(columns).append_column("score", pa.nulls(len(rejected), pa.float32())),
        ]
    )
    numbers = pa.chunked_array([*kept["_row"].chunks, *rejected["row"].chunks])
    with replacing(path) as partial:
        pq.write_table(rows.take(np.argsort(numbers.to_numpy(), kind="stable")), partial)


STAGE = Stage(name="score", function=run, needs=(relevance.STAGE,), alone=True, reads_run=True)
