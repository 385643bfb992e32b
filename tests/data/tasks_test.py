"""Tasks: the right pairs and tokens, in an order that a resumed run repeats."""

import collections
import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data import dataset, tasks, vocabulary
from dsirm_jax.errors import InputError

QUERIES, ITEMS, SIZES = 20, 30, (4, 8, 8)
LENGTHS = {"inputs": 12, "targets": 3}


def _query(number):
    return f"red chair {number}"


def _text(number):
    return f"Chair number {number} with a long title in red oak"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Tables in which query q is for items q, q + 1 and q + 2, relevant but for the last."""
    folder = tmp_path_factory.mktemp("prepare")
    items = {
        "item_index": pa.array(range(ITEMS), pa.int64()),
        "text": [_text(item) for item in range(ITEMS)],
    }
    pairs = [(query, query + step) for query in range(QUERIES) for step in range(3)]
    judgements = {
        "query_index": pa.array([query for query, _ in pairs], pa.int64()),
        "item_index": pa.array([item for _, item in pairs], pa.int64()),
        "query": [_query(query) for query, _ in pairs],
        "gain": pa.array([[1.0, 0.5, 0.0][item - query] for query, item in pairs], pa.float32()),
        "relevant": [item - query < 2 for query, item in pairs],
        "weight": pa.array([1.0 + query for query, _ in pairs], pa.float32()),
        "split": [("train", "train", "head", "test")[query % 4] for query, _ in pairs],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    pq.write_table(pa.table(judgements), folder / "judgements.parquet")
    model = folder / "vocabulary.model"
    texts = itertools.chain(map(_query, range(QUERIES)), map(_text, range(ITEMS)))
    vocabulary.train_vocabulary(texts=texts, size=400, path=model, seed=0)
    dataset.build(prepare_dir=folder, data_dir=folder / "tfds")
    return {"tfds_dir": folder / "tfds", "vocabulary": model}


@pytest.fixture(scope="module")
def sids():
    return np.random.default_rng(0).integers(0, SIZES, (ITEMS, 3)).astype(np.int32)


TRAINED = [query for query in range(QUERIES) if query % 4 < 2]
RELEVANT = {(query, query + step) for query in TRAINED for step in range(2)}


def _padded(pieces, length):
    return tuple(([*pieces, *[0] * length])[:length])


def test_query_item_is_the_relevant_training_pairs(run):
    lengths = {"query": 6, "item": 9}  # the titles are cut, the queries padded
    rows = tasks.tokenised(task=tasks.query_item(**run), lengths=lengths)
    assert rows.num_rows == len(RELEVANT)
    batch = next(tasks.batches(rows=rows, batch_size=len(RELEVANT), seed=0))
    found = list(zip(batch["query_index"].tolist(), batch["item_index"].tolist(), strict=True))
    assert sorted(found) == sorted(RELEVANT)
    for row, (query, item) in enumerate(found):
        pieces, titles = vocabulary.encode(run["vocabulary"], [_query(query), _text(item)])
        assert tuple(batch["query"][row]) == _padded(pieces, 6)
        assert tuple(batch["item"][row]) == _padded(titles, 9)
        assert batch["weight"][row] == 1 + query
    assert batch["query"].dtype == batch["item"].dtype == np.int32


def test_query_sid_targets_and_weights(run, sids):
    task = tasks.query_sid(**run, sids=sids, sizes=SIZES)
    rows = tasks.tokenised(task=task, lengths=LENGTHS)
    batch = next(tasks.batches(rows=rows, batch_size=len(RELEVANT), seed=0))
    text_pieces = vocabulary.size(run["vocabulary"])
    first = [text_pieces, text_pieces + SIZES[0], text_pieces + SIZES[0] + SIZES[1]]
    expected = []
    for query, item in RELEVANT:
        (pieces,) = vocabulary.encode(run["vocabulary"], [_query(query)])
        targets = tuple(start + code for start, code in zip(first, sids[item], strict=True))
        weight = (1.0 if item == query else 0.5) * (1 + query)
        expected.append((_padded(pieces, 12), targets, weight))
    found = zip(
        map(tuple, batch["inputs"].tolist()),
        map(tuple, batch["targets"].tolist()),
        batch["weight"].tolist(),
        strict=True,
    )
    assert sorted(found) == sorted(expected)


def test_title_sid_covers_the_catalogue(run, sids):
    task = tasks.title_sid(**run, sids=sids, sizes=SIZES)
    rows = tasks.tokenised(task=task, lengths={"inputs": 30, "targets": 3})
    assert rows.num_rows == ITEMS
    batch = next(tasks.batches(rows=rows, batch_size=ITEMS, seed=0))
    titles = vocabulary.encode(run["vocabulary"], [_text(item) for item in range(ITEMS)])
    codes = batch["targets"] - vocabulary.size(run["vocabulary"]) - np.array([0, 4, 12])
    found = zip(map(tuple, batch["inputs"].tolist()), codes.tolist(), strict=True)
    expected = [
        (_padded(pieces, 30), sid.tolist()) for pieces, sid in zip(titles, sids, strict=True)
    ]
    assert sorted(found) == sorted(expected)
    assert (batch["weight"] == 1).all()


def test_mixture_draws_by_rate(run, sids):
    mixture = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=0.25)
    rows = tasks.tokenised(task=mixture, lengths=LENGTHS)
    assert rows.num_rows == len(RELEVANT) + ITEMS
    taken = itertools.islice(tasks.batches(rows=rows, batch_size=50, seed=0), 80)
    titles = {
        _padded(pieces, 12)
        for pieces in vocabulary.encode(run["vocabulary"], [_text(item) for item in range(ITEMS)])
    }
    drawn = [tuple(row) in titles for batch in taken for row in batch["inputs"].tolist()]
    # 4000 draws: a standard error of .007.
    assert abs(np.mean(drawn) - 0.25) < 0.03


@pytest.mark.parametrize("in_memory", [2**18, 7], ids=["in memory", "through a buffer"])
@pytest.mark.parametrize("mixed", [False, True], ids=["task", "mixture"])
def test_a_stream_from_any_step_is_the_uninterrupted_one(run, sids, mixed, in_memory, monkeypatch):
    monkeypatch.setattr(tasks, "IN_MEMORY_ROWS", in_memory)
    shared = {**run, "sids": sids, "sizes": SIZES}
    task = tasks.text_sid(**shared, title_rate=0.4) if mixed else tasks.query_sid(**shared)
    rows = tasks.tokenised(task=task, lengths=LENGTHS)
    again = tasks.tokenised(task=task, lengths=LENGTHS)  # as after a restart

    def stream(rows, start, seed=5):
        return tasks.batches(rows=rows, batch_size=6, seed=seed, start_step=start)

    whole = list(itertools.islice(stream(rows, 0), 20))  # several epochs, borders within batches
    for start in range(18):
        for step, batch in zip(range(start, start + 2), stream(again, start), strict=False):
            for name in batch:
                np.testing.assert_array_equal(batch[name], whole[step][name])
    other = list(itertools.islice(stream(rows, 0, seed=6), 20))
    assert any((a["inputs"] != b["inputs"]).any() for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize("in_memory", [2**18, 7], ids=["in memory", "through a buffer"])
def test_every_epoch_visits_every_row_in_its_own_order(run, in_memory, monkeypatch):
    monkeypatch.setattr(tasks, "IN_MEMORY_ROWS", in_memory)
    lengths = {"query": 6, "item": 9}
    rows = tasks.tokenised(task=tasks.query_item(**run), lengths=lengths)
    taken = itertools.islice(tasks.batches(rows=rows, batch_size=4, seed=0), 15)
    pairs = [
        pair
        for batch in taken
        for pair in zip(batch["query_index"].tolist(), batch["item_index"].tolist(), strict=True)
    ]
    epochs = [pairs[start : start + 20] for start in (0, 20, 40)]
    for epoch in epochs:
        assert collections.Counter(epoch) == collections.Counter(RELEVANT)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_tasks_fit_seqio_and_its_feature_converters(run, sids):
    import seqio

    mixture = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=0.5)
    assert isinstance(mixture, seqio.Mixture)
    converted = seqio.get_dataset(
        mixture_or_task_name=mixture,
        task_feature_lengths={"inputs": 12, "targets": 3},
        feature_converter=seqio.EncDecFeatureConverter(pack=False),
        shuffle=False,
        num_epochs=1,
    )
    row = next(converted.as_numpy_iterator())
    assert row["encoder_input_tokens"].shape == (12,)
    assert (row["decoder_target_tokens"] >= vocabulary.size(run["vocabulary"])).all()


def test_generator_features_repeat_the_weight_per_level():
    batch = {
        "inputs": np.array([[5, 0], [6, 7]]),
        "targets": np.array([[10, 14, 22], [11, 15, 23]]),
        "weight": np.array([1.0, 0.5], np.float32),
    }
    features = tasks.generator_features(batch)
    assert features["encoder_input_tokens"].tolist() == [[5, 0], [6, 7]]
    assert features["decoder_target_tokens"].tolist() == [[10, 14, 22], [11, 15, 23]]
    assert features["decoder_loss_weights"].tolist() == [[1.0] * 3, [0.5] * 3]


def test_bad_input_is_named(run, sids, tmp_path):
    with pytest.raises(InputError, match=r"title_rate = 1\.5"):
        tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=1.5)
    items = {"item_index": pa.array([0], pa.int64()), "text": ["a"]}
    judgements = {
        "query_index": pa.array([0, 1, 2], pa.int64()),
        "item_index": pa.array([0, 0, 0], pa.int64()),
        "query": ["x", "y", "z"],
        "gain": pa.array([0, 0, 0], pa.float32()),
        "relevant": [False, False, False],
        "weight": pa.array([1, 1, 1], pa.float32()),
        "split": ["train", "head", "test"],
    }
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    pq.write_table(pa.table(judgements), tmp_path / "judgements.parquet")
    dataset.build(prepare_dir=tmp_path, data_dir=tmp_path / "tfds")
    task = tasks.query_item(tfds_dir=tmp_path / "tfds", vocabulary=run["vocabulary"])
    with pytest.raises(InputError, match="no training rows"):
        tasks.tokenised(task=task, lengths={"query": 6, "item": 9})
