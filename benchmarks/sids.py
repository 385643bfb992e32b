"""Health of semantic IDs, the truth that they hold, and whether queries and items agree on them.

    python benchmarks/sids.py [--esci DIR] [--quick] [--json FILE] [--scratch DIR]

Data: simulated shops of 100,000 items, one a seed, and the official ESCI files where a folder is
given. Each seed goes through `dsirm prepare`, `encode` and `quantize` as gin/runs/ has it, but for
fewer epochs on the shop, with a rung of the ablation ladder for each variant: 128 or 512 codes a
level, first level pinned as in gin/runs/ or free, query-bridged or unsupervised.

Health: mean over seeds and the worst one, of the levels that are not pinned. Truth (shop, free, 128
codes): NMI and AMI with the product type, and with attributes, each weighted by the items that have
it, as queries ask for an item's attributes evenly; the interval of the paired difference is
Student's over seeds. Agreement (free, 128 codes): of judged pairs of head and test queries that
no quantizer has seen; the interval is a bootstrap over queries, the pairs of all seeds pooled.

In the JSON lines, health has the goal as `other` and the seeds' range as `low` and `high`. With
--scratch an interrupted run goes on where it stopped; a seed of the shop takes about 400 MB there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from lines import line, print_heading, print_row, write
from scipy import stats

from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.ingestion.shop import catalogue as shop_catalogue
from dsirm_jax.metrics.bootstrap import bootstrap, interval
from dsirm_jax.metrics.codebook import agreement_ratio, prefix_agreement, shared_information
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.fitted import load
from dsirm_jax.run.layout import FULL, Layout
from dsirm_jax.sids.codes import prefix_keys, read_sids

CONFIG = "quantizer_config.QuantizerConfig"
UNPINNED = (f"{CONFIG}.pin_depth=0", f"{CONFIG}.title_language=None")
FREE = (*UNPINNED, f"{CONFIG}.codebook_sizes=(128, 128, 128)")
RUNGS = {
    "free": FREE,
    "free_unsupervised": (*FREE, "losses.QuantizerObjective.contrastive=0.0"),
    "pinned_512": (f"{CONFIG}.codebook_sizes=(512, 512, 512)",),
    "free_512": (*UNPINNED, f"{CONFIG}.codebook_sizes=(512, 512, 512)"),
}
BRIDGED, UNSUPERVISED = "free", "free_unsupervised"
HEALTH = {
    "128, pinned": FULL,
    "128, free": "free",
    "512, pinned": "pinned_512",
    "512, free": "free_512",
}
HEALTH_SEEDS = range(3)
LEVELS = (1, 2, 3)
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """One of the data sets.

    Attributes:
      name: in tables and cases.
      gin_file: its run.
      bindings: what this benchmark binds otherwise.
      seeds: of the runs.
    """

    name: str
    gin_file: str
    bindings: tuple[str, ...]
    seeds: range


def main() -> None:
    """Makes all semantic IDs, then prints three tables about them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esci", type=Path, help="folder of the official ESCI files")
    parser.add_argument("--quick", action="store_true", help="shops of 3,000 items, two seeds")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--scratch", type=Path, help="folder of all runs, kept and gone on with")
    given = parser.parse_args()
    data = [_shop(quick=given.quick)]
    if given.esci:
        data.append(_esci(given.esci, quick=given.quick))
    with tempfile.TemporaryDirectory() as temporary:
        scratch = given.scratch or Path(temporary)
        runs = {
            of.name: {seed: _run(of, seed, scratch / f"{of.name}-{seed}") for seed in of.seeds}
            for of in data
        }
        lines = [*_health(runs), *_truth(runs["shop"]), *_agreement(runs)]
    write(given.json, lines)


def _shop(*, quick: bool) -> Data:
    items, encoded, quantized = (3_000, 12, 12) if quick else (100_000, 2, 4)
    return Data(
        name="shop",
        gin_file="gin/runs/demo.gin",
        bindings=(
            f"simulated_shop.SimulatedShop.items={items}",
            # About 14 of the 16 judgements asked for a query come out: five an item.
            f"simulated_shop.SimulatedShop.queries={round(items * 5 / 14)}",
            f"encode/settings.Training.epochs={encoded}",
            f"quantize/settings.Training.epochs={quantized}",
        ),
        seeds=range(2 if quick else 5),
    )


def _esci(folder: Path, *, quick: bool) -> Data:
    bindings = [f"DATA_DIR={str(folder.absolute())!r}"]
    if quick:
        bindings.append("quantize/settings.Training.epochs=12")
    return Data(
        name="ESCI",
        gin_file="gin/runs/esci.gin",
        bindings=tuple(bindings),
        seeds=range(2) if quick else HEALTH_SEEDS,
    )


def _run(data: Data, seed: int, folder: Path) -> Layout:
    """Runs the stages that are not finished yet."""
    health = HEALTH.values() if seed in HEALTH_SEEDS else ()
    rungs = [rung for rung in RUNGS if rung in (BRIDGED, UNSUPERVISED, *health)]
    bindings = [
        *data.bindings,
        f"MODEL_DIR={str(folder.absolute())!r}",
        f"SEED={seed}",
        f"job.Job.rungs={tuple(rungs)!r}",
        *(f"{rung}/{binding}" for rung in rungs for binding in RUNGS[rung]),
    ]
    for stage in ("prepare", "encode", "quantize"):
        command = [sys.executable, "-m", "dsirm_jax", stage, f"--gin_file={data.gin_file}"]
        done = subprocess.run([*command, *(f"--gin.{binding}" for binding in bindings)])
        if done.returncode:
            raise SystemExit(done.returncode)
    return Layout(model_dir=folder)


Runs = Mapping[int, Layout]


def _health(runs: Mapping[str, Runs]) -> Iterator[dict]:
    print_heading(
        *("data", "codes", "level", "utilisation (worst)", "perplexity / size (worst)"),
        *("collisions", "largest bucket", "reconstruction error"),
    )
    for name, of_seeds in runs.items():
        for variant, rung in HEALTH.items():
            found = [
                json.loads(layout.for_rung(rung).health.read_text())
                for seed, layout in of_seeds.items()
                if seed in HEALTH_SEEDS
            ]
            of_all = [
                f"{100 * np.mean([health['collision_rate'] for health in found]):.1f} %",
                max(health["largest_bucket"] for health in found),
                f"{np.mean([health['reconstruction_error'] for health in found]):.3f}",
            ]
            of_sparse = name == "ESCI" and "512" in variant
            goals = {"utilisation": 0.99, "perplexity": 0.7 if of_sparse else 0.8}
            case = f"health/{name}/{variant}"
            for level in LEVELS:
                if level == 1 and found[0]["pinned_categories"]:
                    continue
                levels = [health["levels"][level - 1] for health in found]
                shares = {
                    "utilisation": [of["utilisation"] for of in levels],
                    "perplexity": [of["perplexity"] / of["size"] for of in levels],
                }
                shown = (f"{np.mean(of):.3f} ({np.min(of):.3f})" for of in shares.values())
                print_row(name, variant, level, *shown, *of_all)
                of_all = ["", "", ""]
                for figure, values in shares.items():
                    yield _beside(f"{case}/{figure} {level}", values, goals[figure], "share")
            for figure in ("collision_rate", "largest_bucket", "reconstruction_error"):
                values = [health[figure] for health in found]
                yield _beside(f"{case}/{figure.replace('_', ' ')}", values, None, "")


def _beside(case: str, values: Sequence[float], goal: float | None, unit: str) -> dict:
    """Returns the case of a figure of several seeds and its goal, if it has one."""
    mean = np.mean(values)
    if goal is None:
        return line(case, mean, None, unit, ratio=None)
    bounds = {"low": min(values) / goal, "high": max(values) / goal}
    return line(case, mean, goal, unit, ratio=mean / goal, **bounds)


def _truth(of_seeds: Runs) -> Iterator[dict]:
    print()
    print_heading("what, with what", "query-bridged", "unsupervised", "difference (95 %)")
    found = [
        [_information(layout.for_rung(rung)) for rung in (BRIDGED, UNSUPERVISED)]
        for layout in of_seeds.values()
    ]
    for name in found[0][0]:
        ours, other = np.array([[of[name] for of in seed] for seed in found]).T  # [seed] each
        gain = ours - other
        half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
        low, high = gain.mean() - half, gain.mean() + half
        mean = other.mean()
        shown = f"{gain.mean():+.4f} ({low:+.4f} to {high:+.4f})"
        print_row(name, f"{ours.mean():.4f}", f"{mean:.4f}", shown)
        bounds = {"low": 1 + low / mean, "high": 1 + high / mean}
        ratio = ours.mean() / mean
        yield line(f"truth/{name}", ours.mean(), mean, name.split()[0], ratio=ratio, **bounds)


def _information(layout: Layout) -> dict[str, float]:
    """Returns what the codes of one run tell of the truth about its items."""
    table = pq.read_table(layout.items, columns=["truth_type", "truth_attributes"])
    types = np.array(table["truth_type"].to_pylist())
    departments = {of.names[0]: of.department for of in shop_catalogue.product_types()}
    rows, attributes, values = _facts(table["truth_attributes"].to_pylist())
    of_types = np.unique(types[rows], return_inverse=True)[1] * len(rows) + attributes
    codes = read_sids(layout.sids).sids
    prefixes = prefix_keys(codes, sizes=_sizes(layout))
    first = codes[:, 0]
    found = {
        "level 1, department": shared_information(first, np.array([departments[t] for t in types])),
        "level 1, product type": shared_information(first, types),
    }
    for level in LEVELS:
        of_facts = prefixes[rows, level - 1]
        found[f"{_levels(level)}, attributes"] = shared_information(
            of_facts, values, groups=attributes
        )
        found[f"{_levels(level)}, attributes within a type"] = shared_information(
            of_facts, values, groups=of_types
        )
    for level in LEVELS[1:]:
        found[f"level {level} alone, attributes within a type"] = shared_information(
            codes[rows, level - 1], values, groups=of_types
        )
    return {
        f"{figure.upper()} of {what}": value
        for what, shared in found.items()
        for figure, value in shared._asdict().items()
    }


def _facts(of_items: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, of everything that is true of an item, the numbers of item, attribute and value.

    The model is left out: it is the name of a family of four items.
    """
    facts = [(number, *fact.split("=", 1)) for number, item in enumerate(of_items) for fact in item]
    facts = [fact for fact in facts if fact[1] != shop_catalogue.MODEL]
    rows, attributes, values = zip(*facts, strict=True)
    numbers = (np.unique(names, return_inverse=True)[1] for names in (attributes, values))
    return np.array(rows), *numbers


def _levels(level: int) -> str:
    return "level 1" if level == 1 else f"levels 1 to {level}"


def _agreement(runs: Mapping[str, Runs]) -> Iterator[dict]:
    print()
    print_heading(
        *("data", "levels", "query-bridged: relevant, irrelevant, ratio"),
        *("unsupervised", "ratio of ratios (95 %)"),
    )
    for name, of_seeds in runs.items():
        judged = [_judged(layout) for layout in of_seeds.values()]
        texts = np.concatenate([pairs["query"] for pairs in judged])
        queries = np.unique(texts, return_inverse=True)[1]
        relevant = np.concatenate([pairs["relevant"] for pairs in judged])
        shares, statistics = {}, {}
        for rung in (BRIDGED, UNSUPERVISED):
            of_rung = [layout.for_rung(rung) for layout in of_seeds.values()]
            codes = [_pair_codes(*of) for of in zip(of_rung, judged, strict=True)]
            query_codes, item_codes = map(np.concatenate, zip(*codes, strict=True))
            shares[rung] = prefix_agreement(query_codes, item_codes, relevant)
            for level in LEVELS:
                statistics[rung, level] = agreement_ratio(
                    queries, query_codes, item_codes, relevant, length=level
                )
        number = queries.max() + 1
        values, samples = bootstrap(
            statistics, num_queries=number, num_pairs=number, resamples=RESAMPLES, seed=0
        )
        for level in LEVELS:
            ours, other = values[BRIDGED, level], values[UNSUPERVISED, level]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratios = samples[BRIDGED, level] / samples[UNSUPERVISED, level]
                gain = interval(float(np.divide(ours, other)), ratios)
            shown = []
            for rung in (BRIDGED, UNSUPERVISED):
                kinds = (shares[rung][kind][level - 1] for kind in ("relevant", "irrelevant"))
                percents = ", ".join(f"{100 * share:.2f} %" for share in kinds)
                shown.append(f"{percents}, {values[rung, level]:.2f}")
            gains = f"{gain.value:.3f} ({gain.low:.3f} to {gain.high:.3f})"
            print_row(name, _levels(level), *shown, gains)
            if math.isfinite(gain.value):
                case = f"agreement/{name}/{_levels(level)}"
                bounds = {"ratio": gain.value, "low": gain.low, "high": gain.high}
                yield line(case, ours, other, "relevant / irrelevant", **bounds)


def _judged(layout: Layout) -> dict[str, np.ndarray]:
    """Returns the judged pairs of the queries that no quantizer has seen."""
    names = ["query", "query_index", "item_index", "relevant", "split"]
    table = pq.read_table(layout.judgements, columns=names)
    columns = {name: table[name].to_numpy() for name in names}
    held_out = columns.pop("split") != TRAIN
    return {name: values[held_out] for name, values in columns.items()}


def _pair_codes(layout: Layout, judged: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes of the pairs' queries and items, `[pair, level]` each."""
    query_codes, item_codes = _query_codes(layout), read_sids(layout.sids).sids
    return query_codes[judged["query_index"]], item_codes[judged["item_index"]]


def _query_codes(layout: Layout) -> np.ndarray:
    """Returns every query's own codes, int32 `[query, level]`: no category pins them."""
    queries = pq.read_table(layout.queries, columns=["query"])["query"]
    vectors = read_vectors(layout.query_vectors, ids=queries, id_column="query")
    return assign_vectors(fitted=load(layout.quantizer), vectors=vectors).codes


def _sizes(layout: Layout) -> tuple[int, ...]:
    return tuple(json.loads(layout.health.read_text())["sizes"])


if __name__ == "__main__":
    main()
