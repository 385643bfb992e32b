"""Any `Source` in, the prepared tables and the vocabulary out; schema.py documents the columns.

Rows are checked and cleaned one chunk at a time (validate.py) and staged as Parquet (staging.py).
What needs whole tables (joins, duplicates, click aggregation, frequencies, splits) is written in
Ibis (relations.py) and runs in an embedded DuckDB, out-of-core, or on an engine of your own. The
same rows come out whatever the order, the files or the chunks they came in, but that of several
items with the same id the last one counts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsirm_jax.data import schema
from dsirm_jax.data.findings import say
from dsirm_jax.data.identity import PLAIN, QueryIdentity
from dsirm_jax.data.item_text import TITLE, ItemText
from dsirm_jax.data.vocabulary import take_vocabulary, train_vocabulary
from dsirm_jax.ingestion.grading.clicks import ClickModel
from dsirm_jax.ingestion.grading.labels import Labels
from dsirm_jax.ingestion.joins import twins
from dsirm_jax.ingestion.joins.connections import connect, embedded
from dsirm_jax.ingestion.joins.pair_labels import MAJORITY
from dsirm_jax.ingestion.joins.rows import BATCH_ROWS
from dsirm_jax.ingestion.prepared_tables import prepared_tables
from dsirm_jax.ingestion.readers.reader import Reader, check_reader
from dsirm_jax.ingestion.rules import Rules
from dsirm_jax.ingestion.validation.missing import MISSING
from dsirm_jax.io import disk
from dsirm_jax.io.checks import check_text, check_whole

MOST_VOCABULARY_TEXTS = 200_000
"""More items, or more queries, train the vocabulary on every n-th one, in the order of the table:
SentencePiece holds its training text in memory."""

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
    label_gains: Mapping[Any, float] | Labels,
    relevant_labels: Sequence[Any],
    seed: int,
    vocabulary_size: int,
    judgement_aggregation: str = MAJORITY,
    clicks: ClickModel | None = None,
    vocabulary: str | None = None,
    test_share: float = 0.2,
    head_share: float = 0.4,
    fold: tuple[int, int] | None = None,
    exchanged: bool = False,
    identity: QueryIdentity = PLAIN,
    parted_queries: str = twins.MERGE,
    max_rejected_share: float = 0.05,
    missing: Sequence[str] = MISSING,
    item_copies: str | None = None,
    item_text: ItemText = TITLE,
    engine: str | None = None,
    memory_limit: str = "1GB",
    workers: int | None = None,
) -> dict[str, Any]:
    """Validates, joins and splits the input, and trains the vocabulary.

    - A row that cannot be used goes to `rejected.parquet` with the reason. Of several items with
      the same id one is kept; copies that are equal to it are no fault.
    - An id is what stands in the table, without space and invisible characters around it; one that
      is written as a float or with an exponent is the whole number that the other table has.
    - Several judgements of one (query, item) become one: counts are added, the weight is the
      highest, and of several labels `judgement_aggregation` makes one: of the label that most rows
      say, of a tie the lowest (majority); the label that is nearest to the mean gain, of a tie the
      lower, with the mean as its gain (mean); the label of the highest or of the lowest gain; that
      of the latest `judged_at`, of a tie the lowest, where a row without a time is before all
      others (latest).
    - A pair without any label gets one from its counts, by the rule of `clicks.ClickModel`, or none
      where it was shown too rarely. Without a weight of its own, it weighs log2(1 + purchases,
      clicks or impressions, whichever decided), any other 1.
    - Queries of one `identity`, such as 'Red shoe' and 'red shoe', share a split. It is the table's
      own, else it follows from a hash of seed and identity. `head_share` of the training queries,
      again by hash, is kept for the relevance head.

    Source: this project; that the head learns from queries that no earlier stage saw, secondary
    note on DSIRM (arXiv 2606.04374), whose ranker has labelled pairs of its own.

    Args:
      source: reads the input.
      out_dir: folder of the outputs, which replace those of an earlier run.
      label_gains: the legal labels, each with its gain (ESCI: E 1, S .1, C .01, I 0), compared as
        `labels.LabelTable` says; or labels of another kind, such as `labels.Grades`.
      relevant_labels: those that count as relevant; other kinds than a table decide themselves.
      judgement_aggregation: majority, mean, highest, lowest or latest.
      clicks: labels of pairs that have counts alone; None: `ClickModel()`.
      seed: seed of the split and of the vocabulary.
      vocabulary_size: pieces of the vocabulary.
      vocabulary: a SentencePiece model to take instead of training one.
      test_share: share of the queries for evaluation, where no split is given.
      head_share: share of the training queries for the relevance head.
      fold: (k, n): the queries for evaluation are the k-th, from 0, of n parts by a hash of seed
        and identity, whatever share or split is bound. Over all k, each query is one of them once.
      exchanged: the queries of `train` and `head` change places, for the other half of a cross-fit.
      identity: which spellings are one query.
      parted_queries: what becomes of queries of one identity whose rows have both splits: "merge",
        all of them are in `test`; or "error".
      max_rejected_share: share of the items, or of the judgements, that may be rejected.
      missing: texts that stand for a missing value in brand, colour, category, description, split
        and numbers; a title, a query and an id are texts whatever they are.
      item_copies: which of several rows with the same id and other contents is the item: "first" or
        "last" in the order of files and rows, or "error", where there may be none. None: the last,
        and the others count against `max_rejected_share`.
      item_text: what encoders and generator read of an item.
      engine: Ibis connection URL of the database that joins the tables; it reads and writes
        Parquet in `out_dir`; ${NAME} in it is taken from the environment. None: an embedded
        DuckDB.
      memory_limit: what the embedded DuckDB may keep in memory before it spills to disk.
      workers: processes that read and check rows; None: as many as there are cores.

    Returns:
      The summary, as in `summary.json`.

    Raises:
      InputError: a binding is not legal, an input cannot be read, too many rows are rejected, rows
        of a query are in both splits and may not be, or a split has no query, no relevant or no
        irrelevant judgement. Of the outputs, only `rejected.parquet` is then left.
    """
    rules = Rules(
        label_gains=label_gains,
        relevant_labels=relevant_labels,
        judgement_aggregation=judgement_aggregation,
        clicks=ClickModel() if clicks is None else clicks,
        test_share=test_share,
        head_share=head_share,
        fold=fold,
        exchanged=exchanged,
        identity=identity,
        parted_queries=parted_queries,
        max_rejected_share=max_rejected_share,
        missing=missing,
        item_copies=item_copies,
        item_text=item_text,
        seed=seed,
    )
    check_whole("prepare.run.vocabulary_size", vocabulary_size, least=1)
    if workers is not None:
        check_whole("prepare.run.workers", workers, least=1)
    check_text("prepare.run.memory_limit", memory_limit)
    check_reader(source)
    out_dir = Path(out_dir)
    for name in OUTPUTS:
        (out_dir / name).unlink(missing_ok=True)
    with (
        _staging(out_dir.absolute() / "staging") as staging,
        _connected(engine, memory_limit=memory_limit, spill=staging / "spill") as database,
    ):
        summary = prepared_tables(
            source.read(),
            rules=rules,
            database=database,
            folder=staging,
            rejected=out_dir / "rejected.parquet",
            workers=workers or len(os.sched_getaffinity(0)),
            say=say,
        )
        if vocabulary:
            pieces = take_vocabulary(vocabulary=vocabulary, path=staging / "vocabulary.model")
        else:
            pieces = train_vocabulary(
                texts=_training_texts(staging / "items.parquet", staging / "queries.parquet"),
                size=vocabulary_size,
                path=staging / "vocabulary.model",
                seed=seed,
            )
        summary["vocabulary"] = {"pieces": pieces}
        (staging / "summary.json").write_text(
            json.dumps(summary, indent=2, ensure_ascii=False), "utf-8"
        )
        for name in OUTPUTS:
            if name != "rejected.parquet":
                os.replace(staging / name, out_dir / name)
    return summary


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
) -> contextlib.AbstractContextManager[Any]:
    if engine:
        return connect(engine, binding="prepare.run.engine")
    return embedded(memory_limit=memory_limit, spill=spill)


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
