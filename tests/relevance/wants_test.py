"""What queries ask for and items have: texts and negations by hand, kinds of the shop's facts."""

from __future__ import annotations

import pytest

from dsirm_jax.metrics.fine_grained import HAS, HAS_ANOTHER, UNKNOWN
from dsirm_jax.relevance.terms import names_in
from dsirm_jax.relevance.wants import (
    BRAND,
    COLOUR,
    NEGATION,
    NUMBER,
    OTHER,
    SIZE,
    item_of,
    shop_item,
    shop_kind,
    shop_states,
    sizes_in,
    wants_in,
)

NAMES = names_in(brands=["Acme", "Zorvik Home"], colours=["Red", "Blue", "Dark Blue"])


def state(query, text, *, brand=None):
    """Returns the states of an item in what a query asks for, by kind."""
    item = item_of(text, brand=brand, names=NAMES)
    return {want.kind: want.state_of(item) for want in wants_in(query, names=NAMES)}


@pytest.mark.parametrize(
    ("query", "text", "brand", "states"),
    [
        pytest.param("acme mug", "Mug", "ACME", {BRAND: HAS}, id="brand"),
        pytest.param("acme mug", "Acme style Mug", "Other", {BRAND: HAS_ANOTHER}, id="other brand"),
        pytest.param("acme mug", "Acme Mug", None, {BRAND: UNKNOWN}, id="brand not known"),
        pytest.param("red mug", "Mug, Red", None, {COLOUR: HAS}, id="colour"),
        pytest.param("red mug", "Blue Mug", None, {COLOUR: HAS_ANOTHER}, id="other colour"),
        pytest.param("red mug", "Mug", None, {COLOUR: UNKNOWN}, id="colour not known"),
        pytest.param("shirt xl", "Shirt X-Large XL", None, {SIZE: HAS}, id="size"),
        pytest.param("shirt small", "Shirt Medium", None, {SIZE: HAS_ANOTHER}, id="other size"),
        pytest.param("boots size 9", "Boots Size 9", None, {SIZE: HAS}, id="number of a size"),
        pytest.param("boots size 9", "Boots", None, {SIZE: UNKNOWN}, id="size not known"),
        pytest.param("64 gb card", "Card 64GB", None, {NUMBER: HAS}, id="number"),
        pytest.param("64 gb card", "Card 32 GB", None, {NUMBER: HAS_ANOTHER}, id="other number"),
        pytest.param("64 gb card", "Card 10 m", None, {NUMBER: UNKNOWN}, id="other unit"),
        pytest.param(
            "2 m 5 w cable", "Cable 2 m, 5 W", None, {NUMBER: HAS}, id="both of two numbers"
        ),
        pytest.param(
            "2 m 5 w cable", "Cable 2 m, 6 W", None, {NUMBER: HAS_ANOTHER}, id="one of two numbers"
        ),
        pytest.param("tee without pocket", "Tee", None, {NEGATION: HAS}, id="negation, unnamed"),
        pytest.param(
            "tee without pocket", "Tee, no Pocket", None, {NEGATION: HAS}, id="negation, negated"
        ),
        pytest.param(
            "tee no pocket", "Tee with Pocket", None, {NEGATION: HAS_ANOTHER}, id="negation, named"
        ),
        pytest.param(
            "sugar free gum", "Gum with Sugar", None, {NEGATION: HAS_ANOTHER}, id="x free"
        ),
        pytest.param("sugar-free gum", "Sugar-Free Gum", None, {NEGATION: HAS}, id="x-free"),
        pytest.param(
            "mug without red",
            "Red Mug",
            None,
            {NEGATION: HAS_ANOTHER},
            id="a colour that is not wanted",
        ),
        pytest.param("mug", "Red Mug", "Acme", {}, id="nothing"),
    ],
)
def test_states_by_hand(query, text, brand, states):
    assert state(query, text, brand=brand) == states


def test_a_query_asks_for_several_kinds():
    states = state("red acme mug 12 oz without lid", "Blue Mug 12 oz with lid", brand="Acme")
    assert states == {BRAND: HAS, COLOUR: HAS_ANOTHER, NUMBER: HAS, NEGATION: HAS_ANOTHER}


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("Size 7.5 Shoes", {"7.5"}),
        ("Shirt, Medium", {"m"}),
        ("Shirt Size M", {"m"}),
        ("Shirt 2XL", {"2xl"}),
        ("Shirt XXL", {"2xl"}),
        ("Queen Sheets", {"queen"}),
        ("S Hook", set()),
        ("Resize Tool", set()),
    ],
    ids=["number", "word", "letter", "2XL", "XXL", "bed", "a hook", "a part of a word"],
)
def test_sizes(text, sizes):
    assert sizes_in(text) == sizes


@pytest.mark.parametrize(
    ("fact", "kind"),
    [
        ("brand=Veltano", BRAND),
        ("colour=black", COLOUR),
        ("hair_colour=blonde", COLOUR),
        ("shade=nude", COLOUR),
        ("size=medium", SIZE),
        ("shoe_size=size 9", SIZE),
        ("storage=128gb", NUMBER),
        ("pack=2 pack", NUMBER),
        ("feature=without lid", NEGATION),
        ("feature=with lid", OTHER),
        ("fabric=wool", OTHER),
    ],
)
def test_kinds_of_the_shops_facts(fact, kind):
    assert shop_kind(fact) == kind


def test_states_of_the_shops_items():
    facts = ("fabric=wool", "feature=without pocket", "brand=Veltano")
    items = [
        shop_item("t-shirt", facts),
        shop_item("t-shirt", ("fabric=linen", "feature=with pocket")),
        shop_item("t-shirt", ("fabric=wool",)),
        shop_item("lamp", facts),
    ]
    query = "lambswool tee without pocket"
    kinds, states = shop_states(query, items)
    of_kind = {kind: [row[place] for row in states] for place, kind in enumerate(kinds)}
    assert of_kind == {
        OTHER: [HAS, HAS_ANOTHER, HAS, UNKNOWN],
        NEGATION: [HAS, HAS_ANOTHER, UNKNOWN, UNKNOWN],
    }
    assert shop_states("tee", items) is None
    assert shop_states("nothing of the kind", items) is None
