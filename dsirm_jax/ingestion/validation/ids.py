"""Ids of items: one reading of them for all tables, and what stands between two that should be one.

An id is what stands in the table without the space and the invisible characters around it, and
without the `="…"` that keeps a spreadsheet from making a number of it. Nothing else is changed by
looking at one table alone: whether `100002.0` is `100002` is known when another table has the
latter. What differs in zeros, case or space alone is told, and never joined.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dsirm_jax.data.text import INVISIBLE

EXACT = 2**53
"""Whole numbers below it are exact as float64."""

_JOINERS = "\u200c\u200d"
_INVISIBLE = re.compile(f"[{INVISIBLE}\ud800-\udfff]")
_SPREADSHEET_TEXT = re.compile(r'=\s*"(.*)"', re.DOTALL)
# Three zeros behind a mark are thousands as often as decimals.
_FLOAT = re.compile(r"(0|[1-9][0-9]{0,15})[.,](?:0{1,2}|0{4,})")
_POWER = re.compile(r"([1-9])(?:[.,]([0-9]+))?[eE](\+?)([0-9]{1,2})")
_NUMBERS_OR_SPACE = r"\s|^[0-9]+[.,]0+$|^[1-9](?:[.,][0-9]+)?[eE]\+?[0-9]{1,2}$"

CANDIDATES = 2_000
"""Ids among which the one is looked for that is most like an id of nothing else in common."""


def read_id(text: str) -> str:
    """Returns the id that a cell stands for; perhaps "".

    Args:
      text: of the cell.

    Example:
      >>> read_id("\\u00a000002 "), read_id('="00002"'), read_id("100002.0")
      ('00002', '00002', '100002.0')
    """
    if text.isalnum():
        return text
    text = _INVISIBLE.sub("", text).strip().strip(_JOINERS).strip()
    if written := _SPREADSHEET_TEXT.fullmatch(text):
        text = written[1].replace('""', '"').strip()
    return text


def whole_numbers(column: pa.Array) -> pa.Array:
    """Returns a column of ids that are floats as whole numbers, where all of them are exact ones.

    Args:
      column: of any type; one that is no float stays as it is.
    """
    if not pa.types.is_floating(column.type):
        return column
    numbers = column.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    exact = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), EXACT))
    return numbers.cast(pa.int64()) if pc.all(exact).as_py() is not False else numbers


def number_form(text: str) -> str | None:
    """Returns the whole number that an id written as a float or with an exponent stands for.

    Args:
      text: an id.

    Returns:
      Its digits; None where the id is written otherwise, or where digits are lost: a spreadsheet
      shows `1.2346E+12` of thirteen digits. Java's `1.00002E7` has no plus and all its digits.

    Example:
      >>> [number_form(text) for text in ("100002.0", "1.00002E+05", "1.2346E+12", "17", "2E5")]
      ['100002', '100002', None, None, None]
    """
    if written := _FLOAT.fullmatch(text):
        number = int(written[1])
    elif written := _POWER.fullmatch(text):
        first, decimals, plus, power = written[1], written[2] or "", written[3], int(written[4])
        decimals = decimals.rstrip("0") if not plus else decimals
        has_all = len(decimals) == power if plus else 0 < len(decimals) <= power
        if not has_all:
            return None
        number = int(first + decimals.ljust(power, "0"))
    else:
        return None
    return str(number) if number < EXACT else None


def is_rounded(text: str) -> bool:
    """Returns whether an id is in scientific notation that has lost digits."""
    return _POWER.fullmatch(text) is not None and "+" in text and number_form(text) is None


def likeness(text: str) -> str:
    """Returns what ids have in common that differ in leading zeros, case, space or notation."""
    text = "".join(text.split()).casefold().strip("'\"")
    return (number_form(text) or text).lstrip("0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """What ids of one table, which another does not know, are in that table.

    Attributes:
      same: those written as numbers to the known id that is the same number.
      near: others to a known id that differs in leading zeros, case or space alone.
      unknown: the rest.
      rounded: how many of these are in scientific notation that has lost digits.
      nearest: to one of the rest, the known id that is most like it.
    """

    same: dict[str, str]
    near: dict[str, str]
    unknown: Sequence[str]
    rounded: int
    nearest: tuple[str, str] | None

    def hint(self) -> str:
        """Returns what to do about those that are not the same, as the end of a message."""
        left = len(self.near) + len(self.unknown)
        parts = []
        if self.rounded:
            parts.append(
                f"{self.rounded} of {left} unknown ids, such as "
                f"{next(filter(is_rounded, (*self.unknown, *self.near)))!r}, are in scientific "
                "notation, which has lost digits: export the column of ids as text"
            )
        if self.near:
            theirs, ours = next(iter(self.near.items()))
            parts.append(
                f"{theirs!r}: the catalogue has {ours!r}; {len(self.near)} of {left} unknown ids "
                "are an item's but for leading zeros, case or space: write them as the catalogue "
                "does"
            )
        elif self.nearest:
            theirs, ours = self.nearest
            parts.append(f"{theirs!r}: the nearest id of the catalogue is {ours!r}")
        return "; ".join(parts)


def match(ids: Iterable[str], *, known: Callable[[], Iterable[str]]) -> Matches:
    """Looks ids up that are not among the known ones as they stand.

    Args:
      ids: distinct ones, in any order.
      known: gives the ids of the other table, distinct, as often as it is called.
    """
    ids = sorted(ids)
    numbers = {text: number_form(text) or text for text in ids}
    wanted, keys = set(numbers.values()), {text: likeness(text) for text in ids}
    alike = set(keys.values())
    by_number: dict[str, list[str]] = collections.defaultdict(list)
    by_key: dict[str, str] = {}
    for other in known():
        if (number := number_form(other) or other) in wanted:
            by_number[number].append(other)
        if (key := likeness(other)) in alike:
            by_key[key] = min(other, by_key.get(key, other))
    same = {}
    for text, number in numbers.items():
        others = by_number.get(number, ())
        if number in others:
            same[text] = number
        elif len(others) == 1:
            same[text] = others[0]
    left = [text for text in ids if text not in same]
    near = {text: by_key[keys[text]] for text in left if keys[text] in by_key}
    unknown = [text for text in left if text not in near]
    return Matches(
        same=same,
        near=near,
        unknown=unknown,
        rounded=sum(map(is_rounded, left)),
        nearest=_nearest(unknown, known) if unknown and not near else None,
    )


def _nearest(ids: Sequence[str], known: Callable[[], Iterable[str]]) -> tuple[str, str] | None:
    """Returns an id and the known one that is most like it."""
    text = next((text for text in ids if not is_rounded(text)), ids[0])
    others = sorted(known())
    step = -(-len(others) // CANDIDATES) or 1
    likest = difflib.get_close_matches(text, others[::step], n=1, cutoff=0.0)
    return (text, likest[0]) if likest else None


def stored_ids(path: Path) -> Iterator[str]:
    """Yields the ids of a Parquet file of items."""
    for batch in pq.ParquetFile(path).iter_batches(columns=["item_id"]):
        yield from batch.column(0).to_pylist()


def alike(path: Path) -> list[list[str]]:
    """Returns the ids of a file of items that differ in leading zeros, case or notation alone.

    Args:
      path: Parquet, each id once.

    Returns:
      Groups of two ids or more, in order.
    """
    groups: dict[str, list[str]] = collections.defaultdict(list)
    repeated = _repeated_keys(path)
    if repeated:
        for text in stored_ids(path):
            if (key := likeness(text)) in repeated:
                groups[key].append(text)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _repeated_keys(path: Path) -> frozenset[str]:
    column = pq.read_table(path, columns=["item_id"])["item_id"]
    keys = pc.utf8_ltrim(pc.utf8_lower(column), "0")
    if pc.any(pc.match_substring_regex(column, _NUMBERS_OR_SPACE)).as_py():
        keys = pa.chunked_array([[likeness(text) for text in column.to_pylist()]], pa.string())
    if pc.count_distinct(keys).as_py() == len(keys):
        return frozenset()
    counts = pc.value_counts(keys)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    return frozenset(map(likeness, repeated.to_pylist()))
