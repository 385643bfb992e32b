"""How soon the scorer answers, how soon it is open, and what memory a catalogue takes.

    python benchmarks/serving.py [--bundle DIR] [--models NAME ...] [--quick] [--json FILE]

Models: those of a bundle of the demo (`make demo`, then `dsirm export`), and the same bundle with
an untrained generator of T5-small's or SmolLM2-135M's size in place of its own; --models names some
of them, and leaves out start and memory. A call scores 100 items in process.
Cached: head queries with items of the SIDs that are known for them; again: the same, once the
scorer has answered about these items before and remembers it. Live: queries that no bundle knows.
Whoever answers otherwise than the case says ends the benchmark.
Callers are threads of one process, which share the GIL; each calls again at once.

Start: a fresh Python until the first score of a cached query, programs compiled before, all files
compared with their checksums or trusted; of the demo, and of a million items, its own repeated.
Memory: what a catalogue of 10,000,000 SIDs maps to find items by SID and SIDs by item; and a
million items of the bundle with vectors, digests of texts, and all else.

Goals, on two CPU cores: P99 of 1 ms cached and of 10 ms live with the demo's model and one caller,
5 s to start and 10 s with a million items, 2 GiB mapped for 1e7 SIDs. A ratio is the goal over
what was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lines import line, print_heading, print_row, write
from shapes import SMOLLM2_135M, T5_SMALL
from timing import of_callers

from dsirm_jax.generator.architectures.architecture import Architecture, init_params
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.relevance.nearest import search
from dsirm_jax.relevance.nearest.build import made
from dsirm_jax.relevance.nearest.settings import DEFAULT
from dsirm_jax.serving import Scorer, ScorerSettings
from dsirm_jax.serving.bundle import item_parts, store
from dsirm_jax.serving.bundle.cached import NO_KEY, unpacked
from dsirm_jax.serving.bundle.catalogue import item_vectors, row_blocks, write_catalogue
from dsirm_jax.serving.bundle.contents import Bundle, open_bundle, seal_bundle
from dsirm_jax.serving.scorer.answers import CACHED, LIVE, AnswerSource
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.codes import unpack

CALLERS, ITEMS, QUERIES = (1, 8, 32), 100, 256
UNTRAINED = {"t5_small": T5_SMALL, "smollm2_135m": SMOLLM2_135M}
GOALS = {"cached": 1.0, "live": 10.0}
SECONDS, BYTES = (10.0, 5.0), 2 * 2**30
SIZES, SIDS, LARGE = (216, 512, 512), 10_000_000, 1_000_000
OPEN = """
import sys
from dsirm_jax.serving import Scorer, ScorerSettings

bundle, programs, trust, query, *items = sys.argv[1:]
settings = ScorerSettings(programs=programs)
with Scorer.open(bundle, settings=settings, trust=trust == "trust") as scorer:
    print(scorer.score(query, items).source)
"""


def main() -> None:
    """Prints tables and writes the cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("out/demo/export/bundle"))
    parser.add_argument("--models", nargs="*", choices=["demo", *UNTRAINED], help="of these alone")
    parser.add_argument("--quick", action="store_true", help="fewer calls and SIDs")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args()
    bundle = open_bundle(given.bundle)
    calls, sids = (1_000, SIDS // 10) if given.quick else (5_000, SIDS)
    requests, cases = head_queries(bundle), []
    print_heading("case", "mean ms", "P50", "P99", "calls/s", "goal")
    kinds = (
        ("cached", CACHED, ScorerSettings(deadline=60.0, warm_items=ITEMS, remembered_answers=0)),
        ("cached, again", CACHED, ScorerSettings(deadline=60.0, warm_items=ITEMS)),
        ("live", LIVE, ScorerSettings(deadline=60.0, warm_items=ITEMS, warm=(1, 2, 4, 8, 16, 32))),
    )
    for model in given.models or ["demo", *UNTRAINED]:
        served = with_generator(bundle, UNTRAINED[model]) if model in UNTRAINED else bundle
        for kind, source, settings in kinds:
            few = calls if source == CACHED else calls // (5 if model == "demo" else 25)
            added = " ?" if source == LIVE else ""
            named = [(text + added, items) for text, items in requests]
            with Scorer(served, settings=settings) as scorer:
                scorer.warm(*settings.warm)
                if source == CACHED:
                    timed(scorer, named, source=source, callers=1, calls=len(named))
                for callers in CALLERS:
                    milliseconds, seconds = timed(
                        scorer, named, source=source, callers=callers, calls=few
                    )
                    goal = GOALS[source] if (model, callers) == ("demo", 1) else None
                    case = f"{kind}/{model}/{callers} callers"
                    cases.append(shown(case, milliseconds, seconds, goal=goal))
    if given.models:
        write(given.json, cases)
        return
    print_heading("case", "measured", "goal", "ratio")
    cases += [*starts(bundle, requests[0], name="demo"), *memory(bundle, sids=sids)]
    with tempfile.TemporaryDirectory() as folder:
        copies = -(-LARGE // (10 if given.quick else 1) // len(bundle.catalogue))
        large = repeated(bundle, Path(folder) / "bundle", copies=copies)
        cases += starts(large, requests[0], name=f"{len(large.catalogue):,} items")
    write(given.json, cases)


def with_generator(bundle: Bundle, shape: Architecture) -> SimpleNamespace:
    """Returns a bundle with an untrained generator of a shape."""
    known = bundle.models.generator
    config = shape.fitted_to(
        text_vocab_size=known.config.text_vocab_size, sid_sizes=known.config.sid_sizes
    ).unscanned()
    generator = FittedGenerator(
        config=config,
        params=init_params(config, seed=0),
        max_pieces=known.max_pieces,
        sid_version=known.sid_version,
    )
    models = dataclasses.replace(bundle.models, generator=generator)
    return SimpleNamespace(manifest=bundle.manifest, catalogue=bundle.catalogue, models=models)


def head_queries(bundle: Bundle) -> list[tuple[str, list[str]]]:
    """Returns cached queries, each with items of the SIDs that are known for it."""
    requests = []
    for key, _ in bundle.catalogue.queries:
        text = key.decode()
        known = bundle.catalogue.cached(text).known.keys[0]
        sids = unpack(known[known < NO_KEY], sizes=bundle.manifest.sizes)
        below = np.concatenate([bundle.catalogue.items_below(sid) for sid in sids])
        items = bundle.catalogue.items(below[:ITEMS])
        if len(items) == ITEMS:
            requests.append((text, [item.item_id for item in items]))
        if len(requests) == QUERIES:
            break
    if not requests:
        raise SystemExit(f"no cached query of the bundle knows the SIDs of {ITEMS} items")
    return requests


def timed(
    scorer: Scorer,
    requests: Sequence[tuple[str, list[str]]],
    *,
    source: AnswerSource,
    callers: int,
    calls: int,
) -> tuple[np.ndarray, float]:
    """Returns milliseconds of every call, and the seconds that all took."""
    each = -(-calls // callers)

    def call(caller: int, number: int) -> None:
        text, items = requests[(caller * each + number) % len(requests)]
        check(scorer.score(text, items).source, source, query=text)

    return of_callers(call, callers=callers, calls=each)


def check(source: str, expected: AnswerSource, *, query: str) -> None:
    """Ends the benchmark where a call was not answered as it says."""
    if source != expected:
        raise SystemExit(f"query {query!r} was answered as {source}, not as {expected}")


def shown(case: str, milliseconds: np.ndarray, seconds: float, *, goal: float | None) -> dict:
    """Prints a case and returns it."""
    middle, last = np.quantile(milliseconds, [0.5, 0.99])
    cells = [f"{value:.2f}" for value in (milliseconds.mean(), middle, last)]
    print_row(case, *cells, f"{len(milliseconds) / seconds:,.0f}", goal or "–")
    return line(case, last, goal, "ms P99", ratio=goal and goal / last) | {
        "mean": float(milliseconds.mean()),
        "p50": float(middle),
        "per_second": len(milliseconds) / seconds,
    }


def compared(case: str, measured: float, goal: float | None, unit: str) -> dict:
    """Prints a case and returns it."""
    ratio = goal and goal / measured
    print_row(case, f"{measured:.2f} {unit}", goal or "–", f"{ratio:.1f}" if ratio else "–")
    return line(case, measured, goal, unit, ratio=ratio)


def starts(bundle: Bundle, request: tuple[str, list[str]], *, name: str) -> list[dict]:
    """Times fresh processes that compare checksums, and that trust; the first compiles."""
    query, items = request
    cases = []
    with tempfile.TemporaryDirectory() as programs:

        def seconds(trust: str) -> float:
            command = [sys.executable, "-c", OPEN, str(bundle.path), programs, trust, query, *items]
            started = time.perf_counter()
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            check(done.stdout.strip(), CACHED, query=query)
            return time.perf_counter() - started

        print_row(f"start/{name}, nothing compiled", f"{seconds('verify'):.2f} s", "–", "–")
        for trust, goal in (("verify", SECONDS[name == "demo"]), ("trust", None)):
            middle = float(np.median([seconds(trust) for _ in range(5)]))
            cases.append(compared(f"start/{name}, {trust}", middle, goal, "s"))
    return cases


def repeated(bundle: Bundle, path: Path, *, copies: int) -> Bundle:
    """Returns a bundle of the same models whose catalogue has every item some times, and lists."""
    manifest, old = bundle.manifest, bundle.catalogue
    shutil.copytree(bundle.path, path, ignore=shutil.ignore_patterns("catalogue-*", "*.lock"))
    stored = [item for numbers in row_blocks(np.arange(len(old))) for item in old.items(numbers)]
    table = pa.Table.from_pylist([vars(item) | dict(item.attributes) for item in stored])
    ids, place = table["item_id"], table.schema.get_field_index("item_id")

    def rows() -> Iterator[pa.Table]:
        for copy in range(copies):
            suffix = pa.scalar(f"-{copy}" if copy else "")
            named = pc.binary_join_element_wise(ids, suffix, "")
            yield table.set_column(place, "item_id", named)

    known = [
        (text, unpacked(np.frombuffer(record, old.record))) for text, record in old.cached_queries()
    ]
    random = np.random.default_rng(0)
    sids = np.tile(np.asarray(old.sids, np.int32), (copies, 1))
    sids[len(old) :, -1] = random.integers(manifest.sizes[-1], size=len(sids) - len(old))
    write_catalogue(
        path / manifest.catalogue_folder,
        items=item_parts.of_tables(
            rows,
            numbers=manifest.settings.numbers,
            processor=bundle.models.vocabulary,
            language=manifest.settings.language,
        ),
        vectors=(np.asarray(old.vectors) for _ in range(copies)),
        sids=sids,
        trie=tries.build(sids, sizes=manifest.sizes, kind=manifest.settings.trie),
        voters=old.voters,
        queries=(([text], cached) for text, cached in known),
    )
    made(
        search.ITEMS,
        item_vectors(path / manifest.catalogue_folder),
        folder=path / manifest.catalogue_folder,
        settings=DEFAULT,
        queries=np.concatenate([cached.vectors for _, cached in known]),
    )
    files = {name: of for name, of in manifest.files.items() if not name.startswith("catalogue-")}
    seal_bundle(path, dataclasses.replace(manifest, items=len(sids), files=files))
    return open_bundle(path)


def memory(bundle: Bundle, *, sids: int) -> list[dict]:
    """Measures what is mapped of many SIDs, and files of the bundle by item."""
    with tempfile.TemporaryDirectory() as folder:
        mapped = bytes_of_sids(Path(folder), sids=sids)
    gigabytes = mapped * (SIDS / sids) / 2**30
    cases = [compared("memory/1e7 item SIDs", gigabytes, BYTES / 2**30, "GiB")]
    catalogue = bundle.path / bundle.manifest.catalogue_folder
    files = {path: path.stat().st_size for path in catalogue.rglob("*") if path.is_file()}
    queries = ("queries.mdb", "voters.safetensors", "record.npy")
    of_items = sum(size for path, size in files.items() if path.name not in queries)
    millions = len(bundle.catalogue) / 1e6
    cases.append(compared("memory/a million items", of_items / millions / 2**30, None, "GiB"))
    thousands = len(bundle.catalogue.queries) / 1e3
    of_queries = (catalogue / "queries.mdb").stat().st_size / 2**20
    return [*cases, compared("memory/1000 cached queries", of_queries / thousands, None, "MiB")]


def bytes_of_sids(folder: Path, *, sids: int) -> int:
    """Returns the bytes that a catalogue maps of SIDs: those of items, trie, items of each SID."""
    drawn = np.random.default_rng(0).integers(0, SIZES, size=(sids, len(SIZES)), dtype=np.int32)
    np.save(folder / "sids.npy", drawn.astype(np.uint16))
    tries.save(folder / "trie.safetensors", tries.build(drawn, sizes=SIZES))
    postings = tries.postings(drawn, sizes=SIZES)
    np.save(folder / "rows.npy", postings.rows)
    np.save(folder / "starts.npy", postings.starts)
    keys = ((f"B{number:09d}".encode(), number.to_bytes(4, "big")) for number in range(sids))
    store.write_store(folder / "ids.mdb", keys)
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    main()
