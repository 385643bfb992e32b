"""Predictions for many queries into a shared store, some at a time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from dsirm_jax.ingestion.query_files import check_given, read_query_file
from dsirm_jax.io.errors import InputError
from dsirm_jax.serving import caching
from dsirm_jax.serving.bundle.cached import packed
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.queries.redis_store import RedisQueries, RedisWriter
from dsirm_jax.serving.queries.values import Values

log = logging.getLogger(__name__)
LOOKED_UP_AT_ONCE = 1024
TEXTS_AT_ONCE = 1 << 14
"""Queries of which vectors are in memory."""


def load_queries(
    path: Path,
    *,
    queries: str,
    store: RedisQueries,
    columns: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Writes what is cached of queries into a store; the bundle stays as it is.

    Queries that the bundle caches are left out, and so are those that the store has, whole: a
    command that was stopped goes on where it was. Of several spellings the first one counts.

    Args:
      path: of the bundle.
      queries: a table with a column `query`, and `vector` where the bundle has no encoder.
      store: where to.
      columns: our column name to that of the file, where they differ.

    Returns:
      The number of queries written.

    Raises:
      InputError: a file of the bundle is not what was written, the file cannot be read, or the
        store takes no queries.
    """
    check_given(columns, wanted=("query",))
    bundle = open_bundle(path)
    values = Values.of(bundle)
    writer = RedisWriter(store, values=values)
    column = columns.get("query", "query")
    written = there = 0
    log.info("%s: keys begin with %s", store.public, values.prefix.decode())
    try:
        rows = itertools.chain.from_iterable(read_query_file(queries, columns=columns))
        while texts := list(itertools.islice(rows, TEXTS_AT_ONCE)):
            wanted = _wanted(texts, bundle=bundle, writer=writer)
            there += len(texts) - len(wanted)
            if wanted:
                of_wanted = caching.vectors_of(bundle, wanted, file=queries, column=column)
                for block in _values(bundle, wanted, of_wanted, values=values):
                    writer.write(block)
                    written += len(block)
            log.info("%s: %s queries written, %s not needed", store.public, written, there)
    finally:
        writer.close()
    return written


def _wanted(texts: Sequence[str], *, bundle: Bundle, writer: RedisWriter) -> list[str]:
    """Returns the queries that neither the bundle nor the store has, each once."""
    lacking = caching.not_cached(bundle, texts)
    wanted = []
    for start in range(0, len(lacking), LOOKED_UP_AT_ONCE):
        block = lacking[start : start + LOOKED_UP_AT_ONCE]
        known = writer.has(block)
        wanted += [text for text, is_known in zip(block, known, strict=True) if not is_known]
    return wanted


def _values(
    bundle: Bundle,
    texts: Sequence[str],
    query_vectors: Float[np.ndarray, "query dim"],
    *,
    values: Values,
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yields keys and values of queries, a block at a time."""
    catalogue = bundle.catalogue
    known = caching.fresh(
        bundle,
        texts,
        query_vectors,
        search=catalogue.item_search,
        sids=np.asarray(catalogue.sids, np.int32),
        trie=catalogue.trie,
    )
    for texts_here, cached in known:
        records = packed(cached)
        if records.dtype != values.record:
            raise InputError(
                f"{bundle.path}: its catalogue has other neighbours than its cached queries; run "
                f"`dsirm update-bundle` once, or export it anew"
            )
        pairs = zip(texts_here, records, strict=True)
        yield [(values.key(text), values.value(text, record)) for text, record in pairs]
