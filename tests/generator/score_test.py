import functools
import itertools

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.generator import score
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.score import score_pairs, write_pair_log_probs
from dsirm_jax.sids import trie as tries

SIZES = (3, 4, 5)
SHAPE = {"text_vocab_size": 30, "sid_sizes": SIZES, "emb_dim": 8, "head_dim": 4, "mlp_dim": 8}
CONFIGS = {
    "t5": T5Config(**SHAPE, num_heads=2, num_encoder_layers=1, num_decoder_layers=1),
    "decoder": DecoderConfig(**SHAPE, num_heads=2, num_kv_heads=1, num_layers=2, qk_norm=True),
}
FITTED = {
    name: FittedGenerator(
        config=config.unscanned(),
        params=config.unstacked(init_params(config, seed=0)),
        max_pieces=24,
        sid_version="v7",
    )
    for name, config in CONFIGS.items()
}
each = pytest.mark.parametrize("fitted", FITTED.values(), ids=FITTED)
PIECES = [
    np.random.default_rng(length).integers(1, 30, length).tolist()
    for length in (3, 40, 1, 16, 17, 0, 24, 5, 90, 2)
]


@each
def test_pair_scores_agree_with_beams_in_any_order(fitted):
    everything = np.array(list(itertools.product(*map(range, SIZES))))
    found = predict_sids(
        fitted=fitted,
        trie=tries.build(everything, sizes=SIZES),
        pieces=PIECES,
        beams=60,
        batch_size=4,
    )
    # Queries with no pair, with one, and with more than one chunk of items, in shuffled order.
    counts = np.array([1, 0, 20, 3, 0, 1, 33, 2, 1, 16])
    rng = np.random.default_rng(1)
    query_index = rng.permutation(np.repeat(np.arange(10), counts))
    sids = rng.integers(0, SIZES, (len(query_index), 3))
    log_probs = score_pairs(
        fitted=fitted,
        pieces=PIECES,
        query_index=query_index,
        sids=sids,
        batch_size=4,
    )
    assert (np.diff(log_probs, axis=1) <= 0).all()
    exact = [
        dict(zip(map(tuple, row.tolist()), scores, strict=True))
        for row, scores in zip(found.sids, found.log_probs, strict=True)
    ]
    for query, sid, levels in zip(query_index, sids.tolist(), log_probs, strict=True):
        for depth in (1, 2, 3):
            below = [v for s, v in exact[query].items() if s[:depth] == tuple(sid[:depth])]
            np.testing.assert_allclose(np.exp(levels[depth - 1]), np.exp(below).sum(), rtol=1e-4)


def teacher_forced(fitted, query, sid):
    """The plain way: one query, one SID, all levels in one pass."""
    tokens = np.array([[*PIECES[query][:24], *[0] * 24][:24]], np.int32)
    sids = np.array([[sid]], np.int32)
    levels = plain_logits(fitted.params, tokens, sids, config=fitted.config)
    log_probs = [
        scipy.special.log_softmax(np.asarray(logits[0, 0], np.float64))[code]
        for logits, code in zip(levels, sid, strict=True)
    ]
    return np.cumsum(log_probs)


@functools.partial(jax.jit, static_argnames="config")
def plain_logits(params, tokens, sids, *, config):
    return config.teacher_forced(params, tokens, sids)


@each
@settings(deadline=None, max_examples=10)
@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 9), st.tuples(*(st.integers(0, size - 1) for size in SIZES))),
        min_size=1,
        max_size=40,
    )
)
def test_shared_prefixes_equal_separate_passes(fitted, pairs):
    query_index, sids = map(np.array, zip(*pairs, strict=True))
    log_probs = score_pairs(
        fitted=fitted,
        pieces=PIECES,
        query_index=query_index,
        sids=sids,
        batch_size=4,
    )
    expected = [teacher_forced(fitted, query, sid) for query, sid in pairs]
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5, atol=1e-5)


@each
def test_a_few_sids_of_a_query_are_scored_at_once(fitted):
    sids = np.random.default_rng(0).integers(0, SIZES, size=(2, 4, len(SIZES)))
    tokens = np.zeros((2, 24), np.int32)
    for row in range(2):
        tokens[row, : len(PIECES[row][:24])] = PIECES[row][:24]
    encoded = score.encode_texts(fitted.params, tokens, config=fitted.config)
    found = score.score_sids(fitted.params, encoded, sids, config=fitted.config)
    expected = [[teacher_forced(fitted, row, tuple(sid)) for sid in sids[row]] for row in range(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), most=st.sampled_from([1, 2, 3, 100]))
def test_distinct_sids_number_every_prefix_once(data, most):
    pairs = data.draw(
        st.lists(st.tuples(*(st.integers(0, 2) for _ in range(4))), min_size=1, max_size=30)
    )
    pairs = np.array(pairs)
    found = score.distinct_sids(pairs[:, 0], pairs[:, 1:], most=most)
    group = np.repeat(np.arange(len(found.query)), np.diff(found.starts))
    rebuilt = np.column_stack([found.query[group], found.sids])
    np.testing.assert_array_equal(rebuilt[found.row], pairs)
    assert len({tuple(row) for row in rebuilt.tolist()}) == len(rebuilt)
    assert np.diff(found.starts).max() <= most
    for number in range(len(found.query)):
        mine = group == number
        for depth in (1, 2, 3):
            # Numbers from 0 on, in the order of the prefixes, one for each.
            names = [tuple(sid[:depth]) for sid in found.sids[mine].tolist()]
            order = {name: place for place, name in enumerate(sorted(set(names)))}
            assert found.prefix[mine, depth - 1].tolist() == [order[name] for name in names]


def test_pair_log_probs_table(tmp_path):
    path = tmp_path / "pair_log_probs.parquet"
    write_pair_log_probs(
        path,
        query_index=np.array([1, 0]),
        item_index=np.array([5, 6]),
        log_probs=np.array([[-1.0, -2.0], [-0.5, -4.0]], np.float32),
        sid_version="v7",
    )
    assert pq.read_schema(path).metadata[b"sid_version"] == b"v7"
    assert pq.read_table(path).to_pylist() == [
        {"query_index": 1, "item_index": 5, "log_probs": [-1.0, -2.0]},
        {"query_index": 0, "item_index": 6, "log_probs": [-0.5, -4.0]},
    ]
