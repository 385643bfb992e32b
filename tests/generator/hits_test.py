"""What is written of queries that nothing has seen, against an enumeration of all SIDs."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.hits import first_level, write_hits
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.sids import trie

SIZES = (3, 5)
SIDS = np.array([[0, 1], [2, 0], [0, 3], [2, 4], [0, 1], [1, 1]], np.int32)
PIECES = [[2 + number % 7] * (3 + 4 * number) for number in range(6)]
QUERY, ITEM = np.array([0, 1, 1, 1, 3, 3, 5]), np.array([2, 0, 4, 1, 5, 0, 3])
RELEVANT = np.array([True, True, True, True, True, False, True])
SPLIT = ["test", "test", "test", "test", "test", "test", "head"]


@pytest.fixture(scope="module")
def fitted():
    config = T5Config(
        emb_dim=8, num_heads=1, head_dim=8, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
    ).fitted_to(text_vocab_size=10, sid_sizes=SIZES)
    params = init_params(config, seed=3)
    return FittedGenerator(config=config, params=params, max_pieces=20, sid_version="v")


def probabilities(fitted, *, queries):
    """P of every SID, whether or not an item has it, by query and codes."""
    every = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), axis=-1).reshape(-1, 2)
    exact = score_pairs(
        fitted=fitted,
        pieces=PIECES,
        query_index=np.repeat(queries, len(every)),
        sids=np.tile(every.astype(np.int32), (len(queries), 1)),
    )
    return np.exp(exact[:, -1]).reshape(-1, *SIZES)


def test_the_table_has_what_an_enumeration_finds(fitted, tmp_path):
    judged = {"query_index": QUERY, "item_index": ITEM, "relevant": RELEVANT, "split": SPLIT}
    pq.write_table(pa.table(judged), tmp_path / "judgements.parquet")
    pairs = {"query_index": QUERY, "sids": SIDS[ITEM]}
    write_hits(
        tmp_path / "hits.parquet",
        fitted=fitted,
        trie=trie.build(SIDS, sizes=SIZES),
        pieces=PIECES,
        sids=SIDS,
        judgements=tmp_path / "judgements.parquet",
        log_probs=score_pairs(fitted=fitted, pieces=PIECES, **pairs),
    )
    table = pq.read_table(tmp_path / "hits.parquet").to_pylist()
    assert [row["query_index"] for row in table] == [0, 1, 3]
    # Right SIDs: of query 0 (0, 3), of 1 (0, 1), twice, and (2, 0), of 3 (1, 1).
    right = [{(0, 3)}, {(0, 1), (2, 0)}, {(1, 1)}]
    existing = sorted({*map(tuple, SIDS.tolist())})
    for row, all_shares, wanted in zip(
        table, probabilities(fitted, queries=[0, 1, 3]), right, strict=True
    ):
        firsts = all_shares.sum(axis=1)
        assert firsts.sum() == pytest.approx(1, abs=1e-5)
        of_first = sum(firsts[first] for first in {first for first, _ in wanted})
        of_whole = sum(all_shares[sid] for sid in wanted)
        assert row["branch"] == pytest.approx([of_first, of_whole], rel=1e-4)
        assert row["first_entropy"] == pytest.approx(-firsts @ np.log(firsts), rel=1e-4)
        assert row["first_probability"] == pytest.approx(list(firsts), rel=1e-4)
        # More beams than SIDs: all that exist are there, in the order of their codes.
        whole = [all_shares[sid] for sid in existing]
        below = [sum(m for m, sid in zip(whole, existing) if sid[0] == code) for code in range(3)]
        assert row["prefix_mass"][0] == pytest.approx(below, rel=1e-4)
        assert row["prefix_mass"][1] == pytest.approx(whole, rel=1e-4)
        assert row["prefix_right"] == [
            [any(first == code for first, _ in wanted) for code in range(3)],
            [sid in wanted for sid in existing],
        ]
        best = sorted(existing, key=lambda sid: -all_shares[sid])
        assert row["ranks"][1] == 1 + min(best.index(sid) for sid in wanted)


def test_the_first_level_depends_on_the_query_alone(fitted):
    pairs = np.array([(row, code) for row in range(len(PIECES)) for code in range(SIZES[0])])
    entropies, probabilities = first_level(fitted, PIECES, pairs=pairs)
    for number, pieces in enumerate(PIECES):
        alone = first_level(fitted, [pieces], pairs=pairs[:2])
        assert alone[0][0] == pytest.approx(entropies[number], rel=1e-5)
        assert alone[1] == pytest.approx(probabilities[pairs[:, 0] == number][:2], rel=1e-5)
    assert np.bincount(pairs[:, 0], probabilities) == pytest.approx(1, abs=1e-5)
    assert (entropies > 0).all() and (entropies < np.log(SIZES[0])).all()
    assert [len(of) for of in first_level(fitted, [], pairs=pairs[:0])] == [0, 0]


def test_without_test_queries_there_is_an_empty_table(fitted, tmp_path):
    judged = {"query_index": [0], "item_index": [0], "relevant": [True], "split": ["train"]}
    pq.write_table(pa.table(judged), tmp_path / "judgements.parquet")
    write_hits(
        tmp_path / "hits.parquet",
        fitted=fitted,
        trie=trie.build(SIDS, sizes=SIZES),
        pieces=PIECES,
        sids=SIDS,
        judgements=tmp_path / "judgements.parquet",
        log_probs=np.zeros((1, 2), np.float32),
    )
    table = pq.read_table(tmp_path / "hits.parquet")
    assert len(table) == 0
    assert table.schema.field("prefix_mass").type == pa.list_(pa.list_(pa.float32()))
    assert table.schema.field("prefix_right").type == pa.list_(pa.list_(pa.bool_()))
