"""Tasks: what needs no tables."""

import math

import numpy as np
import pytest

from dsirm_jax.data import tasks
from dsirm_jax.io.errors import InputError


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


def test_generator_features_of_several_sids_have_an_axis_for_them():
    batch = {
        "inputs": np.array([[5, 0], [6, 7]]),
        "targets": np.array([[10, 14, 11, 15], [11, 15, 11, 15]]),
        "weight": np.array([[1.0, 0.5], [2.0, 0.0]], np.float32),
    }
    features = tasks.generator_features(batch)
    expected = [[[10, 14], [11, 15]], [[11, 15], [11, 15]]]
    assert features["decoder_target_tokens"].tolist() == expected
    expected = [[[1.0] * 2, [0.5] * 2], [[2.0] * 2, [0.0] * 2]]
    assert features["decoder_loss_weights"].tolist() == expected


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None])
def test_sids_of_a_query_are_one_or_more(value):
    with pytest.raises(InputError, match="Curriculum.sids_of_query is .*; bind a whole number"):
        tasks.Curriculum(sids_of_query=value)


@pytest.mark.parametrize("value", [1.5, 1.0, -0.1, math.nan, "half", None, True])
@pytest.mark.parametrize("name", ["title_rate", "title_first"])
def test_shares_of_a_curriculum_are_below_one(name, value):
    message = f"gin binding Curriculum.{name} is {value!r}; bind a number of at least 0, below 1"
    with pytest.raises(InputError, match=f"^{message}$"):
        tasks.Curriculum(**{name: value})
