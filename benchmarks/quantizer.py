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
import jax.numpy as jnp
import numpy as np
from lines import line, write
from timing import compare, show

from dsirm_jax.quantizer.assign import CHUNK_ROWS, VectorChunk, assign
from dsirm_jax.quantizer.codebooks import Upkeep, moved
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.losses import commitment_loss, reconstruction_loss
from dsirm_jax.quantizer.model import Codebook, beam_quantize, residual_quantize, straight_through

DIM, SIZES, BATCH = 256, (512, 512, 512), 4096
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
    vectors, words = _data(BATCH, SIZES)
    yield compare("train", _our_step(vectors, words), _torch_step(vectors, words), rounds=rounds)
    codes = _our_codes(vectors, words)
    yield compare("assign-faiss", codes, _faiss_codes(vectors, words, beams=1), rounds=rounds)
    yield compare("assign-torch", codes, _torch_codes(vectors, words), rounds=rounds)
    yield compare("assign-bound", codes, _products(vectors, words), rounds=rounds)
    yield compare(
        "beam-faiss/beams=5",
        _our_codes(vectors, words, beams=5),
        _faiss_codes(vectors, words, beams=5),
        rounds=rounds // 5,
    )


def _data(rows: int, sizes: tuple[int, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns vectors, and codewords drawn from the residuals: codes are used about evenly."""
    generator = np.random.Generator(np.random.Philox(key=0))
    vectors = generator.normal(size=(rows, DIM)).astype(np.float32)
    words, residual = [], vectors
    for size in sizes:
        chosen = residual[generator.choice(rows, size, replace=size > rows)]
        words.append((0.5 * chosen).astype(np.float32))
        code = np.argmin(0.5 * np.sum(words[-1] ** 2, axis=1) - residual @ words[-1].T, axis=1)
        residual = residual - words[-1][code]
    return vectors, words


def _codebooks(words: list[np.ndarray]) -> tuple[Codebook, ...]:
    return tuple(
        Codebook(codewords=jnp.asarray(w), count=jnp.ones(len(w)), total=jnp.asarray(w))
        for w in words
    )


def _our_step(vectors: np.ndarray, words: list[np.ndarray]) -> Callable[[], None]:
    """Returns a step like ResidualVQ's: gradient to the vectors, moving averages, restarts."""
    upkeep = Upkeep(decay=0.99, restart_below=0.1, init_rows=0, init_iterations=0)

    def loss_fn(latents, codebooks):
        quantized = residual_quantize(latents, codebooks)
        passed = straight_through(latents, quantized.prefixes[:, -1])
        commitment = commitment_loss(quantized.residuals, quantized.prefixes)
        return jnp.mean(reconstruction_loss(2 * latents, passed) + commitment), quantized

    def step(codebooks, latents, key):
        gradient, quantized = jax.grad(loss_fn, has_aux=True)(latents, codebooks)
        codebooks, _ = moved(
            codebooks, quantized, upkeep=upkeep, pinned=False, key=key, axis="data"
        )
        return codebooks, gradient

    devices = jax.devices()[:1]
    pmapped = jax.pmap(step, axis_name="data", devices=devices, donate_argnums=0)
    state = jax.tree.map(lambda array: array[None], _codebooks(words))
    latents, key = jnp.asarray(vectors)[None], jax.random.key(0)[None]

    def run() -> None:
        nonlocal state
        state, gradient = pmapped(state, latents, key)
        jax.block_until_ready((state, gradient))

    return run


def _our_codes(
    vectors: np.ndarray, words: list[np.ndarray], *, beams: int = 1
) -> Callable[[], None]:
    quantize = functools.partial(beam_quantize, beams=beams) if beams > 1 else residual_quantize
    codes_of = jax.jit(lambda latents, codebooks: quantize(latents, codebooks).codes)
    codebooks = _codebooks(words)
    return lambda: np.asarray(codes_of(vectors, codebooks))


def _products(vectors: np.ndarray, words: list[np.ndarray]) -> Callable[[], None]:
    """Returns the three matrix products that no exact assignment can do without."""
    products = jax.jit(lambda latents, words: [latents @ codewords.T for codewords in words])
    words = [jnp.asarray(w) for w in words]
    return lambda: jax.block_until_ready(products(vectors, words))


def _residual_vq(words: list[np.ndarray]):
    import torch
    from vector_quantize_pytorch import ResidualVQ

    other = ResidualVQ(
        dim=DIM,
        num_quantizers=len(words),
        codebook_size=len(words[0]),
        decay=0.99,
        threshold_ema_dead_code=1,
    )
    with torch.no_grad():
        for layer, codewords in zip(other.layers, words, strict=True):
            for name in ("embed", "embed_avg"):
                getattr(layer._codebook, name).copy_(torch.from_numpy(codewords)[None])
            layer._codebook.cluster_size.fill_(BATCH / len(codewords))
    return other


def _torch_step(vectors: np.ndarray, words: list[np.ndarray]) -> Callable[[], None]:
    import torch

    other = _residual_vq(words).train()
    latents = torch.from_numpy(vectors).requires_grad_()

    def run() -> None:
        latents.grad = None
        quantized, _, commitment = other(latents)
        (((2 * latents - quantized) ** 2).sum(-1).mean() + commitment.sum()).backward()

    return run


def _torch_codes(vectors: np.ndarray, words: list[np.ndarray]) -> Callable[[], np.ndarray]:
    import torch

    other = _residual_vq(words).eval()
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
    block, words = _data(CHUNK_ROWS, (codes,) * len(SIZES))
    config = QuantizerConfig(codebook_sizes=(codes,) * len(SIZES), kind=ResidualKmeans())
    fitted = FittedQuantizer(config=config, dim=DIM, params={}, codebooks=_codebooks(words))

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
