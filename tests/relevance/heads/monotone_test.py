"""Heads that may only rise, or only fall, with a feature of a name."""

from __future__ import annotations

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.trees import BoostedTrees
from tests.relevance.heads.labelled import FITTING, labelled

KINDS = (BoostedTrees, Linear, LambdaMart)
IDS = [kind.__name__ for kind in KINDS]
OF_COLUMNS = FITTING._replace(columns=("one", "two", "three"), elsewhere=frozenset(["prefix_1"]))


def pairs(rows=2000):
    generator = np.random.default_rng(0)
    features = generator.normal(size=(rows, 3)).astype(np.float32)
    quality = features @ [1, -1, 0.5] + np.sin(4 * features[:, 0]) + generator.normal(size=rows)
    return labelled(features, (quality > 0).astype(int), grades=2)


def swept(head, params, column):
    """Returns outputs of some pairs `[pair, value]` as one feature goes through all its values."""
    asked = np.repeat(pairs().features[:30], 61, axis=0)
    asked[:, column] = np.tile(np.linspace(-3, 3, 61), 30)
    return np.asarray(head.outputs(params, asked, grades=2)).reshape(30, 61)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_outputs_hold_to_the_directions_even_against_the_pairs(kind):
    # `two` falls in truth, and `three` rises: one of them is held against it.
    head = kind(rising=("one", "two", "prefix_1"), falling=())
    params = head.fit(pairs(), OF_COLUMNS)
    for column in (0, 1):
        assert (np.diff(swept(head, params, column), axis=1) >= -1e-6).all()
    free = kind()
    assert (np.diff(swept(free, free.fit(pairs(), OF_COLUMNS), 1), axis=1) < -1e-4).any()


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_directions_that_the_truth_has_cost_little(kind):
    of = pairs()
    loss = []
    for head in (kind(), kind(rising=("three",), falling=("two",))):
        params = head.fit(of, OF_COLUMNS)
        scores = np.asarray(head.outputs(params, of.features, grades=2))[:, 0]
        wins = scores[of.labels][:, None] > scores[~of.labels]
        loss.append(1 - wins.mean())
    assert loss[1] < loss[0] + 0.01


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_name_that_no_rung_has_is_an_error(kind):
    said = rf"{kind.__name__}.falling names 'cosin'; bind features of a rung, .*one, two, three"
    with pytest.raises(InputError, match=said):
        kind(falling=("cosin",)).fit(pairs(), OF_COLUMNS)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_directions_are_names_and_do_not_contradict_each_other(kind):
    with pytest.raises(InputError, match=f"gin binding {kind.__name__}.rising is 'one'; bind a tu"):
        kind(rising="one")
    with pytest.raises(InputError, match=f"gin binding {kind.__name__}.falling is .*none of the"):
        kind(rising=("one",), falling=("two", "one"))


@pytest.mark.parametrize("kind", [BoostedTrees, Linear], ids=IDS[:2])
def test_grades_have_no_direction(kind):
    with pytest.raises(InputError, match=f"gin binding {kind.__name__}.loss is 'graded'"):
        kind(loss="graded", rising=("one",))
