"""What the features of a query's pairs are computed from, and the features that need no SIDs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.io.errors import ContentError, InputError
from dsirm_jax.relevance import compute
from dsirm_jax.relevance.digests import QueryDigests, Reading, digest_queries
from dsirm_jax.relevance.features.group import (
    Group,
    ItemContext,
    PairContext,
    PairTexts,
    QueryContext,
)
from dsirm_jax.relevance.features.numeric import finite_numbers
from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.relevance.neighbours import NEAR_ITEMS, NEAR_QUERIES, Judged, Surroundings
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.serving.bundle.cached import Known
from dsirm_jax.serving.bundle.catalogue import STATISTICS, BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.manifest import REMEDY
from dsirm_jax.serving.queries.table import CachedRow
from dsirm_jax.sids import codes
from dsirm_jax.sids.prefix_match import Beams

LONGEST = 1.01
"""Length of a vector of a catalogue, which is 1 in float16."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """What features of any pair look at, whichever the query.

    Attributes:
      catalogue: items and cached queries.
      reading: how texts are read.
      numbers: the user's own columns of items by name, float64 `[item]`.
      base: see `Judged.relevant_share`.
      pair_groups: groups of features that a head reads, of those that know nothing of SIDs.
      sizes: codes per level.
    """

    catalogue: BundleCatalogue
    reading: Reading
    numbers: Mapping[str, Float[np.ndarray, " item"]]
    base: float
    pair_groups: tuple[Group, ...]
    sizes: tuple[int, ...]


class QueryEvidence(NamedTuple):
    """What is known of a query without the generator; arrays have an axis of one query.

    Attributes:
      vector: dense.
      near: what lies near it.
      digests: of its text.
    """

    vector: Float[np.ndarray, "1 dim"]
    near: Surroundings
    digests: QueryDigests


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CachedQuery:
    """A cached query, which equals itself alone.

    Attributes:
      text: the spelling under which it is cached.
      context: what is known without the generator.
      beams: its SIDs.
      known: log-probabilities of some SIDs.
      of_query: what features look at, on the device.
    """

    text: str
    context: QueryEvidence
    beams: Beams
    known: Known
    of_query: QueryContext


def evidence_in(bundle: Bundle, *, pair_groups: tuple[Group, ...]) -> Evidence:
    """Returns the evidence that a bundle holds, for heads that read some groups without SIDs.

    Raises:
      InputError: models and catalogue are of two vocabularies.
    """
    manifest, catalogue = bundle.manifest, bundle.catalogue
    pieces, names = catalogue.statistics
    if len(pieces.with_piece) != bundle.models.vocabulary.vocab_size():
        raise InputError(
            f"{catalogue.folder / STATISTICS} is of another vocabulary than the bundle's; {REMEDY}"
        )
    columns = zip(manifest.settings.numbers, catalogue.numbers.T, strict=True)
    return Evidence(
        catalogue=catalogue,
        reading=Reading(bundle.models.vocabulary, names, manifest.settings.language),
        numbers={name: finite_numbers(values) for name, values in columns},
        base=catalogue.voters.judged.relevant_share,
        pair_groups=pair_groups,
        sizes=manifest.sizes,
    )


def query_evidence(
    evidence: Evidence, text: str, vector: Float[np.ndarray, " dim"]
) -> QueryEvidence:
    """Returns what is known of a query by its text and vector.

    Raises:
      ContentError: the vector is not finite, which parameters that were fitted do not make it.
    """
    catalogue = evidence.catalogue
    if not np.isfinite(vector).all():
        raise ContentError(
            f"{catalogue.folder.parent}: its encoder gives a query a vector that is not finite; "
            f"{REMEDY}"
        )
    near = _near(
        catalogue,
        items=catalogue.item_search.nearest(vector[None], k=NEAR_ITEMS),
        queries=catalogue.voter_search.nearest(vector[None], k=NEAR_QUERIES),
    )
    return QueryEvidence(vector[None], near, digest_queries([text], evidence.reading))


def cached_query(evidence: Evidence, row: CachedRow) -> CachedQuery:
    """Returns what a row of a table says of a query."""
    text, cached = row
    near = _near(evidence.catalogue, items=cached.items, queries=cached.queries)
    context = QueryEvidence(cached.vectors, near, digest_queries([text], evidence.reading))
    of_query = jax.device_put(query_features(evidence, context, cached.beams))
    return CachedQuery(
        text=text, context=context, beams=cached.beams, known=cached.known, of_query=of_query
    )


def _near(catalogue: BundleCatalogue, *, items: Neighbours, queries: Neighbours) -> Surroundings:
    """Returns what lies near one query, with the judgements of its neighbours alone."""
    voters, judged = queries.row[0], catalogue.voters.judged
    return Surroundings(
        items=items,
        queries=Neighbours(np.arange(len(voters))[None], queries.cosine),
        judged=Judged(judged.items[voters], judged.verdicts[voters]),
    )


def dense_features(
    evidence: Evidence, context: QueryEvidence, items: Int[np.ndarray, " item"]
) -> FeatureTable:
    """Returns the features that know nothing of SIDs, of a query and items by their numbers.

    Raises:
      ContentError: a vector or number of the catalogue is such that a feature is not finite.
    """
    catalogue = evidence.catalogue
    pairs = PairContext(
        query_index=np.zeros(len(items), int),
        item_index=items,
        item_row=items,
        query_vectors=context.vector,
        item_vectors=catalogue.vectors,
        surroundings=context.near,
        texts=PairTexts(context.digests, catalogue.digests, catalogue.statistics.pieces),
        numbers=evidence.numbers,
    )
    try:
        return compute.pair_features(pairs, groups=evidence.pair_groups)
    except ValueError as error:
        numbers = [values[items].astype(np.float32) for values in evidence.numbers.values()]
        lengths = np.linalg.norm(catalogue.vectors[items].astype(np.float32), axis=1)
        if all(np.isfinite(part).all() for part in numbers) and np.all(lengths < LONGEST):
            raise
        raise ContentError(f"{catalogue.folder}: {error}; {REMEDY}") from error


def query_features(evidence: Evidence, context: QueryEvidence, beams: Beams) -> QueryContext:
    """Returns what the features that SIDs give look at of a query.

    Args:
      evidence: of the bundle.
      context: of the query.
      beams: its SIDs, with an axis of one query.
    """
    return compute.query_context(
        beams=beams, surroundings=context.near, sids=evidence.catalogue.sids, base=evidence.base
    )


def item_context(
    evidence: Evidence,
    items: Int[np.ndarray, " item"],
    log_probs: Float[np.ndarray, "item level"] | None,
) -> ItemContext:
    """Returns what they look at of pairs, without the axis of queries.

    Args:
      evidence: of the bundle.
      items: by their numbers.
      log_probs: log P(first l codes of the item's SID | query); None where no head reads them.
    """
    if log_probs is None:
        log_probs = np.zeros((len(items), len(evidence.sizes)), np.float32)
    return ItemContext(
        sids=item_sids(evidence.catalogue, items),
        log_probs=log_probs,
        log_shares=evidence.catalogue.log_shares[items],
    )


def item_sids(
    catalogue: BundleCatalogue, items: Int[np.ndarray, "*items"]
) -> Int[np.ndarray, "*items level"]:
    """Returns the SIDs of items by their numbers, int32."""
    return catalogue.sids[items].astype(np.int32)


def known_log_probs(
    known: Known, sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int]
) -> Float[np.ndarray, "item level"] | None:
    """Returns the log-probabilities of SIDs of a cached query; None where one is not known."""
    keys, wanted = known.keys[0], codes.pack(sids, sizes=sizes)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return known.log_probs[0, place] if (keys[place] == wanted).all() else None


def with_query_axis(beams: Beams) -> Beams:
    """Returns the beams of a query with an axis of one query."""
    return Beams(*(part[None] for part in beams))


def without_query_axis(beams: Beams) -> Beams:
    """Returns the beams of the only query, without the axis of queries."""
    return Beams(*(part[0] for part in beams))


def no_beams(levels: int, *, beams: int = 0) -> Beams:
    """Returns the beams of a query that none are known of, without the axis of queries.

    Args:
      levels: of a SID.
      beams: rows, none of which is valid.
    """
    sids = np.full((beams, levels), -1, np.int32)
    return Beams(sids, np.full(beams, -np.inf, np.float32), np.zeros(beams, bool))
