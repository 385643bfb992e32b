"""Scores (query, item) pairs of a user's own with a finished run, which stays as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.run.runner import Stage
from dsirm_jax.stages import features, match, relevance

if TYPE_CHECKING:
    import pyarrow as pa

    from dsirm_jax.encoder.kinds.protocol import DenseEncoder
    from dsirm_jax.ingestion.query_files import Pairs
    from dsirm_jax.relevance.features.group import Group
    from dsirm_jax.relevance.neighbours import Surroundings
    from dsirm_jax.relevance.schema import FeatureTable


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

    Raises:
      InputError: the file cannot be read, or too few of its rows are pairs; a query has no vector
        among those of your own.
    """
    import pyarrow.parquet as pq

    from dsirm_jax.ingestion.query_files import read_pair_file
    from dsirm_jax.relevance import fitted as heads
    from dsirm_jax.relevance import groups
    from dsirm_jax.relevance.features.group import BEAMS, NEIGHBOUR_SIDS, PAIRS
    from dsirm_jax.relevance.schema import join
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
    new = np.flatnonzero(is_new)
    names, items, row = distinct([names[number] for number in new], items[new].tolist())
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    lists = np.array([numbers[name] for name in names], int)
    of_pairs = groups.reading(PAIRS, extra=pair_groups)
    of_sids = groups.reading(BEAMS, NEIGHBOUR_SIDS, extra=sid_groups)

    def pair_table(half: Layout) -> FeatureTable:
        queries = _queries(half, names)
        evidence = _evidence(half, queries, encoder=encoder, scratch=layout.stage("score"))
        dense = _dense_features(
            half, queries, evidence, items=items, groups=of_pairs, language=language
        )
        from_sids = _sid_features(
            half, queries, evidence, items=items, groups=of_sids, tags=match_beams, beams=beams
        )
        return join([dense, from_sids])

    if is_new.any():
        of_halves = [score(head, pair_table(half), lists=lists) for half in halves]
        scores[is_new] = np.mean(of_halves, axis=0)[row]
    _write_scores(layout.scores, kept, rejected, scores=scores)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Queries:
    """The distinct queries of pairs, those of the run first, then the new ones.

    Attributes:
      texts: one a query.
      numbers: of each in the run's table of queries; new ones follow the last of these.
      new: how many the run does not have.
      identity: a number of all queries of the run, then of the new ones, that spellings share.
      of_pairs: row of the others of each pair.
    """

    texts: list[str]
    numbers: Int[np.ndarray, " query"]
    new: int
    identity: Int[np.ndarray, " any_query"]
    of_pairs: Int[np.ndarray, " pair"]

    @property
    def new_rows(self) -> slice:
        return slice(len(self.texts) - self.new, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Evidence:
    """What features of any pair look at.

    Attributes:
      query_vectors: of the queries of the pairs.
      item_vectors: of all items, memory-mapped.
      surroundings: of the queries of the pairs.
    """

    query_vectors: Float[np.ndarray, "query dim"]
    item_vectors: Float[np.ndarray, "item dim"]
    surroundings: Surroundings


def _queries(half: Layout, names: list[str]) -> _Queries:
    """Returns the queries of pairs, whose names these are, beside those of a run."""
    import pyarrow.parquet as pq

    from dsirm_jax.data.identity import identity_in

    known = pq.read_table(half.queries, columns=["query"])["query"].to_pylist()
    new = sorted(set(names).difference(known))
    texts = [*known, *new]
    number = {query: row for row, query in enumerate(texts)}
    numbers, of_pairs = np.unique([number[query] for query in names], return_inverse=True)
    return _Queries(
        texts=[texts[row] for row in numbers],
        numbers=numbers,
        new=len(new),
        identity=identity_in(half.queries).numbers(texts),
        of_pairs=of_pairs,
    )


def _evidence(
    half: Layout, queries: _Queries, *, encoder: DenseEncoder, scratch: Path
) -> _Evidence:
    """Returns vectors, and what lies near the queries; a query of the run has no vote for itself.

    Args:
      half: of the run.
      queries: of the pairs.
      encoder: that of the run.
      scratch: folder of temporary files.
    """
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.neighbours import find_surroundings

    vectors = _query_vectors(half, queries, encoder=encoder, scratch=scratch)
    item_vectors = tables.read_item_vectors(half, scratch=scratch)
    train_pairs, relevant = features.voting_pairs(half.judgements)
    surroundings = find_surroundings(
        query_index=queries.numbers,
        query_vectors=vectors,
        item_vectors=item_vectors,
        train_pairs=train_pairs,
        relevant=relevant,
        identity=queries.identity,
    )
    return _Evidence(
        query_vectors=vectors[queries.numbers],
        item_vectors=item_vectors,
        surroundings=surroundings,
    )


def _query_vectors(
    half: Layout, queries: _Queries, *, encoder: DenseEncoder, scratch: Path
) -> Float[np.ndarray, "query dim"]:
    """Returns the vectors of all queries of the run, then those of new ones; see `_evidence`."""
    from dsirm_jax.relevance import tables

    vectors = tables.read_query_vectors(half, scratch=scratch)
    if not queries.new:
        return vectors
    more = encoder.query_vectors(
        queries.texts[queries.new_rows],
        directory=half.stage("encode"),
        vocabulary=half.vocabulary,
    )
    return np.concatenate([vectors, more])


def _dense_features(
    half: Layout,
    queries: _Queries,
    evidence: _Evidence,
    *,
    items: Int[np.ndarray, " pair"],
    groups: tuple[Group, ...],
    language: str | None,
) -> FeatureTable:
    """Returns the features that know nothing of SIDs, see `compute.pair_features`.

    Args:
      half: of the run.
      queries: of the pairs.
      evidence: of the same.
      items: of the pairs, by their numbers.
      groups: those wanted.
      language: as in `features.run`.
    """
    from dsirm_jax.data import vocabulary
    from dsirm_jax.relevance import tables
    from dsirm_jax.relevance.compute import pair_context, pair_features

    context = pair_context(
        query_index=queries.of_pairs,
        item_index=items,
        query_vectors=evidence.query_vectors,
        item_vectors=evidence.item_vectors,
        surroundings=evidence.surroundings,
        queries=queries.texts,
        items=tables.read_item_texts(half.items),
        numbers=tables.read_numbers(half.items),
        processor=vocabulary.processor(half.vocabulary),
        language=language,
    )
    return pair_features(context, groups=groups)


def _sid_features(
    half: Layout,
    queries: _Queries,
    evidence: _Evidence,
    *,
    items: Int[np.ndarray, " pair"],
    groups: tuple[Group, ...],
    tags: tuple[int | str, ...],
    beams: int,
) -> FeatureTable:
    """Returns the features that SIDs give: the run's of its queries, of new ones those searched.

    Args:
      half: of the run.
      queries: of the pairs.
      evidence: of the same.
      items: of the pairs, by their numbers.
      groups: those wanted.
      tags: `beams` of `match.run`.
      beams: SIDs that the generator writes for a query.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dsirm_jax.data.vocabularies import folder
    from dsirm_jax.generator.fitted import load_with_sids
    from dsirm_jax.generator.predict import predict_sids, query_sid_table
    from dsirm_jax.generator.score import score_pairs
    from dsirm_jax.relevance import groups as registry
    from dsirm_jax.relevance import tables, variants
    from dsirm_jax.relevance.compute import match_features
    from dsirm_jax.relevance.features.group import BEAMS
    from dsirm_jax.sids.codes import check_same_version
    from dsirm_jax.sids.prefix_match import log_prefix_shares

    check_same_version(half.sids, half.query_sids)
    fitted, existing, sids = load_with_sids(half.generator, sids=half.sids)
    vocabulary = folder.of_generator(half.generator_vocabulary, of_run=half.vocabulary)
    pieces = fitted.reading(vocabulary).pieces(queries.texts)
    table = pq.read_table(half.query_sids)
    if queries.new:
        best = predict_sids(
            fitted=fitted,
            trie=existing,
            pieces=pieces[queries.new_rows],
            beams=beams,
        )
        searched = query_sid_table(queries.texts[queries.new_rows], best)
        table = pa.concat_tables([table, searched])
    log_probs = score_pairs(
        fitted=fitted,
        pieces=pieces,
        query_index=queries.of_pairs,
        sids=sids[items],
    )
    own = variants.OWN in tags
    return match_features(
        query_index=queries.of_pairs,
        item_index=items,
        sids=sids,
        log_shares=log_prefix_shares(sids, sizes=existing.sizes),
        beams=tables.beams_in(table.take(queries.numbers), levels=sids.shape[1]),
        pair_log_probs=log_probs,
        surroundings=evidence.surroundings,
        groups=groups,
        variant_groups=registry.reading(BEAMS),
        tags=tags,
        own_codes=match.own_codes(half.quantizer, evidence.query_vectors) if own else None,
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
