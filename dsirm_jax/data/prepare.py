"""Any `Source` in, the prepared tables and the vocabulary out; schema.py documents the columns.

Rows are checked and cleaned one chunk at a time (validate.py) and staged as Parquet (staging.py).
What needs whole tables (joins, duplicates, click aggregation, frequencies, splits) is written in
Ibis (relations.py) and runs in an embedded DuckDB, out-of-core, or on an engine of your own. The
same rows come out whatever the order, the files or the chunks they came in, but that of several
items with the same id the last one counts.
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

from dsirm_jax.data import relations, schema, twins
from dsirm_jax.data.clicks import ClickModel
from dsirm_jax.data.connections import connect
from dsirm_jax.data.copies import found_copies
from dsirm_jax.data.findings import Finding, say
from dsirm_jax.data.identity import PLAIN, QueryIdentity
from dsirm_jax.data.joining import UNKNOWN, join_ids
from dsirm_jax.data.label_findings import label_counts, label_findings, settings_findings
from dsirm_jax.data.labels import Labels, labels_of
from dsirm_jax.data.missing import MISSING
from dsirm_jax.data.oddities import oddity_findings
from dsirm_jax.data.pair_labels import AGGREGATIONS, LATEST, MAJORITY, PAIR, pair_labels
from dsirm_jax.data.readers.reader import Reader
from dsirm_jax.data.rejection import settle_rows
from dsirm_jax.data.rows import BATCH_ROWS, write_rows
from dsirm_jax.data.staging import PART, Check, Staged, stage
from dsirm_jax.data.validate import (
    CHECKED_JUDGEMENTS,
    UNKNOWN_LABEL,
    checked_items,
    checked_items_schema,
    checked_judgements,
)
from dsirm_jax.data.vocabulary import take_vocabulary, train_vocabulary
from dsirm_jax.io import disk
from dsirm_jax.io.checks import check_choice, check_number, check_text, check_whole
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
    labels = labels_of(label_gains, relevant_labels)
    check_choice("prepare.run.judgement_aggregation", judgement_aggregation, AGGREGATIONS)
    clicks = ClickModel() if clicks is None else clicks
    if not isinstance(clicks, ClickModel):
        raise InputError(f"gin binding prepare.run.clicks is {clicks!r}; bind @clicks.ClickModel()")
    clicks.steps(labels)
    check_number("prepare.run.test_share", test_share, above=0, below=1)
    check_number("prepare.run.head_share", head_share, above=0, below=1)
    check_number("prepare.run.max_rejected_share", max_rejected_share, least=0, most=1)
    check_choice("prepare.run.item_copies", item_copies, ("first", "last", "error", None))
    check_whole("prepare.run.vocabulary_size", vocabulary_size, least=1)
    if workers is not None:
        check_whole("prepare.run.workers", workers, least=1)
    check_text("prepare.run.memory_limit", memory_limit)
    check_choice("prepare.run.parted_queries", parted_queries, twins.PARTED)
    if fold is not None:
        _check_fold(fold)
    if isinstance(missing, str) or not all(isinstance(text, str) for text in missing):
        raise InputError(
            f"gin binding prepare.run.missing is {missing!r}; bind texts, such as ('NULL', 'N/A')"
        )
    if not isinstance(identity, QueryIdentity):
        raise InputError(
            f"gin binding prepare.run.identity is {identity!r}; bind @identity.QueryIdentity()"
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
        findings: list[Finding] = []

        def note(more: Sequence[Finding]) -> None:
            say(more)
            findings.extend(more)

        note(contents.findings)
        note(settings_findings(labels, relevant_labels))
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
            database,
            contents,
            item_copies=item_copies,
            folder=staging,
            staged=staged,
            settle=settle,
            note=note,
        )
        judgements, items, judgements_summary = _judgements(
            database,
            contents,
            items,
            check=functools.partial(
                checked_judgements,
                labels=labels,
                seed=seed,
                identity=identity,
                is_timed=judgement_aggregation == LATEST,
                is_placed=clicks.propensities is not None,
            ),
            labels=labels,
            folder=staging,
            staged=staged,
            settle=settle,
            note=note,
        )
        labelled = pair_labels(
            judgements, labels=labels, aggregation=judgement_aggregation, clicks=clicks
        )
        note(labelled.findings)
        if labelled.left_out:
            judgements = judgements.semi_join(labelled.rows, PAIR)
        if fold is None:  # which no split that is given decides
            note(twins.parted(judgements, wanted=parted_queries))
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
            schema.QUERIES.with_metadata(identity.metadata()),
            index="query_index",
        )
        near_twins, near = twins.near_twins(staging / "queries.parquet", identity=identity)
        note(near)
        queries = database.read_parquet(str(staging / "queries.parquet"))
        pairs = _pairs(database, labelled.rows, items, queries, folder=staging)
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
                "labels": label_counts(pairs, labels),
                **labelled.summary,
            },
            "queries": {"splits": splits}
            | relations.query_counts(queries, pairs)
            | {"near_twins": near_twins},
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
    item_copies: str | None,
    folder: Path,
    staged: Callable[..., Staged],
    settle: Callable[..., dict[str, Any]],
    note: Callable[[Sequence[Finding]], None],
) -> tuple[ibis.Table, dict[str, Any]]:
    """Writes the prepared items; returns them, and how many rows were read, kept and rejected."""
    raw = staged(
        "items",
        parts=contents.items,
        check=functools.partial(checked_items, extras=contents.extras),
        columns=checked_items_schema(contents.extras),
    )
    rows = database.read_parquet(raw.kept)
    copies = found_copies(
        database, rows, extras=contents.extras.names, item_copies=item_copies, folder=folder
    )
    note(copies.findings)
    summary = settle(raw, copies.rows, harmless=copies.harmless, hints=copies.hints)
    copies.check()
    write_rows(
        rows.anti_join(copies.rows, (PART, "_row")).order_by("item_id"),
        folder / "items.parquet",
        pa.schema([*schema.ITEMS, *contents.extras]),
        index="item_index",
    )
    return database.read_parquet(str(folder / "items.parquet")), summary | {"copies": copies.equal}


def _judgements(
    database: ibis.BaseBackend,
    contents: schema.Source,
    items: ibis.Table,
    *,
    check: Check,
    labels: Labels,
    folder: Path,
    staged: Callable[..., Staged],
    settle: Callable[..., dict[str, Any]],
    note: Callable[[Sequence[Finding]], None],
) -> tuple[ibis.Table, ibis.Table, dict[str, Any]]:
    """Returns the judgements of known items, the items under their ids, and the numbers of rows."""
    raw = staged("judgements", parts=contents.judgements, check=check, columns=CHECKED_JUDGEMENTS)
    rows = database.read_parquet(raw.kept)
    unfit = database.read_parquet(raw.rejected)
    of_labels = label_findings(rows, unfit, raw, labels=labels)
    note(of_labels)
    joined = join_ids(database, rows, items, path=folder / "items.parquet", folder=folder)
    note(joined.findings)
    rows, items = joined.judgements, joined.items
    unknown = rows.anti_join(items, "item_id").mutate(reason=ibis.literal(UNKNOWN))
    advice = "; ".join(finding.text for finding in of_labels if finding.is_fault)
    summary = settle(raw, unknown, hints={UNKNOWN: joined.hint, UNKNOWN_LABEL: advice})
    return rows.semi_join(items, "item_id"), items, summary


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
        irrelevant = split["judgements"] - split["relevant"]
        kinds = {"relevant": split["relevant"], "irrelevant": irrelevant}
        for kind, count in kinds.items():
            if not count:
                raise InputError(
                    f"split {name} has {split['queries']} queries, {split['judgements']} "
                    f"judgements and no {kind} one; bind another prepare.run.test_share, "
                    "head_share, relevant_labels or seed, or add judgements"
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
