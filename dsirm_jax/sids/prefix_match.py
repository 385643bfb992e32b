"""How far a query's SIDs and an item's SID agree: the features that SIDs give a ranker.

A query has several SIDs with weights: the beams of the generator, the SIDs of its nearest items, or
those of items that suit similar training queries. An item has one SID. Two SIDs agree at level l
when their first l codes are equal. Everything here is a pure, vectorised JAX function of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.sids import codes

MIN_LOG_PROB = -30.0  # Keeps log-probs of impossible prefixes finite.
TIE = 1e-6  # Cosines of equal vectors differ by rounding.


class Feature(NamedTuple):
    """One feature, or one for each level: then `_1`, `_2`, ... is appended to the name."""

    name: str
    group: str
    per_level: bool
    meaning: str


FEATURES = (
    Feature("match_depth", "paper_match", False, "2^(l - L) at the deepest agreement l, 0 if none"),
    Feature("beam_mass", "prefix", True, "sum of P(beam | query) over beams that agree at l"),
    Feature("beam_rank", "prefix", True, "1 / rank of the first beam that agrees at l, 0 if none"),
    Feature("log_prob", "prefix", True, "log P(first l codes of the item | query), at least -30"),
    Feature("pmi", "prefix", True, "log_prob minus log share of items with these first l codes"),
    Feature("beam_entropy", "prefix", False, "entropy in nats of P(beam | query) over the beams"),
    Feature("near_items", "neighbours", True, "share of near items' weight that agrees at l"),
    Feature("near_queries", "neighbours", True, "share of near queries' votes that agrees at l"),
    Feature("prefix_cosine", "margins", True, "mean cosine of the query to others of the prefix"),
    Feature("margin", "margins", True, "the item's cosine to the query minus prefix_cosine"),
    Feature("prefix_rank", "margins", True, "share of these others that the item is nearer than"),
)
GROUPS = tuple(dict.fromkeys(feature.group for feature in FEATURES))


def columns(group: str, *, levels: int) -> tuple[str, ...]:
    """Returns the column names of a group's features in order, levels counted from 1."""
    names: list[str] = []
    for feature in FEATURES:
        if feature.group == group:
            suffixes = (
                [f"_{level}" for level in range(1, levels + 1)] if feature.per_level else [""]
            )
            names.extend(feature.name + suffix for suffix in suffixes)
    return tuple(names)


class Beams(NamedTuple):
    """The SIDs that the generator gives each query, best first.

    Attributes:
      sids: int32 `[query, beam, level]`.
      log_probs: float32 `[query, beam]`, natural logarithm.
      valid: `[query, beam]`; an invalid beam counts for nothing, whatever it holds.
    """

    sids: Int[Array, "query beam level"]
    log_probs: Float[Array, "query beam"]
    valid: Bool[Array, "query beam"]


def agreement(
    query_sids: Int[Array, "pair sid level"], item_sids: Int[Array, "pair level"]
) -> Bool[Array, "pair sid level"]:
    """Returns whether the first l codes agree, for each level l."""
    return jnp.cumprod(query_sids == item_sids[:, None, :], axis=-1, dtype=jnp.int8).astype(bool)


def match_depth(
    beams: Beams, query_index: Int[Array, " pair"], item_sids: Int[Array, "pair level"]
) -> Float[Array, "pair 1"]:
    """Returns the paper's feature: 2^(l − L) at the deepest level l that any beam agrees at.

    With L = 3 levels that is 0, 0.25, 0.5 or 1.

    Args:
      beams: SIDs of all queries.
      query_index: row of `beams` of each pair.
      item_sids: the item's SID of each pair.

    Returns:
      float32 `[pair, 1]`. Source: Wang et al. 2026, arXiv 2606.04374 (secondary note).
    """
    agrees = agreement(beams.sids[query_index], item_sids) & beams.valid[query_index][..., None]
    depth = jnp.max(jnp.sum(agrees, axis=-1), axis=-1)  # [pair]
    levels = item_sids.shape[-1]
    return jnp.where(depth > 0, 2.0 ** (depth - levels), 0.0).astype(jnp.float32)[:, None]


def prefix_features(
    beams: Beams,
    query_index: Int[Array, " pair"],
    item_sids: Int[Array, "pair level"],
    pair_log_probs: Float[Array, "pair level"],
    log_shares: Float[Array, "pair level"],
) -> Float[Array, "pair feature"]:
    """Returns the features of the group `prefix`, in the order of `columns("prefix", ...)`.

    Args:
      beams: SIDs of all queries.
      query_index: row of `beams` of each pair.
      item_sids: the item's SID of each pair.
      pair_log_probs: exact log P(first l codes of the item | query) for l = 1..L; −inf is allowed.
      log_shares: log share of the catalogue's items that have these first l codes.

    Returns:
      float32 `[pair, 4 L + 1]`, always finite. Source: this project.
    """
    valid = beams.valid[query_index]  # [pair, beam]
    agrees = agreement(beams.sids[query_index], item_sids) & valid[..., None]
    log_probs = jnp.where(valid, beams.log_probs[query_index], -jnp.inf)
    mass = jnp.sum(agrees * jnp.exp(log_probs)[..., None], axis=1)  # [pair, level]
    # Beams come best first: where one agrees, argmax finds the first that does.
    rank = jnp.where(agrees.any(axis=1), 1.0 / (1 + jnp.argmax(agrees, axis=1)), 0.0)
    log_prob = jnp.maximum(pair_log_probs, MIN_LOG_PROB)
    entropy = _entropy(log_probs)[:, None]
    parts = [mass, rank, log_prob, log_prob - log_shares, entropy]
    return jnp.concatenate(parts, axis=-1).astype(jnp.float32)


def weighted_agreement(
    sids: Int[Array, "query sid level"],
    weights: Float[Array, "query sid"],
    query_index: Int[Array, " pair"],
    item_sids: Int[Array, "pair level"],
) -> Float[Array, "pair level"]:
    """Returns the share of a query's weight on SIDs that agree with the item's, at each level.

    Args:
      sids: weighted SIDs of all queries, e.g. of their nearest items.
      weights: non-negative, `[query, sid]`; 0 marks padding.
      query_index: row of `sids` of each pair.
      item_sids: the item's SID of each pair.

    Returns:
      float32 `[pair, level]` in [0, 1]; 0 for a query without weight. Source: this project.
    """
    weights = weights[query_index]
    agrees = agreement(sids[query_index], item_sids)
    mass = jnp.einsum("psl,ps->pl", agrees.astype(weights.dtype), weights)
    total = weights.sum(axis=1, keepdims=True)
    return jnp.where(total > 0, mass / jnp.where(total > 0, total, 1), 0).astype(jnp.float32)


def within_prefix(
    cosines: Float[Array, " pair"],
    others: Float[Array, "pair level other"],
    are_there: Bool[Array, "pair level other"],
) -> Float[Array, "pair feature"]:
    """Returns the features of the group `margins`, in the order of `columns("margins", ...)`.

    Args:
      cosines: of each pair's query and item.
      others: cosines of the query to other items with the item's first l codes, for l = 1..L.
      are_there: which of them there are. Without any, the item stands for them: prefix_cosine is
        its own, margin 0 and prefix_rank a half.

    Returns:
      float32 `[pair, 3 L]`; an item as near as another counts half. Source: this project.
    """
    count = jnp.sum(are_there, axis=-1)  # [pair, level]
    own = cosines[:, None]

    def mean(values: Array, otherwise: Array | float) -> Array:
        total = jnp.sum(jnp.where(are_there, values, 0.0), axis=-1)
        return jnp.where(count > 0, total / jnp.maximum(count, 1), otherwise)

    prefix_cosine = mean(others, own)
    ahead = own[..., None] - others
    rank = mean((jnp.where(jnp.abs(ahead) < TIE, 0.0, jnp.sign(ahead)) + 1) / 2, 0.5)
    parts = [prefix_cosine, own - prefix_cosine, rank]
    return jnp.concatenate(parts, axis=-1).astype(jnp.float32)


class Buckets(NamedTuple):
    """Which items share their first l codes, for l = 1..L: the items of a catalogue by bucket.

    Attributes:
      order: the items, by their first l codes and then by number, int32 `[level, item]`.
      place: where each item stands in `order`, int32 `[level, item]`.
      first: where its bucket begins there, int32 `[level, item]`.
      end: where it ends, int32 `[level, item]`.
    """

    order: Int[np.ndarray, "level item"]
    place: Int[np.ndarray, "level item"]
    first: Int[np.ndarray, "level item"]
    end: Int[np.ndarray, "level item"]


def buckets_of(sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int]) -> Buckets:
    """Returns the buckets of a catalogue.

    Args:
      sids: codes of the catalogue.
      sizes: codes per level.
    """
    found = Buckets(*np.empty((4, sids.shape[1], len(sids)), np.int32))
    for level, keys in enumerate(codes.prefix_keys(sids, sizes=sizes).T):
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        found.order[level] = order
        found.place[level, order] = np.arange(len(order))
        found.first[level, order] = np.searchsorted(ordered, ordered, "left")
        found.end[level, order] = np.searchsorted(ordered, ordered, "right")
    return found


def log_prefix_shares(
    buckets: Buckets, *, items: Int[np.ndarray, " wanted"]
) -> Float[np.ndarray, "wanted level"]:
    """Returns the log share of the catalogue's items that have an item's first l codes, float32.

    Args:
      buckets: of the catalogue.
      items: numbers of items.
    """
    count = buckets.end[:, items] - buckets.first[:, items]  # [level, wanted]
    return np.log(count / buckets.order.shape[1]).T.astype(np.float32)


def others_of_prefix(
    buckets: Buckets, *, items: Int[np.ndarray, " wanted"], most: int
) -> Int[np.ndarray, "wanted level most"]:
    """Returns other items that have the first l codes of each item wanted, for l = 1..L.

    Of more than `most` it takes some that are spread evenly over the catalogue.

    Args:
      buckets: of the catalogue.
      items: numbers of items.
      most: others of an item and level.

    Returns:
      int32 numbers of items, rising; −1 after the last.
    """
    first = buckets.first[:, items].T.astype(np.int64)[..., None]  # [wanted, level, 1]
    others = buckets.end[:, items].T[..., None] - first - 1
    count = np.minimum(others, most)
    number = np.arange(most)
    # The middles of `count` equal parts of the others, which lie on both sides of the item.
    place = (2 * number + 1) * others // np.maximum(2 * count, 1) + first
    place += place >= buckets.place[:, items].T[..., None]
    levels = np.arange(len(buckets.order))[:, None]
    found = buckets.order[levels, np.minimum(place, buckets.order.shape[1] - 1)]
    return np.where(number < count, found, -1)


def _entropy(log_weights: Float[Array, "pair beam"]) -> Float[Array, " pair"]:
    """Entropy of normalised weights in nats; 0 when there are none."""
    total = jax.nn.logsumexp(log_weights, axis=1, keepdims=True)
    log_shares = jnp.where(jnp.isfinite(log_weights), log_weights - total, 0.0)
    shares = jnp.where(jnp.isfinite(log_weights), jnp.exp(log_shares), 0.0)
    return -jnp.sum(shares * log_shares, axis=1)
