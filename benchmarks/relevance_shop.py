"""Queries, items and all that their features are computed from, drawn at random."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter

import numpy as np
import sentencepiece

from dsirm_jax.relevance.digests import Reading, catalogue_statistics, digest_items, digest_queries
from dsirm_jax.relevance.features.group import PairTexts
from dsirm_jax.relevance.nearest.lengths import normalise
from dsirm_jax.relevance.neighbours import find_surroundings
from dsirm_jax.relevance.terms import ItemTexts
from dsirm_jax.sids.prefix_match import (
    Beams,
    log_prefix_shares,
)

SIZES = (32, 64, 64)
BEAMS, DIM, ITEMS_OF_QUERY = 10, 128, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """What the other side knows of texts: those of the pairs' queries and items, and pieces."""

    asks: list[str]
    asked: list[set[int]]
    texts: list[str]
    counts: list[Counter]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shop:
    """Arguments of the two functions of features, for pairs of the first `queries` queries."""

    shared: dict
    dense: dict
    of_sids: dict
    words: Words


def make(*, queries: int, items: int, asked: int, each: int) -> Shop:
    """Returns a shop with `each` pairs of the first `asked` queries."""
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(list("aeioklmnrst"), 5)) for _ in range(2_000)])
    odds = 1 / np.arange(1, 2_001)

    def texts(count: int, length: int) -> list[str]:
        drawn = generator.choice(2_000, (count, length), p=odds / odds.sum())
        return [" ".join(row) for row in words[drawn]]

    titles, asks = texts(items, 12), texts(queries, 3)
    query_index = np.repeat(np.arange(asked), each)
    item_index = generator.integers(items, size=len(query_index))
    query_vectors, item_vectors = (
        generator.normal(size=(count, DIM)).astype(np.float32) for count in (queries, items)
    )
    log_probs = np.log(-np.sort(-generator.dirichlet(np.ones(BEAMS), queries), axis=1))
    train_pairs = np.stack([generator.integers(of, size=5 * queries) for of in (queries, items)], 1)
    nothing = [None] * items
    processor = vocabulary(titles[:2_000])
    wanted, item_row = np.unique(item_index, return_inverse=True)
    catalogue, kept = catalogue_statistics(
        [ItemTexts(titles, titles, nothing, nothing)], wanted=wanted, processor=processor
    )
    reading = Reading(processor, catalogue.names, None)
    asked = [asks[query] for query in np.unique(query_index)]
    words = Words(
        asks=asked,
        asked=[set(pieces) for pieces in processor.encode(asked)],
        texts=list(kept.text),
        counts=[Counter(pieces) for pieces in processor.encode(list(kept.text))],
    )
    normalise(item_vectors)
    sids = generator.integers(0, SIZES, size=(items, len(SIZES))).astype(np.int32)
    shared = {
        "query_index": query_index,
        "item_index": item_index,
        "query_vectors": query_vectors,
        "item_vectors": item_vectors,
    }
    shared["surroundings"] = find_surroundings(
        **{name: shared[name] for name in ("query_index", "query_vectors", "item_vectors")},
        train_pairs=train_pairs,
        relevant=generator.random(len(train_pairs)) < 0.6,
    )
    return Shop(
        shared=shared,
        dense={
            "item_row": item_row,
            "texts": PairTexts(
                digest_queries(asked, reading), digest_items(kept, reading), catalogue.pieces
            ),
            "numbers": {},
        },
        of_sids={
            "sids": sids,
            "log_shares": log_prefix_shares(sids, sizes=SIZES),
            "beams": Beams(
                sids=generator.integers(0, SIZES, (queries, BEAMS, len(SIZES))).astype(np.int32),
                log_probs=log_probs.astype(np.float32),
                valid=np.ones((queries, BEAMS), bool),
            ),
            "pair_log_probs": -30 * generator.random((len(query_index), 3)).astype(np.float32),
        },
        words=words,
    )


def vocabulary(texts: list[str]) -> sentencepiece.SentencePieceProcessor:
    """Trains a small SentencePiece model."""
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=f"{folder}/pieces",
            vocab_size=1_000,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        return sentencepiece.SentencePieceProcessor(model_file=f"{folder}/pieces.model")
