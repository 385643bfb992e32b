"""Where query-bridged codes beat unsupervised ones: a map of the simulated shop.

    PYTHONPATH=. python benchmarks/regime.py --out FILE [--items N] [--queries N ...] [--head N]
        [--test N] [--gammas γ ...] [--vectors NAME ...] [--seeds N] [--steps N] [--pin_depth N]
        [--hidden N] [--scratch DIR] [--quick] [--json FILE] [--plot FILE.svg]

Vectors: `untrained`, a bag of word pieces with the weights that towers start with; `brief`, towers
after one epoch of the training queries; `towers`, after twelve. All have the same head and test
queries, and fewer training queries are some of more: towers, quantizer and voting neighbours learn
from these. γ is the weight of the contrastive term; full is the control (dense, lexical,
attributes, feedback, votes) with a query's own codes and its neighbours' codes, unsupervised the
same at γ = 0. No generator. Every seed is a shop of its own.

Metrics: `auc` pooled ROC-AUC; `within` its mean within queries; `fine` the same of relevant items
against items of their product type with one attribute off; `agreement_relevant_l` the share of
relevant pairs whose query and item have the same first l codes, `agreement_other_l` of the others.

A gain is the mean over seeds, paired by query. Its variance is that of the bootstrap over queries
or that between seeds, whichever is larger (the moment estimator of DerSimonian & Laird 1986,
weights even): of one seed it knows nothing of other shops and fits. The interval is ± 1.96 standard
errors, and what could be detected, at 80 % power, 2.8. A line of --out holds a seed of some cells,
and what is there is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lines import append, line, print_heading, print_row, write
from regime_cell import UNSUPERVISED, VECTORS, Shop, case

QUERIES = (2_000, 10_000)
GAMMAS = (0.01, 0.1, 1.0, 3.0)
SEEDS = 5
QUICK = Shop(items=1_000, train=300, head=150, test=150, steps=40, sizes=(16, 16, 16))
METRICS = {
    "auc": "ROC-AUC",
    "within": "AUC within queries",
    "fine": "one attribute off",
    "agreement_relevant_1": "relevant pairs that agree at level 1",
    "agreement_other_1": "other pairs that agree at level 1",
}
INTERVAL, DETECTED = 1.96, 2.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gain:
    """A difference from unsupervised codes.

    Attributes:
      value: mean over seeds.
      error: its standard error.
      seeds: that it is the mean of.
    """

    value: float
    error: float
    seeds: int

    @property
    def low(self) -> float:
        return self.value - INTERVAL * self.error

    @property
    def high(self) -> float:
        return self.value + INTERVAL * self.error

    @property
    def detectable(self) -> float:
        return DETECTED * self.error


Cell = tuple[str, int, str]
"""Vectors, training queries and γ; of no codes at all, "control"."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the cases that are missing, then prints the map."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="file of finished cases, kept")
    parser.add_argument("--items", type=int, help="of a shop; 10,000")
    parser.add_argument("--queries", type=int, nargs="+", help=f"to learn from; {QUERIES}")
    parser.add_argument("--head", type=int, help="queries of the relevance head; 3,000")
    parser.add_argument("--test", type=int, help="queries that are judged on; 3,000")
    parser.add_argument("--gammas", type=float, nargs="+", default=GAMMAS, help="beside 0")
    parser.add_argument("--vectors", nargs="+", choices=VECTORS, default=[*VECTORS])
    parser.add_argument("--seeds", type=int, help=f"shops; {SEEDS}")
    parser.add_argument("--steps", type=int, help="of a quantizer; 1,500")
    parser.add_argument("--pin_depth", type=int, help="category levels that name first codes; 0")
    parser.add_argument("--hidden", type=int, help="width of the quantizer's hidden layer; 256")
    parser.add_argument("--scratch", type=Path, help="folder of the shops' tables, kept")
    parser.add_argument("--quick", action="store_true", help="one tiny shop")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--plot", type=Path, help="SVG file of the map")
    given = parser.parse_args(arguments)
    shop, queries = _shop(given)
    if given.out.exists() and not given.out.read_bytes().endswith(b"\n"):
        with given.out.open("a") as file:  # a line that was cut short stays one of its own
            file.write("\n")
    seeds = given.seeds or (1 if given.quick else SEEDS)
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(seeds):
            for count in queries:
                for vectors in given.vectors:
                    wanted = {"vectors": vectors, "queries": count, "seed": seed}
                    if any(_is_of(found, shop, wanted, given.gammas) for found in read(given.out)):
                        continue
                    made = case(
                        shop,
                        **wanted,
                        gammas=given.gammas,
                        scratch=given.scratch or Path(temporary),
                    )
                    append(given.out, made)
    of_shop = [found for found in read(given.out) if found["shop"] == _json(shop)]
    gains = pooled(of_shop)
    write(given.json, _printed(gains))
    print(f"\n{verdict(gains)}")
    if given.plot:
        _plot(gains, given.plot, shop=shop)


def _shop(given: argparse.Namespace) -> tuple[Shop, Sequence[int]]:
    base = QUICK if given.quick else Shop()
    queries = given.queries or ((100, 300) if given.quick else QUERIES)
    bound = {
        "items": given.items,
        "train": max(queries),
        "head": given.head,
        "test": given.test,
        "steps": given.steps,
        "pin_depth": given.pin_depth,
        "hidden": given.hidden,
    }
    bound = {name: value for name, value in bound.items() if value is not None}
    return dataclasses.replace(base, **bound), queries


def read(out: Path) -> list[dict[str, Any]]:
    """Returns the finished cases of a file; a line that was cut short is none."""
    found = []
    for text in out.read_text("utf-8").splitlines() if out.exists() else ():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def _json(shop: Shop) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(shop)))


def _is_of(
    found: Mapping[str, Any], shop: Shop, wanted: Mapping[str, Any], gammas: Sequence[float]
) -> bool:
    same = all(found[name] == value for name, value in wanted.items())
    return same and found["shop"] == _json(shop) and set(gammas) <= set(found["gammas"])


def pooled(cases: Sequence[Mapping[str, Any]]) -> dict[str, dict[Cell, Gain]]:
    """Returns the gains of every metric, each over the seeds of a cell."""
    parts: dict[str, dict[Cell, dict[int, tuple[float, float]]]] = {}
    for found in cases:
        for gamma, metrics in found["over_unsupervised"].items():
            for metric, figures in metrics.items():
                cell = (found["vectors"], found["queries"], gamma)
                of_cell = parts.setdefault(metric, {}).setdefault(cell, {})
                of_cell[found["seed"]] = (figures["gain"], figures["error"])
    return {
        metric: {cell: pooled_gain(list(seeds.values())) for cell, seeds in cells.items()}
        for metric, cells in parts.items()
    }


def pooled_gain(seeds: Sequence[tuple[float, float]]) -> Gain:
    """Returns the mean of gains, each with its standard error over queries.

    Args:
      seeds: gain and error of each.

    Returns:
      The gain; its variance is the mean of the squared errors, or the variance between seeds if
      that is larger, over their number.
    """
    gains, errors = np.array(seeds).T
    within = float(np.mean(errors**2))
    between = float(np.var(gains, ddof=1)) if len(gains) > 1 else 0.0
    error = (max(within, between) / len(gains)) ** 0.5
    return Gain(value=float(gains.mean()), error=error, seeds=len(gains))


def verdict(gains: Mapping[str, Mapping[Cell, Gain]]) -> str:
    """Returns, in a sentence a metric, in which cells γ above 0 is better than γ = 0."""
    sentences = []
    for metric in ("auc", "within", "fine"):
        cells = {cell: of for cell, of in gains.get(metric, {}).items() if _is_bridged(cell)}
        if not cells:
            continue
        better = [name_of(cell) for cell, of in cells.items() if of.low > 0]
        worse = [name_of(cell) for cell, of in cells.items() if of.high < 0]
        largest = max(of.detectable for of in cells.values())
        sentences.append(
            f"{METRICS[metric]}: better in {len(better)} of {len(cells)} cells"
            f"{' (' + '; '.join(better) + ')' if better else ''}, worse in {len(worse)}"
            f"{' (' + '; '.join(worse) + ')' if worse else ''}; a gain of {largest:.4f} would have "
            f"been detected in every one."
        )
    return "\n".join(sentences)


def name_of(cell: Cell) -> str:
    """Returns what a cell is called."""
    vectors, queries, gamma = cell
    return f"{vectors}, {queries:,} queries, γ {gamma}"


def _is_bridged(cell: Cell) -> bool:
    return cell[2] not in ("control", f"{UNSUPERVISED:g}")


def _printed(gains: Mapping[str, Mapping[Cell, Gain]]) -> Iterator[dict]:
    """Prints the map as a table, and yields the cases."""
    metrics = [metric for metric in METRICS if metric in gains]
    heading = (f"{METRICS[metric]}, gain (95 %), detectable" for metric in metrics)
    print_heading("vectors", "queries", "γ", "seeds", *heading)
    cells = sorted(
        (cell for cell in gains.get("auc", {}) if cell[2] != f"{UNSUPERVISED:g}"),
        key=lambda cell: (cell[1], [*VECTORS].index(cell[0]), _place(cell[2])),
    )
    for cell in cells:
        shown = []
        for metric in metrics:
            gain = gains[metric].get(cell)
            if gain is None:
                shown.append("–")
                continue
            digits = f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
            bold = gain.low > 0 or gain.high < 0
            shown.append(f"**{digits}**" if bold else digits)
            shown[-1] += f", {gain.detectable:.4f}"
            name = f"regime/{cell[0]}/{cell[1]}/{cell[2]}/{metric}"
            yield line(name, gain.value, 0.0, "gain", ratio=None) | {
                "low": gain.low,
                "high": gain.high,
                "detectable": gain.detectable,
            }
        vectors, queries, gamma = cell
        seeds = gains["auc"][cell].seeds
        named = "no codes" if gamma == "control" else gamma
        print_row(vectors, f"{queries:,}", named, seeds, *shown)


def _place(gamma: str) -> float:
    return -1.0 if gamma == "control" else float(gamma)


def _plot(gains: Mapping[str, Mapping[Cell, Gain]], path: Path, *, shop: Shop) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "regime", "font.size": 9}
    from matplotlib import pyplot as plt

    metrics = [metric for metric in METRICS if metric in gains][:4]
    counts = sorted({cell[1] for cell in gains["auc"]})
    gammas = sorted({cell[2] for cell in gains["auc"] if _is_bridged(cell)}, key=float)
    figure, axes = plt.subplots(
        *(len(metrics), len(counts)),
        figsize=(3.6 * len(counts), 2.0 * len(metrics)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for row, metric in zip(axes, metrics, strict=True):
        for place, count in zip(row, counts, strict=True):
            place.axhline(0, color="#6b7280", linewidth=0.8)
            for shift, vectors in enumerate(VECTORS):
                of = [gains[metric].get((vectors, count, gamma)) for gamma in gammas]
                known = [(at, gain) for at, gain in enumerate(of) if gain]
                if known:
                    place.errorbar(
                        [at + 0.12 * (shift - 1) for at, _ in known],
                        [gain.value for _, gain in known],
                        yerr=[INTERVAL * gain.error for _, gain in known],
                        fmt="o-",
                        markersize=3,
                        linewidth=1,
                        capsize=2,
                        label=vectors,
                    )
            place.set_xticks(range(len(gammas)), gammas)
        row[0].set_ylabel(METRICS[metric].replace(" that ", "\nthat "))
    for place, count in zip(axes[0], counts, strict=True):
        place.set_title(f"{count:,} training queries")
    for place in axes[-1]:
        place.set_xlabel("γ")
    axes[0, 0].legend(frameon=False)
    figure.suptitle(f"Gain over γ = 0, shops of {shop.items:,}\nitems, 95 % intervals", size=9)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
