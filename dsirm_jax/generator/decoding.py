"""Beam search over the trie of existing SIDs: fixed length, on device, exact.

A beam's score is the model's own `log P(SID | query)`: each level's softmax is over all codes of
the level, and the trie only forbids what does not exist. The probabilities are deliberately *not*
renormalised over the children of a node: a score then equals what `score.py` gives for the same
SID, does not change when unrelated items join the catalogue, and tells how much of the model's
belief lies on the catalogue at all (the sum over all SIDs may be below 1).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from dsirm_jax.generator.model import START, T5Config, Transformer
from dsirm_jax.sids import codes
from dsirm_jax.sids.prefix_match import Beams
from dsirm_jax.sids.trie import ROOT, Trie, child, child_mask

NO_CODE = -1


@functools.partial(jax.jit, static_argnames=("config", "beams"))
def beam_search(
    params: Any,
    trie: Trie,
    tokens: Int[Array, "batch length"],
    *,
    config: T5Config,
    beams: int,
) -> Beams:
    """Returns the `beams` most probable existing SIDs that a beam search finds for each query.

    Never returns a SID that the trie lacks. With at least as many beams as the widest depth of the
    trie has nodes nothing is ever pruned, and the result is the sorted enumeration of all SIDs.
    Equal scores are ordered by the parent's rank, then by code.

    Args:
      params: parameters of the generator.
      trie: existing SIDs, on device.
      tokens: int32 text tokens of the queries, padded.
      config: shape of the generator.
      beams: number of hypotheses kept at every level.

    Returns:
      Beams, best first; `NO_CODE` and `-inf` where not valid, which happens when fewer SIDs exist
      than beams are asked for. Source: this project; the trie constraint as in GENRE (De Cao et
      al. 2021, arXiv 2010.00904).
    """
    model, variables = Transformer(config), {"params": params}
    queries = model.apply(variables, tokens, method=Transformer.encode)
    batch = tokens.shape[0]
    sids = jnp.zeros((batch, 1, 0), jnp.int32)
    scores = jnp.zeros((batch, 1), jnp.float32)
    valid = jnp.ones((batch, 1), bool)
    nodes = jnp.full((batch, 1), ROOT, jnp.int32)
    inputs = jnp.full((batch, 1), START, jnp.int32)
    firsts = config.text_vocab_size + codes.level_offsets(config.sid_sizes)
    past = None
    for level, size in enumerate(config.sid_sizes):
        (logits,), past = model.apply(
            variables, queries, inputs[..., None], past, method=Transformer.decode
        )
        allowed = valid[..., None] & child_mask(trie, level=level, nodes=nodes)
        candidates = scores[..., None] + jax.nn.log_softmax(logits)  # [batch, beam, code]
        candidates = jnp.where(allowed, candidates, -jnp.inf).reshape(batch, -1)
        scores, chosen = jax.lax.top_k(candidates, min(beams, candidates.shape[1]))
        valid = jnp.take_along_axis(allowed.reshape(batch, -1), chosen, axis=1)
        parent, code = chosen // size, chosen % size  # [batch, beam]
        sids, nodes, past = _follow((sids, nodes, past), parent)
        sids = jnp.concatenate([sids, code[..., None]], axis=-1)
        nodes = jnp.where(valid, child(trie, level=level, nodes=nodes, codes=code), ROOT)
        inputs = (firsts[level] + code).astype(jnp.int32)
    missing = ((0, 0), (0, beams - scores.shape[1]))
    return Beams(
        sids=jnp.pad(
            jnp.where(valid[..., None], sids, NO_CODE), (*missing, (0, 0)), constant_values=NO_CODE
        ),
        log_probs=jnp.pad(scores, missing, constant_values=-jnp.inf),
        valid=jnp.pad(valid, missing),
    )


def _follow(tree: Any, parent: Int[Array, "batch beam"]) -> Any:
    """Reorders the beam axis of every array to that of each new beam's parent."""
    rows = jnp.arange(parent.shape[0])[:, None]
    return jax.tree.map(lambda array: array[rows, parent], tree)
