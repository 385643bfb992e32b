from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dsirm_jax.relevance import groups
from dsirm_jax.relevance.features.group import ItemContext, QueryContext, SidContext
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.serving.bundle.manifest import DENSE_ONLY, FULL, FeatureColumn
from dsirm_jax.serving.scorer.judging import Judge
from dsirm_jax.sids.prefix_match import Beams
from tests.serving import tiny

LEXICAL = ("bm25", "bm25_share", "overlap", "coverage", "phrase", "query_length")
READ = {FULL: ("phrase", "pmi_3", "cosine"), DENSE_ONLY: ("cosine", "query_length")}
GROUPS = {FULL: ("dense", "lexical", "prefix"), DENSE_ONLY: ("dense", "lexical")}


@pytest.fixture(scope="module")
def heads():
    """Heads that read some columns of their groups, in an order of their own."""
    return {name: tiny.random_head(columns, seed=3) for name, columns in READ.items()}


def judge_of(heads):
    features = {
        name: tuple(FeatureColumn(name=column, group="", about="") for column in columns)
        for name, columns in READ.items()
    }
    settings = SimpleNamespace(groups=GROUPS, numbers=())
    return Judge(
        SimpleNamespace(settings=settings, sizes=tiny.SIZES, features=features), heads=heads
    )


@pytest.fixture(scope="module")
def judge(heads):
    return judge_of(heads)


def table(pairs):
    values = np.random.default_rng(0).normal(size=(pairs, 7)).astype(np.float32)
    return FeatureTable(
        names=("cosine", *LEXICAL), groups=("dense", *["lexical"] * 6), values=values
    )


@pytest.mark.parametrize("pairs", [1, 16, 20, 1500])
def test_without_sids_heads_may_read_a_few_columns_of_their_groups(judge, heads, pairs):
    dense = table(pairs)
    judged = judge.without_sids(dense)
    assert [feature.name for feature in judge.schema] == [
        "phrase",
        "pmi_3",
        "cosine",
        "query_length",
    ]
    np.testing.assert_array_equal(judged.features[:, [0, 2, 3]], dense.values[:, [5, 0, 6]])
    assert np.isnan(judged.features[:, 1]).all() and np.isnan(judged.full).all()
    # Whatever the order of the table, for columns are known by name.
    turned = judge.without_sids(dense.select(dense.names[::-1]))
    np.testing.assert_array_equal(turned.features, judged.features)
    expected = score(heads[DENSE_ONLY], dense)
    np.testing.assert_allclose(judged.dense_only, expected, atol=1e-6)


@pytest.mark.parametrize("pairs", [1, 16, 20, 1500])
def test_heads_that_compare_take_the_pairs_of_a_call_as_their_list(pairs):
    lists = {FULL: ("pmi_3",), DENSE_ONLY: ("query_length", "cosine")}
    heads = {
        name: tiny.random_head(columns, seed=3, in_lists=lists[name])
        for name, columns in READ.items()
    }
    dense = table(pairs)
    judged = judge_of(heads).without_sids(dense)
    expected = score(heads[DENSE_ONLY], dense, lists=np.zeros(pairs, int))
    np.testing.assert_allclose(judged.dense_only, expected, atol=1e-6)
    if pairs > 1:
        alone = score(heads[DENSE_ONLY], dense, lists=np.arange(pairs))
        assert np.abs(alone - expected).max() > 1e-3


@pytest.mark.parametrize("group", groups.reading("neighbour_sids"), ids=lambda group: group.name)
def test_groups_of_near_sids_read_neither_beams_nor_probabilities(group):
    random = np.random.default_rng(1)
    sids = random.integers(0, 3, (1, 5, 3)).astype(np.int32)
    near = random.integers(0, 3, (1, 7, 3)).astype(np.int32)
    found = []
    for value in (0.0, np.nan):
        beams = Beams(
            sids=np.full((1, 2, 3), int(value == 0), np.int32),
            log_probs=np.full((1, 2), value, np.float32),
            valid=np.full((1, 2), value == 0),
        )
        queries = QueryContext(
            beams=beams,
            near_sids=near,
            near_weights=np.full((1, 7), 0.1, np.float32),
            vote_sids=near,
            vote_weights=np.full((1, 7, 4), 0.2, np.float32),
        )
        probabilities = np.full((1, 5, 3), value, np.float32)
        items = ItemContext(sids=sids, log_probs=probabilities, log_shares=probabilities)
        found.append(np.asarray(group.compute(SidContext(queries, items))))
    assert np.isfinite(found[0]).all() and found[0].std() > 0
    np.testing.assert_array_equal(found[0], found[1])
