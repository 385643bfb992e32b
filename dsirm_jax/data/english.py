"""Words of English titles that the rules of `product_type` know."""

from __future__ import annotations

import re

UNITS_1 = (
    "inch(?:es)?|in|feet|foot|ft|yards?|yd|[mck]?m|ounces?|oz|lbs?|pounds?|grams?|[mk]?g|mcg|[mc]?l|"
    "lit(?:er|re)s?|gallons?|quarts?|pints?|volts?|v|watts?|w|amps?|mah|[kmg]?hz|[kmgt]b|dpi|iu|"
    "degrees?|count|ct|packs?|pk|pieces?|pcs?|sets?|pairs?|sheets?|servings?|capsules?|tablets?|"
    "years?|months?|days?"
)
"""Units of the first rules."""
UNITS = (
    f"{UNITS_1}|gals?|qts?|pts?|yds|ins|sqft|sq|cuft|mi|miles?|mm|cm|dia|"
    "amperes?|ah|k?wh?|kw|k?va|k?pa|bars?|psi|psig|hp|btus?|cfm|gpm|gph|rpm|mph|lumens?|lm|lux|kelvin|"
    "ohms?|db|fps|dtex|denier|gsm|tpi|mils?|gauges?|ga|awg|grit|ply|percent|megapixels?|mp|"
    "m?bits?|[mg]bps|ppm|cps|doz(?:en)?|ea|each|pkgs?|rolls|bags|cans|bottles|boxes|sticks|pouches|"
    "loads|doses|softgels?|gumm(?:y|ies)|caplets?|hours?|hrs?|minutes?|mins?|seconds?|secs?|weeks?|"
    "wks?|yrs?|mos?"
)
"""Units of the second."""
AFTER = re.compile(
    "sets?|packs?|kits?|bundles?|collections?|combo|lot|pairs?"
    "|one|sizes?|small|medium|large|big|mini|xs|x*l|us|uk|eu|regular|plus|petite|wide|narrow"
    "|black|white|gr[ea]y|silver|gold|golden|red|blue|navy|green|yellow|orange|purple|pink|brown"
    "|beige|tan|ivory|cream|teal|turquoise|aqua|burgundy|magenta|cyan|clear|transparent|multicolou?r"
    "|colou?rs?|assorted|original|genuine|new"
    "|mens?|womens?|ladies|girls|boys|kids|adults?|unisex|baby|toddler"
)
"""What stands behind the noun: sets of it, its size, its colour, its wearer."""
SINGULAR = {
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
