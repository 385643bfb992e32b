"""Raw tables in; items, queries, judgements and examples out, as `schema` has them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from dsirm_jax.data import schema
from dsirm_jax.data.findings import Finding
from dsirm_jax.data.item_text import ItemText
from dsirm_jax.ingestion.grading.labels import Labels
from dsirm_jax.ingestion.joins import relations, twins
from dsirm_jax.ingestion.joins.copies import found_copies
from dsirm_jax.ingestion.joins.joining import UNKNOWN, join_ids
from dsirm_jax.ingestion.joins.label_findings import label_counts, label_findings, settings_findings
from dsirm_jax.ingestion.joins.pair_labels import LATEST, PAIR, pair_labels
from dsirm_jax.ingestion.joins.rejection import settle_rows
from dsirm_jax.ingestion.joins.rows import write_rows
from dsirm_jax.ingestion.rules import Rules
from dsirm_jax.ingestion.validation.oddities import oddity_findings
from dsirm_jax.ingestion.validation.staging import PART, Check, Staged, stage
from dsirm_jax.ingestion.validation.validate import (
    CHECKED_JUDGEMENTS,
    NO_SPLIT,
    UNKNOWN_LABEL,
    checked_items,
    checked_items_schema,
    checked_judgements,
)
from dsirm_jax.io.errors import InputError

Note = Callable[[Sequence[Finding]], None]
NAMED_CATEGORIES = 20
"""First-level categories that the summary counts by name."""
_SPLIT_ADVICE = (
    "a split is train or test, and where it is empty prepare.run.test_share decides: write one of "
    "these for dev or valid, or leave the column out"
)


def prepared_tables(
    contents: schema.Source,
    *,
    rules: Rules,
    database: ibis.BaseBackend,
    folder: Path,
    rejected: Path,
    workers: int,
    say: Note,
) -> dict[str, Any]:
    """Validates, joins and splits the input, and writes `NAME.parquet` for each table.

    Args:
      contents: the input.
      rules: what becomes of it.
      database: joins the tables; it reads and writes Parquet in `folder`.
      folder: of the tables, and of what lies there meanwhile.
      rejected: file of the rows that are rejected.
      workers: processes that read and check rows.
      say: is called with findings as they are met.

    Returns:
      The summary, as in `summary.json`, of the tables.

    Raises:
      InputError: see `prepare.prepare`.
    """
    labels = rules.labels
    findings: list[Finding] = []

    def note(more: Sequence[Finding]) -> None:
        say(more)
        findings.extend(more)

    note(contents.findings)
    note(settings_findings(labels, rules.relevant_labels))
    staged = functools.partial(
        _staged,
        note=note,
        missing=tuple(rules.missing),
        folder=folder,
        workers=workers,
        if_empty=contents.if_empty,
    )
    settle = functools.partial(
        settle_rows,
        database,
        folder=folder,
        rejected=rejected,
        most=rules.max_rejected_share,
        note=note,
    )
    items, items_summary = _items(
        database,
        contents,
        item_copies=rules.item_copies,
        item_text=rules.item_text,
        folder=folder,
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
            seed=rules.seed,
            identity=rules.identity,
            is_timed=rules.judgement_aggregation == LATEST,
            is_placed=rules.clicks.propensities is not None,
        ),
        labels=labels,
        folder=folder,
        staged=staged,
        settle=settle,
        note=note,
    )
    labelled = pair_labels(
        database,
        judgements,
        labels=labels,
        aggregation=rules.judgement_aggregation,
        clicks=rules.clicks,
        folder=folder,
    )
    note(labelled.findings)
    if labelled.left_out:
        judgements = judgements.semi_join(labelled.rows, PAIR)
    if rules.fold is None:  # which no split that is given decides
        note(twins.parted(judgements, wanted=rules.parted_queries))
    rows = relations.query_rows(
        judgements,
        test_share=rules.test_share,
        head_share=rules.head_share,
        fold=rules.fold,
        exchanged=rules.exchanged,
    )
    write_rows(
        rows.order_by("query"),
        folder / "queries.parquet",
        schema.QUERIES.with_metadata(rules.identity.metadata()),
        index="query_index",
    )
    near_twins, near = twins.near_twins(folder / "queries.parquet", identity=rules.identity)
    note(near)
    queries = database.read_parquet(str(folder / "queries.parquet"))
    pairs = _pairs(database, labelled.rows, items, queries, folder=folder)
    splits = relations.splits(pairs)
    if not any(split["judgements"] for split in splits.values()):
        raise InputError(
            f"judgements: none of {judgements_summary['read']} is left to learn from; all "
            f"are in {rejected.name}"
        )
    _check_splits(splits)
    return {
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
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _staged(
    name: str,
    *,
    check: Callable[..., tuple[pa.Table, pa.Table]],
    missing: Sequence[str],
    note: Note,
    **settings: Any,
) -> Staged:
    """Stages a table, see `stage`; notes what is odd in it."""
    raw = stage(name, check=functools.partial(check, missing=missing), **settings)
    note(list(oddity_findings(raw.oddities, table=name, rows=raw.read, columns=raw.columns)))
    return raw


def _items(
    database: ibis.BaseBackend,
    contents: schema.Source,
    *,
    item_copies: str | None,
    item_text: ItemText,
    folder: Path,
    staged: Callable[..., Staged],
    settle: Callable[..., dict[str, Any]],
    note: Note,
) -> tuple[ibis.Table, dict[str, Any]]:
    """Writes the prepared items; returns them, and how many rows were read, kept and rejected."""
    item_text.columns(contents.extras.names)  # says which attribute there is not
    raw = staged(
        "items",
        parts=contents.items,
        check=functools.partial(checked_items, extras=contents.extras, item_text=item_text),
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
        pa.schema([*schema.ITEMS, *contents.extras], metadata=item_text.metadata()),
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
    note: Note,
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
    hints = {UNKNOWN: joined.hint, UNKNOWN_LABEL: advice, NO_SPLIT: _SPLIT_ADVICE}
    summary = settle(raw, unknown, hints=hints)
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
