"""Any `Source` in, the prepared tables and the vocabulary out; schema.py documents the columns.

Rows are checked and cleaned one chunk at a time (validate.py) and staged as Parquet. What needs
whole tables (joins, duplicates, click aggregation, frequencies, splits) is written in Ibis and
runs out-of-core in an embedded DuckDB. The same rows come out whatever the order, the files or the
chunks they came in.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis import _

from dsirm_jax.data import schema
from dsirm_jax.data.validate import ORIGIN, checked_items, checked_judgements
from dsirm_jax.data.vocabulary import take_vocabulary, train_vocabulary
from dsirm_jax.errors import InputError
from dsirm_jax.files import replacing

log = logging.getLogger(__name__)
HEAD_TRAFFIC, TORSO_TRAFFIC = 0.5, 0.8
"""The most frequent queries that make up half of the traffic are the head; then, up to 80 %, the
torso; the rest is the tail. Queries of the same frequency are in the same segment."""

MOST_VOCABULARY_TITLES = 1_000_000
"""A larger catalogue trains the vocabulary on every n-th item, in the order of item_id."""

ROWS = 65_536
OUTPUTS = (
    "items.parquet",
    "queries.parquet",
    "judgements.parquet",
    "rejected.parquet",
    "vocabulary.model",
    "summary.json",
)


def prepare(
    *,
    source: Any,
    out_dir: str | os.PathLike[str],
    label_gains: Mapping[str, float],
    relevant_labels: Sequence[str],
    seed: int,
    vocabulary_size: int,
    vocabulary: str | None = None,
    test_share: float = 0.2,
    head_share: float = 0.4,
    max_rejected_share: float = 0.05,
    memory_limit: str = "1GB",
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
    - A query's split is the one given (`test` if rows disagree), else it follows from a hash of
      seed and query, in lower case. `head_share` of the training queries, again by hash, is kept
      for the relevance head.

    Source: this project; that the head learns from queries that no earlier stage saw, secondary
    note on DSIRM (arXiv 2606.04374), whose ranker has labelled pairs of its own.

    Args:
      source: has `read() -> schema.Source`.
      out_dir: folder of the outputs, which replace those of an earlier run.
      label_gains: the legal labels, each with its gain (ESCI: E 1, S .1, C .01, I 0).
      relevant_labels: the labels that count as relevant.
      seed: seed of the split and of the vocabulary.
      vocabulary_size: pieces of the vocabulary.
      vocabulary: a SentencePiece model to take instead of training one.
      test_share: share of the queries for evaluation, where no split is given.
      head_share: share of the training queries for the relevance head.
      max_rejected_share: share of the items, or of the judgements, that may be rejected.
      memory_limit: what DuckDB may keep in memory before it spills to disk.

    Returns:
      The summary, as in `summary.json`.

    Raises:
      InputError: a binding is not legal, an input cannot be read, too many rows are rejected, or a
        split has no query or no relevant judgement. Of the outputs, only `rejected.parquet` is
        then left.
    """
    labels = _labels(label_gains, relevant_labels)
    for name, share in (("test_share", test_share), ("head_share", head_share)):
        if not 0 < share < 1:
            raise InputError(f"prepare.{name} is {share}: bind a share between 0 and 1")
    out_dir = Path(out_dir)
    for name in OUTPUTS:
        (out_dir / name).unlink(missing_ok=True)
    with _staging(out_dir / "staging") as staging:
        database = ibis.duckdb.connect(
            temp_directory=str(staging / "spill"), memory_limit=memory_limit
        )
        settle = functools.partial(
            _settle, rejected=out_dir / "rejected.parquet", most=max_rejected_share
        )
        contents = source.read()

        check = functools.partial(checked_items, extras=contents.extras)
        staged = _stage("items", contents.items, check, staging)
        raw_items = database.read_parquet(staged.kept)
        copies = _copies(raw_items, contents.extras.names)
        items_summary = settle(database, staged, copies, "duplicate item_id")
        _write(
            raw_items.anti_join(copies, ORIGIN.names).order_by("item_id"),
            staging / "items.parquet",
            pa.schema([*schema.ITEMS, *contents.extras]),
            index="item_index",
        )
        items = database.read_parquet(staging / "items.parquet")

        check = functools.partial(checked_judgements, labels=label_gains)
        staged = _stage("judgements", contents.judgements, check, staging)
        raw_judgements = database.read_parquet(staged.kept)
        unknown = raw_judgements.anti_join(items, "item_id")
        judgements_summary = settle(database, staged, unknown, "unknown item_id")
        judgements = raw_judgements.semi_join(items, "item_id")
        queries = _queries(judgements, seed=seed, test_share=test_share, head_share=head_share)
        _write(
            queries.order_by("query"),
            staging / "queries.parquet",
            schema.QUERIES,
            index="query_index",
        )
        queries = database.read_parquet(staging / "queries.parquet")
        pairs = (
            _pairs(judgements, labels)
            .join(items.select("item_id", "item_index"), "item_id")
            .join(queries.select("query", "query_index", "split"), "query")
        )
        _write(
            pairs.order_by("query", "item_id"),
            staging / "judgements.parquet",
            schema.JUDGEMENTS,
        )
        pairs = database.read_parquet(staging / "judgements.parquet")
        splits = _checked_splits(pairs)

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
            "items": items_summary | _item_counts(items),
            "judgements": judgements_summary
            | {"pairs": _number(pairs.count()), "labels": _counts(pairs, "label")},
            "queries": {"splits": splits, "segments": _counts(queries, "segment")},
            "vocabulary": {"pieces": pieces},
        }
        (staging / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False))
        database.disconnect()
        for name in OUTPUTS:
            if name != "rejected.parquet":
                os.replace(staging / name, out_dir / name)
    return summary


def _labels(label_gains: Mapping[str, float], relevant_labels: Sequence[str]) -> list[dict]:
    """Returns the labels as rows, the highest gain first."""
    for label, gain in label_gains.items():
        if not (math.isfinite(gain) and gain >= 0):
            raise InputError(f"prepare.label_gains[{label!r}] is {gain}: bind a number >= 0")
    for label in relevant_labels:
        if label not in label_gains:
            raise InputError(
                f"prepare.relevant_labels has {label!r}, which is none of label_gains "
                f"({', '.join(map(repr, label_gains))}): bind some of these"
            )
    if not 0 < len(set(relevant_labels)) < len(label_gains):
        raise InputError(
            f"prepare.relevant_labels is {tuple(relevant_labels)} of {tuple(label_gains)}: bind "
            "some of the labels, not all"
        )
    ordered = sorted(label_gains, key=lambda label: (-label_gains[label], label))
    return [
        {
            "rank": rank,
            "label": label,
            "gain": float(label_gains[label]),
            "relevant": label in relevant_labels,
        }
        for rank, label in enumerate(ordered)
    ]


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that is gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Staged:
    """A raw table after the checks of single rows.

    Attributes:
      name: items or judgements.
      read: number of rows read.
      kept: Parquet file of the rows that passed.
      rejected: Parquet file of the rows that did not.
      columns: our column name to the user's.
    """

    name: str
    read: int
    kept: Path
    rejected: Path
    columns: Mapping[str, str]


def _stage(name: str, chunks: Iterable[schema.Chunk], check: Callable, folder: Path) -> _Staged:
    kept_path, rejected_path = folder / f"raw_{name}.parquet", folder / f"{name}.unfit.parquet"
    read, columns = 0, {}
    with contextlib.ExitStack() as stack:
        writer = None
        rejections = stack.enter_context(pq.ParquetWriter(rejected_path, schema.REJECTED))
        for chunk in chunks:
            kept, rejected = check(chunk)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(kept_path, kept.schema))
            writer.write_table(kept)
            rejections.write_table(rejected)
            read += chunk.table.num_rows
            columns |= chunk.columns
    if not read:
        raise InputError(f"the source has no {name}; give it at least one row")
    log.info("prepare: %d %s read", read, name)
    return _Staged(name=name, read=read, kept=kept_path, rejected=rejected_path, columns=columns)


def _settle(
    database: ibis.BaseBackend,
    staged: _Staged,
    more: ibis.Table,
    reason: str,
    *,
    rejected: Path,
    most: float,
) -> dict[str, Any]:
    """Adds the rows that only whole tables could tell, writes them out and counts.

    Args:
      database: where `more` lives.
      staged: the raw table.
      more: rows of it that are to be rejected for their item_id.
      reason: why.
      rejected: the user's table of rejected rows, to which those of this table are added.
      most: share of the rows that may be rejected.

    Returns:
      Number of rows read, kept and rejected, and the latter by reason.

    Raises:
      InputError: too many are rejected.
    """
    more = more.select(
        table=ibis.literal(staged.name),
        file=more._file,
        row=more._row,
        column=ibis.literal(staged.columns.get("item_id", "item_id")),
        value=more.item_id,
        reason=ibis.literal(reason),
    )
    here = database.read_parquet(staged.rejected).union(more)
    path = staged.rejected.with_name(f"rejected_{staged.name}.parquet")
    _write(here.order_by("file", "row"), path, schema.REJECTED)
    here = database.read_parquet(path)
    with replacing(rejected) as partial, pq.ParquetWriter(partial, schema.REJECTED) as writer:
        for part in sorted(path.parent.glob("rejected_*.parquet")):
            for batch in pq.ParquetFile(part).iter_batches():
                writer.write_batch(batch)
    reasons = _counts(here, "reason")
    bad = sum(reasons.values())
    if bad:
        first = here.order_by("file", "row").limit(1).to_pyarrow().to_pylist()[0]
        where = f"{first['file']} row {first['row']}"
        where += f" column {first['column']}" if first["column"] else ""
        where += f" = {first['value']!r}" if first["value"] else ""
        message = (
            f"{bad} of {staged.read} {staged.name} rejected ("
            + ", ".join(f"{count} {name}" for name, count in reasons.items())
            + f"), the first: {where} ({first['reason']}); all are in {rejected}"
        )
        if bad > most * staged.read:
            raise InputError(f"{message}; mend them or raise prepare.max_rejected_share ({most})")
        log.warning("prepare: %s", message)
    return {
        "read": staged.read,
        "kept": staged.read - bad,
        "rejected": bad,
        "reasons": reasons,
    }


def _copies(items: ibis.Table, extras: Sequence[str]) -> ibis.Table:
    """Returns all but one of the items that share an id, whatever the order of the rows."""
    repeated = items.group_by("item_id").agg(rows=_.count()).filter(_.rows > 1)
    contents = ["title", "description", "brand", "colour", "category", *extras, *ORIGIN.names]
    place = ibis.row_number().over(ibis.window(group_by="item_id", order_by=contents))
    return items.semi_join(repeated, "item_id").filter(place > 0)


def _queries(
    judgements: ibis.Table, *, seed: int, test_share: float, head_share: float
) -> ibis.Table:
    """One row a query: query, split, frequency and segment."""
    total = judgements.agg(
        query_frequency=_.query_frequency.sum(),
        impressions=_.impressions.sum(),
        clicks=_.clicks.sum(),
    )
    totals = total.to_pyarrow().to_pylist()[0]
    frequency = next(
        (
            {"query_frequency": _.query_frequency.max()}.get(name, _[name].sum())
            for name in ("query_frequency", "impressions", "clicks")
            if totals[name]
        ),
        _.count(),
    )
    queries = judgements.group_by("query").agg(
        given=_.split.min(), frequency=frequency.cast("float64").fill_null(0.0)
    )
    # What comes before a frequency is the traffic of all more frequent queries.
    levels = queries.group_by("frequency").agg(traffic=_.frequency.sum())
    before = (
        levels.traffic.sum().over(ibis.cumulative_window(order_by=ibis.desc("frequency")))
        - levels.traffic
    )
    levels = levels.mutate(before=before, total=levels.traffic.sum().over(ibis.window()))
    levels = levels.select(
        "frequency",
        segment=ibis.cases(
            (_.before < HEAD_TRAFFIC * _.total, "head"),
            (_.before < TORSO_TRAFFIC * _.total, "torso"),
            else_="tail",
        ),
    )
    is_test = ibis.coalesce(
        queries.given == schema.TEST, _drawn(queries.query, f"{seed}:test:", test_share)
    )
    split = ibis.cases(
        (is_test, schema.TEST),
        (_drawn(queries.query, f"{seed}:head:", head_share), schema.HEAD),
        else_=schema.TRAIN,
    )
    return queries.mutate(split=split).join(levels, "frequency")


def _drawn(query: ibis.Value, salt: str, share: float) -> ibis.Value:
    """Draws a share of the queries by their hash; spellings in other case go together."""
    digest = (ibis.literal(salt) + query.lower()).hexdigest("md5")
    return digest.substr(0, 8) < f"{int(share * 16**8):08x}"


def _pairs(judgements: ibis.Table, labels: list[dict]) -> ibis.Table:
    """One row a (query, item_id): label, gain, relevant and weight."""
    ranked = ibis.memtable(labels)
    pairs = (
        judgements.left_join(ranked.select("label", "rank"), "label")
        .group_by("query", "item_id")
        .agg(
            given=_["rank"].min(),
            given_weight=_.weight.max(),
            impressions=_.impressions.sum().fill_null(0),
            clicks=_.clicks.sum().fill_null(0),
            purchases=_.purchases.sum().fill_null(0),
        )
    )
    last = len(labels) - 1
    behaviour = ibis.cases(
        (pairs.purchases > 0, 0), (pairs.clicks > 0, min(1, last - 1)), else_=last
    )
    evidence = ibis.cases(
        (pairs.purchases > 0, pairs.purchases),
        (pairs.clicks > 0, pairs.clicks),
        else_=pairs.impressions,
    )
    weight = ibis.ifelse(pairs.given.isnull(), (1.0 + evidence.cast("float64")).log2(), 1.0)
    pairs = pairs.select(
        "query",
        "item_id",
        rank=ibis.coalesce(pairs.given, behaviour).cast("int64"),
        weight=ibis.coalesce(pairs.given_weight, weight).cast("float32"),
    )
    return pairs.join(ranked, "rank")


def _checked_splits(pairs: ibis.Table) -> dict[str, dict[str, int]]:
    """Counts each split, and complains about one that nothing could be learnt or told from."""
    rows = (
        pairs.group_by("split")
        .agg(
            queries=_.query_index.nunique(),
            judgements=_.count(),
            relevant=_.relevant.cast("int64").sum(),
        )
        .to_pyarrow()
        .to_pylist()
    )
    found = {row.pop("split"): row for row in rows}
    splits = {
        name: found.get(name, {"queries": 0, "judgements": 0, "relevant": 0})
        for name in schema.SPLITS
    }
    for name, split in splits.items():
        if not split["relevant"]:
            raise InputError(
                f"split {name} has {split['queries']} queries, {split['judgements']} judgements "
                "and no relevant one; bind another prepare.test_share, prepare.head_share, "
                "prepare.relevant_labels or seed, or give more judgements"
            )
    return splits


def _training_texts(items: Path, queries: Path) -> Iterator[str]:
    """Yields training queries, then item texts: what the vocabulary may see."""
    for batch in pq.ParquetFile(queries).iter_batches(ROWS, columns=["query", "split"]):
        yield from batch.filter(pc.field("split") == schema.TRAIN).column("query").to_pylist()
    file = pq.ParquetFile(items)
    step = math.ceil(file.metadata.num_rows / MOST_VOCABULARY_TITLES)
    texts = (
        text
        for batch in file.iter_batches(ROWS, columns=["text"])
        for text in batch.column("text").to_pylist()
    )
    yield from itertools.islice(texts, 0, None, step)


def _item_counts(items: ibis.Table) -> dict[str, int]:
    """Counts the items that have each optional column, and the first-level categories."""
    optional = ("description", "brand", "colour", "category")
    return (
        items.agg(
            **{f"with_{name}": items[name].count() for name in optional},
            categories=items.category[0].nunique(),
        )
        .to_pyarrow()
        .to_pylist()[0]
    )


def _counts(table: ibis.Table, column: str) -> dict[str, int]:
    """Counts the rows by the values of a column, the most frequent first."""
    counts = table.group_by(column).agg(rows=_.count())
    counts = counts.order_by(ibis.desc("rows"), column).to_pyarrow()
    return dict(zip(counts[column].to_pylist(), counts["rows"].to_pylist()))


def _number(value: ibis.Scalar) -> int:
    return value.to_pyarrow().as_py()


def _write(rows: ibis.Table, path: Path, columns: pa.Schema, *, index: str | None = None) -> None:
    """Streams rows to Parquet in the columns and types of a schema, perhaps numbering them."""
    rows = rows.select([name for name in columns.names if name != index])
    ordered = path.with_name(f"{path.name}.ordered")
    rows.to_parquet(ordered)
    first = 0
    with pq.ParquetFile(ordered) as reader, pq.ParquetWriter(path, columns) as writer:
        for batch in reader.iter_batches(ROWS):
            table = pa.Table.from_batches([batch])
            if index:
                numbers = pa.array(range(first, first + len(table)), pa.int64())
                table = table.append_column(index, numbers)
            writer.write_table(table.select(columns.names).cast(columns))
            first += len(table)
    ordered.unlink()
