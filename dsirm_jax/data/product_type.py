"""What kind of product a title names: its head noun, found by rules and without labels."""

from __future__ import annotations

import re

ENGLISH = "en"

_BRACKETS_DEEP = 2
_BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|（[^（）]*）|【[^【】]*】")
# A run of digits is looked at once, from its start: hostile text costs linear time.
_NUMBER = r"(?<![\d.,/x×-])\d[\d.,/x×-]*"
_UNIT = (
    "inch(?:es)?|in|feet|foot|ft|yards?|yd|[mck]?m|ounces?|oz|lbs?|pounds?|grams?|[mk]?g|mcg|[mc]?l|"
    "lit(?:er|re)s?|gallons?|quarts?|pints?|volts?|v|watts?|w|amps?|mah|[kmg]?hz|[kmgt]b|dpi|iu|"
    "degrees?|count|ct|packs?|pk|pieces?|pcs?|sets?|pairs?|sheets?|servings?|capsules?|tablets?|"
    "years?|months?|days?"
)
# "set of 6", "size 7.5", "2 in 1", "12 fl oz"
_AMOUNT = re.compile(
    rf"\b(?:set|pack|case|box|bundle|lot|pair)s?\s+of\s+{_NUMBER}"
    rf"|\b(?:sizes?|no|vol|volume)\b\.?\s*{_NUMBER}"
    r"|(?<!\d)\d+[\s-]?in[\s-]?\d+"
    rf"|{_NUMBER}[\s-]?(?:(?:fl|sq|cu)\.?\s)?(?:{_UNIT})\b"
)
# Further sizes and model numbers.
_WITH_DIGIT = re.compile(r"(?<!\S)[^\s\d]*\d\S*")
# Here ends what the product is and begins what it is for, has, is made of or goes with. A hyphen or
# slash within a word does not cut.
_CUT = re.compile(
    r"[,;:|•–—，、]|\.\s|\s[-/+·]+(?=\s)|(?<![-/+·])[-/+·]+\s"
    r"|\b(?:in|with|without|for|from|by|w|made|compatible|featuring|includes|including|inspired|"
    r"perfect|that)\b"
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# What stands after the noun: sets of it, its size, its colour, its wearer.
_AFTER = re.compile(
    "sets?|packs?|kits?|bundles?|collections?|combo|lot|pairs?"
    "|one|sizes?|small|medium|large|big|mini|xs|x*l|us|uk|eu|regular|plus|petite|wide|narrow"
    "|black|white|gr[ea]y|silver|gold|golden|red|blue|navy|green|yellow|orange|purple|pink|brown"
    "|beige|tan|ivory|cream|teal|turquoise|aqua|burgundy|magenta|cyan|clear|transparent|multicolou?r"
    "|colou?rs?|assorted|original|genuine|new"
    "|mens?|womens?|ladies|girls|boys|kids|adults?|unisex|baby|toddler"
)
_SINGULAR = {
    "axes": "axe",
    "beanies": "beanie",
    "booties": "bootie",
    "brownies": "brownie",
    "buses": "bus",
    "canvas": "canvas",
    "canvases": "canvas",
    "children": "child",
    "cookies": "cookie",
    "feet": "foot",
    "hoodies": "hoodie",
    "knives": "knife",
    "leaves": "leaf",
    "lens": "lens",
    "lenses": "lens",
    "mice": "mouse",
    "movies": "movie",
    "onesies": "onesie",
    "potatoes": "potato",
    "scarves": "scarf",
    "series": "series",
    "shelves": "shelf",
    "smoothies": "smoothie",
    "teeth": "tooth",
    "tomatoes": "tomato",
}


def product_type(title: str, *, language: str | None) -> str | None:
    """Returns the head noun of a title: what it sells, as far as rules can tell.

    Brackets, numbers with their units, sizes, pack counts and model numbers are left out. The rest
    is cut at commas, dashes, bars and words such as "for" and "with"; the first part that has two
    words, since a lone one is rather a brand, ends with the noun, behind which sets, sizes, colours
    and wearers may stand. Plural and singular are one type, whose name need not be a word ("jean").

    Args:
      title: a product's title.
      language: its ISO 639-1 code; a type is found in English, "en", alone.

    Returns:
      The type in lower case; None without any noun, and in a language that has no rules. Source:
      this project.

    Example:
      >>> product_type("Acme Running Shoes for Men, 2-Pack, Black (Size 9)", language="en")
      'shoe'
    """
    if language != ENGLISH:
        return None
    text = title.casefold()
    for _ in range(_BRACKETS_DEEP):
        text = _BRACKETED.sub(" ", text)
    text, lone = _WITH_DIGIT.sub(" ", _AMOUNT.sub(" ", text)), None
    for part in _CUT.split(text):
        words = [re.sub("['’]s$", "", word) for word in _WORD.findall(part)]
        nouns = [word for word in words if len(word) > 1 and not _AFTER.fullmatch(word)]
        if nouns and len(words) > 1:
            return _singular(nouns[-1])
        lone = lone or (_singular(nouns[-1]) if nouns else None)
    return lone


def _singular(noun: str) -> str:
    if noun in _SINGULAR:
        return _SINGULAR[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    if noun.endswith("s") and len(noun) > 3 and not noun.endswith(("ss", "us", "is")):
        return noun[:-1]
    return noun
