"""Features of pairs of a user's own, computed beside those of a finished run."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import features, match

if TYPE_CHECKING:
    from dsirm_jax.encoder.kinds.protocol import DenseEncoder
    from dsirm_jax.relevance.features.group import Group
    from dsirm_jax.relevance.neighbours import Surroundings
    from dsirm_jax.relevance.schema import FeatureTable


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computation:
    """How a run computes features.

    Attributes:
      encoder: that of the run.
      beams: SIDs that the generator writes for a query.
      match_beams: `beams` of `match.run`.
      pair_groups: `extra_groups` of `features.run`.
      sid_groups: `extra_groups` of `match.run`.
      language: as in `features.run`.
    """

    encoder: DenseEncoder
    beams: int
    match_beams: tuple[int | str, ...]
    pair_groups: tuple[Group, ...]
    sid_groups: tuple[Group, ...]
    language: str | None


def features_of_pairs(
    half: Layout,
    names: list[str],
    items: Int[np.ndarray, " pair"],
    *,
    computation: Computation,
    scratch: Path,
) -> FeatureTable:
    """Returns the features of pairs, all that the run knows.

    Args:
      half: of the run.
      names: the query of each pair, as the run spells it where it has it.
      items: the item of each, by its number.
      computation: that of the run.
      scratch: folder of temporary files.
    """
    from dsirm_jax.relevance import groups
    from dsirm_jax.relevance.features.group import BEAMS, NEIGHBOUR_SIDS, PAIRS
    from dsirm_jax.relevance.schema import join

    queries = _queries(half, names)
    evidence = _evidence(half, queries, encoder=computation.encoder, scratch=scratch)
    dense = _dense_features(
        half,
        queries,
        evidence,
        items=items,
        groups=groups.reading(PAIRS, extra=computation.pair_groups),
        language=computation.language,
    )
    from_sids = _sid_features(
        half,
        queries,
        evidence,
        items=items,
        groups=groups.reading(BEAMS, NEIGHBOUR_SIDS, extra=computation.sid_groups),
        tags=computation.match_beams,
        beams=computation.beams,
    )
    return join([dense, from_sids])


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
    from dsirm_jax.relevance.nearest.lists import search_in
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
        search_of=functools.partial(
            search_in, half.stage("features"), otherwise="run `dsirm features` again"
        ),
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
    from threadpoolctl import threadpool_limits

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
    with threadpool_limits(1, user_api="blas"):  # as the stage does
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
