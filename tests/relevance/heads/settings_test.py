"""Settings out of range name their gin binding, and what to bind instead."""

from __future__ import annotations

import math

import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.choice import Choice
from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.mlp import Mlp
from dsirm_jax.relevance.heads.trees import BoostedTrees

NAN, INF = math.nan, math.inf
KINDS = (Mlp, BoostedTrees, Linear)


NEEDED = {Choice: {"rivals": (Linear(),)}}


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        pytest.param(
            Mlp, "hidden", [(), (0,), (-8,), (8.5,), (True,), [64, 32], 64], id="Mlp hidden"
        ),
        pytest.param(BoostedTrees, "trees", [0, -1, 1.5, NAN], id="BoostedTrees trees"),
        pytest.param(
            BoostedTrees, "learning_rate", [0.0, -0.1, NAN, INF], id="BoostedTrees learning_rate"
        ),
        pytest.param(BoostedTrees, "leaves", [1, 33, 6.5, NAN], id="BoostedTrees leaves"),
        pytest.param(BoostedTrees, "min_leaf", [0, 2.5, NAN], id="BoostedTrees min_leaf"),
        pytest.param(BoostedTrees, "l2", [-1.0, NAN, INF], id="BoostedTrees l2"),
        pytest.param(BoostedTrees, "columns", [0.0, -0.3, 1.1, NAN], id="BoostedTrees columns"),
        pytest.param(LambdaMart, "trees", [0, -1, 1.5, NAN], id="LambdaMart trees"),
        pytest.param(LambdaMart, "first_ranks", [0, 2.5, NAN], id="LambdaMart first_ranks"),
        *(
            pytest.param(kind, name, [-1.0, NAN, INF], id=f"{kind.__name__} {name}")
            for kind in (Linear, Mlp)
            for name in ("listwise", "pairwise")
        ),
        *(pytest.param(kind, "loss", ["ranking"], id=f"{kind.__name__} ranking") for kind in KINDS),
        pytest.param(Linear, "l2", [0.0, -1.0, NAN, INF], id="Linear l2"),
        pytest.param(Linear, "knots", [1, 2.5, NAN], id="Linear knots"),
        *(
            pytest.param(kind, "loss", ["hinge", "", None], id=f"{kind.__name__} loss")
            for kind in KINDS
        ),
        pytest.param(Blend, "heads", [(), [Mlp()], Mlp()], id="Blend heads"),
        pytest.param(Choice, "folds", [0, 1, 2.5, NAN], id="Choice folds"),
        pytest.param(Choice, "metric", ["ndcg", None], id="Choice metric"),
        pytest.param(Calibration, "kind", ["platt", None], id="Calibration kind"),
        pytest.param(Calibration, "folds", [1, -2, 2.5, NAN], id="Calibration folds"),
        pytest.param(Calibration, "share", [1.0, -0.1, NAN], id="Calibration share"),
    ],
)
def test_a_setting_out_of_range(kind, name, values):
    for value in values:
        with pytest.raises(InputError) as caught:
            kind(**NEEDED.get(kind, {}), **{name: value})
        said = f"gin binding {kind.__name__}.{name} is {value!r}; bind "
        assert str(caught.value).startswith(said)
        assert len(str(caught.value)) > len(said)


def test_the_ends_of_the_ranges_are_in_them():
    Mlp(hidden=(1,), listwise=0.0)
    BoostedTrees(trees=1, leaves=2, min_leaf=1, l2=0.0, columns=1.0)
    BoostedTrees(leaves=32, l2=0, learning_rate=1)
    Linear(l2=1e-9, knots=2)
    Calibration(folds=0, share=0.0)
    Calibration(folds=2, share=0.99)


@pytest.mark.parametrize(
    "value", [None, Mlp, "Mlp", Calibration()], ids=["none", "class", "text", "calibration"]
)
def test_what_a_blend_can_not_hold(value):
    with pytest.raises(InputError, match=r"gin binding Blend.heads\[1\] is .*; bind a head"):
        Blend(heads=(Mlp(), value))


def test_a_blend_has_one_loss():
    with pytest.raises(InputError, match="heads of the losses binary, graded; bind heads of one"):
        Blend(heads=(Mlp(), BoostedTrees(loss="graded")))
    assert Blend(heads=(Mlp(loss="graded"),)).loss == "graded"


@pytest.mark.parametrize(
    "head",
    [Mlp(), BoostedTrees(), Linear(), Blend(heads=(Mlp(),)), LambdaMart(start=Linear())],
    ids=["Mlp", "BoostedTrees", "Linear", "Blend", "LambdaMart"],
)
def test_a_kind_is_a_head_that_can_be_hashed(head):
    assert isinstance(head, Head)
    assert len({head, head}) == 1


def test_a_choice_is_between_heads():
    for value in ((), [Linear()], Linear()):
        with pytest.raises(
            InputError, match="gin binding Choice.rivals is .*; bind a tuple of one"
        ):
            Choice(rivals=value)
    with pytest.raises(InputError, match=r"gin binding Choice.rivals\[1\] is .*; bind a head"):
        Choice(rivals=(Linear(), Linear))


def test_grades_of_a_linear_head_have_no_loss_within_queries():
    with pytest.raises(InputError, match="gin binding Linear.loss is 'graded'; bind 'binary' or"):
        Linear(loss="graded", pairwise=1.0)
    Mlp(loss="graded", pairwise=1.0)
