import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data.pairs import positives_of
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.encoder import embed
from dsirm_jax.encoder.kinds import towers
from dsirm_jax.encoder.kinds.towers import TwoTowers
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.settings import Training

VOCAB = 24
CONFIG = TwoTowers(
    dim=16,
    hidden_dim=16,
    max_query_pieces=3,
    max_item_pieces=4,
    temperature=0.1,
    training=Training(epochs=40, batch_size=16, learning_rate=0.02, log_every=100),
)


def make_rows():
    """Eight queries and the one item that answers each, in words of their own."""
    item = np.array([[1 + i, 0, 9 + i, 0] for i in range(8)], np.int32)
    query = np.array([[17 + i % 7, 1 + (i * 3) % 8, 0] for i in range(8)], np.int32)
    arrays = {
        "query": query,
        "item": item,
        "query_index": np.arange(8, dtype=np.int64),
        "item_index": np.arange(8, dtype=np.int64),
    }
    return arrays, query, item


def fit(directory, *, config=CONFIG, held_out=(), devices=None):
    rows, query, item = make_rows()
    pairs = np.stack([np.arange(8)] * 2, axis=1)

    def batches(start):
        for chosen in index_batches(rows=8, batch_size=16, seed=0, start=start):
            yield {name: values[chosen] for name, values in rows.items()}

    params = towers.fit_towers(
        config=config,
        vocab_size=VOCAB,
        batches=batches,
        num_rows=8,
        positives=positives_of(pairs, queries=8),
        directory=directory,
        seed=0,
        held_out=held_out,
        devices=devices,
    )
    return params, query, item


def test_training_brings_each_query_to_its_item(tmp_path):
    params, query, item = fit(tmp_path)
    tower = towers.text_tower(CONFIG, vocab_size=VOCAB)
    cosine = np.asarray(tower.apply(params, query) @ tower.apply(params, item).T)
    np.testing.assert_array_equal(cosine.argmax(axis=1), np.arange(8))


def test_training_ends_with_what_is_best_for_rows_held_out(tmp_path):
    often = dataclasses.replace(CONFIG.training, checkpoint_every=4)
    config = dataclasses.replace(CONFIG, training=often)
    rows, *_ = make_rows()
    # An item and the next one's query, whose own item is a rival: it fits worse and worse.
    wrong = {name: np.concatenate([values, values]) for name, values in rows.items()}
    wrong |= {"query": np.roll(wrong["query"], 1, axis=0), "query_index": np.full(16, -1)}
    params, *_ = fit(tmp_path / "wrong", config=config, held_out=[wrong])
    steps = sorted(int(path.name) for path in (tmp_path / "wrong/checkpoints").glob("[0-9]*"))
    assert steps == [4, 16, 20]
    found = towers.read_params(config, vocab_size=VOCAB, directory=tmp_path / "wrong")
    jax.tree.map(np.testing.assert_array_equal, params, found)
    right = {name: np.concatenate([values, values]) for name, values in rows.items()}
    last, *_ = fit(tmp_path / "right", config=config, held_out=[right])
    whole, *_ = fit(tmp_path / "whole", config=config)
    jax.tree.map(np.testing.assert_array_equal, last, whole)


def test_one_device_gives_the_result_of_eight(tmp_path):
    eight, *_ = fit(tmp_path / "eight")
    one, *_ = fit(tmp_path / "one", devices=jax.devices()[:1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), eight, one)


def test_padding_changes_nothing_and_vectors_have_length_one():
    tower = towers.text_tower(CONFIG, vocab_size=VOCAB)
    params = tower.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
    short = tower.apply(params, jnp.array([[3, 5]]))
    long = tower.apply(params, jnp.array([[3, 5, 0, 0, 0]]))
    np.testing.assert_allclose(short, long, atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(long, axis=-1), 1.0, rtol=1e-5)


def test_a_table_is_embedded_shard_by_shard_and_what_is_there_is_kept(tmp_path):
    table = tmp_path / "items.parquet"
    rows = pa.table({"item_id": list("abcde"), "text": list("31425")})
    pq.write_table(rows, table, row_group_size=2)
    tower = towers.text_tower(CONFIG, vocab_size=VOCAB)
    params = tower.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
    pattern = tmp_path / "[new]" / "items-*.parquet"

    def embed_pieces(pieces, *, name):
        return embed.embed(tower=tower, params=params, pieces=pieces, max_pieces=2, name=name)

    run = functools.partial(
        embed.embed_table,
        table=table,
        id_column="item_id",
        text_column="text",
        tokenize=lambda texts: [[int(text)] for text in texts],
        embed_pieces=embed_pieces,
        pattern=pattern,
    )
    run()
    names = [f"items-0000{number}-of-00003.parquet" for number in range(3)]
    assert sorted(path.name for path in pattern.parent.iterdir()) == names
    vectors = read_vectors(pattern, ids=list("ecabd"), id_column="item_id")
    for vector, piece in zip(vectors, (5, 4, 3, 1, 2)):
        expected = tower.apply(params, jnp.array([[piece, 0]]))[0]
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    (pattern.parent / names[0]).write_bytes(b"kept")
    (pattern.parent / names[2]).unlink()
    run()
    assert (pattern.parent / names[0]).read_bytes() == b"kept"
    assert (pattern.parent / names[2]).exists()


def test_embedding_in_blocks_keeps_order_and_cuts_long_texts():
    tower = towers.text_tower(CONFIG, vocab_size=VOCAB)
    params = tower.init(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))
    pieces = [[1], [2, 3], [], [4, 5, 6, 7], [8, 9]]
    vectors = embed.embed(
        tower=tower, params=params, pieces=pieces, max_pieces=3, name="test", rows=3
    )
    for row, ids in enumerate(pieces):
        padded = np.array([[*ids, 0, 0, 0][:3]])
        np.testing.assert_allclose(vectors[row], tower.apply(params, padded)[0], atol=1e-6)
