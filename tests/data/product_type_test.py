from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.product_type import product_type

LONG = {
    "Acme Running Shoes for Men, Lightweight Mesh, Black (Size 9)": "shoe",
    "Half Gallon/64oz Motivational Water Bottle with Time Marker & Straw, BPA-Free": "bottle",
    "HWY 50 Wine Red Decorative Throw Pillow Covers 18x18 inch, for Couch Sofa, Pack of 2": "cover",
    "Zorvik Women's Faux Leather Leggings - Elastic Shaping | Black XL": "legging",
    "Utopia Pack of 8 Furniture Risers – Durable Plastic and Anti Slip Foam": "riser",
    "9-piece Japanese Chef Knife Set | Damascus Knife Set | Forged AUS10V Steel": "knife",
    "Chef'n 2 in 1 Garlic Press, Green": "press",
    "Pet Recovery Collar (L (Neck:13.5-19.0 in))": "collar",
    "【Upgraded】 Wireless Earbuds，Bluetooth 5.0": "earbud",
    "Toner Cartridge Compatible with HP 85A": "cartridge",
    "Acme Desk Lamp w/ Shade": "lamp",
    "Women’s Ankle Boots 7.5 M US": "boot",
    "Dish Soap, 12 Fl Oz": "soap",
    "1,000 Piece Jigsaw Puzzle": "puzzle",
    "Garden Hose 50 ft": "hose",
}
SHORT = {
    "T-Shirt": "shirt",
    "3D Printer": "printer",
    "armless slipper chair": "chair",
    "C2G 5m Cat5e Patch Cable": "cable",
    "48-Inch Computer Desk Black": "desk",
    "OKI 44059106 toner cartridge Original magenta 1 pc(s)": "cartridge",
    "Set of 6 Wine Glasses": "glass",
    "String Light": "light",
    "Thermostat": "thermostat",
}
FOLDED = [
    ("Running Shoes", "Running Shoe"),
    ("Wine Glasses", "Wine Glass"),
    ("Hair Brushes", "Hair Brush"),
    ("Tool Boxes", "Tool Box"),
    ("Watches", "Watch"),
    ("Car Batteries", "Car Battery"),
    ("Zip Hoodies", "Zip Hoodie"),
    ("Book Shelves", "Book Shelf"),
    ("Camera Lenses", "Camera Lens"),
    ("Storage Cases", "Storage Case"),
    ("Silk Ties", "Silk Tie"),
]


@pytest.mark.parametrize(
    ("title", "noun"),
    (LONG | SHORT).items(),
    ids=[f"{noun} {number}" for number, noun in enumerate((LONG | SHORT).values())],
)
def test_hand_written_titles(title, noun):
    assert product_type(title, language="en") == noun


@pytest.mark.parametrize(("plural", "singular"), FOLDED)
def test_plural_and_singular_are_one_type(plural, singular):
    assert product_type(plural, language="en") == product_type(singular, language="en")


@pytest.mark.parametrize("noun", ["Bus", "Dress", "Tennis", "Canvas", "Lens"])
def test_an_s_that_is_no_plural_stays(noun):
    assert product_type(noun, language="en") == noun.lower()


def test_a_lone_word_before_a_dash_is_rather_a_brand():
    assert product_type("Zorvik - Garden Hose", language="en") == "hose"
    assert product_type("Zorvik - Hose", language="en") == "zorvik"


@pytest.mark.parametrize("title", ["", "12 oz", "(Shoe)", "Black, XL", "!!!", "B08K2S9X7Q"])
def test_a_title_without_a_noun_has_no_type(title):
    assert product_type(title, language="en") is None


@pytest.mark.parametrize("language", [None, "es", "ja", "EN", ""])
def test_other_languages_have_no_type(language):
    assert product_type("Zapatillas de deporte para hombre", language=language) is None


@settings(deadline=None, max_examples=60)
@given(
    before=st.sampled_from(["", "Acme ", "Acme XK-200 ", "(New) ", "2-Pack ", "18 inch "]),
    noun=st.sampled_from(["Chair", "Chairs", "chair", "CHAIRS"]),
    after=st.lists(
        st.sampled_from([", Black", " for Adults", " (Set of 4)", " 3-Pack", " Size 7.5", " XL"]),
        max_size=3,
    ),
)
def test_what_stands_around_the_noun_changes_nothing(before, noun, after):
    assert product_type(f"{before}Garden {noun}{''.join(after)}", language="en") == "chair"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60))
def test_any_text_has_one_word_or_none(title):
    noun = product_type(title, language="en")
    assert noun is None or (noun and not any(c.isspace() or c.isdecimal() for c in noun))
