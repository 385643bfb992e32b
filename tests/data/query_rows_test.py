"""Tasks whose rows are queries with several SIDs."""

import collections
import itertools

import numpy as np
import pytest

from dsirm_jax.data import tasks, vocabulary
from dsirm_jax.data.sid_sets import sid_sets
from dsirm_jax.data.vocabularies.prompt import Prompted
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.training.settings import Training
from tests.data.task_rows import (
    ITEMS,
    QUERIES,
    SIZES,
    TRAINED,
    padded,
    query_text,
)


@pytest.fixture(scope="module")
def judgements(run):
    """Where `query_item`'s pairs are read from, whatever their texts."""
    return run["tfds_dir"].parent / "examples.parquet"


@pytest.fixture(scope="module")
def sets(judgements, sids):
    return sid_sets(judgements, sids=sids, queries=QUERIES, most=3)


def test_a_query_is_one_row_with_its_sids(run, sids, sets):
    task = tasks.query_sid(**run, sids=sids, sizes=SIZES, several=sets)
    rows = tasks.num_rows(task, queries=sets.rows(None))
    assert rows == len(TRAINED)
    lengths = {"inputs": 12, "targets": 9}
    drawn = {"task": task, "lengths": lengths, "seed": 0, "queries": sets.rows(None)}
    batch = tasks.generator_features(next(tasks.batches(**drawn, batch_size=rows)))
    first = vocabulary.size(run["vocabulary"]) + np.array([0, 4, 12])
    found = {}
    for text, targets, weights in zip(*batch.values(), strict=True):
        sids_of_row = map(tuple, (targets - first).tolist())
        found[tuple(text)] = [
            (sid, weight[0]) for sid, weight in zip(sids_of_row, weights, strict=True) if weight[0]
        ]
        assert (weights == weights[:, :1]).all()
    expected = {}
    for query in TRAINED:
        (pieces,) = vocabulary.text_pieces(run["vocabulary"], [query_text(query)])
        weighed = collections.Counter()
        for step, gain in ((0, 1.0), (1, 0.5)):
            weighed[tuple(sids[query + step].tolist())] += gain * (1 + query)
        expected[padded(pieces, 12)] = weighed.most_common()
    assert found == expected


def test_titles_among_queries_have_one_sid_that_weighs(run, sids, sets):
    task = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=1, several=sets)
    lengths = {"inputs": 30, "targets": 9}
    drawn = tasks.batches(task=task, lengths=lengths, batch_size=ITEMS, seed=0)
    batch = tasks.generator_features(next(drawn))
    targets = batch["decoder_target_tokens"] - vocabulary.size(run["vocabulary"])
    found = sorted((targets - [0, 4, 12])[:, 0].tolist())
    assert found == sorted(sids.tolist())
    assert (batch["decoder_loss_weights"] == np.array([1, 0, 0])[:, None]).all()


@pytest.mark.parametrize("hosts", [1, 3])
def test_rows_of_queries_go_on_at_any_step_on_every_host(run, sids, sets, hosts):
    chosen, seen = sets.rows(np.arange(QUERIES) % 5 > 0), collections.Counter()
    shared = {"lengths": {"inputs": 30, "targets": 9}, "batch_size": 2, "seed": 5}

    def stream(host, start):
        mixture = tasks.text_sid(**run, sids=sids, sizes=SIZES, title_rate=0.5, several=sets)
        drawn = {"task": mixture, "queries": chosen, "host": host, "hosts": hosts}
        return tasks.batches(**shared, **drawn, start_step=start, block_rows=5)

    for host in range(hosts):
        whole = list(itertools.islice(stream(host, 0), 8))
        for step, batch in enumerate(itertools.islice(stream(host, 5), 3), 5):
            for name in batch:
                np.testing.assert_array_equal(batch[name], whole[step][name])
        if hosts == 1:  # one row a step is a query's
            seen.update(tuple(row) for batch in whole for row in batch["inputs"][:1].tolist())
    if hosts == 1:
        assert len(seen) == 8 == sum(item >= 0 for item in chosen.tolist())


def test_queries_held_out_are_rows_too(run, queries, judgements, sids):
    batches, rows, held_out = tasks.text_sid_batches(
        **run,
        sids=sids,
        sizes=SIZES,
        prompted=Prompted(vocabulary=SentencePiece.read(run["vocabulary"]), most=12),
        curriculum=tasks.Curriculum(title_rate=0, sids_of_query=2),
        training=Training(epochs=1, batch_size=2, learning_rate=1e-3, held_out=0.3),
        queries=queries,
        judgements=judgements,
        seed=1,
    )

    def texts(drawn):
        return [tuple(row) for batch in drawn for row in batch["encoder_input_tokens"].tolist()]

    learnt, measured = texts(itertools.islice(batches(0), rows // 2)), texts(held_out)
    assert len({*learnt}) == len(learnt) and not {*learnt} & {*measured}
    assert rows + len({*measured}) in (len(TRAINED), len(TRAINED) - 1)  # of an odd number
    assert held_out[0]["decoder_target_tokens"].shape == (2, 2, 3)
