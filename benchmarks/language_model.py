"""What a pretrained language model is worth as a generator: hits on queries that none has seen.

    PYTHONPATH=. python benchmarks/language_model.py ARRAYS [ARRAYS ...] --out DIR
        [--weights DIR ...] [--only NAME ...] [--seeds N] [--rows N] [--titles EPOCHS]
        [--queries EPOCHS] [--snippets SHARE] [--minutes M] [--quick] [--json FILE]

ARRAYS are folders of `language_model_data.py`; those whose names differ in what follows a dash, as
folds do, are one data set. From scratch: T5s of gin/models/tiny.gin and t5_small.gin. --weights are
Hugging Face folders of a T5, SmolLM2, Qwen or Gemma, of which ARRAYS have the tokenizer's pieces;
what is not there is skipped, and said. All learn the same rows: titles, then queries and titles in
equal parts, and end where the loss of a tenth of the training queries was least. `nearest` learns
nothing: the SIDs of the items that are nearest to the query by the run's vectors, best first.

A hit is a test query with a relevant item's SID, or its first codes, among the first 1, 5, 10 or
100 of a search with 100 beams. Differences are from the first T5, paired, with 95 % intervals of a
bootstrap over queries, all spellings of one together; hits are means over seeds. Every fit is a
process of its own with its share of the time, in bfloat16 on an accelerator: one that fails ends
alone, and training that would take more than most of it ends there. What it found stays in --out,
and is not made again. No TensorFlow, no data but ARRAYS.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from device import Part, run
from language_model_fit import Course, is_t5
from lines import append, line, print_heading, print_row
from shapes import T5_SMALL, T5_TINY

from dsirm_jax.data.schema import SEGMENTS
from dsirm_jax.metrics.bootstrap import bootstrap, interval, mean_over_queries
from dsirm_jax.metrics.retrieval import HITS_AT, first_hits, hit_at_k

MINUTES = 8.0
TRAINED = 0.7
"""Of a fit's time, in which it may train; compilation and search take the rest."""
RESAMPLES = 1000
RUN, NEAREST = "run", "nearest"
SCRATCH = {"t5_tiny": T5_TINY, "t5_small": T5_SMALL}
RATES = {"t5_tiny": 2e-3, "t5_small": 1e-3, "t5": 1e-3, "decoder": 3e-4}
"""Learning rates, of AdamW."""
SHARES = {"t5_tiny": 0.5, "t5_small": 1.0, "t5": 1.0, "decoder": 2.0}
"""Of the time."""
COURSE = Course(learning_rate=0.0, title_epochs=10.0, query_epochs=20.0)
QUICK = Course(learning_rate=0.0, title_epochs=0.2, query_epochs=0.2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not finished, then prints what is, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arrays", type=Path, nargs="+", help="folders of arrays")
    parser.add_argument("--out", type=Path, required=True, help="folder of ranks, kept")
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="Hugging Face folders")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="of these names alone")
    parser.add_argument("--seeds", type=int, default=1, help="of each; 1")
    parser.add_argument("--rows", type=int, help="of a step; 256, or 64 on a CPU")
    parser.add_argument("--titles", type=float, help=f"epochs; {COURSE.title_epochs:g}")
    parser.add_argument("--queries", type=float, help=f"epochs; {COURSE.query_epochs:g}")
    parser.add_argument("--snippets", type=float, help="of titles' rows, a few pieces each; 0")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"at most; {MINUTES:g}")
    parser.add_argument("--quick", action="store_true", help="next to no steps")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    given = parser.parse_args(arguments)
    for folder in given.arrays:
        if not (folder / "data.npz").is_file():
            parser.error(f"{folder}: no arrays of language_model_data.py")
    given.out.mkdir(parents=True, exist_ok=True)
    course = QUICK if given.quick else COURSE
    bound = {"title_epochs": given.titles, "query_epochs": given.queries}
    bound |= {"snippets": given.snippets}
    bound = {name: value for name, value in bound.items() if value is not None}
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Seeds and folds run the same programs.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(given.out.absolute() / "compiled"))
    names, chosen = [*SCRATCH, *(path.resolve().name for path in given.weights)], []
    for seed, folder in itertools.product(range(given.seeds), given.arrays):
        chosen += parts(
            folder.absolute(),
            given.weights,
            course=dataclasses.replace(course, **bound),
            seed=seed,
            rows=given.rows,
            out=given.out.absolute(),
        )
    kept = [part for part in chosen if not given.only or part.name.split("/")[1] in given.only]
    kept = [within(part, TRAINED * 60 * given.minutes, kept) for part in kept]
    status = run(kept, seconds=60 * given.minutes, quick=given.quick, json=given.json)
    print_heading(
        *("data", "queries", "agree in", "generator"), *(f"{k} (difference, 95 %)" for k in HITS_AT)
    )
    data: dict[str, list[Path]] = {}
    for folder in given.arrays:
        data.setdefault(folder.resolve().name.partition("-")[0], []).append(folder)
    for name, folders in data.items():
        for case in compared(name, folders, names, out=given.out, seeds=given.seeds):
            append(given.json, case)
    return status


def parts(
    folder: Path,
    weights: Sequence[Path],
    *,
    course: Course,
    seed: int,
    rows: int | None,
    out: Path,
) -> Iterator[Part]:
    """Yields the fits of a folder of arrays that are to be made, and says which cannot be."""
    shapes = {name: (name, RUN, shape) for name, shape in SCRATCH.items()}
    for path in weights:
        name, described = path.resolve().name, path / "config.json"
        if not described.is_file() or not (folder / f"{name}.npz").is_file():
            missing = f"{folder / name}.npz" if described.is_file() else described
            print(f"{folder.name}/{name} is skipped: no {missing}")
            continue
        kind = "t5" if is_t5(path) else "decoder"
        shapes[name] = (kind, name, path.absolute())
    for name, (kind, vocabulary, shape) in shapes.items():
        ranks = ranks_file(out, folder, name, seed)
        if not ranks.is_file():
            yield Part(
                name=f"{folder.name}/{name}/{seed}",
                run="language_model_fit.worth",
                share=SHARES[kind],
                options={
                    "folder": folder,
                    "vocabulary": vocabulary,
                    "shape": shape,
                    "course": dataclasses.replace(course, learning_rate=RATES[kind]),
                    "seed": seed,
                    "rows": rows,
                    "ranks": ranks,
                },
            )


def within(part: Part, seconds: float, parts: Sequence[Part]) -> Part:
    """Returns a part that trains for its share of the time of all."""
    own = seconds * part.share / sum(each.share for each in parts)
    return dataclasses.replace(part, options={**part.options, "seconds": own})


def ranks_file(out: Path, folder: Path, name: str, seed: int) -> Path:
    """Returns where the ranks of a fit are."""
    return out / f"{folder.resolve().name}-{name}-{seed}.npz"


def compared(
    data: str, folders: Sequence[Path], names: Sequence[str], *, out: Path, seeds: int
) -> Iterator[dict]:
    """Prints the hits of all that was fitted on a data set, and yields the cases."""
    hits: dict[str, list[np.ndarray]] = {name: [] for name in (*names, NEAREST)}
    segments, identities = [], []
    for folder in folders:
        with np.load(folder / "data.npz") as arrays:
            known = dict(arrays)
        asked = np.unique(known["test"][:, 0])
        segments.append(known["segment"][asked])
        identities.append(known["identity"][asked])
        hits[NEAREST].append(hits_of([nearest_ranks(known)]))
        for name in names:
            files = [ranks_file(out, folder, name, seed) for seed in range(seeds)]
            found = [np.load(file)["ranks"] for file in files if file.is_file()]
            if found:
                hits[name].append(hits_of(found))
    whole = {name: np.concatenate(of) for name, of in hits.items() if len(of) == len(folders)}
    segment, identity = np.concatenate(segments), np.concatenate(identities)
    for part in ("", *SEGMENTS):
        kept = segment == part if part else np.ones(len(segment), bool)
        if kept.any():
            groups = np.unique(identity[kept], return_inverse=True)[1]
            of_part = {name: of[kept] for name, of in whole.items()}
            yield from _segment(f"{data}/{part}" if part else data, of_part, groups=groups)


def hits_of(ranks: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the share of seeds with a hit, `[query, level, k]`, of each seed's ranks."""
    found = [np.stack([hit_at_k(of_seed, k=k) for k in HITS_AT], axis=-1) for of_seed in ranks]
    return np.mean(found, axis=0)


def nearest_ranks(known: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the ranks of the SIDs of the nearest items, each SID counting once."""
    row = np.unique(known["test"][:, 0], return_inverse=True)[1]
    sids = known["sids"][known["nearest"]]  # [query, rank, level]
    written = np.zeros_like(sids)
    valid = np.zeros(sids.shape[:2], bool)
    for query, of_query in enumerate(sids):
        _, first = np.unique(of_query, axis=0, return_index=True)
        written[query, : len(first)] = of_query[np.sort(first)]
        valid[query, : len(first)] = True
    relevant = known["sids"][known["test"][:, 1]]
    return first_hits(written, valid, query_index=row, relevant_sids=relevant)


def _segment(name: str, hits: Mapping[str, np.ndarray], *, groups: np.ndarray) -> Iterator[dict]:
    base = next(iter(hits))
    levels = hits[base].shape[1]
    for level in range(levels):
        statistics = {
            (key, k): mean_over_queries(of[:, level, place])
            for key, of in hits.items()
            for place, k in enumerate(HITS_AT)
        }
        values, samples = bootstrap(
            statistics,
            num_queries=len(groups),
            num_pairs=len(groups),
            resamples=RESAMPLES,
            seed=0,
            groups=groups,
        )
        agree = "whole SID" if level == levels - 1 else f"{level + 1}"
        for key in hits:
            cells = []
            for k in HITS_AT:
                ours, other = values[key, k], values[base, k]
                apart = interval(ours - other, samples[key, k] - samples[base, k])
                shown = f" ({apart.value:+.3f}, {apart.low:+.3f} to {apart.high:+.3f})"
                cells.append(f"{100 * ours:.1f} %" + (shown if key != base else ""))
                ratio = ours / other if other else None
                case = f"hits/{name}/level {level + 1}/{k}/{key}"
                yield line(case, ours, other, "share", ratio=ratio)
            print_row(name, len(groups), agree, key, *cells)


if __name__ == "__main__":
    raise SystemExit(main())
