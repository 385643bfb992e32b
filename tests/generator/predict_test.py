import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.generator import predict as predict_module
from dsirm_jax.generator import score as score_module
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.decoding import Beams, beam_search, check_beams
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.predict import (
    batches_by_length,
    join_query_shards,
    predict_shards,
    predict_sids,
    queries_at_once,
    write_query_sids,
)
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.io.errors import InputError
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
LENGTHS = [3, 40, 1, 16, 17, 0, 24, 5, 90, 2]
PIECES = [np.random.default_rng(length).integers(1, 30, length).tolist() for length in LENGTHS]


@pytest.fixture(scope="module")
def fitted():
    params = init_params(CONFIG, seed=0)
    return FittedGenerator(config=CONFIG, params=params, max_pieces=24, sid_version="v7")


def test_batches_cover_every_text_once_in_few_shapes():
    seen = []
    shapes = []
    for rows, shape in batches_by_length(
        PIECES, order=np.arange(10)[::-1], batch_size=4, max_pieces=24
    ):
        shapes.append(shape)
        seen.extend(rows.tolist())
        assert max(LENGTHS[row] for row in rows) <= shape[1] or shape[1] == 24
    assert seen == [9, 7, 5, 3, 2, 0, 8, 6, 4, 1]  # by length group, in the given order
    assert shapes == [(4, 16), (4, 16), (4, 24)]


def test_predictions_are_those_of_each_query_alone(fitted):
    sids = np.random.default_rng(0).integers(0, SIZES, (12, 3))
    trie = tries.build(sids, sizes=SIZES)
    found = predict_sids(fitted=fitted, trie=trie, pieces=PIECES, beams=4, batch_size=4)
    assert found.sids.shape == (10, 4, 3) and found.valid.all()
    for row in (0, 4, 5, 8):
        tokens = np.zeros((1, 24), np.int32)
        cut = PIECES[row][:24]
        tokens[0, : len(cut)] = cut
        alone = beam_search(fitted.params, trie, tokens, config=CONFIG, beams=4)
        np.testing.assert_allclose(found.log_probs[row], alone.log_probs[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.sids[row], alone.sids[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(fitted, value):
    kernel = np.full_like(fitted.params["decoder"]["logits_dense"]["kernel"], value)
    decoder = fitted.params["decoder"] | {"logits_dense": {"kernel": kernel}}
    broken = dataclasses.replace(fitted, params=fitted.params | {"decoder": decoder})
    trie = tries.build(np.random.default_rng(0).integers(0, SIZES, (12, 3)), sizes=SIZES)
    with pytest.raises(FloatingPointError, match="not finite for 2 of 2 queries"):
        predict_sids(fitted=broken, trie=trie, pieces=PIECES[:2], beams=4, batch_size=4)
    with pytest.raises(FloatingPointError, match="not finite for 1 of 1 SIDs"):
        score_pairs(
            fitted=broken,
            pieces=PIECES,
            query_index=np.zeros(1, int),
            sids=np.zeros((1, 3), int),
            batch_size=4,
        )


def test_a_query_without_any_sid_is_refused():
    valid = np.array([[True, False], [False, False]])
    scores = np.where(valid, -1.0, -np.inf).astype(np.float32)
    check_beams(Beams(np.zeros((1, 2, 3), np.int32), scores[:1], valid[:1]))
    with pytest.raises(FloatingPointError, match="not finite for 1 of 2 queries"):
        check_beams(Beams(np.zeros((2, 2, 3), np.int32), scores, valid))


def test_a_search_needs_a_beam(fitted):
    trie = tries.build(np.array([[0, 0, 0]]), sizes=SIZES)
    with pytest.raises(InputError, match="0 beams"):
        predict_sids(fitted=fitted, trie=trie, pieces=PIECES, beams=0, batch_size=4)


def plain_architecture():
    """Returns one that holds 40 bytes of a query, and 60 of each hypothesis."""
    return types.SimpleNamespace(
        sid_sizes=(3, 5),
        encode=lambda params, tokens: jnp.zeros((len(tokens), 10)),
        decode=lambda params, state, codes: (
            tuple(jnp.zeros((*codes.shape[:2], size)) for size in (3, 5)),
            jnp.zeros((*codes.shape[:2], 7)),
        ),
    )


@pytest.mark.parametrize(
    ("hypotheses", "rows", "devices", "memory", "expected"),
    [
        (6, 10**6, 1, None, 256),
        (6, 10**6, 3, None, 258),
        (6, 2**20, 1, 2**24, 1024),  # 1,600 bytes a query of 2^21
        (6, 2**20, 4, 2**24, 4096),
        (66, 2**20, 1, 2**24, 256),  # 16,000 bytes
        (6, 10_000, 1, 2**30, 1024),  # 16 batches
    ],
    ids=["a CPU", "three CPUs", "a device", "four", "many hypotheses", "few queries"],
)
def test_as_many_queries_as_a_device_holds(hypotheses, rows, devices, memory, expected):
    chosen = queries_at_once(
        plain_architecture(),
        {},
        max_pieces=24,
        hypotheses=hypotheses,
        rows=rows,
        devices=devices,
        memory=memory,
    )
    assert chosen == expected


def test_a_device_with_memory_of_its_own_gives_the_same(fitted, monkeypatch):
    trie = tries.build(np.random.default_rng(0).integers(0, SIZES, (12, 3)), sizes=SIZES)
    many = [PIECES[row % 10] for row in range(300)]
    pairs = {"query_index": np.arange(300), "sids": np.arange(900).reshape(300, 3) % SIZES}

    def found():
        best = predict_sids(fitted=fitted, trie=trie, pieces=many, beams=4)
        return *best, score_pairs(fitted=fitted, pieces=many, **pairs)

    sids, log_probs, valid, scores = found()
    for module in (predict_module, score_module):
        monkeypatch.setattr(module, "memory_limit", lambda devices: 2**36)
    monkeypatch.setattr(predict_module, "PARTS", 1)
    more = found()
    np.testing.assert_array_equal(more[0], sids)
    np.testing.assert_array_equal(more[2], valid)
    np.testing.assert_allclose(more[1], log_probs, rtol=1e-5)
    np.testing.assert_allclose(more[3], scores, rtol=1e-5)


def test_devices_change_nothing(fitted):
    trie = tries.build(np.random.default_rng(0).integers(0, SIZES, (12, 3)), sizes=SIZES)
    one, four = (
        predict_sids(
            fitted=fitted,
            trie=trie,
            pieces=PIECES[:6],
            beams=3,
            batch_size=6,
            devices=jax.devices()[:number],
        )
        for number in (1, 4)
    )
    np.testing.assert_array_equal(one.sids, four.sids)
    np.testing.assert_allclose(one.log_probs, four.log_probs, rtol=1e-5)


def test_an_interrupted_pass_goes_on_and_gives_the_same_table(fitted, tmp_path):
    texts = [f"text {row}" for row in range(10)]
    pieces = dict(zip(texts, PIECES, strict=True))
    pq.write_table(pa.table({"query": texts}), tmp_path / "queries.parquet")
    trie = tries.build(np.random.default_rng(0).integers(0, SIZES, (12, 3)), sizes=SIZES)
    asked = []

    def run(*, fitted=fitted, fail_at=None):
        def encode(some):
            if fail_at in some:
                raise KeyboardInterrupt
            asked.append(some)
            return [pieces[text] for text in some]

        return predict_shards(
            fitted=fitted,
            trie=trie,
            queries=tmp_path / "queries.parquet",
            encode=encode,
            pattern=tmp_path / "query_sids-*.parquet",
            beams=3,
            batch_size=4,
            shard_rows=4,
        )

    (tmp_path / "query_sids-00000-of-00002.parquet").touch()  # of an earlier division
    with pytest.raises(KeyboardInterrupt):
        run(fail_at="text 5")
    assert len([*tmp_path.glob("query_sids-*")]) == 1
    assert [len(some) for some in asked] == [4]
    paths = run()
    assert asked == [texts[:4], texts[4:8], texts[8:]]
    # The generator decides too: a shard of another one is written again.
    run(fitted=dataclasses.replace(fitted, max_pieces=5))
    assert [len(some) for some in asked[3:]] == [4, 4, 2]
    run()
    assert len(asked) == 9
    join_query_shards(paths, into=tmp_path / "joined.parquet", sid_version="v7")
    assert not any(path.exists() for path in paths)
    found = predict_sids(fitted=fitted, trie=trie, pieces=PIECES, beams=3, batch_size=4)
    write_query_sids(tmp_path / "whole.parquet", queries=texts, beams=found, sid_version="v7")
    joined, whole = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("joined", "whole"))
    assert joined.schema.metadata == whole.schema.metadata
    assert joined["query"].to_pylist() == texts
    assert joined["sids"].to_pylist() == whole["sids"].to_pylist()
    for ours, theirs in zip(joined["log_probs"], whole["log_probs"], strict=True):
        np.testing.assert_allclose(ours.as_py(), theirs.as_py(), rtol=1e-5)


def test_query_sids_hold_valid_beams_only(tmp_path):
    path = tmp_path / "query_sids.parquet"
    beams = Beams(
        sids=np.array([[[1, 2], [0, 1]], [[2, 2], [-1, -1]], [[-1, -1], [-1, -1]]], np.int32),
        log_probs=np.array([[-1, -2], [-0.5, -np.inf], [-np.inf, -np.inf]], np.float32),
        valid=np.array([[True, True], [True, False], [False, False]]),
    )
    write_query_sids(path, queries=["a", "b", "c"], beams=beams, sid_version="v7")
    schema = pq.read_schema(path)
    assert schema.field("sids").type == pa.list_(pa.list_(pa.int32()))
    assert schema.field("log_probs").type == pa.list_(pa.float32())
    assert schema.metadata[b"sid_version"] == b"v7"
    assert pq.read_table(path).to_pylist() == [
        {"query": "a", "sids": [[1, 2], [0, 1]], "log_probs": [-1.0, -2.0]},
        {"query": "b", "sids": [[2, 2]], "log_probs": [-0.5]},
        {"query": "c", "sids": [], "log_probs": []},
    ]
