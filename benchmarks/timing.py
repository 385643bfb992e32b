"""How the benchmarks time two functions side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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


def queued(step: Callable[[], object], *, calls: int) -> Callable[[], object]:
    """Returns a function that calls a step several times and waits for the last result alone.

    Args:
      step: starts work on a device, in the order of the calls, and returns what it will give.
      calls: of each call.
    """
    import jax

    def run() -> object:
        result = None
        for _ in range(calls):
            result = step()
        return jax.block_until_ready(result)

    return run


def compare_queued(
    case: str,
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    calls: int,
    rounds: int,
) -> dict:
    """Times two steps on a device in turn, in milliseconds of each of many in a queue.

    Args:
      case: its name.
      ours: see `queued`.
      other: likewise.
      calls: in the queue.
      rounds: see `compare`.
    """
    runs = (queued(step, calls=calls) for step in (ours, other))
    found = compare(case, *runs, rounds=rounds)
    return found | {"ours": found["ours"] / calls, "other": found["other"] / calls}


def milliseconds(run: Callable[[], object], *, rounds: int) -> float:
    """Returns the median time of a function that waits for its result, after a call to compile."""
    run()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return 1e3 * float(np.median(seconds))


def of_callers(
    run: Callable[[int, int], object], *, callers: int, calls: int
) -> tuple[np.ndarray, float]:
    """Returns the milliseconds of every call of several threads, and the seconds that all took.

    Args:
      run: what a thread, by its number, calls for its first, second, ... time; each again at once.
      callers: threads.
      calls: of each.
    """

    def call(caller: int) -> list[float]:
        milliseconds = []
        for number in range(calls):
            started = time.perf_counter()
            run(caller, number)
            milliseconds.append(1e3 * (time.perf_counter() - started))
        return milliseconds

    with ThreadPoolExecutor(callers) as threads:
        started = time.perf_counter()
        milliseconds = list(threads.map(call, range(callers)))
        return np.array(milliseconds).ravel(), time.perf_counter() - started


def rates(case: dict, count: float, unit: str) -> dict:
    """Returns a case in milliseconds as one of things a second.

    Args:
      case: of `compare`.
      count: of things that each side does in its time.
      unit: what they are, a second.
    """
    found = {side: 1e3 * count / case[side] for side in ("ours", "other")}
    return case | found | {"unit": unit}


def show(case: dict) -> None:
    """Prints one case."""
    print(
        f"{case['case']:<30} ours {case['ours']:9.3f}  other {case['other']:9.3f} "
        f"{case['unit']:<10} ratio {case['ratio']:.2f} [{case['low']:.2f}, {case['high']:.2f}]",
        flush=True,
    )
