"""Metrics as plain text: intervals as cells, cells in aligned lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line per row, the first underlined."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [lines[0], "─" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]]


def cell(interval: Mapping[str, float] | None, *, signed: bool) -> str:
    """Returns a value with its interval, a dash where there is none.

    Args:
      interval: `value`, `low` and `high`.
      signed: whether it is a difference: with its sign, and a star where the interval has no 0.
    """
    if interval is None:
        return "–"
    sign = "+" if signed else ""
    value, low, high = (f"{interval[key]:{sign}.4f}" for key in ("value", "low", "high"))
    star = ("*" if interval["low"] > 0 or interval["high"] < 0 else " ") if signed else ""
    return f"{value} [{low}, {high}]{star}"
