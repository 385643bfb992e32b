"""How the benchmarks time two functions side by side."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from lines import line


def compare(
    case: str, ours: Callable[[], object], other: Callable[[], object], *, rounds: int
) -> dict:
    """Times two functions in turn, in milliseconds.

    Before each timed call are a pause and calls that do not count: the threads of the one's library
    go on waiting for work for a while, and would take the processor from the other.

    Args:
      case: its name.
      ours: waits for its result.
      other: likewise.
      rounds: timed calls of each.

    Returns:
      One case, its interval the 95 % bootstrap interval over rounds of the ratio of medians.
    """
    seconds = np.zeros((max(rounds, 3), 2))
    for row in seconds:
        for column, run in enumerate((ours, other)):
            time.sleep(0.1)
            run()
            run()
            started = time.perf_counter()
            run()
            row[column] = time.perf_counter() - started
    generator = np.random.Generator(np.random.Philox(key=0))
    drawn = seconds[generator.integers(0, len(seconds), (1000, len(seconds)))]  # [draw, round, 2]
    medians = np.median(drawn, axis=1)
    low, high = np.quantile(medians[:, 1] / medians[:, 0], [0.025, 0.975])
    mine, theirs = 1e3 * np.median(seconds, axis=0)
    return line(case, mine, theirs, "ms", ratio=theirs / mine, low=low, high=high)


def show(case: dict) -> None:
    """Prints one case."""
    print(
        f"{case['case']:<30} ours {case['ours']:9.3f}  other {case['other']:9.3f} "
        f"{case['unit']:<10} ratio {case['ratio']:.2f} [{case['low']:.2f}, {case['high']:.2f}]",
        flush=True,
    )
