"""The step of a constrained search alone: the logits are for free, read from a table.

`step/N.../B.../W...` is a search of B queries for W beams among N SIDs of 216/512/512 codes. The
other is STATIC where it is given (github.com/youtube/static-constraint-decoding), and otherwise the
plain step: it looks for the beams among all continuations at once, and sums their scores anew.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import compare

from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.codes import pack, unpack

SIZES = (216, 512, 512)
CODES = max(SIZES)
NUMBERS, BATCHES, BEAMS = (10**5, 10**7), (1, 32, 256), (5, 70)
IMPOSSIBLE = -1e9


@dataclasses.dataclass(frozen=True)
class Table(Architecture):
    """A row of a table by the code before, plus a row of the query's, for each level."""

    text_vocab_size: int = 0
    sid_sizes: tuple[int, ...] = SIZES

    def init(self, key):
        raise NotImplementedError("the tables are drawn by `tables`")

    def logical_axes(self):
        raise NotImplementedError("the tables are not trained")

    def encode(self, params, tokens):
        return tokens

    def decode(self, params, state, codes, past=None):
        level = len(past or ())
        by_code, by_query = params[level]
        before = codes[..., 0] if level else jnp.zeros(codes.shape[:2], jnp.int32)
        logits = by_code[before] + by_query[:, None]
        return (logits[..., : self.sid_sizes[level]],), ((),) * (level + 1)


def tables(batch: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Returns a table by code and one by query for each level, with `CODES` columns."""
    generator = np.random.Generator(np.random.Philox(key=3))
    levels = []
    for size in SIZES:
        by_code = 3 * generator.standard_normal((CODES, CODES), np.float32)
        by_query = generator.standard_normal((batch, CODES), np.float32)
        by_code[:, size:], by_query[:, size:] = 0, IMPOSSIBLE
        levels.append((by_code, by_query))
    return tuple(levels)


def sids_of(number: int) -> np.ndarray:
    """Returns the distinct ones of some random SIDs, ascending."""
    generator = np.random.Generator(np.random.Philox(key=number))
    drawn = np.stack([generator.integers(0, size, number) for size in SIZES], axis=1)
    return unpack(np.unique(pack(drawn, sizes=SIZES)), sizes=SIZES)


def cells(*, rounds: int, static: Path | None) -> Iterator[dict]:
    """Yields a line for each of the twelve cells.

    Args:
      rounds: see `timing.compare`.
      static: the folder of STATIC's code, if it is at hand.
    """
    for number in NUMBERS:
        sids = sids_of(number)
        trie = jax.device_put(tries.build(sids, sizes=SIZES))
        index = None if static is None else _static_index(static, sids)
        for batch in BATCHES:
            params = jax.device_put(tables(batch))
            tokens = jnp.zeros((batch, 1), jnp.int32)
            for beams in BEAMS:
                ours = _ours(params, trie, tokens, beams=beams)
                if index is None:
                    other = _plain(params, trie, tokens, beams=beams)
                else:
                    other = _static(params, index, batch=batch, beams=beams)
                np.testing.assert_array_equal(ours().sids, jax.tree.leaves(other())[0])
                name = f"N{number:.0e}/B{batch}/W{beams}".replace("e+0", "e")
                yield compare(f"step/{name}", ours, other, rounds=rounds)


def _ours(params: Any, trie: tries.Trie, tokens: jax.Array, *, beams: int) -> Callable[[], Any]:
    search = functools.partial(beam_search, config=Table(), beams=beams)
    compiled = jax.jit(lambda *given: search(*given)).lower(params, trie, tokens).compile()
    return lambda: jax.block_until_ready(compiled(params, trie, tokens))


def _plain(params: Any, trie: tries.Trie, tokens: jax.Array, *, beams: int) -> Callable[[], Any]:
    search = functools.partial(plain_search, beams=beams)
    compiled = jax.jit(search).lower(params, trie, tokens).compile()
    return lambda: jax.block_until_ready(compiled(params, trie, tokens))


def plain_search(params: Any, trie: tries.Trie, tokens: jax.Array, *, beams: int) -> tuple:
    """Returns SIDs, scores and which are valid, by one `top_k` over all continuations a level."""
    config, batch = Table(), len(tokens)
    rows = jnp.arange(batch)[:, None]
    sids = jnp.zeros((batch, 1, 0), jnp.int32)
    scores, valid = jnp.zeros((batch, 1)), jnp.ones((batch, 1), bool)
    nodes = jnp.full((batch, 1), tries.ROOT, jnp.int32)
    newest, past = sids, None
    for level, size in enumerate(SIZES):
        (logits,), past = config.decode(params, tokens, newest, past)
        log_probs = jax.nn.log_softmax(logits)
        allowed = valid[..., None] & tries.child_mask(trie, level=level, nodes=nodes)
        totals = jnp.where(allowed, scores[..., None] + log_probs, -jnp.inf).reshape(batch, -1)
        _, best = jax.lax.top_k(totals, beams)
        parent, code = best // size, best % size
        valid = jnp.take_along_axis(allowed.reshape(batch, -1), best, axis=1)
        scores = jnp.where(valid, scores[rows, parent] + log_probs[rows, parent, code], -jnp.inf)
        sids = jnp.concatenate([sids[rows, parent], code[..., None]], axis=-1)
        below = tries.child(trie, level=level, nodes=nodes[rows, parent], codes=code)
        nodes = jnp.where(valid, below, tries.ROOT)
        newest = code[..., None]
    return sids, scores, valid


class _StaticModel:
    """The tables as STATIC asks for logits; equal for equal batches, for it is compiled for one."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def __hash__(self) -> int:
        return self.batch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _StaticModel) and self.batch == other.batch

    def __call__(self, codes: jax.Array, levels: tuple) -> tuple[jax.Array, tuple]:
        (by_code, by_query), further = levels[0], levels[1:]
        query = jnp.arange(len(codes)) // (len(codes) // self.batch)
        return (by_code[codes[:, 0]] + by_query[query])[:, None], further


def _static_index(folder: Path, sids: np.ndarray) -> tuple:
    sys.path.insert(0, str(folder))
    from static_decoding.csr_utils import build_static_index

    packed, starts, widths, *dense = build_static_index(sids, CODES, dense_lookup_layers=2)
    return tuple(map(int, widths)), jax.device_put((packed, starts, *dense))


def _static(params: Any, index: tuple, *, batch: int, beams: int) -> Callable[[], Any]:
    from static_decoding.decoding_jax import sparse_transition_jax

    widths, arrays = index
    model, levels = _StaticModel(batch), len(SIZES)
    return lambda: jax.block_until_ready(
        sparse_transition_jax(
            model, params, batch, beams, beams, 0, levels, CODES, widths, *arrays, d_dense=2
        )
    )
