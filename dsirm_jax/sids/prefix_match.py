"""How far a query's SIDs and an item's SID agree: the features that SIDs give a ranker.

A query has several SIDs with weights: the beams of the generator, the SIDs of its nearest items, or
those of items judged for similar training queries. An item has one SID. Two SIDs agree at level l
when their first l codes are equal. Everything here is a pure, vectorised JAX function of arrays.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer

from dsirm_jax.devices.precision import exact
from dsirm_jax.sids import codes
from dsirm_jax.sids.arrays import AnyArray

MIN_LOG_PROB = -30.0  # Keeps log-probs of impossible prefixes finite.
KERNEL_WIDTH = 0.15  # Of the cosine of two queries.
SHRINKAGE = 0.3  # As much weight without any opinion is added to votes.


class Beams(NamedTuple):
    """The SIDs that the generator gives each query, best first.

    Attributes:
      sids: int32 `[query, beam, level]`.
      log_probs: float32 `[query, beam]`, natural logarithm.
      valid: `[query, beam]`; an invalid beam counts for nothing, whatever it holds.
    """

    sids: Integer[AnyArray, "query beam level"]
    log_probs: Float[AnyArray, "query beam"]
    valid: Bool[AnyArray, "query beam"]


def agreement(
    query_sids: Integer[AnyArray, "query sid level"],
    item_sids: Integer[AnyArray, "query item level"],
) -> Bool[Array, "query level item sid"]:
    """Returns whether the first l codes agree, for each level l.

    SIDs come last, for what is summed over them is fast where they lie side by side.
    """
    agrees = [
        query_sids[:, None, :, level] == item_sids[:, :, None, level]
        for level in range(item_sids.shape[-1])
    ]
    return jnp.stack(list(itertools.accumulate(agrees, jnp.logical_and)), axis=1)


def match_depth(
    beams: Beams, item_sids: Integer[AnyArray, "query item level"]
) -> Float[Array, "query item 1"]:
    """Returns the paper's feature: 2^(l − L) at the deepest level l that any beam agrees at.

    With L = 3 levels that is 0, 0.25, 0.5 or 1.

    Args:
      beams: SIDs of all queries.
      item_sids: SIDs of the items that each query is paired with.

    Returns:
      float32 `[query, item, 1]`. Source: Wang et al. 2026, arXiv 2606.04374 (secondary note).
    """
    agrees = agreement(beams.sids, item_sids) & beams.valid[:, None, None]
    depth = jnp.max(jnp.sum(agrees, axis=1), axis=-1)  # [query, item]
    levels = item_sids.shape[-1]
    return jnp.where(depth > 0, 2.0 ** (depth - levels), 0.0).astype(jnp.float32)[..., None]


def prefix_features(
    beams: Beams,
    item_sids: Integer[AnyArray, "query item level"],
    pair_log_probs: Float[AnyArray, "query item level"],
    log_shares: Float[AnyArray, "query item level"],
) -> Float[Array, "query item feature"]:
    """Returns the features of the group `prefix`, in the order of `features.prefix.GROUP`.

    Args:
      beams: SIDs of all queries.
      item_sids: SIDs of the items that each query is paired with.
      pair_log_probs: exact log P(first l codes of the item | query) for l = 1..L; −inf is allowed.
      log_shares: log share of the catalogue's items that have these first l codes.

    Returns:
      float32 `[query, item, 4 L + 1]`, always finite. Source: this project.
    """
    agrees = agreement(beams.sids, item_sids) & beams.valid[:, None, None]
    log_probs = jnp.where(beams.valid, beams.log_probs, -jnp.inf)
    [mass] = _sums(agrees, jnp.exp(log_probs)[..., None])
    log_prob = jnp.maximum(pair_log_probs, MIN_LOG_PROB)
    entropy = jnp.broadcast_to(_entropy(log_probs)[:, None, None], (*item_sids.shape[:2], 1))
    parts = [
        _levels_last(mass),
        _levels_last(_first_rank(agrees)),
        log_prob,
        log_prob - log_shares,
        entropy,
    ]
    return jnp.concatenate(parts, axis=-1).astype(jnp.float32)


def near_item_features(
    sids: Integer[AnyArray, "query sid level"],
    weights: Float[AnyArray, "query sid"],
    item_sids: Integer[AnyArray, "query item level"],
) -> Float[Array, "query item feature"]:
    """Returns `near_items`, `near_share`, `near_rank` and `near_peak` of each level, in this order.

    Args:
      sids: SIDs of the nearest items of all queries, nearest first; unsigned ones of a bundle.
      weights: of these items, non-negative; 0 marks padding.
      item_sids: SIDs of the items that each query is paired with.

    Returns:
      float32 `[query, item, 4 L]` in [0, 1]; 0 for a query without near items.
      Source: this project.
    """
    weighted = weights > 0
    agrees = agreement(sids, item_sids) & weighted[:, None, None]
    mass, count = _sums(agrees, jnp.stack([weights, weighted], axis=-1))
    whole, items = (jnp.sum(parts, axis=-1)[:, None, None] for parts in (weights, weighted))
    heaviest = heaviest_prefix(sids, weights)[..., None]
    parts = [
        _ratio(mass, whole),
        _ratio(count, items),
        _first_rank(agrees),
        _ratio(mass, heaviest),
    ]
    return jnp.concatenate([_levels_last(part) for part in parts], axis=-1).astype(jnp.float32)


def heaviest_prefix(
    sids: Integer[AnyArray, "query sid level"], weights: Float[AnyArray, "query sid"]
) -> Float[Array, "query level"]:
    """Returns the greatest weight that the SIDs with one prefix have, at each level.

    Args:
      sids: weighted SIDs of each query, e.g. of its nearest items.
      weights: non-negative, `[query, sid]`; 0 marks padding.
    """
    [mass] = _sums(agreement(sids, sids), weights[..., None])
    return jnp.max(mass, axis=-1)


def vote_weights(
    verdicts: Float[np.ndarray, "query neighbour vote"],
    *,
    cosines: Float[np.ndarray, "query neighbour"],
    weights: Float[np.ndarray, "query neighbour"],
    base: float,
) -> Float[np.ndarray, "query neighbour vote 4"]:
    """Returns what each judgement of training queries near a query adds to `vote_features`.

    Args:
      verdicts: 1 relevant, −1 irrelevant; 0 marks padding.
      cosines: of the near queries; −inf marks padding.
      weights: of these, non-negative.
      base: r, the share of all judgements of training queries that say relevant.

    Returns:
      float32: its share of the weight of what is relevant, and of what is not, which each near
      query spreads evenly over its items; k (relevant − r); and k = exp((cosine − 1) /
      `KERNEL_WIDTH`).
    """
    kernel = np.exp((cosines - 1) / KERNEL_WIDTH)[..., None] * (verdicts != 0)

    def share(votes: Bool[np.ndarray, "query neighbour vote"]) -> np.ndarray:
        counts = votes.sum(axis=2, keepdims=True, dtype=np.float32)
        spread = weights[..., None] * votes / np.maximum(counts, 1)
        total = spread.sum(axis=(1, 2), keepdims=True)
        return spread / np.where(total > 0, total, 1)

    parts = [share(verdicts > 0), share(verdicts < 0), kernel * ((verdicts > 0) - base), kernel]
    return np.stack(parts, axis=-1).astype(np.float32)


def vote_features(
    sids: Integer[AnyArray, "query vote level"],
    weights: Float[AnyArray, "query vote 4"],
    item_sids: Integer[AnyArray, "query item level"],
) -> Float[Array, "query item feature"]:
    """Returns `near_queries`, `near_rejected` and `near_verdict` of each level, in this order.

    The first two are sums of `vote_weights` over the votes that agree. The last is
    Σ k [agrees] (relevant − r) / (Σ k [agrees] + s), s being `SHRINKAGE`.

    Args:
      sids: SIDs of the items judged for training queries near all queries; likewise.
      weights: `vote_weights` of these judgements.
      item_sids: SIDs of the items that each query is paired with.

    Returns:
      float32 `[query, item, 3 L]`; 0 for a query without near queries. Source: this project.
    """
    relevant, irrelevant, opinion, heard = _sums(agreement(sids, item_sids), weights)
    parts = [relevant, irrelevant, opinion / (heard + SHRINKAGE)]
    return jnp.concatenate([_levels_last(part) for part in parts], axis=-1).astype(jnp.float32)


def log_prefix_shares(
    sids: Integer[np.ndarray, "item level"],
    *,
    sizes: Sequence[int],
    order: Integer[np.ndarray, " item"] | None = None,
) -> Float[np.ndarray, "item level"]:
    """Returns the log share of items that have the first l codes of each item, float32.

    Args:
      sids: codes of the catalogue.
      sizes: codes per level.
      order: rows sorted by SID, and so by every prefix; None: to be found.
    """
    keys = codes.prefix_keys(sids, sizes=sizes)
    if order is None:
        order = np.argsort(keys[:, -1], kind="stable")
    shares = np.empty(sids.shape, np.float32)
    for level in range(sids.shape[1]):
        starts = np.flatnonzero(np.diff(keys[order, level], prepend=-1))
        counts = np.diff(starts, append=len(sids))
        shares[order, level] = np.repeat(np.log(counts / len(sids)), counts)
    return shares


@exact
def _sums(
    agrees: Bool[Array, "query level item sid"], weights: Float[AnyArray, "query sid weight"]
) -> Float[Array, "weight query level item"]:
    """Returns the sums of weights over the SIDs that agree: one product of matrices a query."""
    queries, levels, items, sids = agrees.shape
    flat = agrees.astype(jnp.float32).reshape(queries, levels * items, sids)
    sums = flat @ weights.astype(jnp.float32)
    return jnp.moveaxis(sums.reshape(queries, levels, items, -1), -1, 0)


def _levels_last(values: Float[Array, "query level item"]) -> Float[Array, "query item level"]:
    return jnp.swapaxes(values, 1, 2)


def _first_rank(agrees: Bool[Array, "query level item sid"]) -> Float[Array, "query level item"]:
    """Returns 1 / rank of the first SID that agrees, of SIDs that come best first; 0 for none."""
    return jnp.max(agrees / (1.0 + jnp.arange(agrees.shape[-1])), axis=-1, initial=0.0)


def _ratio(part: Array, whole: Array) -> Array:
    """Returns part / whole; 0 where the whole is 0."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0.0)


def _entropy(log_weights: Float[Array, "query beam"]) -> Float[Array, " query"]:
    """Entropy of normalised weights in nats; 0 when there are none."""
    total = jax.nn.logsumexp(log_weights, axis=1, keepdims=True)
    log_shares = jnp.where(jnp.isfinite(log_weights), log_weights - total, 0.0)
    shares = jnp.where(jnp.isfinite(log_weights), jnp.exp(log_shares), 0.0)
    return -jnp.sum(shares * log_shares, axis=1)
