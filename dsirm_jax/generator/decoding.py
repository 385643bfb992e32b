"""Beam search and sampling over the trie of existing SIDs: fixed length, on device, exact.

A beam's score is the model's own `log P(SID | query)`: each level's softmax is over all codes of
the level, and the trie only forbids what does not exist. The probabilities are deliberately *not*
renormalised over the children of a node: a score then equals what `score.py` gives for the same
SID, does not change when unrelated items join the catalogue, and tells how much of the model's
belief lies on the catalogue at all (the sum over all SIDs may be below 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.top_k import top_k
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids.prefix_match import Beams
from dsirm_jax.sids.trie import ROOT, Trie, child, child_mask

NO_CODE = -1


class Chosen(NamedTuple):
    """The hypotheses that go on to the next level.

    Attributes:
      parent: int32 `[batch, hypothesis]`, which hypothesis each one continues.
      code: int32 `[batch, hypothesis]`, by which code.
      scores: float32 `[batch, hypothesis]`, log-probabilities up to and with that code.
      exists: bool `[batch, hypothesis]`, whether the code continues that hypothesis.
    """

    parent: Int[Array, "batch hypothesis"]
    code: Int[Array, "batch hypothesis"]
    scores: Float[Array, "batch hypothesis"]
    exists: Bool[Array, "batch hypothesis"]


@functools.partial(jax.jit, static_argnames=("config", "beams"))
@exact
def beam_search(
    params: Any,
    trie: Trie | None,
    tokens: Int[Array, "batch length"],
    *,
    config: Architecture,
    beams: int,
) -> Beams:
    """Returns the `beams` most probable existing SIDs that a beam search finds for each query.

    Never returns a SID that the trie lacks. With at least as many beams as the widest depth of the
    trie has nodes nothing is ever pruned, and the result is the sorted enumeration of all SIDs.
    Equal scores are ordered by the parent's rank, then by code.

    Args:
      params: parameters of the generator.
      trie: existing SIDs, on device; None to search all combinations of codes, whether or not any
        item has them.
      tokens: int32 text tokens of the queries, padded.
      config: the generator's network.
      beams: number of hypotheses kept at every level.

    Returns:
      Beams, best first; `NO_CODE` and `-inf` where not valid, which happens when fewer SIDs exist
      than `beams`. Source: this project; the trie constraint as in GENRE (De Cao et
      al. 2021, arXiv 2010.00904).
    """

    def choose(
        level: int,
        log_probs: Float[Array, "batch hypothesis code"],
        scores: Float[Array, "batch hypothesis"],
        allowed: Bool[Array, "batch hypothesis code"],
    ) -> Chosen:
        rows, hypotheses, codes = log_probs.shape
        totals = jnp.where(allowed, scores[..., None] + log_probs, -jnp.inf)
        best, place = top_k(totals, min(beams, hypotheses * codes))
        exists = jnp.take_along_axis(allowed.reshape(rows, -1), place, axis=1)
        return Chosen(place // codes, place % codes, best, exists)

    best = _descend(params, trie, tokens, config=config, choose=choose)
    missing = ((0, 0), (0, beams - best.valid.shape[1]))
    return Beams(
        sids=jnp.pad(best.sids, (*missing, (0, 0)), constant_values=NO_CODE),
        log_probs=jnp.pad(best.log_probs, missing, constant_values=-jnp.inf),
        valid=jnp.pad(best.valid, missing),
    )


def check_beams(beams: Beams) -> None:
    """Raises FloatingPointError where a query has no SID, or one whose probability is no number.

    The trie is never empty, so both are the work of logits that are not finite.
    """
    log_probs, valid = np.asarray(beams.log_probs), np.asarray(beams.valid)
    require_finite(~np.isnan(log_probs).any(axis=1) & valid.any(axis=1), rows="queries")


def require_finite(is_finite: Bool[np.ndarray, " row"], *, rows: str) -> None:
    """Raises FloatingPointError where the generator's answers to some rows are no numbers.

    Args:
      is_finite: whether those to a row are.
      rows: what they are, for the message.
    """
    if not is_finite.all():
        raise FloatingPointError(
            f"the generator's logits are not finite for {(~is_finite).sum()} of {len(is_finite)} "
            f"{rows}: its weights are damaged, or overflow; train again, with a smaller "
            f"generate/settings.Training.learning_rate or in float32"
        )


def sample(
    params: Any,
    trie: Trie,
    tokens: Int[Array, "batch length"],
    *,
    config: Architecture,
    samples: int,
    key: jax.Array,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Beams:
    """Returns SIDs drawn independently from the model's distribution over existing ones.

    Every level is drawn from the codes that continue the prefix, their probabilities renormalised.
    The filters look at what the trie has left, so that they never leave a hypothesis without a
    code that exists.

    Args:
      params: parameters of the generator.
      trie: existing SIDs, on device.
      tokens: int32 text tokens of the queries, padded.
      config: the generator's network.
      samples: SIDs drawn for each query, with replacement.
      key: random key.
      temperature: that logits are divided by; near 0 takes the most probable code.
      top_k: draws from this number of the most probable codes only; from all when not given.
      top_p: draws from the fewest most probable codes that have this share of the probability.

    Returns:
      Beams in the order of drawing, all valid; a score is the model's own log-probability of the
      SID, without temperature or filters. Source: nucleus sampling of Holtzman et al. 2020, arXiv
      1904.09751; top-k sampling of Fan et al. 2018, arXiv 1805.04833.

    Raises:
      InputError: no samples, or a temperature or filter that leaves no distribution.
    """
    for name, value, is_good, remedy in (
        ("samples", samples, samples >= 1, "1 or more"),
        ("temperature", temperature, 0 < temperature < math.inf, "a positive number"),
        ("top_k", top_k, top_k is None or top_k >= 1, "1 or more"),
        ("top_p", top_p, top_p is None or 0 < top_p <= 1, "a share above 0, at most 1"),
    ):
        if not is_good:
            raise InputError(f"{name} is {value}: give {remedy}")
    return _sample(
        params,
        trie,
        tokens,
        key,
        temperature,
        top_p,
        config=config,
        samples=samples,
        top_k=top_k,
    )


@functools.partial(jax.jit, static_argnames=("config", "samples", "top_k"))
@exact
def _sample(
    params: Any,
    trie: Trie,
    tokens: Int[Array, "batch length"],
    key: jax.Array,
    temperature: float,
    top_p: float | None,
    *,
    config: Architecture,
    samples: int,
    top_k: int | None,
) -> Beams:
    """Returns what `sample` says of arguments that it has looked at."""

    def choose(
        level: int,
        log_probs: Float[Array, "batch hypothesis code"],
        scores: Float[Array, "batch hypothesis"],
        allowed: Bool[Array, "batch hypothesis code"],
    ) -> Chosen:
        logits = jnp.where(allowed, log_probs / temperature, -jnp.inf)
        if top_k is not None:
            least = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][..., -1:]
            logits = jnp.where(logits >= least, logits, -jnp.inf)
        if top_p is not None:
            falling = -jnp.sort(-jax.nn.softmax(logits), axis=-1)
            before = jnp.cumsum(falling, axis=-1) - falling  # share of the codes ahead of each
            kept = jnp.sum(before < top_p, axis=-1, keepdims=True)  # at least one
            least = jnp.take_along_axis(falling, jnp.maximum(kept, 1) - 1, axis=-1)
            logits = jnp.where(jax.nn.softmax(logits) >= least, logits, -jnp.inf)
        shape = (len(tokens), samples)
        parent = jnp.broadcast_to(jnp.arange(samples) if level else 0, shape)
        drawn = jax.random.categorical(
            jax.random.fold_in(key, level), jnp.broadcast_to(logits, (*shape, logits.shape[-1]))
        )
        totals = scores[..., None] + log_probs
        return Chosen(
            parent,
            drawn.astype(jnp.int32),
            totals[jnp.arange(len(tokens))[:, None], parent, drawn],
            jnp.ones(shape, bool),
        )

    return _descend(params, trie, tokens, config=config, choose=choose)


def _descend(
    params: Any,
    trie: Trie | None,
    tokens: Int[Array, "batch length"],
    *,
    config: Architecture,
    choose: Callable[
        [
            int,
            Float[Array, "batch hypothesis code"],
            Float[Array, "batch hypothesis"],
            Bool[Array, "batch hypothesis code"],
        ],
        Chosen,
    ],
) -> Beams:
    """Goes down the levels by what `choose(level, log_probs, scores, allowed)` takes of each."""
    state = config.encode(params, tokens)
    batch = tokens.shape[0]
    sids = jnp.zeros((batch, 1, 0), jnp.int32)
    scores = jnp.zeros((batch, 1), jnp.float32)
    valid = jnp.ones((batch, 1), bool)
    nodes = jnp.full((batch, 1), ROOT, jnp.int32)
    newest, past = sids, None
    for level in range(len(config.sid_sizes)):
        (logits,), past = config.decode(params, state, newest, past)
        log_probs = jax.nn.log_softmax(logits)  # [batch, hypothesis, code]
        allowed = jnp.ones(log_probs.shape, bool)
        if trie is not None:
            # All hypotheses begin at one node: its children are a slice, not a gather.
            at = nodes if level else np.asarray(ROOT)
            allowed &= jnp.asarray(child_mask(trie, level=level, nodes=at))
        parent, code, scores, exists = choose(level, log_probs, scores, allowed)
        sids, valid, nodes, past = _follow((sids, valid, nodes, past), parent)
        # What is not valid has no probability, and so goes on from whichever node it is given.
        valid &= exists
        sids = jnp.concatenate([sids, code[..., None]], axis=-1)
        if trie is not None:
            nodes = jnp.asarray(child(trie, level=level, nodes=nodes, codes=code))
        newest = code[..., None].astype(jnp.int32)
    return Beams(
        sids=jnp.where(valid[..., None], sids, NO_CODE),
        log_probs=jnp.where(valid, scores, -jnp.inf),
        valid=valid,
    )


def _follow(tree: Any, parent: Int[Array, "batch hypothesis"]) -> Any:
    """Reorders the hypotheses of every array to that of each new one's parent."""
    rows = jnp.arange(parent.shape[0])[:, None]
    return jax.tree.map(lambda array: array[rows, parent], tree)
