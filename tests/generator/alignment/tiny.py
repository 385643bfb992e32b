"""A tiny generator, catalogue and queries, and what the policy is by enumeration in float64."""

import functools

import jax
import numpy as np

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.sids import trie as tries

SIZES = (3, 4, 5)
CONFIG = T5Config(
    text_vocab_size=12,
    sid_sizes=SIZES,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout_rate=0.3,
)
EXISTING = np.array([[0, 1, 2], [0, 1, 4], [0, 3, 0], [2, 0, 3], [2, 3, 3], [2, 3, 4]], np.int32)
TRIE = jax.device_put(tries.build(EXISTING, sizes=SIZES))
TOKENS = np.array([[3, 9, 4, 0], [7, 0, 0, 0]], np.int32)


def sharp_params(config=CONFIG, *, seed=0):
    """Random parameters whose output distribution is far from uniform."""

    def sharp(path, array):
        return array * 4 if "logits_dense" in jax.tree_util.keystr(path) else array

    return jax.tree.map_with_path(sharp, init_params(config, seed=seed))


@functools.partial(jax.jit, static_argnames="config")
def _logits(params, tokens, sids, *, config):
    return config.teacher_forced(params, tokens, sids)


def policy(params, *, temperature=1.0, config=CONFIG, tokens=TOKENS):
    """The policy's probability of every existing SID, `[query, SID]`, and of each of its codes."""
    sids = np.repeat(EXISTING[None], len(tokens), axis=0)
    logits = _logits(params, tokens, sids, config=config)
    levels = []
    for level, values in enumerate(logits):
        values = np.asarray(values, np.float64) / temperature
        for number, sid in enumerate(EXISTING):
            same = (EXISTING[:, :level] == sid[:level]).all(axis=1)
            missing = np.setdiff1d(np.arange(SIZES[level]), EXISTING[same, level])
            values[:, number, missing] = -np.inf
        shares = np.exp(values)
        levels.append(shares / shares.sum(axis=-1, keepdims=True))
    codes = [of[:, np.arange(6), EXISTING[:, level]] for level, of in enumerate(levels)]
    return np.prod(codes, axis=0), np.stack(codes, axis=-1), levels
