from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest

from dsirm_jax.relevance.heads import mlp
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.training.loop import TrainState
from dsirm_jax.training.settings import make_optimizer
from tests.relevance.heads.labelled import FITTING, TRAINING, labelled


def shapes(tree):
    return jax.tree.map(lambda leaf: (tuple(leaf.shape), np.dtype(leaf.dtype)), tree)


@pytest.mark.parametrize(("grades", "listwise"), [(2, 0.0), (4, 1.0)])
def test_a_step_takes_what_it_says_and_training_gives_it_that(tmp_path, grades, listwise):
    generator = np.random.default_rng(0)
    pairs = labelled(
        generator.normal(size=(300, 5)), generator.integers(grades, size=300), grades=grades
    )
    head = Mlp(hidden=(8,), loss="graded", listwise=listwise)
    described = {"rows": len(pairs), "features": 5, "relevant": pairs.relevant}
    [(step, state, batch)] = head.step_programs(TRAINING, **described)
    # The first batch of the stream that `fit` reads, and a state made of arrays.
    size = TRAINING.batch_size
    stream = mlp.labelled_batches(pairs, 0, size=size, lists=bool(listwise), seed=0)
    first = next(stream)
    assert shapes(first) == shapes(batch)
    optimizer = make_optimizer(TRAINING, num_steps=TRAINING.num_steps(len(pairs)))
    params = mlp.initial_params(head, pairs.features, grades=grades, seed=0)
    real = TrainState(
        step=np.zeros((), np.int32), params=params, opt_state=optimizer.init(params.network)
    )
    assert shapes(real) == shapes(state)
    assert shapes(head.params_like(features=5, grades=grades)) == shapes(params)
    compiled = step.lower(state, batch).compile()
    after, metrics = compiled(jax.tree.map(jax.numpy.asarray, real), first)
    assert after.step == 1 and np.isfinite(metrics["loss"])
    learnt = head.fit(pairs, FITTING._replace(directory=tmp_path))
    assert shapes(learnt) == shapes(params)


def test_a_batch_numbers_its_queries_anew_and_keeps_the_rest():
    pairs = labelled(np.arange(12)[:, None], np.arange(12) % 2, grades=2, queries=[7] * 6 + [9] * 6)
    batch = next(mlp.labelled_batches(pairs, 0, size=6, lists=True, seed=0))
    assert set(batch["queries"]) == {0}
    rows = batch["features"][:, 0].astype(int)
    assert len(set(pairs.queries[rows])) == 1
    np.testing.assert_array_equal(batch["labels"], pairs.labels[rows])
    np.testing.assert_array_equal(batch["gains"], pairs.gains[rows])


def test_batches_of_queries_keep_their_pairs_together_and_lose_none():
    queries = np.array([2, 0, 2, 1, 0, 2])
    batches = mlp.query_batches(queries=queries, batch_size=6, seed=0)
    for _ in range(3):
        rows = next(batches)
        assert sorted(rows) == list(range(6))
        assert len(np.flatnonzero(np.diff(queries[rows]))) == 2
    later = mlp.query_batches(queries=queries, batch_size=4, seed=0, start=2)
    first = list(itertools.islice(mlp.query_batches(queries=queries, batch_size=4, seed=0), 4))
    for one, other in zip(first[2:], later, strict=False):
        np.testing.assert_array_equal(one, other)
