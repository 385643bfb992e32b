"""Computes groups of features of (query, item) pairs, in training and in serving alike.

No statistic comes from labels of the query itself or of test queries: votes are of other queries,
counts of the catalogue alone. Functions take arrays and texts and read no file.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from dsirm_jax.devices.precision import exact
from dsirm_jax.devices.stream import stream
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import variants
from dsirm_jax.relevance.digests import Reading, catalogue_statistics, digest_items, digest_queries
from dsirm_jax.relevance.features.group import (
    Group,
    ItemContext,
    PairContext,
    PairTexts,
    QueryContext,
    SidContext,
)
from dsirm_jax.relevance.features.numeric import finite_numbers
from dsirm_jax.relevance.grid import GRID_COLUMNS, ROWS_AT_ONCE, Grid, grid_blocks
from dsirm_jax.relevance.neighbours import Surroundings
from dsirm_jax.relevance.schema import FeatureTable, join
from dsirm_jax.relevance.terms import ItemTexts
from dsirm_jax.sids import prefix_match
from dsirm_jax.sids.arrays import AnyArray
from dsirm_jax.sids.prefix_match import Beams

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_Tree = TypeVar("_Tree")


def pair_context(
    *,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    query_vectors: Float[np.ndarray, "query dim"],
    item_vectors: Float[np.ndarray, "item dim"],
    surroundings: Surroundings,
    queries: Sequence[str],
    items: Iterable[ItemTexts],
    numbers: Mapping[str, Float[np.ndarray, " item"]],
    processor: SentencePieceProcessor,
    language: str | None,
) -> PairContext:
    """Returns what groups that read no SIDs look at: texts are digested, numbers made finite.

    Args:
      query_index: row of `query_vectors` and of `queries` of each pair.
      item_index: row of `item_vectors`, of `items` and of each of `numbers`, of each pair.
      query_vectors: see `PairContext`.
      item_vectors: likewise.
      surroundings: likewise.
      queries: the text of every query.
      items: columns of all items of the catalogue, some rows at a time, in order.
      numbers: the user's own of every item by the name of their column, NaN where there is none.
      processor: SentencePiece.
      language: of all texts, see `product_type`; None: not known, or several.
    """
    wanted, item_row = np.unique(item_index, return_inverse=True)
    statistics, texts = catalogue_statistics(items, wanted=wanted, processor=processor)
    reading = Reading(processor, statistics.names, language)
    query_texts = [queries[query] for query in np.unique(query_index)]
    return PairContext(
        query_index=query_index,
        item_index=item_index,
        item_row=item_row,
        query_vectors=query_vectors,
        item_vectors=item_vectors,
        surroundings=surroundings,
        texts=PairTexts(
            digest_queries(query_texts, reading), digest_items(texts, reading), statistics.pieces
        ),
        numbers={name: finite_numbers(values) for name, values in numbers.items()},
    )


def pair_features(context: PairContext, *, groups: Sequence[Group]) -> FeatureTable:
    """Returns the features that know nothing of SIDs.

    Args:
      context: of the pairs.
      groups: those wanted, which read pairs.

    Raises:
      InputError: a group gives another number of columns than it names, or two name the same.
      ValueError: a feature is not finite.
    """
    pairs, numbers = len(context.query_index), tuple(context.numbers)
    named = [tuple(group.described(numbers=numbers)) for group in groups]
    values = np.empty((pairs, sum(map(len, named))), np.float32)
    first = 0
    for group, names in zip(groups, named, strict=True):
        found = _checked(group.compute(context), (pairs, len(names)), group=group)
        values[:, first : first + len(names)] = found
        first += len(names)
    columns = [
        (group.name, name) for group, names in zip(groups, named, strict=True) for name in names
    ]
    return _table(columns, values)


@exact
def sid_group_features(
    context: SidContext, *, groups: Sequence[Group]
) -> Float[Array, "query item feature"]:
    """Returns the features of groups that read SIDs, side by side in their order; in JAX.

    Args:
      context: of queries and the items that each is paired with.
      groups: those wanted, at least one.

    Raises:
      InputError: a group gives another number of columns than it names.
    """
    *shape, levels = context.items.sids.shape
    parts = [
        _checked(group.compute(context), (*shape, len(group.described(levels=levels))), group=group)
        for group in groups
    ]
    return jnp.concatenate(parts, axis=-1)


def beam_features(
    beams: Beams, items: ItemContext, *, groups: Sequence[Group]
) -> dict[str, Float[Array, " pair"]]:
    """Returns the features of groups that read beams alone, by name; in JAX.

    Args:
      beams: of each pair's query, one row a pair.
      items: of each pair, likewise, without the axis of items.
      groups: those wanted.
    """
    context = SidContext(QueryContext(beams), jax.tree.map(lambda part: part[:, None], items))
    columns: dict[str, Float[Array, " pair"]] = {}
    for group in groups:
        values = sid_group_features(context, groups=[group])[:, 0]
        names = group.described(levels=items.sids.shape[-1])
        columns |= dict(zip(names, values.T, strict=True))
    return columns


def match_features(
    *,
    groups: Sequence[Group],
    variant_groups: Sequence[Group] = (),
    tags: Sequence[int | str] = (),
    own_codes: Int[np.ndarray, "query level"] | None = None,
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "item level"],
    log_shares: Float[np.ndarray, "item level"],
    beams: Beams,
    pair_log_probs: Float[np.ndarray, "pair level"],
    surroundings: Surroundings,
) -> FeatureTable:
    """Returns the features that one rung's SIDs give, and variants of them side by side.

    Args:
      groups: as in `rung_features`.
      variant_groups: those that have variants; they read beams alone.
      tags: of the variants: 5 looks at the first 5 beams alone, `variants.OWN` at the query's own
        codes in place of the beams.
      own_codes: of every query; None where no tag is `variants.OWN`.
      query_index: as in `rung_features`.
      item_index: likewise.
      sids: likewise.
      log_shares: likewise.
      beams: likewise.
      pair_log_probs: likewise.
      surroundings: likewise.

    Raises:
      InputError: as `pair_features`.
      ValueError: likewise.
    """
    features = functools.partial(
        rung_features,
        query_index=query_index,
        item_index=item_index,
        sids=sids,
        log_shares=log_shares,
        surroundings=surroundings,
    )
    parts = [features(groups=groups, beams=beams, pair_log_probs=pair_log_probs)]
    for tag in tags:
        if isinstance(tag, int):
            other, log_probs = variants.first_beams(beams, most=tag), pair_log_probs
        elif own_codes is not None:
            other = variants.own_beam(own_codes)
            log_probs = variants.own_log_probs(own_codes[query_index], sids[item_index])
        else:
            raise ValueError(f"a variant {tag!r} needs own_codes")
        table = features(groups=variant_groups, beams=other, pair_log_probs=log_probs)
        parts.append(variants.tagged(table, tag))
    return join(parts)


def rung_features(
    *,
    groups: Sequence[Group],
    query_index: Int[np.ndarray, " pair"],
    item_index: Int[np.ndarray, " pair"],
    sids: Int[np.ndarray, "item level"],
    log_shares: Float[np.ndarray, "item level"],
    beams: Beams,
    pair_log_probs: Float[np.ndarray, "pair level"],
    surroundings: Surroundings,
    rows_at_once: int = ROWS_AT_ONCE,
) -> FeatureTable:
    """Returns the features that one rung's SIDs give.

    Args:
      groups: those wanted, which read SIDs.
      query_index: row of `beams` of each pair.
      item_index: row of `sids` of each pair.
      sids: SID of every item of the catalogue.
      log_shares: of every item, see `prefix_match.log_prefix_shares`.
      beams: the generator's SIDs of every query.
      pair_log_probs: exact log P(first l codes of the item | query) of each pair.
      surroundings: of the pairs' queries, one row a query in the order of their numbers.
      rows_at_once: of a grid of pairs, on the device at once.

    Raises:
      InputError: as `pair_features`.
      ValueError: likewise.
    """
    columns = [
        (group.name, name) for group in groups for name in group.described(levels=sids.shape[1])
    ]
    values = np.empty((len(query_index), len(columns)), np.float32)
    if not groups:
        return _table(columns, values)
    wanted, query_row = np.unique(query_index, return_inverse=True)
    base = surroundings.judged.relevant_share

    def blocks() -> Iterator[tuple[Grid, SidContext]]:
        for part in grid_blocks(query_row, columns=GRID_COLUMNS, rows=rows_at_once):
            queries = query_context(
                beams=Beams(*(np.asarray(whole)[wanted[part.query]] for whole in beams)),
                surroundings=surroundings.take(part.query),
                sids=sids,
                base=base,
            )
            index = item_index[part.pair]
            items = ItemContext(sids[index], pair_log_probs[part.pair], log_shares[index])
            # Few shapes, so that few programs are compiled.
            yield part, SidContext(_grown(queries), _grown(items))

    step = functools.partial(_sid_features, groups=tuple(groups))
    for (query, pair, filled), block in stream(blocks(), step=step):
        values[pair[filled]] = block[: len(query)][filled]
    return _table(columns, values)


def query_context(
    *,
    beams: Beams,
    surroundings: Surroundings,
    sids: Integer[np.ndarray, "item level"],
    base: float,
) -> QueryContext:
    """Returns what the features that SIDs give look at of queries.

    Args:
      beams: the generator's SIDs.
      surroundings: of the same queries.
      sids: SID of every item of the catalogue.
      base: `Judged.relevant_share` of all training queries.
    """
    items, (voters, cosines), judged = surroundings
    weights = prefix_match.vote_weights(
        judged.verdicts[voters],
        cosines=cosines,
        weights=surroundings.queries.weights(),
        base=base,
    )
    rows = len(voters)
    return QueryContext(
        beams=beams,
        near_sids=sids[items.row],
        near_weights=items.weights(),
        vote_sids=sids[judged.items[voters]].reshape(rows, -1, sids.shape[1]),
        vote_weights=weights.reshape(rows, -1, weights.shape[-1]),
    )


_sid_features = jax.jit(sid_group_features, static_argnames="groups")


def _grown(tree: _Tree) -> _Tree:
    """Returns arrays with their first row repeated at the end, up to a power of two of rows."""

    def grown(array: np.ndarray) -> np.ndarray:
        missing = (1 << (len(array) - 1).bit_length()) - len(array)
        return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])

    return jax.tree.map(grown, tree)


def _checked(values: AnyArray, shape: tuple[int, ...], *, group: Group) -> AnyArray:
    if values.shape != shape:
        raise InputError(
            f"the feature group {group.name!r} computes an array of shape {values.shape} where "
            f"its columns are of {shape}; fix its compute or its columns"
        )
    return values


def _table(columns: Sequence[tuple[str, str]], values: np.ndarray) -> FeatureTable:
    """Returns the table of columns, each a group and a name."""
    groups, names = zip(*columns, strict=True) if columns else ((), ())
    values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(f"feature {names[column]} of pair {row} is {values[row, column]}")
    return FeatureTable(names=names, groups=groups, values=values)
