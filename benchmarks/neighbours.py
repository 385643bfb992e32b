"""What lists find, and what a live query costs, as the catalogue grows.

    python benchmarks/neighbours.py [--bundle DIR] [--sizes 1e4 ...] [--folder DIR] [--json FILE]

The models are those of a bundle of the demo (`make demo`). Its catalogue is made longer by vectors
of like spread: each lies between an item of the shop and one of the seven nearest to it, and off by
half of its length in a random direction. SIDs are those of the shop's items, over and over; items
that are scored are the shop's own. So all that grows with the catalogue of what a live query reads
is there; texts and ids, of which it reads those of the scored items alone, are not.

Recall: share of the 50 nearest of 500 queries that lists find, none of which they were made with.
Search: one query after the other, one thread. Live and cached: a call about 100 items, one caller.
Open: mapping and checking lists. Resident: of a fresh process that has searched 500 times; mapped
is the size of the files of vectors and lists. CPU: the time of all threads, which other work of
the machine hardly changes. Differences: of all features and probabilities that a
live call answers, by lists and by exhaustive search, of 100 queries with 100 items each.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from lines import line, print_heading, print_row, write
from serving import ITEMS, check, head_queries

from dsirm_jax.relevance.nearest import lists as files
from dsirm_jax.relevance.nearest.build import build
from dsirm_jax.relevance.nearest.exact import Exact, nearest_rows
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.lists import Listed, search_in
from dsirm_jax.relevance.nearest.search import ITEMS as NAME
from dsirm_jax.relevance.nearest.search import Search
from dsirm_jax.relevance.neighbours import NEAR_ITEMS
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle
from dsirm_jax.serving.scorer.answers import CACHED, LIVE, AnswerSource

SIZES = (1e4, 1e5, 1e6, 1e7)
QUERIES, COMPARED, BLOCK = 500, 100, 1 << 16
RECALL, LIVE_MS, GROWTH = 0.98, {10_000: 10.0, 10_000_000: 15.0}, 1.5
RESIDENT = """
import json, pathlib, sys, numpy as np
from dsirm_jax.relevance.nearest.lists import search_in

def resident():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line[:3] == "Rss"}

folder, before = pathlib.Path(sys.argv[1]), resident()
vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))
search = search_in(folder, "items", vectors, otherwise="is not whole")
for query in np.load(folder / "queries.npy"):
    search.nearest(query[None], k=50)
after = resident()
print(json.dumps({name: after[name] - before[name] for name in after}))
"""


def main() -> None:
    """Prints a table and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("out/demo/export/bundle"))
    parser.add_argument("--sizes", nargs="*", type=float, default=SIZES)
    parser.add_argument("--folder", type=Path, help="of temporary files")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    cases, live = [], {}
    print_heading("case", "measured", "goal")
    for size in map(int, given.sizes):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            for case, measured, goal, unit_of in measured_at(bundle, size, folder=Path(folder)):
                print_row(f"{size:,} items, {case}", f"{measured:.4g} {unit_of}", goal or "–")
                cases.append(line(f"{size}/{case}", measured, goal, unit_of, ratio=None))
                if case == "live, P50":
                    live[size] = measured
    if {100_000, 10_000_000} <= live.keys():
        grown = live[10_000_000] / live[100_000]
        print_row("live, P50, of 1e7 over 1e5 items", f"{grown:.2f}", GROWTH)
        cases.append(line("live/1e7 over 1e5", grown, GROWTH, "x", ratio=GROWTH / grown))
    write(given.json, cases)


def measured_at(
    bundle: Bundle, size: int, *, folder: Path
) -> Iterator[tuple[str, float, float | None, str]]:
    """Yields the cases of a size: name, measurement, goal and unit."""
    shop = np.asarray(bundle.catalogue.vectors)
    like = like_shop(shop)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", "w+", np.float32, (size, shop.shape[1])
    )
    vectors[: len(shop)] = shop
    random = np.random.default_rng(0)
    for start in range(len(shop), size, BLOCK):
        vectors[start : start + BLOCK] = like(min(BLOCK, size - start), random)
    vectors.flush()
    vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))
    requests = head_queries(bundle)
    texts = [f"{text} ?" for text, _ in requests]
    asked = bundle.models.encoder.embed(texts)
    started = time.perf_counter()
    known = np.concatenate([asked, like(QUERIES, random)])
    lists = build(vectors, queries=known, k=NEAR_ITEMS, recall=0.99)
    yield "making lists", time.perf_counter() - started, None, "s"
    path = files.lists_file(folder, NAME)
    files.save(path, lists)
    yield "lists, of them read", lists.measured.probes / len(lists.centroids), None, "of 1"
    yield "lists on disk", path.stat().st_size / size, None, "B an item"
    started = time.perf_counter()
    search = search_in(folder, NAME, vectors, otherwise="is not whole")
    yield "open", 1e3 * (time.perf_counter() - started), None, "ms"
    queries = like(QUERIES, random)
    np.save(folder / "queries.npy", queries)
    nearest = nearest_rows(queries=queries, candidates=vectors, k=NEAR_ITEMS).row
    found = search.nearest(queries, k=NEAR_ITEMS).row
    hits = [len({*one} & {*other}) for one, other in zip(found, nearest, strict=True)]
    yield "recall@50", float(np.mean(hits)) / NEAR_ITEMS, RECALL, "of 1"
    for name, of in (("lists", search), ("exhaustive", Exact(vectors))):
        few = queries if name == "lists" else queries[:50]
        of.nearest(few[:1], k=NEAR_ITEMS)
        steps = [functools.partial(of.nearest, query[None], k=NEAR_ITEMS) for query in few]
        yield from timed(steps, name=f"search by {name}")
    yield from resident(folder)
    yield from calls(bundle, vectors, search, requests)


def like_shop(shop: np.ndarray) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Returns what draws vectors of length 1 that are spread as some are."""
    near = np.argsort(-(shop @ shop.T), axis=1)[:, 1:8]

    def drawn(count: int, random: np.random.Generator) -> np.ndarray:
        first = random.integers(len(shop), size=count)
        second = near[first, random.integers(near.shape[1], size=count)]
        share = 0.6 * random.random((count, 1), np.float32)
        between = unit((1 - share) * shop[first] + share * shop[second])
        off = unit(random.standard_normal((count, shop.shape[1]), np.float32))
        return unit(between + 0.5 * off)

    return drawn


def timed(
    steps: Sequence[Callable[[], object]], *, name: str, goal: float | None = None
) -> Iterator[tuple[str, float, float | None, str]]:
    """Yields P50 and P99 of the milliseconds of steps, and what all threads compute in one."""
    milliseconds, before = [], time.process_time()
    for step in steps:
        started = time.perf_counter()
        step()
        milliseconds.append(1e3 * (time.perf_counter() - started))
    computed = time.process_time() - before
    middle, last = np.quantile(milliseconds, [0.5, 0.99])
    yield f"{name}, P50", float(middle), None, "ms"
    yield f"{name}, P99", float(last), goal, "ms"
    yield f"{name}, CPU", 1e3 * computed / len(steps), None, "ms"


def resident(folder: Path) -> Iterator[tuple[str, float, float | None, str]]:
    """Yields what a fresh process has in memory once it has searched, and what it maps."""
    command = [sys.executable, "-c", RESIDENT, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    memory = json.loads(done.stdout)
    yield "resident, own", memory["RssAnon"], None, "MiB"
    yield "resident, shared with other processes", memory["RssFile"], None, "MiB"
    yield "mapped", sum(path.stat().st_size for path in folder.iterdir()) / 2**20, None, "MiB"


def calls(
    bundle: Bundle, vectors: np.ndarray, search: Search, requests: list[tuple[str, list[str]]]
) -> Iterator[tuple[str, float, float | None, str]]:
    """Yields how long calls take, and how answers by lists differ from those by all vectors."""
    size = len(vectors)
    answers = {}
    for name, of in (("lists", search), ("exhaustive", Exact(vectors))):
        served = longer(bundle, vectors, of)
        settings = ScorerSettings(deadline=60.0, warm_items=ITEMS, remembered_answers=0)
        with Scorer(served, settings=settings) as scorer:
            scorer.warm(1)
            if name == "lists":
                for kind, added in ((LIVE, " ?"), (CACHED, "")):
                    steps = [
                        functools.partial(scored, scorer, text + added, items, source=kind)
                        for text, items in requests * 2
                    ]
                    for step in steps[: len(requests)]:
                        step()
                    goal = LIVE_MS.get(size) if kind == LIVE else None
                    yield from timed(steps, name=kind, goal=goal)
            answers[name] = [
                scorer.score(f"{text} ?", items) for text, items in requests[:COMPARED]
            ]
    one, other = answers["lists"], answers["exhaustive"]
    features = np.abs(
        np.concatenate([a.features - b.features for a, b in zip(one, other, strict=True)])
    )
    apart = np.abs(
        np.concatenate([a.probabilities - b.probabilities for a, b in zip(one, other, strict=True)])
    )
    assert isinstance(search, Listed)
    yield "features that differ by 1e-5 or more", float((features >= 1e-5).mean()), None, "of 1"
    yield "features, greatest difference", float(features.max()), None, ""
    yield "probabilities, mean difference", float(apart.mean()), None, ""
    yield "probabilities, greatest difference", float(apart.max()), None, ""


def scored(scorer: Scorer, text: str, items: list[str], *, source: AnswerSource) -> None:
    """Asks about items, which has to be answered as is said."""
    check(scorer.score(text, items).source, source, query=text)


def longer(bundle: Bundle, vectors: np.ndarray, search: Search) -> SimpleNamespace:
    """Returns a bundle with further items, whose vectors and SIDs alone are there."""
    old = bundle.catalogue
    repeats = -(-len(vectors) // len(old))
    tiled = {
        name: np.tile(getattr(old, name), (repeats, 1))[: len(vectors)]
        for name in ("sids", "log_shares")
    }
    catalogue = dataclasses.replace(old, vectors=vectors, item_search=search, **tiled)
    return SimpleNamespace(manifest=bundle.manifest, catalogue=catalogue, models=bundle.models)


if __name__ == "__main__":
    main()
