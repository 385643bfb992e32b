"""The same numbers here as on a CPU: the parts of `benchmarks/device.py` that can fail."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util
from lines import line
from quantizer_sides import codebooks_of, data

from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import CLS, MEAN, NO_PIECE
from dsirm_jax.encoder.embed import embed_by_length
from dsirm_jax.generator.architectures.architecture import param_shapes
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.architectures.t5_text import EMBEDDING, OUTPUT
from dsirm_jax.generator.architectures.t5_weights import read_hugging_face
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.sids import trie as tries

if TYPE_CHECKING:
    from device_sizes import Sizes

TESTS = Path(__file__).parents[1] / "tests"
# As in tests/generator/golden: the last tokens of the models stand for the codes of three levels.
GOLDEN_TEXT, GOLDEN_SIZES = 60, (8, 12, 16)
T5_TOLERANCE, BERT_TOLERANCE, BUNDLE_TOLERANCE = 1e-4, 1e-5, 1e-5
OTHER_SIDS, TIE = 5e-6, 1e-5
CODEBOOK_ROWS = 4096
SHARPNESS = 2.0
Answers = dict[str, np.ndarray]


def bounded(case: str, ours: float, bound: float, unit: str) -> dict:
    """Returns a case that fails where `ours` is above its bound; its ratio is at most 1,000."""
    return line(case, ours, bound, unit, ratio=min(bound / ours, 1000) if ours else 1000)


def golden(sizes: Sizes) -> Iterator[dict]:
    """Compares what our verbs make of golden models with what transformers computed."""
    del sizes
    for name in ("t5", "t5_1_1", "mt5"):
        found, stored = _t5_log_probs(TESTS / "generator" / "golden" / name)
        allowed = T5_TOLERANCE * (1 + np.abs(stored))
        worst = float(np.max(np.abs(found - stored) / allowed))
        yield bounded(f"golden/{name}", worst, 1.0, "of the tolerance")
    folder = TESTS / "encoder" / "golden"
    encoder = hugging_face.read_folder(folder / "bert")
    stored = safetensors.numpy.load_file(folder / "bert.safetensors")
    for pooling in (MEAN, CLS):
        found = embed_by_length(
            module=encoder.module.clone(pooling=pooling),
            params=encoder.params,
            pieces=[row[row != NO_PIECE].tolist() for row in stored["pieces"]],
            max_pieces=stored["pieces"].shape[1],
            name="golden",
        )
        worst = float(np.max(np.abs(found - stored[pooling]))) / BERT_TOLERANCE
        yield bounded(f"golden/bert/{pooling}", worst, 1.0, "of the tolerance")


def _t5_log_probs(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log-probabilities of all codes that go on from golden prefixes, and stored ones.

    Each is a SID of its own, whose codes behind the level in question count for nothing.
    """
    read, params = read_hugging_face(folder)
    config = dataclasses.replace(read, text_vocab_size=GOLDEN_TEXT, sid_sizes=GOLDEN_SIZES)
    flat = traverse_util.flatten_dict(params, sep="/")
    for name, axis in ((EMBEDDING, 0), (OUTPUT, 1)):
        if name in flat:  # rows up to the multiple that ours have; nothing looks at them
            missing = config.vocab_size - flat[name].shape[axis]
            flat[name] = np.pad(flat[name], [(0, missing * (axis == side)) for side in (0, 1)])
    with np.load(folder / "computed.npz") as file:
        stored = dict(file)
    firsts = GOLDEN_TEXT + np.cumsum([0, *GOLDEN_SIZES[:-1]])
    sids, rows, levels, expected = [], [], [], []
    for row, labels in enumerate(stored["labels"] - firsts):
        before = 0.0
        for level, (first, size) in enumerate(zip(firsts, GOLDEN_SIZES, strict=True)):
            logits = stored["logits"][row, level, first : first + size].astype(np.float64)
            log_probs = before + logits - np.log(np.sum(np.exp(logits)))
            for code in range(size):
                sids.append([*labels[:level], code, *[0] * (2 - level)])
            rows += [row] * size
            levels += [level] * size
            expected.append(log_probs)
            before = log_probs[labels[level]]
    found = score_pairs(
        fitted=FittedGenerator(
            config=config,
            params=traverse_util.unflatten_dict(flat, sep="/"),
            max_pieces=stored["tokens"].shape[1],
            sid_version="",
        ),
        pieces=[tokens[tokens != 0].tolist() for tokens in stored["tokens"]],
        query_index=np.array(rows),
        sids=np.array(sids, np.int32),
        batch_size=2,
    )
    return found[np.arange(len(levels)), levels], np.concatenate(expected)


def sids(sizes: Sizes) -> Iterator[dict]:
    """Compares the SIDs of Gaussian vectors with those that the CPU gives them."""
    _, words = data(CODEBOOK_ROWS, sizes.codes, dim=sizes.dim)
    with _cpu() as cpu:
        waiting = cpu.submit(_codes, words, sizes.vectors)
        ours = _codes(words, sizes.vectors)
        theirs = waiting.result()
    other = np.flatnonzero((ours != theirs).any(axis=1))
    yield bounded("sids/different", len(other) / len(ours), OTHER_SIDS, "of the vectors")
    gaps = [
        _gap(words, _vectors(row, row + 1, sizes.dim)[0], ours[row], theirs[row]) for row in other
    ]
    yield bounded("sids/widest_tie", max(gaps, default=0.0), TIE, "of the squared distance")


def _vectors(first: int, last: int, dim: int) -> np.ndarray:
    """Returns rows of a table of Gaussian vectors that is the same in every process."""
    blocks = []
    for block in range(first // CODEBOOK_ROWS, -(-last // CODEBOOK_ROWS)):
        generator = np.random.Generator(np.random.SFC64(block))
        rows = generator.standard_normal((CODEBOOK_ROWS, dim), np.float32)
        start = block * CODEBOOK_ROWS
        blocks.append(rows[max(first - start, 0) : last - start])
    return np.concatenate(blocks)


def _codes(words: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Returns the codes of a table of vectors, int32 `[row, level]`."""
    fitted = quantizer_of(words)
    vectors = _vectors(0, number, fitted.dim)
    return assign_vectors(fitted=fitted, vectors=vectors).codes


def quantizer_of(words: Sequence[np.ndarray]) -> FittedQuantizer:
    """Returns a quantizer that has these codewords."""
    config = QuantizerConfig(codebook_sizes=tuple(map(len, words)), kind=ResidualKmeans())
    dim = words[0].shape[1]
    return FittedQuantizer(config=config, dim=dim, params={}, codebooks=codebooks_of(words))


def _gap(
    words: Sequence[np.ndarray], vector: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> float:
    """Returns how unequal two codes are where two SIDs part, of their squared distance."""
    residual = vector.astype(np.float64)
    for level, one, other in zip(words, ours, theirs, strict=True):
        distances = [np.sum((residual - level[code]) ** 2) for code in (one, other)]
        if one != other:
            return abs(distances[0] - distances[1]) / min(distances)
        residual = residual - level[one]
    return 0.0


def bundle(sizes: Sizes, *, path: Path | None) -> Iterator[dict]:
    """Compares what a generator, and of a bundle the head and the encoder too, answers."""
    answers = (
        functools.partial(_made_up_answers, sizes)
        if path is None
        else (functools.partial(_answers_of, path))
    )
    with _cpu() as cpu:
        waiting = cpu.submit(answers)
        ours, theirs = answers(), waiting.result()
    probability = np.exp(theirs["log_probs"])
    close = -np.diff(probability, axis=1) <= BUNDLE_TOLERANCE * probability[:, :-1]
    tied = close | np.pad(close, [(0, 0), (1, 0)])[:, :-1]  # with the next, or the one before
    differs = (ours.pop("sids") != theirs.pop("sids")).any(axis=-1)
    # What the last beam may be tied with is not known.
    yield bounded("bundle/other_beams", float(np.sum(differs[:, :-1] & ~tied)), 0.0, "beams")
    for name, found in ours.items():
        stored = theirs[name]
        if name.endswith("log_probs"):
            found, stored = np.exp(found), np.exp(stored)
        difference = float(np.abs(found - stored).max(initial=0))
        yield bounded(f"bundle/{name}", difference, BUNDLE_TOLERANCE, "apart")


def _made_up_answers(sizes: Sizes) -> Answers:
    """Returns beams and exact log-probabilities of a generator that is the same everywhere."""
    config = sizes.searched.fitted_to(text_vocab_size=sizes.vocabulary, sid_sizes=sizes.codes)
    random = np.random.default_rng(0)
    fitted = FittedGenerator(
        config=config, params=random_params(config), max_pieces=sizes.pieces, sid_version=""
    )
    existing = np.stack([random.integers(0, size, sizes.sids[-1]) for size in sizes.codes], axis=1)
    existing = existing.astype(np.int32)
    lengths = random.integers(1, sizes.pieces + 1, sizes.queries)
    pieces = [random.integers(3, sizes.vocabulary, length).tolist() for length in lengths]
    beams = predict_sids(
        fitted=fitted,
        trie=tries.build(existing, sizes=sizes.codes),
        pieces=pieces,
        beams=sizes.beams[0] + 1,
        batch_size=max(sizes.batches),
    )
    exact = score_pairs(
        fitted=fitted,
        pieces=pieces,
        query_index=np.arange(sizes.queries),
        sids=beams.sids[:, 0],
        batch_size=max(sizes.batches),
    )
    return {"sids": beams.sids, "log_probs": beams.log_probs, "exact_log_probs": exact}


def random_params(config: T5Config) -> dict:
    """Returns parameters as large as fresh ones, made without a device.

    Logits are larger, so that beams have probabilities like those of a model that has learnt.
    """
    random = np.random.default_rng(1)
    factors = {"query": config.head_dim**-0.5, "logits_dense": SHARPNESS}

    def drawn(path: tuple[str, ...], like: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1] == "scale":
            return np.ones(like.shape, like.dtype)
        spread = {"kernel": like.shape[0] ** -0.5, "rel_embedding": 0.25}.get(path[-1], 1.0)
        spread *= factors.get(path[-2], 1.0)
        return (spread * random.standard_normal(like.shape)).astype(like.dtype)

    flat = traverse_util.flatten_dict(param_shapes(config))
    return traverse_util.unflatten_dict({path: drawn(path, of) for path, of in flat.items()})


def _answers_of(path: Path) -> Answers:
    """Returns what the models of a bundle make of some of its pairs."""
    from dsirm_jax.serving.bundle.contents import open_bundle
    from dsirm_jax.serving.verification.answers import head_answers, in_memory
    from dsirm_jax.serving.verify import sample_pairs

    opened = open_bundle(path)
    sample = sample_pairs(opened, pairs=100)
    answers, _ = head_answers(opened, sample, in_memory(opened, sample, batch=32))
    return answers._asdict()


def _cpu() -> ProcessPoolExecutor:
    """Returns a process in which JAX has CPUs alone."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, initializer=_use_cpu)


def _use_cpu() -> None:
    jax.config.update("jax_platforms", "cpu")
