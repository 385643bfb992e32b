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
