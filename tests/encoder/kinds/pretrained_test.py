import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.encoder import embed, hugging_face
from dsirm_jax.encoder.kinds import pretrained
from dsirm_jax.encoder.kinds.pretrained import Pretrained
from dsirm_jax.encoder.kinds.protocol import RunTables
from dsirm_jax.encoder.losses import QueryItemRows, symmetric_info_nce, with_items
from dsirm_jax.encoder.negatives import read_irrelevant
from dsirm_jax.encoder.train import pair_batches
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.settings import Training

BERT = Path(__file__).parents[1] / "golden" / "bert"
ITEMS = ("red shoe", "blue shoe", "red mug", "blue mug", "kid size 10", "shoemaker mug , red")
QUERIES = ("blue mug kid", "kid", "mug", "red", "shoes")
RELEVANT = ((0, 3), (1, 4), (2, 2), (3, 0), (4, 1))
IRRELEVANT = ((0, 2), (0, 1), (3, 3))
NOTHING = Training(epochs=0, batch_size=8, learning_rate=0.0)
SOMETHING = Training(epochs=16, batch_size=8, learning_rate=0.01, log_every=100)
LONGER = dataclasses.replace(SOMETHING, epochs=160, learning_rate=0.02)
PLAIN = Pretrained(folder=str(BERT), max_query_pieces=8, max_item_pieces=10, training=NOTHING)
CONFIGS = {
    "frozen": PLAIN,
    "projected": dataclasses.replace(PLAIN, training=LONGER, dim=16, hard_negatives=2),
    "fine-tuned": dataclasses.replace(PLAIN, training=SOMETHING, frozen=False, hard_negatives=1),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare")
    items = {"item_id": list("abcdef"), "text": ITEMS}
    pq.write_table(pa.table(items), folder / "items.parquet", row_group_size=4)
    pq.write_table(pa.table({"query": QUERIES}), folder / "queries.parquet")
    judged = [(*pair, True, "train") for pair in RELEVANT]
    judged += [(*pair, False, "train") for pair in IRRELEVANT]
    judged += [(1, 0, False, "head"), (1, 1, True, "test")]
    names = ("query_index", "item_index", "relevant", "split")
    columns = dict(zip(names, map(list, zip(*judged))))
    pq.write_table(pa.table(columns), folder / "judgements.parquet")
    return {name: folder / f"{name}.parquet" for name in ("items", "queries", "judgements")}


def encode(tables, directory, config, **changes):
    places = RunTables(
        **tables,
        item_vectors=directory / "items-*.parquet",
        query_vectors=directory / "queries-*.parquet",
        tfds_dir=directory,
        vocabulary=directory,
    )
    config.fit(places, directory=directory, seed=0, pieces_at_once=16, **changes)
    return read(directory)


def read(directory):
    items = read_vectors(directory / "items-*.parquet", ids=list("abcdef"), id_column="item_id")
    queries = read_vectors(directory / "queries-*.parquet", ids=QUERIES, id_column="query")
    return items, queries


@pytest.fixture(scope="module")
def runs(tables, tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in CONFIGS}
    return {
        name: (folder, *encode(tables, folder, CONFIGS[name])) for name, folder in folders.items()
    }


def vectors(encoder, texts, *, prefix="", max_pieces=10):
    """Embeds texts one by one, without any padding."""
    pieces = wordpieces.tokenize(encoder.tokenizer, texts, prefix=prefix, max_pieces=max_pieces)
    rows = [encoder.module.apply(encoder.params, np.array([ids])) for ids in pieces]
    return np.concatenate(rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_encoder_written_makes_the_vectors_written(runs, name):
    folder, items, queries = runs[name]
    encoder = hugging_face.read_folder(folder / "encoder")
    np.testing.assert_allclose(vectors(encoder, ITEMS), items, atol=1e-4)
    np.testing.assert_allclose(vectors(encoder, QUERIES), queries, atol=1e-4)


def test_without_training_the_vectors_are_those_of_the_folder(runs):
    _, items, _ = runs["frozen"]
    np.testing.assert_allclose(vectors(hugging_face.read_folder(BERT), ITEMS), items, atol=1e-5)


@pytest.mark.parametrize("name", ["projected", "fine-tuned"])
def test_training_brings_queries_to_their_items(runs, name):
    def share(items, queries):
        """Returns the mean of what a softmax over all items gives to the relevant ones."""
        chances = np.asarray(jax.nn.softmax(queries @ items.T / PLAIN.temperature))
        return np.mean([chances[pair] for pair in RELEVANT])

    assert share(*runs[name][1:]) > share(*runs["frozen"][1:]) + 0.2


def test_frozen_weights_stay_as_they_are(runs):
    before = hugging_face.read_folder(BERT).params["params"]["bert"]
    after = hugging_face.read_folder(runs["projected"][0] / "encoder").params["params"]["bert"]
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_run_goes_on_from_the_encoder_of_another(tables, runs, tmp_path):
    config = dataclasses.replace(PLAIN, dim=16)
    items, queries = encode(tables, tmp_path, config, start=runs["projected"][0])
    np.testing.assert_allclose(items, runs["projected"][1], atol=1e-5)
    np.testing.assert_allclose(queries, runs["projected"][2], atol=1e-5)


def test_shards_that_are_there_are_kept(tables, tmp_path):
    encode(tables, tmp_path, PLAIN)
    first, second = sorted(tmp_path.glob("items-*"))
    first.write_bytes(b"kept")
    second.unlink()
    with pytest.raises(InputError):
        encode(tables, tmp_path, PLAIN)
    assert first.read_bytes() == b"kept"
    assert second.exists()


def test_one_device_gives_the_result_of_eight(tables, tmp_path):
    # Ten steps: over a hundred, what is rounded otherwise grows.
    config = dataclasses.replace(CONFIGS["projected"], training=SOMETHING)
    eight = encode(tables, tmp_path / "eight", config)
    one = encode(tables, tmp_path / "one", config, devices=jax.devices()[:1])
    for found, expected in zip(one, eight, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_prefixes_precede_texts(tables, tmp_path):
    config = dataclasses.replace(PLAIN, query_prefix="red ", item_prefix="blue ")
    items, queries = encode(tables, tmp_path, config)
    encoder = hugging_face.read_folder(tmp_path / "encoder")
    assert (encoder.query_prefix, encoder.item_prefix) == ("red ", "blue ")
    np.testing.assert_allclose(vectors(encoder, ITEMS, prefix="blue "), items, atol=1e-5)
    expected = vectors(encoder, QUERIES, prefix="red ", max_pieces=8)
    np.testing.assert_allclose(expected, queries, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"max_item_pieces": 21},
            "max_item_pieces = 21: the encoder in .* reads at most 20",
            id="too many pieces",
        ),
        pytest.param({"dim": 17}, "dim = 17: the encoder in .* gives 16", id="wrong dim"),
        pytest.param({"training": SOMETHING}, "leaves nothing to train", id="nothing to train"),
    ],
)
def test_what_does_not_suit_the_encoder_is_said(changes, message):
    with pytest.raises(InputError, match=message):
        pretrained.load_encoder(dataclasses.replace(PLAIN, **changes), folder=BERT)


def test_hard_negatives_are_judged_items_of_the_query_where_there_are_any(tables):
    irrelevant = read_irrelevant(tables["judgements"], queries=5)
    queries = np.array([0, 3, 1, 4])
    random = np.random.default_rng(0)
    drawn = irrelevant.draw(queries, each=200, num_items=6, random=random)
    assert [set(row) for row in drawn.tolist()] == [{1, 2}, {3}, set(range(6)), set(range(6))]


def test_no_batch_has_a_query_that_is_held_out(tables, tmp_path):
    training = dataclasses.replace(SOMETHING, batch_size=1, held_out=0.4)
    config = dataclasses.replace(CONFIGS["projected"], training=training)
    spec = config.batch_spec(pretrained.load_encoder(config, folder=BERT))
    random = np.random.default_rng(0)
    features = {
        "item": random.normal(size=(6, 16)).astype(np.float32),
        "query": random.normal(size=(5, 16)).astype(np.float32),
    }
    drawn = pair_batches(
        features,
        judgements=tables["judgements"],
        queries=tables["queries"],
        training=training,
        spec=spec,
        seed=0,
    )
    learnt = list(itertools.islice(drawn.batches(0), 8))
    queries = {
        name: {int(query) for batch in batches for query in batch["query_index"]}
        for name, batches in (("learnt", learnt), ("held_out", drawn.held_out))
    }
    assert queries["held_out"] and queries["learnt"]
    assert queries["held_out"] | queries["learnt"] == {query for query, _ in RELEVANT}
    assert drawn.num_rows == len(queries["learnt"]) == 5 - len(queries["held_out"])
    for batch in (*learnt, *drawn.held_out):
        assert batch.keys() == spec.keys()
        np.testing.assert_array_equal(batch["query"], features["query"][batch["query_index"]])
        np.testing.assert_array_equal(batch["negative"], features["item"][batch["negative_index"]])
        for name, like in spec.items():
            assert batch[name].dtype == like.dtype
            assert name == "positives" or batch[name].shape == like.shape
    all_of_it = dataclasses.replace(config, training=dataclasses.replace(training, held_out=0.99))
    with pytest.raises(InputError, match="held_out = 0.99 holds 5 of 5 training rows out"):
        encode(tables, tmp_path, all_of_it)


def test_items_without_a_query_are_negatives_of_the_query_alone():
    random = np.random.default_rng(0)
    query, item, more = (random.standard_normal((n, 4)).astype(np.float32) for n in (3, 3, 2))
    positives = np.array([[0, -1], [1, 7], [2, -1]])  # item 7 suits the second query
    rows = QueryItemRows(
        query=jnp.array(query),
        item=jnp.array(item),
        item_index=jnp.arange(3),
        positives=jnp.array(positives),
        has_query=jnp.ones(3),
    )
    everyone = with_items(rows, item=jnp.array(more), item_index=jnp.array([7, 8]))
    found = symmetric_info_nce(rows, everyone, own=jnp.arange(3), temperature=0.5)

    def unit(of):
        return of / np.linalg.norm(of, axis=1, keepdims=True)

    logits = unit(query) @ unit(np.concatenate([item, more])).T / 0.5
    for row in range(3):
        rivals = [column for column in range(5) if (row, column) != (1, 3)]
        to_item = np.log(np.exp(logits[row, rivals]).sum()) - logits[row, row]
        to_query = np.log(np.exp(logits[:, row]).sum()) - logits[row, row]
        np.testing.assert_allclose(found[row], (to_item + to_query) / 2, rtol=1e-5)


@given(
    lengths=st.lists(st.integers(0, 60), max_size=80),
    max_pieces=st.integers(60, 70),
    devices=st.integers(1, 8),
    pieces_at_once=st.sampled_from([1, 16, 200]),
)
def test_batches_hold_every_text_once_in_few_shapes(lengths, max_pieces, devices, pieces_at_once):
    lengths = np.array(lengths, np.int64)
    batches = list(
        embed._by_length(
            lengths, max_pieces=max_pieces, devices=devices, pieces_at_once=pieces_at_once
        )
    )
    rows = np.concatenate([[], *(rows for rows, _ in batches)])
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for chosen, (room, length) in batches:
        assert len(chosen) <= room and room % devices == 0
        assert lengths[chosen].max() <= length <= max_pieces
    assert len({shape for _, shape in batches}) <= len(embed.LENGTHS)
    assert all(len(chosen) == room for chosen, (room, _) in batches[:-1])
