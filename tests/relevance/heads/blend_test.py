from __future__ import annotations

import jax
import numpy as np
import pytest

from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.trees import BoostedTrees
from tests.relevance.heads.labelled import FITTING, TRAINING, labelled

PARTS = (Linear(), BoostedTrees(trees=5, min_leaf=5), Mlp(hidden=(4,)))


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 3))
    return labelled(features, features[:, 0] + generator.normal(size=200) > 0, grades=2)


def test_a_blend_is_the_mean_of_its_heads(pairs, tmp_path):
    fitting = FITTING._replace(directory=tmp_path)
    blend = Blend(heads=PARTS)
    params = blend.fit(pairs, fitting)
    found = blend.outputs(params, pairs.features, grades=2)
    alone = [
        head.outputs(
            head.fit(pairs, fitting._replace(directory=tmp_path / "alone")),
            pairs.features,
            grades=2,
        )
        for head in PARTS
    ]
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-6)
    assert (tmp_path / "part_2/checkpoints").is_dir()


def test_blends_of_blends_weigh_their_parts(pairs):
    one, other = PARTS[:2]
    nested = Blend(heads=(one, Blend(heads=(one, other))))
    found = nested.outputs(nested.fit(pairs, FITTING), pairs.features, grades=2)
    parts = [
        np.asarray(head.outputs(head.fit(pairs, FITTING), pairs.features, grades=2))
        for head in (one, other)
    ]
    np.testing.assert_allclose(found, 0.75 * parts[0] + 0.25 * parts[1], atol=1e-6)


def test_its_steps_are_those_of_its_networks():
    described = {"rows": 100, "features": 3, "relevant": (False, True)}
    large = Mlp(hidden=(32,))
    blend = Blend(heads=(*PARTS, Blend(heads=(large,))))
    found = blend.step_programs(TRAINING, **described)
    expected = [*PARTS[2].step_programs(TRAINING, **described)]
    expected += large.step_programs(TRAINING, **described)
    shapes = [jax.tree.leaves(program.state.params) for program in (*found, *expected)]
    assert shapes[:2] == shapes[2:]
    assert Blend(heads=PARTS[:2]).step_programs(TRAINING, **described) == ()


@pytest.mark.parametrize("loss", ["binary", "graded"])
@pytest.mark.parametrize("kind", [Linear, BoostedTrees, Mlp])
def test_a_head_tells_the_shapes_of_its_parameters(kind, loss, tmp_path):
    generator = np.random.default_rng(1)
    grades = 3
    pairs = labelled(
        generator.normal(size=(120, 4)), generator.integers(grades, size=120), grades=grades
    )
    head = Blend(heads=(kind(loss=loss),))
    params = head.fit(pairs, FITTING._replace(directory=tmp_path))
    like = head.params_like(features=4, grades=grades)
    assert jax.tree.structure(like) == jax.tree.structure(params)
    for one, other in zip(jax.tree.leaves(like), jax.tree.leaves(params), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    outputs = head.outputs(params, pairs.features, grades=grades)
    assert outputs.shape == (120, grades if loss == "graded" else 1)
