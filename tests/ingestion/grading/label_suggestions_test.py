"""Gains that are suggested for labels of well-known words, and for numbers."""

from __future__ import annotations

import pytest

from dsirm_jax.ingestion.grading.label_suggestions import suggest_gains

WORDS = {
    "ESCI": (["E", "I", "S", "C"], {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}, ["E"]),
    "ESCI in lower case, without C": (
        ["i", "e", "s"],
        {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0},
        ["E"],
    ),
    "WANDS": (
        ["Exact", "Partial", "Irrelevant"],
        {"Exact": 1.0, "Partial": 0.5, "Irrelevant": 0.0},
        ["Exact"],
    ),
    "WANDS in mixed case": (
        ["EXACT", "exact", " partial "],
        {"Exact": 1.0, "Partial": 0.5, "Irrelevant": 0.0},
        ["Exact"],
    ),
    "ESCI in words": (
        ["Exact", "Substitute", "Irrelevant"],
        {"Exact": 1.0, "Substitute": 0.1, "Complement": 0.01, "Irrelevant": 0.0},
        ["Exact"],
    ),
    "three of five": (
        ["bad", "fair", "good"],
        {"Perfect": 1.0, "Excellent": 0.75, "Good": 0.5, "Fair": 0.25, "Bad": 0.0},
        ["Good"],
    ),
    "yes and no, and rows without": (["yes", "no", "", "N/A", "nan"], {"Yes": 1, "No": 0}, ["Yes"]),
}


@pytest.mark.parametrize("case", WORDS, ids=str)
def test_known_words_have_their_gains_in_any_case(case):
    labels, gains, relevant = WORDS[case]
    found = suggest_gains(labels)
    assert dict(found.gains) == gains
    assert list(found.relevant) == relevant


NUMBERS = {
    "none, one, two": (["2", "0", "1"], {"0": 0.0, "1": 0.5, "2": 1.0}, ["2"]),
    "one to five": (
        ["1", "2", "3", "4", "5"],
        {"1": 0.0, "2": 0.25, "3": 0.5, "4": 0.75, "5": 1.0},
        ["4", "5"],
    ),
    "other spellings of a number": (["0.0", "0", "2,0", "2"], {"0": 0.0, "2": 1.0}, ["2"]),
    "below nothing": (["-1", "0", "1"], {"-1": 0.0, "0": 0.5, "1": 1.0}, ["1"]),
    "truth values": (["True", "FALSE"], {"0": 0.0, "1": 1.0}, ["1"]),
    "thirds": (["0", "1", "3"], {"0": 0.0, "1": 0.3333, "3": 1.0}, ["3"]),
    "beside rows without": (["0", "null", " ", "1"], {"0": 0.0, "1": 1.0}, ["1"]),
}


@pytest.mark.parametrize("case", NUMBERS, ids=str)
def test_numbers_have_a_linear_gain_and_the_upper_half_is_relevant(case):
    labels, gains, relevant = NUMBERS[case]
    found = suggest_gains(labels)
    assert dict(found.gains) == gains
    assert list(found.relevant) == relevant


def test_many_numbers_are_grades():
    means = ["1", "1.25", "1.33", "1.5", "1.67", "1.75", "2", "2.25", "2.33", "2.5", "2.67", "3.0"]
    found = suggest_gains(means)
    assert found.gains is None
    # Of a scale from 1 to 3, 2 is in the middle.
    assert list(found.relevant) == ["2.25"]
    assert (found.least, found.most) == (1.0, 3.0)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([], id="none"),
        pytest.param(["", "nan"], id="no label at all"),
        pytest.param(["E"], id="one word"),
        pytest.param(["exact", "EXACT"], id="one word in two cases"),
        pytest.param(["1"], id="one number"),
        pytest.param(["1", "1.0"], id="one number in two forms"),
        pytest.param(["good", "great"], id="unknown words"),
        pytest.param(["Exact", "Partial", "Wrong"], id="known words and another"),
        pytest.param(["0", "1", "x"], id="numbers and a word"),
        pytest.param(["0", "1,204"], id="a number of two readings"),
    ],
)
def test_nothing_is_suggested_without_a_reason(labels):
    assert suggest_gains(labels) is None
