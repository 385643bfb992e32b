"""Scores (query, item) pairs of a user's own with a finished run, which stays as it is."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.run.layout import FULL, Layout, PairsLayout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import features, match, relevance

if TYPE_CHECKING:
    import pyarrow as pa

    from dsirm_jax.encoder.kinds.protocol import DenseEncoder
    from dsirm_jax.relevance.features.group import Group


def run(
    layout: Layout,
    *,
    pairs: str,
    groups: tuple[str, ...],
    encoder: DenseEncoder,
    beams: int,
    match_beams: tuple[int | str, ...],
    pair_groups: tuple[Group, ...],
    sid_groups: tuple[Group, ...],
    language: str | None,
    max_rejected_share: float,
    halves: tuple[Layout, ...],
) -> None:
    """a table of (query, item_id) -> the full model's probabilities, from the run as it is.

    A row that is no pair of a query and a known item has no score and stands in `rejected.parquet`.

    Args:
      layout: the run.
      pairs: the file, see `query_files.read_pair_file`.
      groups: feature groups of the full model.
      encoder: that of the run.
      beams: SIDs that the generator writes for a query.
      language: as in `features.run`.
      match_beams: `beams` of `match.run`.
      pair_groups: `extra_groups` of `features.run`.
      sid_groups: `extra_groups` of `match.run`.
      max_rejected_share: share of the rows that may have no score.
      halves: of the run's cross-fit, or the run alone; probabilities are averaged over them.

    Raises:
      InputError: the file cannot be read, or too few of its rows are pairs; a query has no vector
        among those of your own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.query_files import read_pair_file
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance.score import score as apply
    from dsirm_jax.relevance.tables import read_halves

    ids = pq.read_table(layout.items, columns=["item_id"])["item_id"]
    given, items, rejected = read_pair_file(pairs, item_ids=ids)
    with replacing(layout.scores.with_name("rejected.parquet")) as partial:
        pq.write_table(rejected, partial)
    _check(pairs, given, rejected, most=max_rejected_share)
    names = given["query"].to_pylist()
    sources = []
    for half in halves:
        at = PairsLayout(model_dir=half.model_dir)
        known = pq.read_table(half.queries, columns=["query"])["query"].to_pylist()
        new = sorted(set(names).difference(known))
        place = {query: row for row, query in enumerate([*known, *new])}
        index = {"query_index": [place[query] for query in names], "item_index": items}
        for path, columns in ((at.queries, {"query": [*known, *new]}), (at.judgements, index)):
            with replacing(path) as partial:
                pq.write_table(pa.table(columns), partial)
        _write_query_vectors(half, at, encoder=encoder, new=new)
        _write_query_sids(half, at, beams=beams, new=new)
        features.compute_features(
            at, voting=half.judgements, language=language, extra_groups=pair_groups
        )
        match.run(at, beams=match_beams, extra_groups=sid_groups)
        sources.append((at.features, at.sid_features))
    head = heads.load(layout.head(FULL))
    of_halves = read_halves(sources, groups=groups, rung=FULL)
    scores = np.mean([apply(head, half) for half in of_halves], axis=0)
    _write_scores(layout.scores, given, rejected, scores=scores)


def _check(file: str, given: pa.Table, rejected: pa.Table, *, most: float) -> None:
    read = len(given) + len(rejected)
    if not len(given) or len(rejected) > most * read:
        told = "".join(
            f"; the first: row {row['row']} column {row['column']} = {row['value']!r} "
            f"({row['reason']})"
            for row in rejected.slice(0, 1).to_pylist()
        )
        raise InputError(
            f"{file}: {len(rejected)} of {read} rows cannot be scored{told}; mend them or raise "
            f"prepare.max_rejected_share ({most})"
        )


def _write_query_vectors(
    half: Layout, at: PairsLayout, *, encoder: DenseEncoder, new: list[str]
) -> None:
    """Writes the vectors of the run's queries and of the new ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.vectors import read_vectors, write_vectors

    known = pq.read_table(half.queries, columns=["query"])["query"]
    vectors = read_vectors(half.query_vectors, ids=known, id_column="query")
    if new:
        table = at.queries.with_name("new.parquet")
        with replacing(table) as partial:
            pq.write_table(pa.table({"query": new}), partial)
        pattern = at.queries.with_name("new-*.parquet")
        for stale in pattern.parent.glob(pattern.name):
            stale.unlink()
        encoder.write_query_vectors(
            table, pattern=pattern, directory=half.stage("encode"), vocabulary=half.vocabulary
        )
        more = read_vectors(pattern, ids=new, id_column="query")
        vectors = np.concatenate([vectors, more])
    path = at.query_vectors.with_name("queries-00000-of-00001.parquet")
    write_vectors(path, [*known.to_pylist(), *new], vectors, id_column="query")


def _write_query_sids(half: Layout, at: PairsLayout, *, beams: int, new: list[str]) -> None:
    """Writes the SIDs of all queries, of which the run's are there, and the pairs' log-probs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data import vocabulary
    from dsirm_jax.generator.fitted import load_with_sids
    from dsirm_jax.generator.predict import SEARCHED_AT_ONCE, predict_sids, write_query_sids
    from dsirm_jax.generator.score import score_pairs, write_pair_log_probs
    from dsirm_jax.sids.codes import write_versioned

    fitted, existing, sids = load_with_sids(half.generator, sids=half.sids)
    encode = functools.partial(vocabulary.text_pieces, half.vocabulary)
    table = pq.read_table(half.query_sids)
    if new:
        found = predict_sids(
            fitted=fitted,
            trie=existing,
            pieces=encode(new),
            beams=beams,
            batch_size=SEARCHED_AT_ONCE,
        )
        path = at.query_sids.with_name("new_sids.parquet")
        write_query_sids(path, queries=new, beams=found, sid_version=fitted.sid_version)
        table = pa.concat_tables([table, pq.read_table(path)])
    write_versioned(at.query_sids, table, version=fitted.sid_version)
    pairs = pq.read_table(at.judgements)
    query, item = (pairs[name].to_numpy() for name in ("query_index", "item_index"))
    asked, row = np.unique(query, return_inverse=True)
    log_probs = score_pairs(
        fitted=fitted,
        pieces=encode(table["query"].take(asked).to_pylist()),
        query_index=row,
        sids=sids[item],
        batch_size=SEARCHED_AT_ONCE,
    )
    write_pair_log_probs(
        at.pair_log_probs,
        query_index=query,
        item_index=item,
        log_probs=log_probs,
        sid_version=fitted.sid_version,
    )


def _write_scores(path: Path, given: pa.Table, rejected: pa.Table, *, scores: np.ndarray) -> None:
    """Writes all rows of the file in its order; one that was rejected has no score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["query", "item_id"]
    rows = pa.concat_tables(
        [
            given.select(columns).append_column("score", pa.array(scores, pa.float32())),
            rejected.select(columns).append_column("score", pa.nulls(len(rejected), pa.float32())),
        ]
    )
    numbers = pa.chunked_array([*given["_row"].chunks, *rejected["row"].chunks])
    with replacing(path) as partial:
        pq.write_table(rows.take(np.argsort(numbers.to_numpy(), kind="stable")), partial)


STAGE = Stage(name="score", function=run, needs=(relevance.STAGE,), alone=True)
