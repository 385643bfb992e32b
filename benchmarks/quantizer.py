"""The quantizer's step and bulk assignment beside other libraries, in one run on the same arrays.

    python benchmarks/quantizer.py [--quick] [--json FILE]

Vectors of 256 numbers, three levels of 512 codes, batches of 4096 rows, on the CPU. Rivals and we
are timed in turn, round by round; a ratio is that of the medians, its interval the 95 % bootstrap
interval over rounds. `assign-bound` compares with the three matrix products alone. Growth is linear
where the time an item is that of the smallest case (times the codes), memory flat where the peak
is. The rivals are in the extra `bench`.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from lines import line, write
from quantizer_sides import DIM, codebooks_of, data, our_step, products, residual_vq, torch_step
from timing import compare, queued, show

from dsirm_jax.quantizer.assign import CHUNK_ROWS, VectorChunk, assign
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.model import beam_quantize, residual_quantize

SIZES, BATCH = (512, 512, 512), 4096
GIB = 2**30


def main() -> None:
    """Runs all cases and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, growth to 1e5 items")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument(
        "--grow", nargs=2, type=int, metavar=("ITEMS", "CODES"), help=argparse.SUPPRESS
    )
    given = parser.parse_args()
    if given.grow:
        print(json.dumps(_grow(*given.grow)))
        return
    for package in ("torch", "vector_quantize_pytorch", "faiss"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f"benchmarks/quantizer.py needs {package}: pip install '.[bench]'")
    rounds = 15 if given.quick else 60
    lines = []
    for case in itertools.chain(_rivals(rounds), _growth(quick=given.quick)):
        show(case)
        lines.append(case)
    write(given.json, lines)


def _rivals(rounds: int) -> Iterator[dict]:
    vectors, words = data(BATCH, SIZES)
    step = queued(our_step(vectors, words), calls=1)
    yield compare("train", step, torch_step(vectors, words), rounds=rounds)
    codes = _our_codes(vectors, words)
    yield compare("assign-faiss", codes, _faiss_codes(vectors, words, beams=1), rounds=rounds)
    yield compare("assign-torch", codes, _torch_codes(vectors, words), rounds=rounds)
    bound = queued(products(vectors, words), calls=1)
    yield compare("assign-bound", codes, bound, rounds=rounds)
    yield compare(
        "beam-faiss/beams=5",
        _our_codes(vectors, words, beams=5),
        _faiss_codes(vectors, words, beams=5),
        rounds=rounds // 5,
    )


def _our_codes(
    vectors: np.ndarray, words: list[np.ndarray], *, beams: int = 1
) -> Callable[[], None]:
    quantize = functools.partial(beam_quantize, beams=beams) if beams > 1 else residual_quantize
    codes_of = jax.jit(lambda latents, codebooks: quantize(latents, codebooks).codes)
    codebooks = codebooks_of(words)
    return lambda: np.asarray(codes_of(vectors, codebooks))


def _torch_codes(vectors: np.ndarray, words: list[np.ndarray]) -> Callable[[], np.ndarray]:
    import torch

    other = residual_vq(words).eval()
    latents = torch.from_numpy(vectors)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return other(latents)[1].numpy()

    return run


def _faiss_codes(
    vectors: np.ndarray, words: list[np.ndarray], *, beams: int
) -> Callable[[], np.ndarray]:
    import faiss

    other = faiss.ResidualQuantizer(DIM, len(words), int(np.log2(len(words[0]))))
    other.max_beam_size = beams
    faiss.copy_array_to_vector(np.concatenate(words).ravel(), other.codebooks)
    other.is_trained = True
    return lambda: other.compute_codes(vectors)


def _growth(*, quick: bool) -> Iterator[dict]:
    """Compares each size with the smallest one; every size is a process of its own."""
    items = (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000, 10_000_000)
    codes = (64, 512) if quick else (64, 512, 2048, 8192)
    cases = [("items", n, (n, SIZES[0])) for n in items]
    cases += [("codes", n, (20 * CHUNK_ROWS, n)) for n in codes]
    first: dict[str, dict] = {}
    for name, number, arguments in cases:
        command = [sys.executable, __file__, "--grow", *map(str, arguments)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        start = first.setdefault(name, found | {"number": number})
        if name == "items":
            yield _cost(f"growth/items={number}", found["us"], start["us"], "us an item")
            yield _cost(f"growth/memory/items={number}", found["gib"], start["gib"], "GiB")
        else:
            share = number / start["number"]
            yield _cost(f"growth/codes={number}", found["us"], start["us"] * share, "us an item")


def _cost(case: str, ours: float, other: float, unit: str) -> dict:
    return line(case, ours, other, unit, ratio=other / ours)


def _grow(items: int, codes: int) -> dict:
    """Assigns a stream of items, made as it goes; returns the time of one and the peak memory."""
    block, words = data(CHUNK_ROWS, (codes,) * len(SIZES))
    config = QuantizerConfig(codebook_sizes=(codes,) * len(SIZES), kind=ResidualKmeans())
    fitted = FittedQuantizer(config=config, dim=DIM, params={}, codebooks=codebooks_of(words))

    def chunks() -> Iterator[VectorChunk]:
        for start in range(0, items, CHUNK_ROWS):
            yield VectorChunk(np.roll(block, start // CHUNK_ROWS, axis=0)[: items - start])

    for _ in assign(fitted=fitted, chunks=[VectorChunk(block)]):
        pass
    started = time.perf_counter()
    done = sum(len(found.codes) for found in assign(fitted=fitted, chunks=chunks()))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"us": seconds / done * 1e6, "gib": peak / GIB}


if __name__ == "__main__":
    main()
