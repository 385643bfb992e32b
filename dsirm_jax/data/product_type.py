"""What kind of product a title names: its head noun, found by rules and without labels."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping

from dsirm_jax.data.english import AFTER, SINGULAR, UNITS, UNITS_1

ENGLISH = "en"
LATEST_RULES = 2
_RULES_TAG = "-x-rules"

_BRACKETS_DEEP = 2
_BRACKETED = re.compile(r"\([^()]*\)|\[[^\[\]]*\]|\{[^{}]*\}|（[^（）]*）|【[^【】]*】")
# A run of digits is looked at once, from its start: hostile text costs linear time.
_RUN = r"\d[\d.,/x×-]*"
_NUMBER_1 = rf"(?<![\d.,/x×-]){_RUN}"
_NUMBER = rf"(?<![\d.,/x×-])\.?{_RUN}"
# Further sizes and model numbers.
_WITH_DIGIT = re.compile(r"(?<!\S)[^\s\d]*\d\S*")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_OWNER = re.compile("['’]s$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rules:
    """What is left out of a title, and where the rest is cut.

    Attributes:
      amounts: "set of 6", "size 7.5", "2 in 1", "12 fl oz".
      abbreviated: abbreviations whose dot ends no sentence; None: every dot does.
      cut: here ends what the product is and begins what it is for, has, is made of or goes with. A
        hyphen or slash within a word does not cut.
    """

    amounts: re.Pattern[str]
    abbreviated: re.Pattern[str] | None
    cut: re.Pattern[str]


def _rules(
    *, number: str, units: str, measured: str, abbreviated: str | None, further_cuts: str
) -> _Rules:
    return _Rules(
        amounts=re.compile(
            rf"\b(?:set|pack|case|box|bundle|lot|pair)s?\s+of\s+{number}"
            rf"|\b(?:sizes?|no|vol|volume)\b\.?\s*{number}"
            r"|(?<!\d)\d+[\s-]?in[\s-]?\d+"
            rf"|{number}[\s-]?(?:(?:fl|sq|cu)\.?\s)?(?:{units})\b{measured}"
        ),
        abbreviated=re.compile(abbreviated) if abbreviated else None,
        cut=re.compile(
            r"[,;:|•–—，、]|\.\s|\s[-/+·]+(?=\s)|(?<![-/+·])[-/+·]+\s"
            r"|\b(?:in|with|without|for|from|by|w|made|compatible|featuring|includes|including|"
            rf"inspired|perfect|that{further_cuts})\b"
        ),
    )


_RULES = {
    1: _rules(number=_NUMBER_1, units=UNITS_1, measured="", abbreviated=None, further_cuts=""),
    # Of "24 in. W x 30 in. H" the side goes with the amount, but not the w of "w/".
    2: _rules(
        number=_NUMBER,
        units=UNITS,
        measured=r"\.?(?:\s?[wdhlt]\b(?![/'’])\.?)?",
        abbreviated=(
            r"\b(in|ft|sq|cu|fl|oz|lbs?|gals?|qts?|pts?|yds?|approx|diam?|max|min|no|vol|qty|ea|pcs?"
            r"|pk|pkg|ct|assy|dr|mr|mrs|ms|st|jr|sr|inc|co|corp|ltd|vs|asst|dbl|[a-z])\.(?=\s|$)"
        ),
        further_cuts="|fits|works|ideal|designed|suitable|comes",
    ),
}


def tag_of(language: str | None, *, rules: int) -> str | None:
    """Returns a language with the version of its rules, as `product_type` wants it.

    Args:
      language: ISO 639-1 code, or None.
      rules: version of the rules, from 1: those of all files that name none.

    Returns:
      A BCP 47 tag: the language alone under the first rules, "en-x-rules2" under others, so that
      whatever keeps it keeps its types.
    """
    return language if language is None or rules == 1 else f"{language}{_RULES_TAG}{rules}"


def product_type(title: str, *, language: str | None, noise: Collection[str] = ()) -> str | None:
    """Returns the head noun of a title: what it sells, as far as rules can tell.

    Brackets, numbers with their units, sizes, pack counts and model numbers are left out. The rest
    is cut at commas, dashes, bars and words such as "for" and "with"; the first part that has two
    words, since a lone one is rather a brand, ends with the noun, behind which sets, sizes, colours
    and wearers may stand. Plural and singular are one type, whose name need not be a word ("jean").

    Args:
      title: a product's title.
      language: its language, see `tag_of`; a type is found in English alone, "en" by the first
        rules and "en-x-rules2" by the second, which know more units and take no dot of an
        abbreviation for a sentence's end.
      noise: words that are no types while there is another noun, see `data.title_types`.

    Returns:
      The type in lower case; None without any noun, and in a language that has no rules. Source:
      this project.

    Example:
      >>> product_type("Acme Running Shoes for Men, 2-Pack, Black (Size 9)", language="en")
      'shoe'
    """
    parts = _parts(title, rules=_BY_TAG.get(language or ""))
    first: list[str] = []
    for part in parts:
        first = first or part
        if nouns := [noun for noun in part if noun not in noise]:
            return nouns[-1]
    return first[-1] if first else None


def has_rules(language: str | None) -> bool:
    """Returns whether titles of a language have product types, see `product_type`."""
    return (language or "") in _BY_TAG


def head_part(title: str, *, language: str | None) -> list[str]:
    """Returns the nouns of the part of a title that its product type ends, in their order.

    Args:
      title: a product's title.
      language: as in `product_type`.
    """
    return next(_parts(title, rules=_BY_TAG.get(language or "")), [])


_BY_TAG: Mapping[str, _Rules] = {
    str(tag_of(ENGLISH, rules=version)): rules for version, rules in _RULES.items()
}


def _parts(title: str, *, rules: _Rules | None) -> Iterator[list[str]]:
    """Yields the nouns of each part that has any, singular: first the parts of several words."""
    if rules is None:
        return
    text = title.casefold()
    for _ in range(_BRACKETS_DEEP):
        text = _BRACKETED.sub(" ", text)
    text = rules.amounts.sub(" ", text)
    if rules.abbreviated is not None:
        text = rules.abbreviated.sub(r"\1", text)
    lone = []
    for part in rules.cut.split(_WITH_DIGIT.sub(" ", text)):
        words = _words(part)
        nouns = [_singular(w) for w in words if len(w) > 1 and not AFTER.fullmatch(w)]
        if nouns and len(words) > 1:
            yield nouns
        elif nouns:
            lone.append(nouns)
    yield from lone


def _words(text: str) -> list[str]:
    return [_OWNER.sub("", word) for word in _WORD.findall(text)]


def _singular(noun: str) -> str:
    if noun in SINGULAR:
        return SINGULAR[noun]
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    if noun.endswith("s") and len(noun) > 3 and not noun.endswith(("ss", "us", "is")):
        return noun[:-1]
    return noun
