"""What is cached of queries, as a bundle's own models find it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data import vectors
from dsirm_jax.data.identity import PLAIN
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.nearest.exact import Exact
from dsirm_jax.relevance.nearest.search import Neighbours, Search
from dsirm_jax.relevance.neighbours import NEAR_ITEMS, NEAR_QUERIES
from dsirm_jax.serving.bundle.cached import Cached, Known
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.known import MOST_SIDS, QuerySidPairs, known_sids, of_beams, of_near
from dsirm_jax.serving.bundle.stored_items import UNKNOWN
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.prefix_match import Beams

QUERIES_PER_BLOCK = 256


def not_cached(bundle: Bundle, texts: Iterable[str]) -> list[str]:
    """Returns the queries that a bundle does not cache, each once, as it is first spelt."""
    identity = bundle.catalogue.identity or PLAIN
    spellings: dict[str, str] = {}
    for text in texts:
        spellings.setdefault(identity.of(text), text)
    return [text for text in spellings.values() if bundle.catalogue.spelling(text) is None]


def vectors_of(
    bundle: Bundle, texts: Sequence[str], *, file: str, column: str
) -> Float[np.ndarray, "query dim"]:
    """Returns the vectors of queries, which are the file's where the bundle has no encoder.

    Args:
      bundle: whose vectors they are like.
      texts: at least one, all of them in the file.
      file: a table with a column `vector`, where that is read.
      column: of the file, with the texts.

    Raises:
      InputError: the file cannot be read, or its vectors have another width.
    """
    if bundle.models.encoder is not None:
        return bundle.models.encoder.embed(texts)
    found = vectors.read_vectors(file, ids=texts, id_column=column)
    check_width(file, found, dim=bundle.manifest.settings.encoder.dim)
    return found


def check_width(file: str, rows: Float[np.ndarray, "row dim"], *, dim: int) -> None:
    """Raises `InputError` unless the vectors of a file are as wide as a bundle's."""
    if rows.shape[1] != dim:
        raise InputError(
            f"{file}: vectors of {rows.shape[1]} numbers, where the bundle's have {dim}; give "
            f"those of the same model"
        )


def fresh(
    bundle: Bundle,
    texts: Sequence[str],
    query_vectors: Float[np.ndarray, "query dim"],
    *,
    search: Search,
    sids: Int[np.ndarray, "item level"],
    trie: tries.Trie,
) -> Iterator[tuple[list[str], Cached]]:
    """Yields what is known of new queries, by the search, the SIDs and the trie of all items."""
    for start in range(0, len(texts), QUERIES_PER_BLOCK):
        rows = slice(start, start + QUERIES_PER_BLOCK)
        vectors_here, texts_here = query_vectors[rows], list(texts[rows])
        near = search.nearest(vectors_here, k=MOST_SIDS)
        queries = bundle.catalogue.voter_search.nearest(vectors_here, k=NEAR_QUERIES)
        beams = searched(bundle, texts_here, trie)
        known = known_of(bundle, texts_here, [of_beams(beams), of_near(near, sids)])
        near = Neighbours(*(part[:, :NEAR_ITEMS] for part in near))
        yield texts_here, Cached(vectors_here, beams, near, queries, known)


def known_of(bundle: Bundle, texts: list[str], pairs: Sequence[QuerySidPairs]) -> Known:
    """Returns the log-probabilities of SIDs of some queries."""
    learnt = bundle.models
    pieces = learnt.prompted.pieces(texts)
    return known_sids(generator=learnt.generator, pieces=pieces, pairs=pairs)


def searched(bundle: Bundle, texts: list[str], trie: tries.Trie) -> Beams:
    """Returns the SIDs of queries."""
    learnt = bundle.models
    return predict_sids(
        fitted=learnt.generator,
        trie=trie,
        pieces=learnt.prompted.pieces(texts),
        beams=bundle.manifest.settings.beams,
        batch_size=QUERIES_PER_BLOCK,
    )


def nearest(
    queries: Float[np.ndarray, "query dim"],
    near: Neighbours,
    *,
    search: Search,
    new_vectors: Float[np.ndarray, "new dim"],
    stayed: int,
) -> Neighbours:
    """Returns the nearest of some items, where those of the first ones were known.

    Args:
      queries: vectors of queries.
      near: the nearest of the first items before some of these went, which are `UNKNOWN`.
      search: of all items.
      new_vectors: of those after the first ones, of length 1.
      stayed: how many the first ones are.
    """
    whole = (near.row == UNKNOWN).any(axis=1)
    if whole.all():
        return search.nearest(queries, k=NEAR_ITEMS)
    if len(new_vectors):
        new = Exact(new_vectors).nearest(queries, k=NEAR_ITEMS)
        row = np.concatenate([near.row, new.row + np.int32(stayed)], axis=1)
        cosine = np.concatenate([near.cosine, new.cosine], axis=1)
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :NEAR_ITEMS]
        near = Neighbours(*(np.take_along_axis(part, order, axis=1) for part in (row, cosine)))
    if whole.any():
        found = search.nearest(queries[whole], k=NEAR_ITEMS)
        near = Neighbours(*map(np.copy, near))
        for part, other in zip(near, found, strict=True):
            part[whole] = other
    return near
