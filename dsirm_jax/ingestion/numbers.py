"""Numbers as tables write them: decimal point or comma, grouped thousands, truth values, gaps."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

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


_SIGN = "^[-+]?"
_THOUSANDS = {
    ",": [rf"{_SIGN}\d{{1,3}}(,\d{{3}}){{2,}}$", rf"{_SIGN}\d{{1,3}}(,\d{{3}})+\.\d+$"],
    ".": [rf"{_SIGN}\d{{1,3}}(\.\d{{3}}){{2,}}$", rf"{_SIGN}\d{{1,3}}(\.\d{{3}})+,\d+$"],
}
"""Where a character can but stand between thousands."""

_IN_DOUBT = {",": rf"{_SIGN}[1-9]\d{{0,2}},\d{{3}}$", ".": rf"{_SIGN}[1-9]\d{{0,2}}\.\d{{3}}$"}
"""Where a character stands between thousands or before decimals."""

_DECIMAL_COMMA = rf"{_SIGN}\d*,\d+$"


def doubt(cell: pa.Array, *, type_: pa.DataType, table: str) -> str | None:
    """Returns why a text is no number, where its comma or point may be between thousands.

    Args:
      cell: the text alone.
      type_: of the number; a point is before decimals, but no decimals are in a whole number.
      table: items or judgements, for the message.
    """
    marks = {"comma": ",", "point": "."} if pa.types.is_integer(type_) else {"comma": ","}
    for name, mark in marks.items():
        if pc.match_substring_regex(cell, _IN_DOUBT[mark])[0].as_py():
            binding = f"{table}/dialect.Dialect.decimal"
            return f"a {name} for thousands or for decimals: bind {binding}"
    return None


def without_nan(column: pa.Array) -> pa.Array:
    """Returns an array where NaN, if it has numbers, is null."""
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    return column


def plain_numbers(
    column: pa.Array, *, missing: Collection[str], decimal: str | None
) -> tuple[pa.Array, pa.Array]:
    """Writes numbers as Arrow reads them: without spaces, with a point before the decimals.

    Args:
      column: numbers as text.
      missing: texts that stand for no number.
      decimal: the character before decimals, "." or ","; the other one is between thousands. None:
        a point, and a comma where it can be nothing but that. Neither is touched where both are
        possible ("1,204").

    Returns:
      plain: the numbers; what is none stays as it is.
      commas: whether a number had a decimal comma that is not bound.

    Raises:
      pa.ArrowInvalid: a text is no UTF-8.
    """
    given = column.cast(pa.large_binary()).cast(pa.string())
    text = pc.utf8_trim_whitespace(given)
    # Spaces alone are an empty cell; a text that is empty is no number.
    spaces = pc.and_(pc.equal(text, ""), pc.not_equal(given, ""))
    absent = pc.or_(spaces, pc.is_in(text, pa.array(list(missing), pa.string())))
    text = pc.if_else(absent, pa.scalar(None, pa.string()), text)
    other = {",": ".", ".": ","}
    for mark in [other[decimal]] if decimal else [",", "."]:
        patterns = [*_THOUSANDS[mark], *([_IN_DOUBT[mark]] if decimal else [])]
        apart = pc.match_substring_regex(text, "|".join(patterns))
        text = pc.if_else(apart, pc.replace_substring(text, mark, ""), text)
    commas = pc.match_substring_regex(text, _DECIMAL_COMMA)
    if not decimal:
        commas = pc.and_not(commas, pc.match_substring_regex(text, _IN_DOUBT[","]))
    elif decimal == ".":
        return text, pc.and_(commas, False)
    text = pc.if_else(commas, pc.replace_substring(text, ",", "."), text)
    return text, pc.and_(commas, not decimal)
