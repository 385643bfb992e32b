"""Reads what one rung's stages wrote, as the arrays that features want; tables of features."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from dsirm_jax.data.identity import QueryIdentity, identities_in
from dsirm_jax.data.schema import SEGMENTS, TEST, number_columns
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.io import arrays
from dsirm_jax.io.files import replacing
from dsirm_jax.relevance import groups as registry
from dsirm_jax.relevance.nearest.lengths import normalise
from dsirm_jax.relevance.nearest.search import Neighbours
from dsirm_jax.relevance.neighbours import Judged, Surroundings
from dsirm_jax.relevance.pairs import JudgedPairs
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.terms import ItemTexts, is_negated
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import VERSION_KEY, check_same_version, read_sids
from dsirm_jax.sids.prefix_match import Beams, log_prefix_shares

ABOUT_THE_PAIR = ("query", "item_id", "label", "gain", "relevant", "split")
"""Columns of `predictions.parquet` that are no rung's score."""

ABOUT_THE_ROW = ("query_index", "item_index")
"""Columns of a table of features that are no feature."""

JUDGED_CATEGORIES = 5
"""First-level categories that metrics are taken of by themselves."""

GROUP_KEY = b"group"
SURROUNDINGS = "surroundings"


def read_dense_vectors(layout: Layout, *, scratch: Path) -> dict[str, Float[np.ndarray, "row dim"]]:
    """Returns `query_vectors` and `item_vectors` of a run, those of all queries and items.

    Args:
      layout: of the run.
      scratch: folder of the temporary files that hold them, memory-mapped.

    Returns:
      float32; those of items have length 1.
    """
    return {
        "query_vectors": read_query_vectors(layout, scratch=scratch),
        "item_vectors": read_item_vectors(layout, scratch=scratch),
    }


def read_query_vectors(layout: Layout, *, scratch: Path) -> Float[np.ndarray, "query dim"]:
    """Returns the vectors of all queries of a run, see `read_dense_vectors`."""
    ids = pq.read_table(layout.queries, columns=["query"])["query"]
    return read_vectors(layout.query_vectors, ids=ids, id_column="query", scratch=scratch)


def first_spellings(queries: Path) -> np.ndarray:
    """Returns for every query of `prepare/queries.parquet` the first one of its identity."""
    names = pq.read_table(queries, columns=["query"])["query"].to_numpy()
    _, first, row = np.unique(identities_in(queries), return_index=True, return_inverse=True)
    return names[first[row]]


def commonest_spellings(
    queries: Path, *, identity: Int[np.ndarray, " query"]
) -> Int[np.ndarray, " spelling"]:
    """Returns the most frequent query of every identity, the first of several; rising.

    Args:
      queries: `prepare/queries.parquet`.
      identity: a number of each query that its spellings share.
    """
    frequency = pq.read_table(queries, columns=["frequency"])["frequency"].to_numpy()
    order = np.lexsort([np.arange(len(identity)), -frequency, identity])
    _, first = np.unique(identity[order], return_index=True)
    return np.sort(order[first])


def read_item_vectors(layout: Layout, *, scratch: Path) -> Float[np.ndarray, "item dim"]:
    """Returns those of all items, likewise, of length 1."""
    ids = pq.read_table(layout.items, columns=["item_id"])["item_id"]
    vectors = read_vectors(layout.item_vectors, ids=ids, id_column="item_id", scratch=scratch)
    normalise(vectors)
    return vectors


def read_item_texts(items: Path) -> Iterator[ItemTexts]:
    """Yields what features read of the items of `items.parquet`, some rows at a time."""
    with pq.ParquetFile(items, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=list(ItemTexts._fields)):
            yield ItemTexts(*(batch.column(name).to_pylist() for name in ItemTexts._fields))


def read_numbers(items: Path) -> dict[str, Float[np.ndarray, " item"]]:
    """Returns the user's own columns of numbers about items, NaN where there is none."""
    names = number_columns(pq.read_schema(items))
    table = pq.read_table(items, columns=names)
    return {name: table[name].cast(pa.float64()).to_numpy() for name in names}


def read_rung(
    *,
    sids: Path,
    health: Path,
    query_sids: Path,
    pair_log_probs: Path,
) -> dict[str, Any]:
    """Returns a rung's arguments of `compute.rung_features`.

    Args:
      sids: table of the items' SIDs.
      health: JSON with the codes per level.
      query_sids: table of the queries' beams.
      pair_log_probs: table of the judged pairs' exact log-probs.

    Raises:
      InputError: the tables are of different SIDs.
    """
    check_same_version(sids, query_sids, pair_log_probs)
    items = read_sids(sids)
    sizes = json.loads(health.read_text("utf-8"))["sizes"]
    table = pq.read_table(pair_log_probs, columns=["log_probs"])["log_probs"].combine_chunks()
    return {
        "sids": items.sids,
        "log_shares": log_prefix_shares(items.sids, sizes=sizes),
        "beams": read_beams(query_sids, levels=items.sids.shape[1]),
        "pair_log_probs": table.flatten().to_numpy().reshape(len(table), -1),
    }


def read_beams(path: Path, *, levels: int) -> Beams:
    """Reads `query_sids.parquet`, see `beams_in`."""
    return beams_in(pq.read_table(path, columns=["sids", "log_probs"]), levels=levels)


def beams_in(table: pa.Table, *, levels: int) -> Beams:
    """Returns the beams of a table of `generator.predict.query_sid_table`.

    Queries with fewer beams than others are filled up with such that are not valid.

    Args:
      table: one row a query.
      levels: of a SID.
    """
    log_probs = table["log_probs"].combine_chunks()
    counts = log_probs.value_lengths().to_numpy()
    valid = np.arange(max(counts.max(initial=0), 1)) < counts[:, None]  # [query, beam]
    codes = table["sids"].combine_chunks().flatten().flatten().to_numpy()
    sids = np.full((*valid.shape, levels), -1, np.int32)
    sids[valid] = codes.reshape(-1, levels)
    filled = np.full(valid.shape, -np.inf, np.float32)
    filled[valid] = log_probs.flatten().to_numpy()
    return Beams(sids=sids, log_probs=filled, valid=valid)


def write_features(
    path: Path,
    table: FeatureTable,
    *,
    pairs: Mapping[str, Int[np.ndarray, " pair"]],
    sid_version: str | None = None,
) -> None:
    """Writes features of pairs; each column's metadata has its group.

    Args:
      path: where to.
      table: the features.
      pairs: `query_index` and `item_index` of each row.
      sid_version: of the SIDs that the features come from, None where there are none.
    """
    fields = [pa.field(name, pa.int64()) for name in ABOUT_THE_ROW] + [
        pa.field(name, pa.float32(), metadata={GROUP_KEY: group.encode()})
        for name, group in zip(table.names, table.groups, strict=True)
    ]
    schema = pa.schema(fields, metadata={VERSION_KEY: sid_version.encode()} if sid_version else {})
    columns = [*(pairs[name] for name in ABOUT_THE_ROW), *table.values.T]
    with replacing(path) as partial:
        pq.write_table(pa.table([pa.array(c) for c in columns], schema=schema), partial)


def read_features(
    *paths: Path, groups: Sequence[str], rows: Bool[np.ndarray, " pair"] | None = None
) -> FeatureTable:
    """Reads the columns of some groups, of tables of the same pairs side by side.

    Args:
      paths: tables that `write_features` wrote.
      groups: the features wanted; columns are in the tables' order.
      rows: pairs wanted; None: all. Of the others no more than a batch is in memory.
    """
    wanted = [
        [(field.name, group) for field, group in _groups(path) if group in groups] for path in paths
    ]
    kept = np.ones(pq.read_metadata(paths[0]).num_rows, bool) if rows is None else rows
    values = np.empty((kept.sum(), sum(map(len, wanted))), np.float32)
    first = 0
    for path, columns in zip(paths, wanted, strict=True):
        of_path = values[:, first : first + len(columns)]
        _fill(of_path, path, names=[name for name, _ in columns], rows=kept)
        first += len(columns)
    return FeatureTable(
        names=tuple(name for columns in wanted for name, _ in columns),
        groups=tuple(group for columns in wanted for _, group in columns),
        values=values,
    )


def _fill(
    values: Float[np.ndarray, "kept name"],
    path: Path,
    *,
    names: Sequence[str],
    rows: Bool[np.ndarray, " pair"],
) -> None:
    """Fills an array with some columns of some rows of a table."""
    start, filled = 0, 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=list(names)):
            kept = rows[start : start + len(batch)]
            here = slice(filled, filled + kept.sum())
            for place, name in enumerate(names):
                values[here, place] = batch.column(name).to_numpy()[kept]
            start, filled = start + len(batch), here.stop


def read_halves(
    sources: Sequence[Sequence[Path]],
    *,
    groups: Sequence[str],
    rung: str,
    rows: Bool[np.ndarray, " pair"] | None = None,
) -> list[FeatureTable]:
    """Reads the features of pairs that every half of a cross-fit gives.

    Args:
      sources: of each half, its tables of features, whose columns stand side by side.
      groups: the features wanted.
      rung: what messages call it.
      rows: pairs wanted; None: all.

    Raises:
      InputError: a group is in no table.
    """
    for tables in sources:
        check_groups(groups, *tables, rung=rung)
    return [read_features(*tables, groups=groups, rows=rows) for tables in sources]


def feature_names(*paths: Path) -> tuple[str, ...]:
    """Returns the columns of tables of features, in order."""
    return tuple(field.name for path in paths for field, _ in _groups(path))


def first_of(
    halves: Sequence[FeatureTable], *, where: Bool[np.ndarray, "half pair"]
) -> FeatureTable:
    """Returns each pair's features from the first half of a cross-fit that counts.

    Args:
      halves: of the same pairs, with the same columns.
      where: the halves that count; where none does, the first is taken.
    """
    first, *others = halves
    if not others:
        return first
    values, half_of_pair = first.values.copy(), where.argmax(axis=0)
    for number, half in enumerate(others, start=1):
        rows = half_of_pair == number
        values[rows] = half.values[rows]
    return dataclasses.replace(first, values=values)


def controls(rungs: Mapping[str, Sequence[str]], *, features: Path) -> list[str]:
    """Returns the rungs that use no codes: all their groups are of the stage `features`.

    Args:
      rungs: names of the groups of each.
      features: the table of that stage.
    """
    without_sids = {group for _, group in _groups(features)}
    return [
        rung
        for rung, groups in rungs.items()
        if all(group in without_sids or registry.may_be_empty(group) for group in groups)
    ]


def check_groups(groups: Sequence[str], *paths: Path, rung: str) -> None:
    """Raises InputError when a rung names no group, or one that no table of features has."""
    known = dict.fromkeys(group for path in paths for _, group in _groups(path))
    empty = [group for group in groups if registry.may_be_empty(group)]
    binding = f"{', '.join(map(str, paths))}: {registry.RUNGS}[{rung!r}]"
    registry.check_names(groups, known=[*known, *empty], binding=binding)


def _groups(path: Path) -> list[tuple[pa.Field, str]]:
    schema = pq.read_schema(path)
    return [(field, field.metadata[GROUP_KEY].decode()) for field in schema if field.metadata]


def write_surroundings(path: Path, surroundings: Surroundings) -> None:
    """Writes what lies near some queries, for features of any SIDs."""
    items, queries, judged = surroundings
    named = {
        "items/index": items.row,
        "items/cosine": items.cosine,
        "queries/index": queries.row,
        "queries/cosine": queries.cosine,
        "judged/items": judged.items,
        "judged/verdicts": judged.verdicts,
    }
    arrays.save(path, named, kind=SURROUNDINGS, description={})


def read_surroundings(path: Path) -> Surroundings:
    """Reads what `write_surroundings` wrote."""
    named, _ = arrays.load(path, kind=SURROUNDINGS, otherwise="run `dsirm features` again")
    return Surroundings(
        items=Neighbours(named["items/index"], named["items/cosine"]),
        queries=Neighbours(named["queries/index"], named["queries/cosine"]),
        judged=Judged(named["judged/items"], named["judged/verdicts"]),
    )


def read_hits(path: Path) -> tuple[Int[np.ndarray, " query"], Int[np.ndarray, "query level"]]:
    """Reads `hits.parquet`: the queries, and their ranks as `metrics.retrieval.first_hits` has."""
    table = pq.read_table(path, columns=["query_index", "ranks"])
    ranks = table["ranks"].combine_chunks().flatten().to_numpy()
    return table["query_index"].to_numpy(), ranks.reshape(len(table), -1)


def read_judged_pairs(
    *,
    queries: Path,
    items: Path,
    judgements: Path,
    rows: Bool[np.ndarray, " judgement"] | None = None,
) -> JudgedPairs:
    """Reads judged pairs as evaluation wants them, one row a judgement.

    Segments are `head`, `torso` and `tail`; `negation`, queries that say what is not wanted;
    `seen items` and `unseen items`, by whether a judgement of a query outside the split test names
    the item; and the largest first-level categories.

    Args:
      queries: `prepare/queries.parquet`.
      items: `prepare/items.parquet`.
      judgements: `prepare/judgements.parquet`.
      rows: judgements wanted; None: all.
    """
    columns = ["query_index", "item_index", "relevant", "gain", "label", "split"]
    table = pq.read_table(judgements, columns=columns)
    items_of_other_splits = table.filter(pc.not_equal(table["split"], TEST))["item_index"]
    if rows is not None:
        table = table.filter(pa.array(rows))
    query, item, relevant, gain, label = (table[name].to_numpy() for name in columns[:-1])
    texts = pq.read_table(queries, columns=["query", "segment"])
    traffic = texts["segment"].to_numpy()[query]
    negated = np.array([is_negated(text) for text in texts["query"].to_pylist()], bool)[query]
    known = np.isin(item, items_of_other_splits.to_numpy())
    paths = pq.read_table(items, columns=["category"])["category"]
    category = pc.list_element(paths, 0).take(pa.array(item)).to_numpy()
    judged = collections.Counter(name for name in category if name is not None)
    largest = [name for name, _ in sorted(judged.items(), key=lambda pair: (-pair[1], pair[0]))]
    return JudgedPairs(
        query_index=query,
        identity=identities_in(queries)[query],
        relevant=relevant,
        gain=gain,
        label=label,
        segments={
            **{name: traffic == name for name in SEGMENTS},
            "negation": negated,
            "seen items": known,
            "unseen items": ~known,
            **{f"category {name}": category == name for name in largest[:JUDGED_CATEGORIES]},
        },
    )


def pooled(
    folds: Sequence[Sequence[Layout]],
) -> tuple[JudgedPairs, dict[str, Float[np.ndarray, "seed pair"]]]:
    """Returns all judged pairs, and the scores that each has from the fold that tests its query.

    Args:
      folds: of every seed, its folds, whose tables of judgements differ in the split alone.

    Returns:
      The pairs, and by rung their scores of each seed. Whether an item was seen is a matter of the
      fold, of the last seed.
    """
    pairs = _judged_pairs(folds[0][0])
    scores: dict[str, Float[np.ndarray, "seed pair"]] = {}
    for seed, of_seed in enumerate(folds):
        for at in of_seed:
            judged = _judged_pairs(at)
            tested = pq.read_table(at.judgements, columns=["split"])["split"].to_numpy() == TEST
            for name in ("seen items", "unseen items"):
                pairs.segments[name][tested] = judged.segments[name][tested]
            table = pq.read_table(at.predictions, filters=[("split", "=", TEST)])
            for rung in table.column_names:
                if rung not in ABOUT_THE_PAIR:
                    shape = (len(folds), len(tested))
                    of_rung = scores.setdefault(rung, np.full(shape, np.nan, np.float32))
                    of_rung[seed, tested] = table[rung].to_numpy()
    return pairs, scores


def _judged_pairs(at: Layout) -> JudgedPairs:
    return read_judged_pairs(queries=at.queries, items=at.items, judgements=at.judgements)


def write_predictions(
    path: Path,
    *,
    judged: pa.Table,
    scores: Mapping[str, np.ndarray],
    identity: QueryIdentity,
) -> None:
    """Writes `predictions.parquet`: what is known of each pair, and a score column per rung.

    Its metadata has the `identity` of queries, which `identity.identity_in` reads.

    Args:
      path: where to.
      judged: `ABOUT_THE_PAIR` of each pair.
      scores: of each pair, by rung.
      identity: what makes two queries one.
    """
    columns = {name: judged[name] for name in ABOUT_THE_PAIR} | dict(scores)
    with replacing(path) as partial:
        pq.write_table(pa.table(columns).replace_schema_metadata(identity.metadata()), partial)
