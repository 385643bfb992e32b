"""What the benchmarks print and write: Markdown tables, and one JSON object a case."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def line(
    case: str,
    ours: float,
    other: float | None,
    unit: str,
    *,
    ratio: float | None,
    low: float | None = None,
    high: float | None = None,
) -> dict:
    """Returns one case.

    Args:
      case: its name, the same from run to run.
      ours: our figure.
      other: what it is compared with; None where there is nothing.
      unit: of both.
      ratio: of the two, above 1 where ours is better; None where there is nothing to compare.
      low: lower end of the ratio's interval; the ratio where there is none.
      high: upper end.
    """
    ratio = None if ratio is None else float(ratio)
    return {
        "case": case,
        "ours": float(ours),
        "other": None if other is None else float(other),
        "unit": unit,
        "ratio": ratio,
        "low": ratio if low is None else float(low),
        "high": ratio if high is None else float(high),
    }


def write(path: Path | None, lines: Iterable[dict]) -> None:
    """Writes one JSON object a line; nothing without a path, but what makes them may print."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if path:
        path.write_text(text)


def append(path: Path | None, line: dict) -> None:
    """Adds one JSON object to a file, where it stays whatever comes after; see `write`."""
    if path:
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def print_heading(*names: str) -> None:
    """Prints the first two lines of a Markdown table."""
    print_row(*names)
    print("|" + "---|" * len(names))


def print_row(*cells: object) -> None:
    """Prints a further line of it."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
