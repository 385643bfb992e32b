"""Geometry of the page's charts; the template draws it, the style sheet colours it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

USE_BINS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """A linear axis from `low` to `high`."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Returns where a value lies, from 0 at the low end to 100."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self, *, about: int = 4) -> list[float]:
        """Returns round values on the axis, multiples of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [number * step for number in range(first, last + 1)]


def axis(values: Iterable[float], *, margin: float = 0.0) -> Axis:
    """Returns an axis that holds values, with a margin in shares of its length at both ends."""
    values = list(values)
    low, high = min(values), max(values)
    room = margin * (high - low) if high > low else abs(high) or 1.0
    return Axis(low=low - room, high=high + room)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar for a count.

    Attributes:
      name: what is counted.
      count: how many.
      share: of the total.
      width: in percent of the longest bar.
    """

    name: str
    count: int
    share: float
    width: float


def bars(counts: Mapping[str, int], *, total: int) -> list[Bar]:
    """Returns a bar for every count.

    Args:
      counts: by name.
      total: what shares are of.
    """
    most = max([1, *counts.values()])
    return [
        Bar(name=name, count=count, share=count / max(total, 1), width=100 * count / most)
        for name, count in counts.items()
    ]


def polyline(points: Sequence[tuple[float, float]], *, x: Axis, y: Axis) -> str:
    """Returns the `points` of an SVG polyline in a box of 100 by 100, high values on top."""
    return " ".join(f"{x.percent(a):.2f},{100 - y.percent(b):.2f}" for a, b in points)


def sorted_use(counts: Sequence[int]) -> tuple[str, float]:
    """Returns the use of the codes of one level, sorted, as a filled shape.

    Args:
      counts: items of each code.

    Returns:
      `d` of an SVG path in a box of 100 by 100, the most used code at the left and full height,
      and the height of even use. More codes than `USE_BINS` are averaged in bins.
    """
    ordered = np.sort(np.asarray(counts, np.float64))[::-1]
    bins = np.array_split(ordered, min(len(ordered), USE_BINS))
    heights = np.array([part.mean() for part in bins])
    most = max(heights[0], 1.0)
    edges = np.linspace(0, 100, len(heights) + 1)
    steps = [
        f"L{left:.2f},{100 - 100 * height / most:.2f}H{right:.2f}"
        for left, right, height in zip(edges, edges[1:], heights)
    ]
    return f"M0,100{''.join(steps)}V100Z", float(100 * ordered.mean() / most)
