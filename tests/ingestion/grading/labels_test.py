"""Labels are compared as numbers and as words, and never taken for one of two."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.ingestion.grading.labels import Grades, LabelTable, labels_of
from dsirm_jax.ingestion.numbers import readings, whole_number
from dsirm_jax.io.errors import InputError


def name_of(labels, text):
    """Returns the prepared label of a text, or None."""
    grade = labels.grade(text)
    if grade is None:
        return None
    rows = labels.rows([grade])
    return dict(zip(rows["grade"].to_pylist(), rows["label"].to_pylist()))[grade]


@pytest.mark.parametrize(
    ("names", "text", "label"),
    [
        ("0|2", "2", "2"),
        ("0|2", "2.0", "2"),
        ("0|2", "2.000", "2"),
        ("0|2", "+2", "2"),
        ("0|2", "02", "2"),
        ("0|2", "2e0", "2"),
        ("0|2", "2,0", "2"),
        ("0|2", "-0.0", "0"),
        ("0|2", "2.1", None),
        ("0|2", "two", None),
        ("0|2", "2_0", None),
        ("0|2", "inf", None),
        ("0|2", "2,000", "2"),
        ("0|2000", "2,000", "2000"),
        ("0|2|2000", "2,000", None),
        ("0.0|0.5", "0,5", "0.5"),
        ("0.0|0.5", ".5", "0.5"),
        ("0|1", "true", "1"),
        ("0|1", "False", "0"),
        ("True|False", "true", "True"),
        ("True|False", "0", "False"),
        ("Exact|Irrelevant", "EXACT", "Exact"),
        ("Exact|Irrelevant", "exac", None),
        ("not relevant|relevant", "Not  Relevant", "not relevant"),
        ("e|E", "e", "e"),
        ("e|E|x", "E", "E"),
        ("ab|AB", "Ab", None),
        ("nan|1", "NaN", "nan"),
    ],
)
def test_a_label_is_that_which_is_equal_as_a_number_or_a_word(names, text, label):
    names = names.split("|")
    labels = LabelTable(gains=dict.fromkeys(names, 1.0), relevant=names[:1])
    assert name_of(labels, text) == label


def test_labels_in_any_unicode_form():
    labels = LabelTable(gains={"Größe": 1.0, "2": 0.5, "x": 0.0}, relevant=("x",))
    assert [name_of(labels, text) for text in ("GRÖSSE", "Gro\u0308ße", "\uff12", "\u0661")] == [
        *("Größe", "Größe", "2", None)
    ]


def test_labels_that_are_bound_as_numbers_and_truth_values():
    graded = LabelTable(gains={0: 0.0, 0.5: 0.3, 2.0: 1.0}, relevant=(2,))
    assert [name_of(graded, text) for text in ("2", "0.50", "0,0", "1")] == ["2", "0.5", "0", None]
    truth = LabelTable(gains={True: 1.0, False: 0.0}, relevant=(True,))
    assert [name_of(truth, text) for text in ("FALSE", "1")] == ["False", "True"]


@given(st.floats(0, 1e6), st.sampled_from(["{!r}", "{:.1f}", "{:.3e}", "+{:.4f}"]))
def test_what_is_equal_as_a_number_has_one_grade(number, spelling):
    text = spelling.format(number)
    labels = LabelTable(gains={float(text): 1.0, "other": 0.0}, relevant=("other",))
    assert labels.grade(text) == labels.grade(repr(float(text))) != labels.grade("other")


def test_rows_say_what_each_label_is_worth_the_lowest_first():
    labels = LabelTable(gains={2: 1.0, "0": 0, True: 0.25}, relevant=("1", 2.0))
    assert labels.names == ("2", "0", "True")
    assert labels.rows().to_pylist() == [
        {"grade": 0.0, "label": "0", "gain": 0.0, "relevant": False},
        {"grade": 1.0, "label": "True", "gain": 0.25, "relevant": True},
        {"grade": 2.0, "label": "2", "gain": 1.0, "relevant": True},
    ]


def test_the_nearest_label_of_a_mean_gain_and_of_a_tie_the_lower():
    labels = LabelTable(gains={"0": 0.0, "1": 0.3, "2": 1.0}, relevant=("2",))
    rows = labels.mean_rows([0.1, 0.15, 0.16, 0.65, 2 / 3])
    assert rows["label"].to_pylist() == ["0", "0", "1", "1", "2"]
    assert rows["gain"].to_pylist() == [0.1, 0.15, 0.16, 0.65, 2 / 3]
    assert rows["relevant"].to_pylist() == [False, False, False, False, True]


def test_grades_are_relevant_from_a_number_and_their_gain_is_linear():
    labels = Grades(relevant_from=2.33, least=1.0, most=3.0)
    grades = [labels.grade(text) for text in ("1", "2,33", "2.330", "3.00")]
    assert grades == [1.0, 2.33, 2.33, 3.0]
    rows = labels.rows([1.0, 2.0, 2.33, 3.0])
    assert rows["label"].to_pylist() == ["1", "2", "2.33", "3"]
    assert rows["gain"].to_pylist() == pytest.approx([0, 0.5, 0.665, 1])
    assert rows["relevant"].to_pylist() == [False, False, True, True]
    assert [labels.grade(text) for text in ("0.9", "3.1", "good", "nan")] == [None] * 4
    means = labels.mean_rows([0.665, 1.9 / 3])
    assert means["label"].to_pylist() == ["2.33", "2.266667"]
    assert means["relevant"].to_pylist() == [True, False]


def test_a_comma_that_may_be_two_things_is_a_grade_only_within_the_bounds():
    assert Grades(relevant_from=1).grade("1,333") is None
    assert Grades(relevant_from=1, most=3).grade("1,333") == 1.333
    assert Grades(relevant_from=1200, least=1000).grade("1,333") == 1333


@pytest.mark.parametrize(
    ("relevant_from", "least", "most", "message"),
    [
        (0, 0, None, "labels.Grades.relevant_from is 0; bind a number above 0"),
        (float("nan"), 0, None, "labels.Grades.relevant_from is nan"),
        (4, 0, 3, "labels.Grades.relevant_from is 4"),
        (2, 3, 1, "labels.Grades.most is 1"),
        (2, float("-inf"), None, "labels.Grades.least is -inf"),
    ],
)
def test_bounds_of_grades(relevant_from, least, most, message):
    with pytest.raises(InputError, match=message):
        Grades(relevant_from=relevant_from, least=least, most=most)


def test_labels_of_another_kind_are_taken_as_they_are():
    grades = Grades(relevant_from=2)
    assert labels_of(grades, ("1",)) is grades
    assert labels_of({0: 0, 1: 1}, (1,)).rows().schema.types[0] == pa.float64()


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,204", "1.204 1204.0"),
        ("1,204.5", "1204.5"),
        ("1.204,5", "1204.5"),
        ("1,5", "1.5"),
        ("0,500", "0.5"),
        ("12,34,5", ""),
        ("1e400", ""),
        ("", ""),
    ],
)
def test_readings_of_a_number(text, numbers):
    assert readings(text) == tuple(map(float, numbers.split()))


def test_counts_with_grouped_thousands():
    assert [whole_number(text) for text in ("12.0", "1,204,000", "5.5", "x")] == [
        *(12, 1204000, None, None)
    ]
