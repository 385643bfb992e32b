"""What stage prepare refuses before it reads anything."""

from __future__ import annotations

import math

import pytest

from dsirm_jax.ingestion.grading.clicks import ClickModel
from dsirm_jax.ingestion.grading.labels import Grades
from dsirm_jax.ingestion.prepare import prepare
from dsirm_jax.io.errors import InputError
from tests.ingestion.shop_rows import GAINS, SETTINGS, Rows


@pytest.mark.parametrize(
    ("bindings", "message"),
    [
        pytest.param(
            {"relevant_labels": ("good",)},
            "relevant_labels has 'good', which is none",
            id="unknown relevant label",
        ),
        pytest.param({"relevant_labels": ()}, "relevant_labels", id="no relevant label"),
        pytest.param(
            {"item_text": ("brand",)},
            "item_text is .*; bind @item_text.ItemText()",
            id="item_text that is names alone",
        ),
        pytest.param(
            {"relevant_labels": "E"},
            "relevant_labels is 'E'; bind a tuple",
            id="relevant_labels as text",
        ),
        pytest.param(
            {"relevant_labels": tuple(GAINS)},
            "relevant_labels .* not all",
            id="all labels relevant",
        ),
        pytest.param(
            {"label_gains": {}}, "label_gains is {}; bind two labels or more", id="no gains"
        ),
        pytest.param(
            {"label_gains": {"E": 1.0}}, "label_gains is .* bind two labels or more", id="one gain"
        ),
        pytest.param(
            {"label_gains": GAINS | {"": 0.5}}, "label_gains has the label ''", id="empty label"
        ),
        pytest.param(
            {"label_gains": GAINS | {"E ": 0.5}},
            "label_gains has the label 'E '",
            id="label with a space",
        ),
        pytest.param(
            {"label_gains": GAINS | {1: 0.5, "1.00": 0.6}},
            "label_gains has the labels 1 and '1.00', which are equal as numbers",
            id="labels that are equal as numbers",
        ),
        pytest.param(
            {"label_gains": GAINS | {None: 0.5}},
            "label_gains has the label None",
            id="label that is neither text nor number",
        ),
        pytest.param(
            {"label_gains": Grades},
            "label_gains is .*Grades.*; bind two labels or more",
            id="class as label_gains",
        ),
        pytest.param(
            {"judgement_aggregation": "median"},
            "judgement_aggregation is 'median'; bind 'majority', 'mean', 'highest', 'lowest' or "
            "'latest'",
            id="unknown judgement_aggregation",
        ),
        pytest.param(
            {"clicks": ClickModel},
            "clicks is .*ClickModel.*; bind @clicks.ClickModel",
            id="class as clicks",
        ),
        pytest.param(
            {"label_gains": GAINS | {"E": math.nan}}, r"label_gains\['E'\] is nan", id="nan gain"
        ),
        pytest.param(
            {"label_gains": GAINS | {"E": math.inf}},
            r"label_gains\['E'\] is inf",
            id="infinite gain",
        ),
        pytest.param(
            {"label_gains": GAINS | {"E": -1}}, r"label_gains\['E'\] is -1", id="negative gain"
        ),
        pytest.param(
            {"label_gains": GAINS | {"E": "1"}}, r"label_gains\['E'\] is '1'", id="gain as text"
        ),
        pytest.param(
            {"test_share": 1.0},
            "test_share is 1.0; bind a number above 0, below 1",
            id="test_share of one",
        ),
        pytest.param({"test_share": math.nan}, "test_share is nan", id="nan test_share"),
        pytest.param({"test_share": True}, "test_share is True", id="test_share as bool"),
        pytest.param({"head_share": 0}, "head_share is 0", id="head_share of zero"),
        pytest.param({"head_share": -0.1}, "head_share is -0.1", id="negative head_share"),
        pytest.param({"head_share": "0.4"}, "head_share is '0.4'", id="head_share as text"),
        pytest.param(
            {"item_copies": "newest"}, "item_copies is 'newest'", id="unknown item_copies"
        ),
        pytest.param(
            {"max_rejected_share": math.nan},
            "max_rejected_share is nan",
            id="nan max_rejected_share",
        ),
        pytest.param(
            {"max_rejected_share": 1.01},
            "max_rejected_share is 1.01",
            id="max_rejected_share above one",
        ),
        pytest.param(
            {"max_rejected_share": -0.01},
            "max_rejected_share is -0.01",
            id="negative max_rejected_share",
        ),
        pytest.param(
            {"vocabulary_size": 0},
            "vocabulary_size is 0; bind a whole number of at least 1",
            id="vocabulary_size of zero",
        ),
        pytest.param(
            {"vocabulary_size": 300.5}, "vocabulary_size is 300.5", id="fraction as vocabulary_size"
        ),
        pytest.param({"workers": 0}, "workers is 0", id="no workers"),
        pytest.param({"memory_limit": ""}, "memory_limit is ''", id="empty memory_limit"),
        pytest.param(
            {"fold": (5, 5)}, r"fold is \(5, 5\); bind \(k, n\)", id="fold beyond the last"
        ),
        pytest.param({"fold": (-1, 5)}, r"fold is \(-1, 5\)", id="negative fold"),
        pytest.param({"fold": (0, 1)}, r"fold is \(0, 1\)", id="one fold"),
        pytest.param({"fold": (0.5, 5)}, r"fold is \(0.5, 5\)", id="fraction as fold"),
        pytest.param({"fold": (1, 2, 3)}, r"fold is \(1, 2, 3\)", id="fold of three numbers"),
        pytest.param({"fold": 3}, "fold is 3", id="fold of one number"),
        pytest.param({}, "source is None; bind a reader", id="no source"),
        pytest.param({"source": Rows}, "source is .*Rows.*; bind a reader", id="class as source"),
    ],
)
def test_bindings_are_checked_before_anything_is_read(tmp_path, bindings, message):
    with pytest.raises(InputError, match=rf"^gin binding prepare\.run\.{message}") as error:
        prepare(**({"source": None, "out_dir": tmp_path} | SETTINGS | bindings))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
