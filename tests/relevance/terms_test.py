from __future__ import annotations

from dsirm_jax.relevance import terms

NAMES = terms.names_in(
    brands=["Acme", "ACME", "North & South", None, "A very long name of a shop"],
    colours=["Navy Blue", "red", "", "Red, Green, Blue, Black and White"],
)


def test_names_of_a_catalogue():
    assert NAMES.brands == {"acme", "north south"}
    assert NAMES.colours == {"navy blue", "red"}


def test_without_a_language_there_is_no_type():
    one = terms.terms_in("Red Shoe", title="Red Shoe", names=NAMES, language=None)
    assert one.type == frozenset()


def test_words_are_read_in_normal_form():
    plain = terms.terms_in(
        "red ACME shoe 12 in", title="red acme shoe 12 in", names=NAMES, language="en"
    )
    for text in ("Ｒed Acme™ shoe １２″", "red acme® shoe 12\N{NO-BREAK SPACE}”"):
        found = terms.terms_in(text, title=text, names=NAMES, language="en")
        for name in ("brands", "colours", "numbers", "amounts", "units", "type"):
            assert getattr(found, name) == getattr(plain, name), name
    half = terms.terms_in("pan 9½ inch", title="pan", names=NAMES, language="en")
    assert half.amounts == {"91⁄2 in"}
    assert terms.terms_in("chair № 5", title="", names=NAMES, language="en").negated == frozenset()
