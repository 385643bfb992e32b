"""Spellings of one query have one identity, and other queries have others."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsirm_jax.data import vocabulary
from dsirm_jax.data.identity import NEAR, PLAIN, QueryIdentity, identity_in, normal_form
from dsirm_jax.data.text import clean
from dsirm_jax.io.errors import InputError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).map(clean)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("red shoe", "Red Shoe"),
        ("red shoe", "RED\N{NO-BREAK SPACE}SHOE"),
        ("red shoe", "\N{FULLWIDTH LATIN SMALL LETTER R}ed shoe"),
        ("café", "CAFE\N{COMBINING ACUTE ACCENT}"),
        ("straße", "STRASSE"),
        ("ガラス", "ｶﾞﾗｽ"),
        ("ΣΟΦΟΣ", "σοφος"),
        ("istanbul", "ISTANBUL"),
    ],
    ids=["case", "no-break space", "full width", "accent", "sharp s", "kana", "sigma", "dotted i"],
)
def test_spellings_of_one_query(one, other):
    assert PLAIN.of(clean(one)) == PLAIN.of(clean(other))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("red kettle", "red kettle.", {"punctuation"}),
        ("red kettle", "red-kettle", {"punctuation"}),
        ("mens shoe", "men's shoe", {"punctuation"}),
        ("mens shoe", "men\N{RIGHT SINGLE QUOTATION MARK}s shoe", {"punctuation"}),
        ("red kettle", "kettle red", {"word_order"}),
        ("red kettle", "Kettle, red!", {"punctuation", "word_order"}),
        ("red kettle", "red kettles", None),
        ("1.5 l", "15 l", None),
        ("c++", "c", None),
        ("कि", "क", None),
    ],
    ids=[
        *("full stop", "hyphen", "apostrophe", "curly apostrophe", "order", "both", "plural"),
        *("decimals", "symbols", "vowel sign"),
    ],
)
def test_punctuation_and_the_order_of_words_count_unless_bound(one, other, alike):
    for punctuation in (False, True):
        for word_order in (False, True):
            identity = QueryIdentity(punctuation=punctuation, word_order=word_order)
            bound = {"punctuation"} & {"punctuation" if punctuation else ""}
            bound |= {"word_order"} & {"word_order" if word_order else ""}
            expected = alike is not None and alike <= bound
            assert (identity.of(one) == identity.of(other)) == expected


def test_what_is_nothing_but_punctuation_keeps_it():
    assert len({NEAR.of(text) for text in ("!!!", "???", "▁▁", "\N{ZERO WIDTH JOINER}")}) == 4


@given(TEXTS)
def test_an_identity_has_itself_and_holds_in_every_unicode_form(text):
    for identity in (PLAIN, NEAR):
        found = identity.of(text)
        assert identity.of(found) == found
        assert bool(found) == bool(text)
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            assert identity.of(clean(unicodedata.normalize(form, text))) == found


def test_queries_of_one_identity_have_the_same_pieces(tmp_path):
    words = ("red", "blue", "shoe", "mug", "ガラス", "straße", "café", "σοφος", "garden")
    path = tmp_path / "vocabulary.model"
    texts = (f"{a} {b}" for a in words for b in words)
    vocabulary.train_vocabulary(texts=texts, size=340, path=path, seed=0)
    spellings = ["Red  Shoe", "ｶﾞﾗｽ mug", "CAFE\N{COMBINING ACUTE ACCENT}", "blue\u3000GARDEN"]
    for text in spellings:
        assert vocabulary.text_pieces(path, [text]) == vocabulary.text_pieces(
            path, [normal_form(text)]
        )


def test_a_table_of_queries_says_by_which_identity_it_was_split(tmp_path):
    path, table = tmp_path / "queries.parquet", pa.table({"query": ["a"]})
    pq.write_table(table, path)
    assert identity_in(path) == PLAIN
    pq.write_table(table.replace_schema_metadata(NEAR.metadata()), path)
    assert identity_in(path) == NEAR


def test_spellings_have_one_number():
    numbers = PLAIN.numbers(["red shoe", "mug", "Red Shoe", "MUG", "lamp"])
    assert numbers.tolist() == [2, 1, 2, 1, 0]


@pytest.mark.parametrize("name", ["punctuation", "word_order"])
def test_what_is_no_truth_value_is_refused(name):
    with pytest.raises(InputError, match=f"QueryIdentity.{name} is 'yes'"):
        QueryIdentity(**{name: "yes"})
