"""Noise words of small catalogues, by hand and against a count of every pair."""

from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data import title_types
from dsirm_jax.data.title_types import TitleTypes, noise_words, sampled, types_of_catalogue

RULES_2 = "en-x-rules2"
TYPES = ["lamp", "chair", "hose", "mug", "shoe", "belt", "drill", "saw", "tile", "rug", "fan"]


def parts_with(word, *, beside, heads):
    """Returns parts in which a word stands before each of some types, and ends `heads` of them."""
    return [[word, type_] for type_ in beside] + [["old", word]] * heads


def test_a_word_that_stands_by_many_types_and_hardly_ends_a_part_is_noise():
    assert noise_words(parts_with("series", beside=TYPES * 2, heads=1)) == ("series",)


@pytest.mark.parametrize(
    "parts",
    [
        # 2 of 24 parts: .083
        pytest.param(parts_with("series", beside=TYPES * 2, heads=2), id="head too often"),
        # 9 types
        pytest.param(parts_with("phone", beside=TYPES[:9] * 3, heads=1), id="beside few types"),
        # exp(entropy) of 190 : 1 x 10 is 1.4
        pytest.param(
            parts_with("cable", beside=["tie"] * 190 + TYPES[:10], heads=1), id="mostly by one"
        ),
        pytest.param(parts_with("series", beside=TYPES * 2, heads=0), id="never a head"),
        pytest.param(parts_with("series", beside=TYPES[:8], heads=1), id="few titles"),
        pytest.param([], id="no titles"),
    ],
)
def test_a_word_without_that_spread_is_none(parts):
    assert noise_words(parts) == ()


def counted(parts, word):
    """Returns whether a word is noise, from the definition."""
    with_word = [part for part in parts if word in part]
    others = [part[-1] for part in with_word if part[-1] != word]
    own = len(with_word) - len(others)
    if own == 0 or len(with_word) < 10 or not own / len(with_word) < 0.05:
        return False
    shares = [others.count(head) / len(others) for head in set(others)]
    return math.prod(share**-share for share in shares) >= 10


@settings(deadline=None, max_examples=40)
@given(
    heads=st.lists(st.sampled_from([*TYPES, "series"]), max_size=120),
    often=st.integers(0, 40),
)
def test_noise_is_what_the_definition_says(heads, often):
    parts = [["series", head] for head in heads] + [["series", head] for head in TYPES] * often
    words = {word for part in parts for word in part}
    assert noise_words(parts) == tuple(sorted(word for word in words if counted(parts, word)))


def test_titles_of_a_catalogue_say_what_is_noise():
    titles = [f"Zorvik Series {noun.title()}, {colour}" for noun, colour in product(TYPES, "ABCD")]
    types = types_of_catalogue([*titles, "Tall Lamp Series"], language=RULES_2)
    assert types == TitleTypes(language=RULES_2, noise=("series",))
    assert types.of("Wide Fan Series") == "fan"
    assert types.of("Series 7") == "series"


@pytest.mark.parametrize("language", ["en", "es", None])
def test_the_first_rules_and_other_languages_know_no_noise(language):
    titles = [f"Zorvik Series {noun}" for noun in TYPES * 4] + ["Tall Lamp Series"]
    assert types_of_catalogue(titles, language=language) == TitleTypes(language=language)


def test_a_sample_does_not_depend_on_the_order():
    titles = [f"lamp {number}" for number in range(1000)]
    some = sampled(titles, most=100)
    assert 90 < len(some) <= 200
    assert set(some) <= set(titles)
    assert sorted(sampled(reversed(titles), most=100)) == sorted(some)
    assert sampled(titles) == titles
    assert len(titles) < title_types.SAMPLE_TITLES
