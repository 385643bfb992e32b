"""Queries that are spelt alike, across splits: what is tested must not have been trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow.parquet as pq
from ibis import _

from dsirm_jax.data import schema
from dsirm_jax.data.findings import Finding
from dsirm_jax.data.identity import NEAR, QueryIdentity
from dsirm_jax.ingestion.joins.rows import BATCH_ROWS
from dsirm_jax.io.errors import InputError

MERGE, ERROR = PARTED = ("merge", "error")
"""What becomes of queries whose rows are in both splits, see `prepare.prepare`."""

FEW = 0.01
"""Share of the test queries that may have near-twins elsewhere without a warning."""


def parted(judgements: ibis.Table, *, wanted: str) -> list[Finding]:
    """Returns what the user should know of queries whose rows have both splits that may be given.

    Args:
      judgements: checked ones.
      wanted: what becomes of such queries, one of `PARTED`.

    Raises:
      InputError: there are some, and none may be.
    """
    rows = judgements.filter(_.split.notnull())
    queries = rows.group_by("query", identity=_["_identity"]).agg(
        in_test=(_.split == schema.TEST).any(), in_train=(_.split == schema.TRAIN).any()
    )
    identities = queries.group_by("identity").agg(
        in_test=_.in_test.any(),
        in_train=_.in_train.any(),
        in_both=(_.in_test & _.in_train).any(),
        mixed=_["query"].min(where=_.in_test & _.in_train),
        tested=_["query"].min(where=_.in_test),
        trained=_["query"].min(where=_.in_train),
    )
    is_parted = identities.in_test & identities.in_train
    counts = _row(
        identities.agg(
            queries=_.count(),
            by_row=_.in_both.cast("int64").sum(),
            by_spelling=(is_parted & ~identities.in_both).cast("int64").sum(),
        )
    )
    remedy = (
        "give each query one split, all its spellings together, or bind "
        "prepare.run.parted_queries = 'merge' to have all its rows in test"
        if wanted == ERROR
        else "all their rows are test's now; give each query one split, all its spellings "
        "together, or bind prepare.run.parted_queries = 'error' to stop here"
    )
    findings = []
    for kind, is_kind in (("by_row", identities.in_both), ("by_spelling", ~identities.in_both)):
        if not counts[kind]:
            continue
        example = _row(identities.filter(is_parted & is_kind).order_by("identity").limit(1))
        seen = (
            f"have rows in both splits, train and test, such as {example['mixed']!r}"
            if kind == "by_row"
            else "are in both splits under spellings that are one query, such as "
            f"{example['trained']!r} in train and {example['tested']!r} in test"
        )
        text = f"{counts[kind]:,} of {counts['queries']:,} queries {seen}: {remedy}"
        findings.append(Finding(table="queries", text=text))
    if findings and wanted == ERROR:
        raise InputError("; ".join(finding.text for finding in findings))
    return findings


def near_twins(queries: Path, *, identity: QueryIdentity) -> tuple[dict[str, int], list[Finding]]:
    """Counts the queries of each split that have a near-twin in another split.

    Near-twins, such as "red kettle" and "kettle, red", are one query once punctuation and the order
    of words are folded, too.

    Args:
      queries: the prepared table.
      identity: by which it was split.

    Returns:
      Queries by split, and what the user should know of them.
    """
    keys, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in pq.ParquetFile(queries).iter_batches(BATCH_ROWS, columns=["query", "split"]):
        keys += [np.array([hash(NEAR.of(text)) for text in batch["query"].to_pylist()], np.int64)]
        places += [np.array([schema.SPLITS.index(name) for name in batch["split"].to_pylist()])]
    group = np.unique(np.concatenate(keys), return_inverse=True)[1].reshape(-1)
    place = np.concatenate(places)
    holds = np.zeros((group.max(initial=0) + 1, len(schema.SPLITS)), bool)
    holds[group, place] = True
    has_twin = holds.sum(axis=1)[group] > 1
    counts = {
        name: int((has_twin & (place == number)).sum()) for number, name in enumerate(schema.SPLITS)
    }
    tests = int((place == schema.SPLITS.index(schema.TEST)).sum())
    if not counts[schema.TEST]:
        return counts, []
    is_test = place == schema.SPLITS.index(schema.TEST)
    row = int(np.flatnonzero(has_twin & is_test)[0])
    twin = int(np.flatnonzero((group == group[row]) & ~is_test)[0])
    names = pq.read_table(queries, columns=["query"])["query"].take([row, twin]).to_pylist()
    folded = [name for name in ("punctuation", "word_order") if not getattr(identity, name)]
    binding = ", ".join(f"identity.QueryIdentity.{name} = True" for name in folded)
    text = (
        f"{counts[schema.TEST]:,} of {tests:,} test queries have a near-twin in train or head, "
        f"which differs in punctuation or the order of words alone, such as {names[0]!r} and "
        f"{names[1]!r}: what is learnt there may be tested; bind {binding} and "
        f"prepare.run.identity = @identity.QueryIdentity() to keep them in one split"
    )
    is_fault = counts[schema.TEST] > FEW * tests
    return counts, [Finding(table="queries", text=text, is_fault=is_fault)]


def _row(table: ibis.Table) -> dict[str, Any]:
    return table.to_pyarrow().to_pylist()[0]
