"""Numbers as tables write them: decimal point or comma, grouped thousands, truth values."""

from __future__ import annotations

import re
import unicodedata

_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.ASCII)
_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_GROUPS_BY_COMMA = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?", re.ASCII)
_GROUPS_BY_POINT = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+,\d*", re.ASCII)
_TRUTH = {"true": 1.0, "false": 0.0}


def readings(text: str) -> tuple[float, ...]:
    """Returns the finite numbers that a text may stand for: one, none, or several.

    Args:
      text: in any Unicode form, perhaps with space around it.

    Example:
      >>> readings("2.000"), readings("True"), readings("0,5"), readings("two")
      ((2.0,), (1.0,), (0.5,), ())
      >>> readings("1,204")  # in German 1.204, in English 1204
      (1.204, 1204.0)
    """
    text = unicodedata.normalize("NFKC", text).strip().lower()
    if text in _TRUTH:
        return (_TRUTH[text],)
    spellings = []
    if _PLAIN.fullmatch(text):
        spellings.append(text)
    if _COMMA.fullmatch(text):
        spellings.append(text.replace(",", "."))
    if _GROUPS_BY_COMMA.fullmatch(text):
        spellings.append(text.replace(",", ""))
    if _GROUPS_BY_POINT.fullmatch(text):
        spellings.append(text.replace(".", "").replace(",", "."))
    numbers = {float(spelling) + 0.0 for spelling in spellings}  # of -0.0 too
    return tuple(sorted(numbers - {float("inf"), float("-inf")}))


def whole_number(text: str) -> int | None:
    """Returns the one whole number that a text may stand for, or None.

    Example:
      >>> whole_number("1,204"), whole_number("12,0"), whole_number("1.5")
      (1204, 12, None)
      >>> whole_number("1,000")  # in German 1, in English 1000
    """
    whole = [number for number in readings(text) if number.is_integer()]
    return int(whole[0]) if len(whole) == 1 else None


def canonical(number: float) -> str:
    """Returns the shortest decimal text of a number.

    Example:
      >>> canonical(2.0), canonical(2.33)
      ('2', '2.33')
    """
    is_whole = number.is_integer() and abs(number) < 2**53
    return str(int(number)) if is_whole else repr(number)
