"""A bundle over Arrow tables, batch by batch, as Spark, Ray Data and Beam hand them out.

`score_batches` and `sid_batches` are plain functions of an iterator of record batches. A process
opens a bundle once, and keeps it. docs/offline.md has the lines of each engine.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.scorer.scorer import Scorer
from dsirm_jax.serving.scorer.settings import MOST_ITEMS, ScorerSettings

QUERY, ITEM_ID, SCORE, REASON = "query", "item_id", "score", "reason"
UNKNOWN = "unknown item_id"
PATIENCE = 24 * 3600.0
"""Seconds for the generator, which offline is never late."""
AT_ONCE = 32
"""Queries that the generator reads at once."""

_Result = TypeVar("_Result")


def score_batches(
    batches: Iterable[pa.RecordBatch],
    *,
    bundle: str | os.PathLike[str],
    features: bool = False,
    trust: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Yields batches of pairs with their scores, row by row, as `Scorer.score` has them.

    Rows of one query need not stand together, but it is fastest where they do. Where a head
    compares the items of a query (`relevance.run.in_lists`), all of these have to be in one batch.

    Args:
      batches: with the columns `query` and `item_id`, strings, among any others.
      bundle: the folder that `dsirm export` wrote, as this worker sees it.
      features: whether to add the features, too, by their names.
      trust: as in `Scorer.open`.

    Yields:
      The same batches with `score`, float32, null where there is none, and `reason`, why not; then
      the features, float32, null where they are not known.

    Raises:
      InputError: there is no such bundle; a batch lacks a column or has one of these names; or
        items that a head compares are in two batches, or more than a call may have.
    """
    scorer = _scorer(os.fspath(bundle), trust)
    before: set[str | None] | None = set() if scorer.compares_items else None
    names = tuple(column.name for column in scorer.schema) if features else ()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="offline") as pool:
        for batch in batches:
            yield _scored(batch, scorer=scorer, names=names, pool=pool, before=before)


def sid_batches(
    batches: Iterable[pa.RecordBatch], *, bundle: str | os.PathLike[str], trust: bool = False
) -> Iterator[pa.RecordBatch]:
    """Yields batches of queries with their SIDs, row by row, as `Scorer.query_sids` has them.

    Args:
      batches: with the column `query`, strings, among any others.
      bundle: as in `score_batches`.
      trust: likewise.

    Yields:
      The same batches with `sids`, list<list<int32>>, and `probabilities`, list<float32>, best
      first, null where the query is none; and `reason`, why not.

    Raises:
      InputError: as in `score_batches`.
    """
    scorer = _scorer(os.fspath(bundle), trust)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="offline") as pool:
        for batch in batches:
            _check(batch, wanted=(QUERY,), added=("sids", "probabilities", REASON))
            texts, row = _distinct(batch.column(QUERY))
            ask = functools.partial(scorer.query_sids, deadline=PATIENCE)
            found = [*pool.map(_or_reason(ask), texts)]
            sids = [None if isinstance(of, str) else of.sids.tolist() for of in found]
            chances = [None if isinstance(of, str) else of.probabilities.tolist() for of in found]
            reasons = [of if isinstance(of, str) else None for of in found]
            kinds = (pa.list_(pa.list_(pa.int32())), pa.list_(pa.float32()), pa.string())
            added = [
                pa.array(values, kind).take(pa.array(row))
                for values, kind in zip((sids, chances, reasons), kinds, strict=True)
            ]
            yield _with(batch, dict(zip(("sids", "probabilities", REASON), added, strict=True)))


def scored_schema(schema: pa.Schema, *, bundle: str | os.PathLike[str] | None = None) -> pa.Schema:
    """Returns the schema of what `score_batches` makes of batches, for engines that want it before.

    Args:
      schema: of the batches.
      bundle: where features are wanted, the bundle whose they are.
    """
    scorer = _scorer(os.fspath(bundle), True) if bundle is not None else None
    names = [column.name for column in scorer.schema] if scorer else []
    fields = [pa.field(name, pa.float32()) for name in (SCORE, *names)]
    fields.insert(1, pa.field(REASON, pa.string()))
    return pa.schema([*schema, *fields])


_opening = threading.Lock()


def _scorer(bundle: str, trust: bool) -> Scorer:
    """Returns the scorer of this process for a bundle, which threads may ask for at once."""
    with _opening:
        return _opened(os.path.abspath(bundle), trust, os.getpid())


@functools.lru_cache(maxsize=2)
def _opened(bundle: str, trust: bool, process: int) -> Scorer:
    settings = ScorerSettings(batch=AT_ONCE, deadline=PATIENCE, warm=(), remembered_answers=0)
    return Scorer.open(bundle, settings=settings, trust=trust)


def _scored(
    batch: pa.RecordBatch,
    *,
    scorer: Scorer,
    names: Sequence[str],
    pool: ThreadPoolExecutor,
    before: set[str | None] | None,
) -> pa.RecordBatch:
    """Returns a batch with scores; `before`: queries of earlier batches, where that counts."""
    _check(batch, wanted=(QUERY, ITEM_ID), added=(SCORE, REASON, *names))
    texts, of_text = _distinct(batch.column(QUERY))
    ids = batch.column(ITEM_ID).to_pylist()
    order = np.argsort(of_text, kind="stable")
    bounds = np.searchsorted(of_text[order], np.arange(len(texts) + 1))
    parts = [
        (text, order[start : min(start + MOST_ITEMS, last)])
        for text, first, last in zip(texts, bounds, bounds[1:], strict=False)
        for start in range(first, last, MOST_ITEMS)
    ]
    if before is not None:
        _check_lists(texts, np.diff(bounds), before=before)
    values = np.full((len(ids), 1 + len(names)), np.nan, np.float32)
    reasons = np.full(len(ids), None, object)

    def ask(part: tuple[str | None, np.ndarray]) -> Any:
        text, rows = part
        return scorer.score(text, [ids[row] or "" for row in rows], deadline=PATIENCE)  # type: ignore[arg-type]

    for (_, rows), found in zip(parts, pool.map(_or_reason(ask), parts), strict=True):
        if isinstance(found, str):
            reasons[rows] = found
            continue
        values[rows, 0] = found.probabilities
        values[rows, 1:] = found.features[:, : len(names)]
        reasons[rows[np.isnan(found.probabilities)]] = UNKNOWN
    columns = {SCORE: values[:, 0], REASON: reasons}
    columns |= dict(zip(names, values[:, 1:].T, strict=True))
    kinds = {REASON: pa.string()}
    return _with(
        batch,
        {
            name: pa.array(column, kinds.get(name, pa.float32()), from_pandas=True)
            for name, column in columns.items()
        },
    )


def _check_lists(
    texts: Sequence[str | None], sizes: np.ndarray, *, before: set[str | None]
) -> None:
    """Raises InputError where the items of a query are not in one call."""
    for text, size in zip(texts, sizes, strict=True):
        if text in before:
            raise InputError(
                f"query {text!r} has items in two batches, and a head compares the items of a "
                f"query: hand them out in one batch (Spark: groupBy('query').applyInArrow)"
            )
        if size > MOST_ITEMS:
            raise InputError(
                f"query {text!r} has {size} items, and a head compares the items of a query; give "
                f"at most {MOST_ITEMS}"
            )
    before.update(texts)


def _distinct(column: pa.Array) -> tuple[list[str | None], np.ndarray]:
    """Returns the distinct texts of a column in the order of their first rows, and each row's."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    encoded = pc.dictionary_encode(column, null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)


def _or_reason(function: Callable[..., _Result]) -> Callable[..., _Result | str]:
    """Returns a function that answers with a message where the arguments are wrong."""

    def call(argument: Any) -> _Result | str:
        try:
            return function(argument)
        except InputError as error:
            return str(error)

    return call


def _check(batch: pa.RecordBatch, *, wanted: Sequence[str], added: Sequence[str]) -> None:
    """Raises InputError where a batch lacks a column, or has one that is to be added."""
    names = batch.schema.names
    for name in wanted:
        if name not in names:
            raise InputError(
                f"a batch has the columns {', '.join(names)} and no {name!r}; call yours so"
            )
    for name in added:
        if name in names:
            raise InputError(f"a batch has a column {name!r} already; call it otherwise")


def _with(batch: pa.RecordBatch, added: dict[str, pa.Array]) -> pa.RecordBatch:
    fields = [pa.field(name, column.type) for name, column in added.items()]
    return pa.RecordBatch.from_arrays(
        [*batch.columns, *added.values()], schema=pa.schema([*batch.schema, *fields])
    )
