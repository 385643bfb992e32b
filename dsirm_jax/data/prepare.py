"""Any `Source` in, the prepared tables and the vocabulary out; schema.py documents the columns.

Rows are checked and cleaned one chunk at a time (validate.py) and staged as Parquet (staging.py).
What needs whole tables (joins, duplicates, click aggregation, frequencies, splits) is written in
Ibis (relations.py) and runs in an embedded DuckDB, out-of-core, or on an engine of your own. The
same rows come out whatever the order, the files or the chunks they came in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsirm_jax.data import relations, schema
from dsirm_jax.data.connections import connect
from dsirm_jax.data.findings import Finding, say
from dsirm_jax.data.labels import label_rows
from dsirm_jax.data.missing import MISSING
from dsirm_jax.data.oddities import oddity_findings
from dsirm_jax.data.readers.reader import Reader
from dsirm_jax.data.rejection import settle_rows
from dsirm_jax.data.rows import BATCH_ROWS, write_rows
from dsirm_jax.data.staging import Staged, stage
from dsirm_jax.data.validate import (
    CHECKED_JUDGEMENTS,
    ORIGIN,
    checked_items,
    checked_items_schema,
    checked_judgements,
)
from dsirm_jax.data.vocabulary import take_vocabulary, train_vocabulary
from dsirm_jax.io import disk
from dsirm_jax.io.checks import check_number, check_text, check_whole
from dsirm_jax.io.errors import InputError

log = logging.getLogger(__name__)
MOST_VOCABULARY_TEXTS = 200_000
"""More items, or more queries, train the vocabulary on every n-th one, in the order of the table:
SentencePiece holds its training text in memory."""

NAMED_CATEGORIES = 20
"""First-level categories that the summary counts by name."""

OUTPUTS = (
    "items.parquet",
    "queries.parquet",
    "judgements.parquet",
    "examples.parquet",
    "rejected.parquet",
    "vocabulary.model",
    "summary.json",
)


def prepare(
    *,
    source: Reader,
    out_dir: str | os.PathLike[str],
    label_gains: Mapping[str, float],
    relevant_labels: Sequence[str],
    seed: int,
    vocabulary_size: int,
    vocabulary: str | None = None,
    test_share: float = 0.2,
    head_share: float = 0.4,
    fold: tuple[int, int] | None = None,
    exchanged: bool = False,
    max_rejected_share: float = 0.05,
    missing: Sequence[str] = MISSING,
    engine: str | None = None,
    memory_limit: str = "1GB",
    workers: int | None = None,
) -> dict[str, Any]:
    """Validates, joins and splits the input, and trains the vocabulary.

    - A row that cannot be used goes to `rejected.parquet` with the reason. Of several items with
      the same id, the one whose columns sort first is kept.
    - Several judgements of one (query, item) become one: counts are added, and of several labels
      the one of the highest gain wins, with the highest weight. A pair without any label gets one
      from its counts: the label of the highest gain when it was bought; when it was clicked, that
      of the second highest, or of the highest where there are but two labels; else, shown in vain,
      that of the lowest. Without a weight of its own, such a pair weighs
      log2(1 + purchases, clicks or impressions, whichever decided), any other 1.
    - A query's split is the table's own (`test` if rows disagree), else it follows from a hash of
      seed and query, in lower case. `head_share` of the training queries, again by hash, is kept
      for the relevance head.

    Source: this project; that the head learns from queries that no earlier stage saw, secondary
    note on DSIRM (arXiv 2606.04374), whose ranker has labelled pairs of its own.

    Args:
      source: reads the input.
      out_dir: folder of the outputs, which replace those of an earlier run.
      label_gains: the legal labels, each with its gain (ESCI: E 1, S .1, C .01, I 0).
      relevant_labels: the labels that count as relevant.
      seed: seed of the split and of the vocabulary.
      vocabulary_size: pieces of the vocabulary.
      vocabulary: a SentencePiece model to take instead of training one.
      test_share: share of the queries for evaluation, where no split is given.
      head_share: share of the training queries for the relevance head.
      fold: (k, n): the queries for evaluation are the k-th, from 0, of n parts by a hash of seed
        and query, whatever share or split is bound. Over all k, each query is one of them once.
      exchanged: the queries of `train` and `head` change places, for the other half of a cross-fit.
      max_rejected_share: share of the items, or of the judgements, that may be rejected.
      missing: texts that stand for a missing value in brand, colour, category, description, split
        and numbers; a title, a query and an id are texts whatever they are.
      engine: Ibis connection URL of the database that joins the tables; it reads and writes
        Parquet in `out_dir`; ${NAME} in it is taken from the environment. None: an embedded
        DuckDB.
      memory_limit: what the embedded DuckDB may keep in memory before it spills to disk.
      workers: processes that read and check rows; None: as many as there are cores.

    Returns:
      The summary, as in `summary.json`.

    Raises:
      InputError: a binding is not legal, an input cannot be read, too many rows are rejected, or a
        split has no query or no relevant judgement. Of the outputs, only `rejected.parquet` is
        then left.
    """
    labels = label_rows(label_gains, relevant_labels)
    check_number("prepare.run.test_share", test_share, above=0, below=1)
    check_number("prepare.run.head_share", head_share, above=0, below=1)
    check_number("prepare.run.max_rejected_share", max_rejected_share, least=0, most=1)
    check_whole("prepare.run.vocabulary_size", vocabulary_size, least=1)
    if workers is not None:
        check_whole("prepare.run.workers", workers, least=1)
    check_text("prepare.run.memory_limit", memory_limit)
    if fold is not None:
        _check_fold(fold)
    if isinstance(missing, str) or not all(isinstance(text, str) for text in missing):
        raise InputError(
            f"gin binding prepare.run.missing is {missing!r}; bind texts, such as ('NULL', 'N/A')"
        )
    if isinstance(source, type) or not isinstance(source, Reader):
        raise InputError(
            f"gin binding prepare.run.source is {source!r}; bind a reader, such as @tables.Tables()"
        )
    out_dir = Path(out_dir)
    for name in OUTPUTS:
        (out_dir / name).unlink(missing_ok=True)
    with (
        _staging(out_dir.absolute() / "staging") as staging,
        _connected(engine, memory_limit=memory_limit, spill=staging / "spill") as database,
    ):
        contents = source.read()
        findings = list(contents.findings)
        say(findings)
        staged = functools.partial(
            _staged,
            findings=findings,
            missing=tuple(missing),
            folder=staging,
            workers=workers or len(os.sched_getaffinity(0)),
            if_empty=contents.if_empty,
        )
        settle = functools.partial(
            settle_rows,
            database,
            folder=staging,
            rejected=out_dir / "rejected.parquet",
            most=max_rejected_share,
        )
        items, items_summary = _items(
            database, contents, folder=staging, staged=staged, settle=settle
        )
        judgements, judgements_summary = _judgements(
            database,
            contents,
            items,
            labels=tuple(label_gains),
            seed=seed,
            staged=staged,
            settle=settle,
        )
        rows = relations.query_rows(
            judgements,
            test_share=test_share,
            head_share=head_share,
            fold=fold,
            exchanged=exchanged,
        )
        write_rows(
            rows.order_by("query"),
            staging / "queries.parquet",
            schema.QUERIES,
            index="query_index",
        )
        queries = database.read_parquet(str(staging / "queries.parquet"))
        rows = relations.pair_rows(judgements, labels=labels)
        pairs = _pairs(database, rows, items, queries, folder=staging)
        splits = relations.splits(pairs)
        _check_splits(splits)

        if vocabulary:
            pieces = take_vocabulary(vocabulary=vocabulary, path=staging / "vocabulary.model")
        else:
            pieces = train_vocabulary(
                texts=_training_texts(staging / "items.parquet", staging / "queries.parquet"),
                size=vocabulary_size,
                path=staging / "vocabulary.model",
                seed=seed,
            )
        summary = {
            "items": items_summary | relations.item_counts(items, most=NAMED_CATEGORIES),
            "judgements": judgements_summary
            | {
                "pairs": relations.number(pairs.count()),
                "labels": dict.fromkeys(label_gains, 0) | relations.counts(pairs, "label"),
            },
            "queries": {"splits": splits} | relations.query_counts(queries, pairs),
            "vocabulary": {"pieces": pieces},
            "findings": [dataclasses.asdict(finding) for finding in findings],
        }
        (staging / "summary.json").write_text(
            json.dumps(summary, indent=2, ensure_ascii=False), "utf-8"
        )
        for name in OUTPUTS:
            if name != "rejected.parquet":
                os.replace(staging / name, out_dir / name)
    return summary


def _staged(
    name: str,
    *,
    check: Callable[..., tuple[pa.Table, pa.Table]],
    missing: Sequence[str],
    findings: list[Finding],
    **settings: Any,
) -> Staged:
    """Stages a table, see `stage`; adds what is odd in it to the findings."""
    raw = stage(name, check=functools.partial(check, missing=missing), **settings)
    found = list(oddity_findings(raw.oddities, table=name, rows=raw.read, columns=raw.columns))
    say(found)
    findings += found
    return raw


def _items(
    database: ibis.BaseBackend,
    contents: schema.Source,
    *,
    folder: Path,
    staged: Callable[..., Staged],
    settle: Callable[..., dict[str, Any]],
) -> tuple[ibis.Table, dict[str, Any]]:
    """Writes the prepared items; returns them, and how many rows were read, kept and rejected."""
    raw = staged(
        "items",
        parts=contents.items,
        check=functools.partial(checked_items, extras=contents.extras),
        columns=checked_items_schema(contents.extras),
    )
    rows = database.read_parquet(raw.kept)
    copies = relations.copies(rows, extras=contents.extras.names)
    summary = settle(raw, copies, "duplicate item_id")
    write_rows(
        rows.anti_join(copies, ORIGIN.names).order_by("item_id"),
        folder / "items.parquet",
        pa.schema([*schema.ITEMS, *contents.extras]),
        index="item_index",
    )
    return database.read_parquet(str(folder / "items.parquet")), summary


def _judgements(
    database: ibis.BaseBackend,
    contents: schema.Source,
    items: ibis.Table,
    *,
    labels: Sequence[str],
    seed: int,
    staged: Callable[..., Staged],
    settle: Callable[..., dict[str, Any]],
) -> tuple[ibis.Table, dict[str, Any]]:
    """Returns the judgements of known items, and how many rows were read, kept and rejected."""
    raw = staged(
        "judgements",
        parts=contents.judgements,
        check=functools.partial(checked_judgements, labels=labels, seed=seed),
        columns=CHECKED_JUDGEMENTS,
    )
    rows = database.read_parquet(raw.kept)
    summary = settle(raw, rows.anti_join(items, "item_id"), "unknown item_id")
    return rows.semi_join(items, "item_id"), summary


def _pairs(
    database: ibis.BaseBackend,
    rows: ibis.Table,
    items: ibis.Table,
    queries: ibis.Table,
    *,
    folder: Path,
) -> ibis.Table:
    """Writes the prepared judgements, and the examples; returns the former."""
    pairs = rows.join(items.select("item_id", "item_index"), "item_id").join(
        queries.select("query", "query_index", "split"), "query"
    )
    path = folder / "judgements.parquet"
    write_rows(pairs.order_by("query", "item_id"), path, schema.JUDGEMENTS)
    pairs = database.read_parquet(str(path))
    examples = pairs.join(items.select("item_index", "text"), "item_index")
    write_rows(examples.order_by("query", "item_id"), folder / "examples.parquet", schema.EXAMPLES)
    return pairs


def _check_fold(fold: tuple[int, int]) -> None:
    whole = isinstance(fold, Sequence) and all(
        isinstance(number, int) and not isinstance(number, bool) for number in fold
    )
    if not whole or len(fold) != 2 or not 0 <= fold[0] < fold[1] or fold[1] < 2:
        raise InputError(
            f"gin binding prepare.run.fold is {fold!r}; bind (k, n), n at least 2 and k from 0 to "
            "n - 1"
        )


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with disk.writing(folder):
            folder.mkdir(parents=True)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _connected(
    engine: str | None, *, memory_limit: str, spill: Path
) -> contextlib.AbstractContextManager[ibis.BaseBackend]:
    if engine:
        return connect(engine, binding="prepare.run.engine")
    return connect(
        "duckdb://",
        binding="prepare.run.memory_limit",
        temp_directory=str(spill),
        memory_limit=memory_limit,
        # Every result is sorted; keeping the order before that would cost memory.
        preserve_insertion_order=False,
    )


def _check_splits(splits: Mapping[str, Mapping[str, int]]) -> None:
    """Raises InputError for a split that nothing could be learnt from or measured on."""
    for name, split in splits.items():
        if not split["relevant"]:
            raise InputError(
                f"split {name} has {split['queries']} queries, {split['judgements']} judgements "
                "and no relevant one; bind another prepare.run.test_share, head_share, "
                "relevant_labels or seed, or add judgements"
            )


def _training_texts(items: Path, queries: Path) -> Iterator[str]:
    """Yields training queries, then item texts: what the vocabulary may see."""
    tables = (
        (queries, ["query", "split"], pc.field("split") == schema.TRAIN),
        (items, ["text"], pc.scalar(True)),
    )
    for path, columns, kept in tables:
        file = pq.ParquetFile(path)
        texts = (
            text
            for batch in file.iter_batches(BATCH_ROWS, columns=columns)
            for text in batch.filter(kept).column(columns[0]).to_pylist()
        )
        step = math.ceil(file.metadata.num_rows / MOST_VOCABULARY_TEXTS)
        yield from itertools.islice(texts, 0, None, step)
