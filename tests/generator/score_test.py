import itertools

import numpy as np
import pyarrow.parquet as pq

from dsirm_jax.generator.model import T5Config, init_params
from dsirm_jax.generator.predict import predict
from dsirm_jax.generator.score import score_pairs, write_pair_log_probs
from dsirm_jax.sids import trie as tries

SIZES = (3, 4, 5)
CONFIG = T5Config(
    text_vocab_size=30,
    sid_sizes=SIZES,
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
)
PARAMS = init_params(CONFIG, seed=0)
PIECES = [
    np.random.default_rng(length).integers(1, 30, length).tolist()
    for length in (3, 40, 1, 16, 17, 0, 24, 5, 90, 2)
]


def test_pair_scores_agree_with_beams_in_any_order():
    everything = np.array(list(itertools.product(*map(range, SIZES))))
    found = predict(
        params=PARAMS,
        config=CONFIG,
        trie=tries.build(everything, sizes=SIZES),
        pieces=PIECES,
        max_pieces=24,
        beams=60,
        batch_size=4,
    )
    # Queries with no pair, with one, and with more than one chunk of items, in shuffled order.
    counts = np.array([1, 0, 20, 3, 0, 1, 33, 2, 1, 16])
    rng = np.random.default_rng(1)
    query_index = rng.permutation(np.repeat(np.arange(10), counts))
    sids = rng.integers(0, SIZES, (len(query_index), 3))
    log_probs = score_pairs(
        params=PARAMS,
        config=CONFIG,
        pieces=PIECES,
        max_pieces=24,
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
