"""Product types by the second rules: units, abbreviations, what noise is passed over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.data.product_type import has_rules, head_part, product_type, tag_of

RULES_2 = "en-x-rules2"
# Abbreviated units, whose dot ends no sentence.
UNITS = {
    "Zorvik 3 in. x 6 in. Glossy Wall Tile": "tile",
    "Zorvik 24 in. W x 30 in. H Medicine Cabinet": "cabinet",
    "Zorvik 36 in. W x 21 in. D x 34-1/2 in. H Bath Vanity": "vanity",
    "Zorvik 50 ft. Garden Hose": "hose",
    "Zorvik 5/8 in. Dia x 100 ft. Water Hose": "hose",
    "Zorvik 1-1/2 in. Slip Joint Trap": "trap",
    "Zorvik 1 1/2 in. Slip Joint Trap": "trap",
    "Zorvik 12 oz. Coffee Mug": "mug",
    "Zorvik 12 fl. oz. Dish Soap": "soap",
    "Zorvik 16 Fl Oz Hand Lotion": "lotion",
    "Zorvik 20 lb. Patio Gas Cylinder": "cylinder",
    "Zorvik 40 lbs. Grass Seed": "seed",
    "Zorvik 5 gal. Paint Bucket": "bucket",
    "Zorvik 5-Gal. Paint Bucket": "bucket",
    "Zorvik 1 Gal Exterior House Paint": "paint",
    "Zorvik Exterior House Paint 2 gals": "paint",
    "Zorvik 6 qt. Slow Cooker": "cooker",
    "Zorvik Slow Cooker 6 Qt": "cooker",
    "Zorvik 1 pt. Wood Stain": "stain",
    "Zorvik 10 sq. ft. Vinyl Plank": "plank",
    "Zorvik 2 cu. ft. Potting Soil": "soil",
    "Zorvik 15 Amp Wall Outlet": "outlet",
    "Zorvik Wall Outlet 15 amps": "outlet",
    "Zorvik 150 PSI Air Compressor": "compressor",
    "Zorvik Air Compressor 150 psi": "compressor",
    "Zorvik 1/2 HP Garbage Disposal": "disposal",
    "Zorvik Garbage Disposal .5 HP": "disposal",
    "Zorvik Window Air Conditioner 8000 BTU": "conditioner",
    "Zorvik 80 CFM Bath Fan": "fan",
    "Zorvik Bath Fan 80 CFM": "fan",
    "Zorvik Shower Head 1.8 GPM": "head",
    "Zorvik 800 Lumens LED Bulb": "bulb",
    "Zorvik LED Bulb 800 Lumen": "bulb",
    "Zorvik LED Bulb 2700 Kelvin": "bulb",
    "Zorvik Cordless Impact Driver 3000 RPM": "driver",
    "Zorvik Laser Printer 43 ppm": "printer",
    "Zorvik Network Card 1000 Mbit/s": "card",
    "Zorvik Power Supply 750 VA": "supply",
    "Zorvik Portable Power Station 512 Wh": "station",
    "Zorvik Patch Cable 50 Ohm": "cable",
    "Zorvik Sandpaper Sheet 120 Grit": "sheet",
    "Zorvik Speaker Wire 16 Gauge": "wire",
    "Zorvik 14 AWG Speaker Wire": "wire",
    "Zorvik Microfiber Cloth 300 GSM": "cloth",
    "Zorvik Trash Bag 1.1 Mil": "bag",
    "Zorvik Vitamin Gummies 60 Ct.": "gummy",
    "Zorvik Fish Oil, 120 softgels": "oil",
    "Zorvik Bath Tissue 12 Rolls": "tissue",
    "Zorvik Green Tea 20 Bags": "tea",
    "Zorvik Egg Timer 60 Min.": "timer",
    "Zorvik Wall Clock 24 Hour": "clock",
    "Zorvik Brad Pt. Drill Bit": "bit",
    "Zorvik Motor Oil, 5 qt.": "oil",
    "Zorvik Roof Rake 21 ft. Long": "long",
}
# Other abbreviations, and parts that say what a product is for.
OTHERS = {
    "St. Zorvik Garden Hose": "hose",
    "Mr. Zorvik Coffee Filter": "filter",
    "Dr. Zorvik Knee Brace": "brace",
    "Zorvik Inc. Garden Hose": "hose",
    "Zorvik Co. Card Game": "game",
    "Zorvik Rambler Jr. Kids Bottle": "bottle",
    "J. Zorvik Leather Belt": "belt",
    "Zorvik L.E. Wrestling Shoes": "shoe",
    "Zorvik Phone Case Fits Galaxy Phones": "case",
    "Zorvik Phone Case Designed for Galaxy": "case",
    "Zorvik Smart Thermostat Works with Hubs": "thermostat",
    "Zorvik Yarn Bundle Suitable for Knitting": "yarn",
    "Zorvik Office Chair. Comes with Wheels": "chair",
    "Zorvik Desk Lamp. Great Gift": "lamp",
    "Zorvik Desk Lamp w/ Shade": "lamp",
    "Zorvik Desk Lamp 60 W w/ Shade": "lamp",
    "Zorvik iPhone 12 in Black": "iphone",
    "Zorvik Knife Set No. 5": "knife",
    "Zorvik Corner Shelf, Approx. 30 in. Wide": "shelf",
}
# What the first rules say of the same titles was right already.
UNCHANGED = {
    "Zorvik Running Shoes for Men, 2-Pack, Black (Size 9)": "shoe",
    "Zorvik Dish Soap, 12 Fl Oz": "soap",
    "Set of 6 Wine Glasses": "glass",
    "Zorvik 2 in 1 Garlic Press, Green": "press",
    "1,000 Piece Jigsaw Puzzle": "puzzle",
    "Zorvik - Garden Hose": "hose",
    "T-Shirt": "shirt",
    "Thermostat": "thermostat",
}
TITLES = UNITS | OTHERS | UNCHANGED


@pytest.mark.parametrize(("title", "noun"), TITLES.items(), ids=list(TITLES))
def test_hand_written_titles(title, noun):
    assert product_type(title, language=RULES_2) == noun


@pytest.mark.parametrize(("title", "noun"), UNCHANGED.items(), ids=list(UNCHANGED))
def test_both_rules_agree_on_titles_without_abbreviations(title, noun):
    assert product_type(title, language="en") == noun


@pytest.mark.parametrize(
    ("title", "noun"),
    [
        pytest.param("Zorvik Flexible 50 ft. Garden Hose", "flexible", id="dot of a unit"),
        pytest.param("Zorvik Slow Cooker 6 Qt", "qt", id="missing unit"),
        pytest.param("Zorvik Inc. Garden Hose", "inc", id="abbreviation"),
    ],
)
def test_the_first_rules_stay_as_files_of_earlier_versions_have_them(title, noun):
    assert product_type(title, language="en") == noun


def test_a_tag_names_language_and_rules():
    assert tag_of("en", rules=1) == "en"
    assert tag_of("en", rules=2) == RULES_2
    assert tag_of(None, rules=2) is None
    assert [has_rules(tag) for tag in ("en", RULES_2)] == [True, True]
    for tag in (None, "", "es", "es-x-rules2", "en-x-rules3", "en-GB"):
        assert not has_rules(tag)
        assert product_type("Garden Hose", language=tag) is None


def test_noise_gives_way_to_the_noun_before_it_then_to_another_part():
    title = "Zorvik Drill Series, Power Tool"
    assert product_type(title, language=RULES_2, noise=()) == "series"
    assert product_type(title, language=RULES_2, noise=("series",)) == "drill"
    assert product_type(title, language=RULES_2, noise=("drill", "series", "zorvik")) == "tool"


def test_a_title_of_noise_alone_keeps_its_head():
    assert product_type("Zorvik Series", language=RULES_2, noise=("series", "zorvik")) == "series"


def test_the_head_part_is_of_several_words_where_there_is_one():
    assert head_part("Zorvik - Garden Hoses, Green", language=RULES_2) == ["garden", "hose"]
    assert head_part("Hoses", language=RULES_2) == ["hose"]
    assert head_part("12 oz.", language=RULES_2) == []


@settings(deadline=None, max_examples=60)
@given(
    amount=st.sampled_from(["3", "1/2", "1-1/2", "2.5", "1,000", "16"]),
    unit=st.sampled_from(["in", "ft", "oz", "lb", "gal", "qt", "sq ft", "fl oz", "psi", "amp"]),
    dot=st.sampled_from(["", "."]),
    between=st.sampled_from([" ", "-"]),
    behind=st.booleans(),
)
def test_an_amount_before_or_behind_the_noun_changes_nothing(amount, unit, dot, between, behind):
    amount = f"{amount}{between}{unit}{dot}"
    title = f"Zorvik Garden Chair {amount}" if behind else f"Zorvik {amount} Garden Chair"
    assert product_type(title, language=RULES_2) == "chair"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=60))
def test_any_text_has_one_word_or_none(title):
    noun = product_type(title, language=RULES_2)
    assert noun is None or (noun and not any(c.isspace() or c.isdecimal() for c in noun))
