from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.text import clean


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param("plain title", "plain title", id="plain"),
        pytest.param("  two\t words\r\n\u00a0 ", "two words", id="whitespace"),
        pytest.param(
            "AT&amp;T &quot;x&quot; &#39;y&#x27; 5&nbsp;kg", "AT&T \"x\" 'y' 5 kg", id="entities"
        ),
        pytest.param("&amp;&amp;&amp;lt;b", "&&<b", id="nested entities"),
        pytest.param("twice &amp;amp; &amp;lt;b&amp;gt;bold", "twice & bold", id="twice escaped"),
        pytest.param("<p>One</p><BR/>two <a href='x'>three</a>", "One two three", id="tags"),
        pytest.param(
            "a<style>.x{color:red}</style>b<!-- note -->c", "a b c", id="style and comment"
        ),
        pytest.param(
            "size <10 and >5, <Logo> black&copper AT&T a&b;",
            "size <10 and >5, <Logo> black&copper AT&T a&b;",
            id="loose angle brackets",
        ),
        pytest.param(
            "nul\x00 bell\x07 zero\u200bwidth \ufeffbom \u202eright\u202c",
            "nul bell zerowidth bom right",
            id="control characters",
        ),
        pytest.param(
            "كتاب 📚 👩\u200d🔬 日本語", "كتاب 📚 👩\u200d🔬 日本語", id="scripts and emoji"
        ),
        pytest.param("<>", "<>", id="empty tag"),
        pytest.param(" \x00 <br> &nbsp; ", "", id="nothing left"),
    ],
)
def test_known_texts(raw, expected):
    assert clean(raw) == expected


PIECES = st.sampled_from(
    [
        "<b>",
        "</b>",
        "<",
        ">",
        "&",
        "amp;",
        "&lt;",
        "&gt;",
        "&#60;",
        ";",
        "\x00",
        " ",
        "\n",
        "b",
        "<!--",
        "-->",
    ]
)


@settings(deadline=None, max_examples=200)
@given(st.text() | st.lists(PIECES, max_size=8).map("".join))
def test_cleaning_is_idempotent_and_leaves_no_control_characters(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert cleaned == " ".join(cleaned.split())
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in cleaned)


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param("<", id="angle bracket"),
        pytest.param("<!--", id="comment"),
        pytest.param("<script>", id="script"),
        pytest.param("&amp;", id="named entity"),
        pytest.param("&#38;", id="numbered entity"),
        pytest.param("<a ", id="open tag"),
        pytest.param("&", id="ampersand"),
        pytest.param("\x00", id="nul"),
    ],
)
def test_hostile_text_of_a_million_characters_is_cleaned(piece):
    # Patterns that backtrack over the rest of the text would take hours here.
    text = piece * (1_000_000 // len(piece))
    assert len(clean(text)) <= len(text)


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="&<")))
def test_plain_text_loses_spaces_alone(text):
    assert clean(text) == " ".join(text.split())
