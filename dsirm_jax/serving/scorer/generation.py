"""The generator as it answers several requests at once: their SIDs, and log-probs of given ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.decoding import beam_search, check_beams
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.score import (
    Prefixes,
    distinct_sids,
    encode_texts,
    score_prefixes,
    scores_by_sid,
    shared_prefixes,
)
from dsirm_jax.sids.prefix_match import Beams
from dsirm_jax.sids.trie import Trie

SID_WIDTHS = (8, 128, 1024)
"""Distinct SIDs of a request that programs are compiled for; a request has at most the last."""


class GeneratorRequest(NamedTuple):
    """A query, and the SIDs whose probabilities are needed.

    Attributes:
      tokens: of the query.
      sids: int32 `[sid, level]`, at most `SID_WIDTHS[-1]` distinct ones; perhaps none.
    """

    tokens: Sequence[int]
    sids: Int[np.ndarray, "sid level"]


class Generated(NamedTuple):
    """What the generator answers.

    Attributes:
      beams: of the query, without the axis of queries.
      log_probs: log P(first l codes | query) of the SIDs of the request, float32 `[sid, level]`.
    """

    beams: Beams
    log_probs: Float[np.ndarray, "sid level"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator on a device.

    Attributes:
      fitted: its shape.
      params: its parameters, on the device.
      trie: the SIDs that exist, likewise.
      beams: SIDs of a query.
    """

    fitted: FittedGenerator
    params: Any
    trie: Trie
    beams: int


def on_device(fitted: FittedGenerator, *, trie: Trie, beams: int) -> Generator:
    """Returns a generator whose arrays are on the device that JAX computes on."""
    params, trie = jax.device_put((fitted.params, trie))
    return Generator(fitted=fitted, params=params, trie=trie, beams=beams)


def generate(generator: Generator, requests: Sequence[GeneratorRequest]) -> list[Generated]:
    """Returns what the generator answers to each request.

    Batches have few shapes, so that few programs are compiled: powers of two of requests, and
    `SID_WIDTHS` of SIDs.
    """
    fitted = generator.fitted
    config = fitted.config
    rows = 1 << (len(requests) - 1).bit_length()
    width = next(width for width in SID_WIDTHS if max(len(r.sids) for r in requests) <= width)
    tokens = rectangle([request.tokens for request in requests], shape=(rows, fitted.max_pieces))
    request_index = np.repeat(np.arange(len(requests)), [len(r.sids) for r in requests])
    distinct = distinct_sids(request_index, np.concatenate([r.sids for r in requests]))
    every = np.arange(len(distinct.sids))
    lines = np.repeat(distinct.query, np.diff(distinct.starts))
    shapes = [(rows, width)] * len(config.sid_sizes)
    prefixes = shared_prefixes(distinct, every, lines=lines, shapes=shapes)
    beams, scores = _search_and_score(
        generator.params, generator.trie, tokens, prefixes, config=config, beams=generator.beams
    )
    beams = Beams(*(np.asarray(part)[: len(requests)] for part in beams))
    check_beams(beams)
    log_probs = scores_by_sid(scores, distinct, every, lines=lines)[distinct.row]
    return [
        Generated(Beams(*(part[line] for part in beams)), log_probs[request_index == line])
        for line in range(len(requests))
    ]


@functools.partial(jax.jit, static_argnames=("config", "beams"))
def _search_and_score(
    params: Any,
    trie: Trie,
    tokens: Int[Array, "request length"],
    prefixes: Sequence[Prefixes],
    *,
    config: Architecture,
    beams: int,
) -> tuple[Beams, tuple[Float[Array, "request _prefix"], ...]]:
    """Returns `beam_search` and `score_prefixes` of the same queries; XLA encodes them once."""
    state = encode_texts(params, tokens, config=config)
    best = beam_search(params, trie, tokens, config=config, beams=beams)
    return best, score_prefixes(params, state, prefixes, config=config)
