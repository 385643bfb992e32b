"""The simulated shop beside Amazon's ESCI: what their tables look like, and what making one costs.

    python benchmarks/shop.py [--esci DIR] [--items N] [--quick] [--json FILE]

Distributions: both as the row checks of `prepare` leave them; the intervals of the ratios hold 95 %
of resamples of the rows of both. ESCI has no query frequencies. Growth: all parts of a shop with
about 5 judgements an item, read one after the other in a fresh process, in seconds of one core.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lines import line, print_heading, print_row, write

from dsirm_jax.data.schema import Part, Source
from dsirm_jax.ingestion.grading.labels import LabelTable
from dsirm_jax.ingestion.readers.esci import Esci
from dsirm_jax.ingestion.readers.simulated_shop import SimulatedShop
from dsirm_jax.ingestion.validation.validate import checked_items, checked_judgements

LABELS = "E", "S", "C", "I"
RESAMPLES = 200
RANKS = 50
MIB = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a table: a function of one value a row."""

    values: np.ndarray
    figure: Callable[[np.ndarray], float]
    unit: str

    def resampled(self, random: np.random.Generator) -> np.ndarray:
        size = len(self.values)
        draws = (self.values[random.integers(0, size, size)] for _ in range(RESAMPLES))
        return np.array([self.figure(values) for values in draws])


def main() -> None:
    """Prints the distributions side by side, then the rate and the growth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esci", help="folder of the official ESCI files")
    parser.add_argument("--items", type=int, help="of the shop that is described")
    parser.add_argument("--quick", action="store_true", help="small shops only")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--case", type=int, metavar="ITEMS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(_cost(given.case)))
        return
    items = given.items or (2_000 if given.quick else 20_000)
    ours = _figures(_shop(items).read())
    other = _figures(Esci(data_dir=given.esci).read()) if given.esci else {}
    sizes = (1_000, 10_000) if given.quick else (10_000, 100_000, 1_000_000)
    lines = [*_side_by_side(ours, other), *_growth(sizes)]
    write(given.json, lines)


def _shop(items: int) -> SimulatedShop:
    # About 14 of the 16 judgements asked for a query come out.
    return SimulatedShop(items=items, queries=round(items * 5 / 14))


def _side_by_side(ours: Mapping[str, Figure], other: Mapping[str, Figure]) -> list[dict]:
    print_heading("", "simulated", "ESCI", "ratio")
    random = np.random.default_rng(0)
    lines = []
    for name, mine in ours.items():
        value, theirs = mine.figure(mine.values), other.get(name)
        their_value = theirs and theirs.figure(theirs.values)
        ratio = low = high = None
        shown = "–"
        if their_value:
            ratio = value / their_value
            ratios = mine.resampled(random) / theirs.resampled(random)
            low, high = np.quantile(ratios, (0.025, 0.975))
            shown = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        print_row(name, _shown(value, mine.unit), _shown(their_value, mine.unit), shown)
        lines.append(line(name, value, their_value, mine.unit, ratio=ratio, low=low, high=high))
    return lines


def _growth(sizes: Sequence[int]) -> list[dict]:
    print()
    print_heading("items", "judgements", "items/s", "judgements/s", "seconds", "peak MiB")
    lines, first = [], None
    for items in sizes:
        case = [sys.executable, __file__, "--case", str(items)]
        cost = json.loads(subprocess.run(case, check=True, stdout=subprocess.PIPE).stdout)
        first = first or cost
        rates = {
            "items": items / cost["item_seconds"],
            "judgements": cost["judgements"] / cost["judgement_seconds"],
        }
        seconds = cost["item_seconds"] + cost["judgement_seconds"]
        peak, least = cost["peak"] / MIB, first["peak"] / MIB
        counts = (f"{items:,}", f"{cost['judgements']:,}")
        shown = (f"{rate:,.0f}" for rate in rates.values())
        print_row(*counts, *shown, f"{seconds:.1f}", f"{peak:.0f}")
        for name, rate in rates.items():
            lines.append(line(f"{name} of {items} items", rate, None, f"{name}/s", ratio=None))
        lines.append(line(f"memory of {items} items", peak, least, "MiB", ratio=least / peak))
    return lines


def _cost(items: int) -> dict:
    """Reads a whole shop, and keeps nothing of it."""
    source = _shop(items).read()
    cost, rows = {}, {}
    for name, parts in (("item", source.items), ("judgement", source.judgements)):
        started = time.process_time()
        rows[name] = sum(chunk.table.num_rows for part in parts for chunk in part())
        cost[f"{name}_seconds"] = time.process_time() - started
    return cost | {"judgements": rows["judgement"], "peak": _peak()}


def _peak() -> int:
    """Returns the most resident memory of this process so far, in bytes (on Linux)."""
    # getrusage would tell that of the parent, had it more.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if unit == "share" else f"{value:.3g} {unit}".strip()


def _figures(source: Source) -> dict[str, Figure]:
    """Returns all figures of a source by name."""
    items = _checked(source.items, lambda chunk: checked_items(chunk, extras=source.extras))
    known = LabelTable(gains=dict.fromkeys(LABELS, 0), relevant=LABELS[:1])
    judged = _checked(
        source.judgements, lambda chunk: checked_judgements(chunk, labels=known, seed=0)
    )
    found: dict[str, Figure] = {}
    found |= _lengths("title", items["title"])
    for name in ("description", "brand", "colour", "category"):
        found[f"items with {name}"] = _share(pc.is_valid(items[name]))
    paths = items["category"].drop_null().to_pylist()
    if paths:
        found |= _concentration("first-level category", [path[0] for path in paths])
        found |= _concentration("category path", [" > ".join(path) for path in paths])
    for label in LABELS:
        found[f"grade {label}"] = _share(pc.equal(judged["label"], label))
    queries = judged.group_by("query").aggregate([([], "count_all"), ("query_frequency", "max")])
    found |= _lengths("query", queries["query"])
    counts = queries["count_all"].to_numpy()
    found["judgements a query, mean"] = Figure(values=counts, figure=np.mean, unit="")
    found |= _quantiles("judgements a query", counts, unit="")
    frequencies = queries["query_frequency_max"].drop_null().to_numpy()
    if len(frequencies):
        rows = {"values": frequencies, "unit": "share"}
        found["traffic of the top 1 % of queries"] = Figure(figure=_top, **rows)
        found["query, Zipf exponent"] = Figure(values=frequencies, figure=_zipf, unit="")
    return found


def _checked(parts: Sequence[Part], check: Callable) -> pa.Table:
    return pa.concat_tables(check(chunk)[0] for part in parts for chunk in part())


def _lengths(name: str, texts: pa.ChunkedArray) -> dict[str, Figure]:
    words = np.array([len(text.split()) for text in texts.to_pylist()])
    return {
        f"{name} words, mean": Figure(values=words, figure=np.mean, unit="words"),
        **_quantiles(f"{name} words", words, unit="words"),
        **_quantiles(f"{name} characters", pc.utf8_length(texts).to_numpy(), unit="characters"),
    }


def _quantiles(name: str, values: np.ndarray, *, unit: str) -> dict[str, Figure]:
    return {
        f"{name}, {share} %": Figure(
            values=values, figure=lambda of, share=share: np.percentile(of, share), unit=unit
        )
        for share in (10, 50, 90)
    }


def _share(true: pa.ChunkedArray) -> Figure:
    values = true.to_numpy().astype(np.float64)
    return Figure(values=values, figure=np.mean, unit="share")


def _concentration(name: str, of_items: Sequence[str]) -> dict[str, Figure]:
    numbers = pa.array(of_items).dictionary_encode().indices.to_numpy()

    def largest(numbers: np.ndarray) -> float:
        return np.bincount(numbers).max() / len(numbers)

    def exponent(numbers: np.ndarray) -> float:
        return _zipf(np.bincount(numbers))

    return {
        f"items of the largest {name}": Figure(values=numbers, figure=largest, unit="share"),
        f"{name}, Zipf exponent": Figure(values=numbers, figure=exponent, unit=""),
    }


def _top(frequencies: np.ndarray) -> float:
    """Returns the share of the most frequent hundredth."""
    return np.sort(frequencies)[-max(1, len(frequencies) // 100) :].sum() / frequencies.sum()


def _zipf(frequencies: np.ndarray) -> float:
    """Returns the exponent of frequency by rank, by least squares on the logs of the top ranks."""
    top = np.sort(frequencies)[::-1][:RANKS]
    top = top[top > 0]
    return -np.polyfit(np.log(np.arange(len(top)) + 1), np.log(top), 1)[0]


if __name__ == "__main__":
    main()
