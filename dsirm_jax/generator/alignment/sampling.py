"""SIDs drawn from the policy: the generator's distribution under the trie.

Every draw has a key of its own, made of seed, step, query and number, and what is drawn by it hangs
on nothing else: not on the other queries of a batch, nor on the devices that share it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.sids.trie import ROOT, Trie, child, child_mask

FORBIDDEN = -1e9
"""Logit of a code that leaves the trie: finite, so that no gradient of it is not."""

Allowed = tuple[Bool[Array, "query sid _code"], ...]
LevelLogProbs = tuple[Float[Array, "query sid _code"], ...]


def draw_keys(
    seed: int, *, step: Int[Array, ""], queries: Int[Array, " query"], draws: int
) -> jax.Array:
    """Returns a random key of each draw for each query, `[query, draw]`.

    Args:
      seed: of all.
      step: that they are drawn in.
      queries: numbers of the queries.
      draws: for each.
    """
    of_step = jax.random.fold_in(jax.random.key(seed), step)
    of_queries = jax.vmap(lambda query: jax.random.fold_in(of_step, query))(queries)
    numbers = jnp.arange(draws)
    return jax.vmap(lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers))(of_queries)


def constrained_log_probs(
    logits: Float[Array, "*rows code"], allowed: Bool[Array, "*rows code"], *, temperature: float
) -> Float[Array, "*rows code"]:
    """Returns a level's log-probabilities under the policy, renormalised over codes that exist.

    Args:
      logits: of the generator.
      allowed: whether a code continues the prefix.
      temperature: that logits are divided by.

    Returns:
      float32; some `FORBIDDEN` where a code does not exist.
    """
    return jax.nn.log_softmax(jnp.where(allowed, logits / temperature, FORBIDDEN))


@exact
def drawn_sids(
    params: Any,
    trie: Trie,
    tokens: Int[Array, "query length"],
    keys: jax.Array,
    *,
    config: Architecture,
    temperature: float,
) -> Int[Array, "query draw level"]:
    """Returns SIDs drawn independently from the policy, with replacement; all exist.

    Whole teacher-forced passes, one a level, as any architecture has them in training: one with
    stacked layers or adapters decodes in no other way.

    Args:
      params: parameters of the generator, as in training.
      trie: the existing SIDs, on device.
      tokens: of the queries, padded.
      keys: of each draw, `[query, draw]`, see `draw_keys`.
      config: the generator's network.
      temperature: see `constrained_log_probs`.

    Returns:
      int32, codes. Source: Gumbel-max, Gumbel 1954; the trie as in GENRE, De Cao et al. 2021,
      arXiv 2010.00904.
    """
    queries, draws = keys.shape
    nodes = jnp.full((queries, draws), ROOT, jnp.int32)
    sids = jnp.zeros((queries, draws, len(config.sid_sizes)), jnp.int32)
    for level, size in enumerate(config.sid_sizes):
        # All draws begin alike; and what follows a prefix has no say in the logits behind it.
        distinct = draws if level else 1
        logits = config.teacher_forced(params, tokens, sids[:, :distinct])[level]
        allowed = jnp.asarray(child_mask(trie, level=level, nodes=nodes[:, :distinct]))
        log_probs = constrained_log_probs(logits, allowed, temperature=temperature)
        noise = _gumbel(keys, level=level, size=size)
        code = jnp.argmax(jnp.where(allowed, log_probs + noise, -jnp.inf), axis=-1)
        code = code.astype(jnp.int32)
        sids = sids.at[..., level].set(code)
        nodes = jnp.asarray(child(trie, level=level, nodes=nodes, codes=code))
    return sids


def drawn_experts(
    sids: Int[Array, "query known level"], rewards: Float[Array, "query known"], keys: jax.Array
) -> Int[Array, "query draw level"]:
    """Returns SIDs drawn, with replacement, from those that are worth something to a query.

    Args:
      sids: codes.
      rewards: what each is worth, and is drawn in proportion to; one of a query's is not 0.
      keys: of each draw, `[query, draw]`.
    """
    logits = jnp.log(rewards)

    def of_query(logits: Float[Array, " known"], keys: jax.Array) -> Int[Array, " draw"]:
        return jax.vmap(lambda key: jax.random.categorical(key, logits))(keys)

    chosen = jax.vmap(of_query)(logits, keys)
    return jnp.take_along_axis(sids, chosen[..., None], axis=1)


def allowed_codes(trie: Trie, sids: Int[Array, "query sid level"]) -> Allowed:
    """Returns which codes continue each prefix of existing SIDs, level by level."""
    nodes, allowed = jnp.full(sids.shape[:-1], ROOT, jnp.int32), []
    for level in range(sids.shape[-1]):
        allowed.append(jnp.asarray(child_mask(trie, level=level, nodes=nodes)))
        nodes = jnp.asarray(child(trie, level=level, nodes=nodes, codes=sids[..., level]))
    return tuple(allowed)


def policy_log_probs(
    params: Any,
    tokens: Int[Array, "query length"],
    sids: Int[Array, "query sid level"],
    allowed: Allowed,
    *,
    config: Architecture,
    temperature: float,
) -> LevelLogProbs:
    """Returns the policy's log-probabilities of all codes behind each prefix of given SIDs.

    Args:
      params: parameters of the generator, as in training.
      tokens: of the queries, padded.
      sids: codes; all exist.
      allowed: see `allowed_codes`.
      config: the generator's network.
      temperature: see `constrained_log_probs`.
    """
    logits = config.teacher_forced(params, tokens, sids)
    return tuple(
        constrained_log_probs(of_level, codes, temperature=temperature)
        for of_level, codes in zip(logits, allowed, strict=True)
    )


def _gumbel(keys: jax.Array, *, level: int, size: int) -> Float[Array, "query draw code"]:
    """Returns the noise of each draw at a level, with all the bits that float32 has."""

    def of_draw(key: jax.Array) -> Float[Array, " code"]:
        return jax.random.gumbel(jax.random.fold_in(key, level), (size,), jnp.float32, mode="high")

    return jax.vmap(jax.vmap(of_draw))(keys)
