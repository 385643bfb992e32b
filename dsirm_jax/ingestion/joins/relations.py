"""What needs whole tables, in Ibis: the same rows from any engine that Ibis reaches.

Tables are lazy: nothing is read before `prepare` writes a result. No result depends on the order in
which an engine adds up or meets the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ibis
from ibis import _

from dsirm_jax.data import schema
from dsirm_jax.ingestion.validation.validate import DRAW_RANGE

HEAD_TRAFFIC, TORSO_TRAFFIC = 0.5, 0.8
"""The most frequent queries that make up half of the traffic are the head; then, up to 80 %, the
torso; the rest is the tail. Queries of the same frequency are in the same segment."""

TRAFFIC_UNIT = 2.0**-10
"""Traffic is counted in whole units, whose sums are exact in any order."""


def query_rows(
    judgements: ibis.Table,
    *,
    test_share: float,
    head_share: float,
    fold: tuple[int, int] | None = None,
    exchanged: bool = False,
) -> ibis.Table:
    """Returns one row a query: query, identity, split, frequency and segment.

    Queries of one identity share a split, see `prepare.prepare`.

    A query's frequency is its largest query_frequency; where the table has none, the sum of
    its impressions; else of its clicks; else its number of judgements.
    """
    totals = judgements.agg(
        query_frequency=_.query_frequency.max(),
        impressions=_.impressions.max(),
        clicks=_.clicks.max(),
    )
    totals = totals.to_pyarrow().to_pylist()[0]
    if totals["query_frequency"]:
        frequency = _.query_frequency.max()
    elif totals["impressions"]:
        frequency = _.impressions.sum()
    elif totals["clicks"]:
        frequency = _.clicks.sum()
    else:
        frequency = _.count()
    rows = judgements.group_by("query").agg(
        identity=_["_identity"].min(),
        split=_.split.min(),
        test_draw=_["_test_draw"].min(),
        head_draw=_["_head_draw"].min(),
        frequency=frequency.cast("float64").fill_null(0.0),
    )
    if fold:
        number, folds = fold
        is_test = (rows.test_draw * folds).floordiv(DRAW_RANGE) == number
    else:
        given = rows["split"].min().over(ibis.window(group_by="identity"))
        is_test = ibis.coalesce(given == schema.TEST, rows.test_draw < int(test_share * DRAW_RANGE))
    first, second = (schema.TRAIN, schema.HEAD) if exchanged else (schema.HEAD, schema.TRAIN)
    is_first = rows.head_draw < int(head_share * DRAW_RANGE)
    split = ibis.cases((is_test, schema.TEST), (is_first, first), else_=second)
    rows = rows.select("query", "identity", "frequency", split=split)
    return rows.join(_segments(rows), "frequency")


def _segments(query_table: ibis.Table) -> ibis.Table:
    """Returns the segment of every frequency that occurs."""
    levels = query_table.group_by("frequency").agg(queries=_.count())
    units = (levels.frequency / TRAFFIC_UNIT).floor() * levels.queries
    levels = levels.mutate(traffic=units.cast("float64"))
    # What comes before a frequency is the traffic of all more frequent queries.
    running = levels.traffic.sum().over(ibis.cumulative_window(order_by=ibis.desc("frequency")))
    levels = levels.mutate(
        before=running - levels.traffic, total=levels.traffic.sum().over(ibis.window())
    )
    return levels.select(
        "frequency",
        segment=ibis.cases(
            (_.before < HEAD_TRAFFIC * _.total, "head"),
            (_.before < TORSO_TRAFFIC * _.total, "torso"),
            else_="tail",
        ),
    )


def splits(pairs: ibis.Table) -> dict[str, dict[str, int]]:
    """Counts the queries, judgements and relevant judgements of each split."""
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
    counts = {row.pop("split"): row for row in rows}
    empty = {"queries": 0, "judgements": 0, "relevant": 0}
    return {name: counts.get(name, empty) for name in schema.SPLITS}


def item_counts(items: ibis.Table, *, most: int) -> dict[str, Any]:
    """Counts the items that have each optional column, by category and by length of title.

    Args:
      items: the prepared items.
      most: number of first-level categories that are named.
    """
    optional = ("description", "brand", "colour", "category")
    filled = items.agg(**{f"with_{name}": items[name].count() for name in optional})
    categories = items.select(category=items.category[0]).filter(_.category.notnull())
    named = categories.group_by("category").agg(rows=_.count())
    named = named.order_by(ibis.desc("rows"), "category").limit(most).to_pyarrow()
    return {
        **filled.to_pyarrow().to_pylist()[0],
        "categories": number(categories.category.nunique()),
        "largest_categories": dict(zip(named["category"].to_pylist(), named["rows"].to_pylist())),
        "title_words": histogram(items.select(value=_words(items.title)), ends=(2, 4, 8, 16, 32)),
    }


def query_counts(query_table: ibis.Table, pairs: ibis.Table) -> dict[str, Any]:
    """Counts the queries by segment, by their length and by their number of judged items."""
    sizes = pairs.group_by("query_index").agg(value=_.count())
    return {
        "segments": {name: 0 for name in schema.SEGMENTS} | counts(query_table, "segment"),
        "query_words": histogram(
            query_table.select(value=_words(query_table.query)), ends=(1, 2, 4, 8, 16)
        ),
        "judgements_per_query": histogram(sizes, ends=(1, 3, 7, 15, 31)),
    }


def counts(table: ibis.Table, column: str) -> dict[str, int]:
    """Counts the rows by the values of a column, the most frequent first."""
    groups = table.group_by(column).agg(rows=_.count())
    groups = groups.order_by(ibis.desc("rows"), column).to_pyarrow()
    return dict(zip(groups[column].to_pylist(), groups["rows"].to_pylist()))


def histogram(table: ibis.Table, *, ends: Sequence[int]) -> dict[str, int]:
    """Counts the rows whose `value`, a number from 1, falls in 1..end, ..end and beyond the last.

    Args:
      table: has a column `value`.
      ends: last number of each bucket, ascending.

    Returns:
      Buckets, such as "3-4", in order, the last one open: "17+".
    """
    starts = (1, *(end + 1 for end in ends))
    names = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends)] + [f"{starts[-1]}+"]
    bucket = ibis.cases(
        *((table.value <= end, name) for end, name in zip(ends, names)), else_=names[-1]
    )
    return {name: 0 for name in names} | counts(table.select(bucket=bucket), "bucket")


def number(value: ibis.Scalar) -> int:
    """Returns a number that the engine computes."""
    return int(value.to_pyarrow().as_py())


def _words(text: ibis.Value) -> ibis.Value:
    """Returns the number of words of cleaned text, which single spaces separate."""
    return text.length() - text.replace(" ", "").length() + 1
