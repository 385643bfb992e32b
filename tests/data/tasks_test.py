"""Tasks: the right pairs and tokens, in an order that a resumed run repeats."""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest

from dsirm_jax.data import tasks, vocabulary
from dsirm_jax.data.task_blocks import read_block
from dsirm_jax.data.vocabularies.prompt import Prompted
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.batches import in_stages
from dsirm_jax.training.settings import Training
from tests.data.task_rows import (
    ITEMS,
    LENGTHS,
    QUERIES,
    RELEVANT,
    SIZES,
    build,
    example,
    item_text,
    padded,
    query_text,
)


def test_query_item_is_the_relevant_training_pairs(run):
    lengths = {"query": 6, "item": 9}  # the titles are cut, the queries padded
    task = tasks.query_item(**run)
    assert tasks.num_rows(task) == len(RELEVANT)
    batch = next(tasks.batches(task=task, lengths=lengths, batch_size=len(RELEVANT), seed=0))
    pairs = list(zip(batch["query_index"].tolist(), batch["item_index"].tolist(), strict=True))
    assert sorted(pairs) == sorted(RELEVANT)
    for row, (query, item) in enumerate(pairs):
        pieces, titles = vocabulary.text_pieces(
            run["vocabulary"], [query_text(query), item_text(item)]
        )
        assert tuple(batch["query"][row]) == padded(pieces, 6)
        assert tuple(batch["item"][row]) == padded(titles, 9)
        assert batch["weight"][row] == 1 + query
    assert batch["query"].dtype == batch["item"].dtype == np.int32


def test_rows_of_some_queries_alone_are_read(run, sids):
    some = np.arange(QUERIES) % 8 == 0
    expected = {pair for pair in RELEVANT if some[pair[0]]}
    task, lengths = tasks.query_item(**run), {"query": 6, "item": 9}
    drawn = {"task": task, "lengths": lengths, "seed": 0, "queries": some}
    assert tasks.num_rows(task, queries=some) == len(expected) == 6
    # Two epochs, in blocks of which some have no row left.
    both = next(tasks.batches(**drawn, batch_size=12, block_rows=2))
    pairs = list(zip(both["query_index"].tolist(), both["item_index"].tolist(), strict=True))
    assert sorted(pairs[:6]) == sorted(pairs[6:]) == sorted(expected)
    first = tasks.first_epoch(**drawn, batch_size=4)
    whole = next(tasks.batches(**drawn, batch_size=4))
    assert len(first) == 1
    np.testing.assert_array_equal(first[0]["query_index"], whole["query_index"])
    assert len(tasks.first_epoch(**drawn, batch_size=8)) == 1
    others = tasks.num_rows(task, queries=~some)
    assert others == len(RELEVANT) - 6
    mixed = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=0.5)
    assert tasks.num_rows(mixed, queries=some) == 6 + ITEMS  # titles are of no query
    with pytest.raises(InputError, match="query_item: no row is of the selected queries"):
        tasks.num_rows(task, queries=np.zeros(QUERIES, bool))


def test_the_generators_rows_are_parted_by_query(run, queries, sids):
    training = Training(epochs=1, batch_size=4, learning_rate=1e-3, held_out=0.3)
    arguments = {
        **run,
        "sids": sids,
        "sizes": SIZES,
        "prompted": Prompted(vocabulary=SentencePiece.read(run["vocabulary"]), most=12),
        "curriculum": tasks.Curriculum(title_rate=0),
        "queries": queries,
        "judgements": run["tfds_dir"].parent / "examples.parquet",
        "seed": 1,
    }
    batches, rows, held_out = tasks.text_sid_batches(**arguments, training=training)
    learnt = list(itertools.islice(batches(0), -(-rows // 4)))

    def texts(drawn):
        return {tuple(row) for batch in drawn for row in batch["encoder_input_tokens"].tolist()}

    assert texts(held_out) and not texts(held_out) & texts(learnt)
    training = dataclasses.replace(training, held_out=0.0)
    batches, whole, nothing = tasks.text_sid_batches(**arguments, training=training)
    assert nothing == [] and whole == len(RELEVANT) > rows
    everything = itertools.islice(batches(0), -(-whole // 4))
    assert texts(held_out) | texts(learnt) <= texts(everything)


def test_query_sid_targets_and_weights(run, sids):
    task = tasks.query_sid(**run, sids=sids, sizes=SIZES)
    batch = next(tasks.batches(task=task, lengths=LENGTHS, batch_size=len(RELEVANT), seed=0))
    text_pieces = vocabulary.size(run["vocabulary"])
    first = [text_pieces, text_pieces + SIZES[0], text_pieces + SIZES[0] + SIZES[1]]
    expected = []
    for query, item in RELEVANT:
        (pieces,) = vocabulary.text_pieces(run["vocabulary"], [query_text(query)])
        targets = tuple(start + code for start, code in zip(first, sids[item], strict=True))
        weight = (1.0 if item == query else 0.5) * (1 + query)
        expected.append((padded(pieces, 12), targets, weight))
    rows = zip(
        map(tuple, batch["inputs"].tolist()),
        map(tuple, batch["targets"].tolist()),
        batch["weight"].tolist(),
        strict=True,
    )
    assert sorted(rows) == sorted(expected)


def test_title_sid_covers_the_catalogue(run, sids):
    task = tasks.title_sid(**run, sids=sids, sizes=SIZES)
    assert tasks.num_rows(task) == ITEMS
    lengths = {"inputs": 30, "targets": 3}
    batch = next(tasks.batches(task=task, lengths=lengths, batch_size=ITEMS, seed=0))
    titles = vocabulary.text_pieces(run["vocabulary"], [item_text(item) for item in range(ITEMS)])
    codes = batch["targets"] - vocabulary.size(run["vocabulary"]) - np.array([0, 4, 12])
    rows = zip(map(tuple, batch["inputs"].tolist()), codes.tolist(), strict=True)
    expected = [
        (padded(pieces, 30), sid.tolist()) for pieces, sid in zip(titles, sids, strict=True)
    ]
    assert sorted(rows) == sorted(expected)
    assert (batch["weight"] == 1).all()


@pytest.mark.parametrize("title_rate", [0.25, 0.5, 0.37])
def test_a_mixture_has_its_rates_at_every_step(run, sids, title_rate):
    mixture = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=title_rate)
    assert tasks.num_rows(mixture) == len(RELEVANT) + ITEMS
    lengths = {"inputs": 30, "targets": 3}
    taken = itertools.islice(tasks.batches(task=mixture, lengths=lengths, batch_size=7, seed=0), 40)
    pieces = vocabulary.text_pieces(run["vocabulary"], [item_text(item) for item in range(ITEMS)])
    titles = {padded(one, 30) for one in pieces}
    seen = collections.Counter()
    for step, batch in enumerate(taken, start=1):
        rows = [tuple(row) for row in batch["inputs"].tolist()]
        assert len(rows) == 7
        seen.update(row for row in rows if row in titles)
        assert abs(seen.total() - 7 * step * title_rate) <= 1
        # The titles have epochs of their own: none is seen again before all are.
        assert set(seen.values()) <= {seen.total() // ITEMS, math.ceil(seen.total() / ITEMS)}


def _kinds(run, sids):
    shared = {**run, "sids": sids, "sizes": SIZES}
    return {
        "task": lambda: tasks.query_sid(**shared),
        "mixture": lambda: tasks.text_sid(**shared, title_rate=0.4),
    }


@pytest.mark.parametrize("host, hosts", [(0, 1), (0, 3), (1, 3), (2, 3)])
@pytest.mark.parametrize("kind", ["task", "mixture"])
def test_a_stream_from_any_step_is_the_uninterrupted_one(run, sids, read_once, kind, host, hosts):
    """Of two epochs, whose borders lie within batches, with blocks of a few rows."""
    make = _kinds(run, sids)[kind]
    steps = 2 * tasks.num_rows(make()) // hosts // 3 + 1

    def stream(start, seed=5):
        return tasks.batches(
            task=make(),  # as after a restart
            lengths=LENGTHS,
            batch_size=3,
            seed=seed,
            start_step=start,
            host=host,
            hosts=hosts,
            block_rows=4,
            read=read_once,
        )

    whole = list(itertools.islice(stream(0), steps + 1))
    for start in range(steps):
        for step, batch in enumerate(itertools.islice(stream(start), 2), start):
            for name in whole[step]:
                np.testing.assert_array_equal(batch[name], whole[step][name])
    other = itertools.islice(stream(0, seed=6), steps + 1)
    assert any((a["inputs"] != b["inputs"]).any() for a, b in zip(whole, other, strict=True))


@pytest.mark.parametrize("hosts", [1, 3])
def test_two_restarts_within_an_epoch(run, hosts):
    lengths = {"query": 6, "item": 9}
    task = tasks.query_item(**run)
    for host in range(hosts):
        shared = {"lengths": lengths, "batch_size": 1, "seed": 5, "block_rows": 2}
        shared |= {"host": host, "hosts": hosts}
        whole = itertools.islice(tasks.batches(task=task, **shared), 6)
        pieces = [
            batch
            for start, stop in ((0, 2), (2, 3), (3, 6))
            for batch in itertools.islice(
                tasks.batches(task=task, start_step=start, **shared), stop - start
            )
        ]
        for one, other in zip(whole, pieces, strict=True):
            assert one["query_index"] == other["query_index"]
            assert one["item_index"] == other["item_index"]


@pytest.mark.parametrize("block_rows", [2**17, 4])
@pytest.mark.parametrize("hosts", [1, 3])
def test_every_epoch_visits_every_row_in_its_own_order(run, read_once, hosts, block_rows):
    epochs = collections.defaultdict(list)
    for host in range(hosts):
        rows = len(RELEVANT) * (host + 1) // hosts - len(RELEVANT) * host // hosts
        taken = tasks.batches(
            task=tasks.query_item(**run),
            lengths={"query": 6, "item": 9},
            batch_size=rows,
            seed=0,
            host=host,
            hosts=hosts,
            block_rows=block_rows,
            read=read_once,
        )
        for epoch, batch in enumerate(itertools.islice(taken, 3)):
            pairs = zip(batch["query_index"].tolist(), batch["item_index"].tolist(), strict=True)
            epochs[epoch] += pairs
    for pairs in epochs.values():
        assert collections.Counter(pairs) == collections.Counter(RELEVANT)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_restart_reads_one_block_and_an_only_block_is_read_once(run):
    reads = []

    def read(*arguments, queries):
        reads.append(arguments[-1])
        return read_block(*arguments, queries=queries)

    shared = {"task": tasks.query_item(**run), "lengths": {"query": 6, "item": 9}, "seed": 0}
    shared["read"] = read

    stream = tasks.batches(**shared, batch_size=2, start_step=13, block_rows=5)  # 4 blocks of 5
    next(stream)
    del stream  # which waits for the one that it reads ahead
    assert len(reads) == 2

    reads.clear()
    for _ in itertools.islice(tasks.batches(**shared, batch_size=8, start_step=3), 20):
        pass
    assert reads == [0]


@pytest.mark.parametrize(
    "room, least, most",
    [
        # The last block of an epoch may be the first of the next, and one may be read ahead.
        pytest.param(0, 19, 25, id="no room"),
        pytest.param(2**30, 4, 4, id="room for all"),
    ],
)
def test_blocks_are_read_once_where_they_have_room(run, read_once, room, least, most):
    reads = []

    def read(*arguments, queries):
        reads.append(arguments[-1])
        return read_once(*arguments, queries=queries)

    drawn = {"task": tasks.query_item(**run), "lengths": {"query": 6, "item": 9}, "seed": 0}
    shared = {"batch_size": 10, "block_rows": 5}  # 4 blocks, of 5 rows each
    kept = tasks.batches(**drawn, **shared, read=read, room=room)
    plain = tasks.batches(**drawn, **shared, read=read_once, room=0)
    for one, other in itertools.islice(zip(kept, plain, strict=True), 12):  # six epochs
        for name, values in other.items():
            np.testing.assert_array_equal(one[name], values, strict=True)
    assert least <= len(reads) <= most


@pytest.mark.parametrize("name", ["query_item", "query_sid", "title_sid"])
def test_a_block_is_what_seqio_deals_out(run, sids, name):
    import seqio

    lengths = {"query": 6, "item": 9} if name == "query_item" else {"inputs": 5, "targets": 3}
    shared = run if name == "query_item" else {**run, "sids": sids, "sizes": SIZES}
    task = getattr(tasks, name)(**shared)
    dealt = task.get_dataset(lengths, "train", shuffle=False)
    dealt = seqio.trim_and_pad_dataset(dealt, lengths).skip(3).take(8).batch(8)
    expected = next(dealt.as_numpy_iterator())
    block = read_block(task, [0, 3, 11], lengths, 1)
    assert block.keys() == expected.keys()
    for feature, values in expected.items():
        np.testing.assert_array_equal(block[feature], values, strict=True)


def test_titles_come_first_and_a_restart_in_either_stage_goes_on(run, sids, read_once):
    shared = {**run, "sids": sids, "sizes": SIZES}
    lengths = {"inputs": 30, "targets": 3}

    def batches(title_rate):
        return lambda start: tasks.batches(
            task=tasks.text_sid(**shared, title_rate=title_rate),
            lengths=lengths,
            batch_size=4,
            seed=3,
            start_step=start,
            read=read_once,
        )

    stream = in_stages(batches(1.0), batches(0.25), steps=5)
    whole = list(itertools.islice(stream(0), 12))
    pieces = vocabulary.text_pieces(run["vocabulary"], [item_text(item) for item in range(ITEMS)])
    titles = {padded(one, 30) for one in pieces}
    counts = [sum(tuple(row) in titles for row in batch["inputs"].tolist()) for batch in whole]
    assert counts == [4] * 5 + [1] * 7
    for start in range(11):
        for step, batch in enumerate(itertools.islice(stream(start), 2), start):
            for name in whole[step]:
                np.testing.assert_array_equal(batch[name], whole[step][name])


def test_a_rate_of_zero_or_one_is_a_single_task(run, sids):
    for title_rate, name in ((0, "query_sid"), (1, "title_sid")):
        task = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=title_rate)
        assert task.name == name


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


def test_bad_input_is_named(run, sids, tmp_path):
    examples = [example(query, query + 2) for query in range(4)]
    task = tasks.query_item(tfds_dir=build(tmp_path, examples), vocabulary=run["vocabulary"])
    with pytest.raises(InputError, match="no training rows"):
        tasks.num_rows(task)
    with pytest.raises(InputError, match="20 training rows for 21 hosts"):
        tasks.batches(
            task=tasks.query_item(**run),
            lengths={"query": 6, "item": 9},
            batch_size=1,
            seed=0,
            hosts=21,
        )
