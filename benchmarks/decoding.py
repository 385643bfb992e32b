"""Constrained search, the trie and scoring at T5-small size, on the CPU, in one run.

    python benchmarks/decoding.py [--quick] [--step] [--language_model] [--weights FOLDER]
        [--static FOLDER] [--json FILE]

The model is T5.1.1 small (gin/models/t5_small.gin) with random weights and 216/512/512 codes; a
query has 16 tokens; searches keep 5 beams and include the encoder.

constrained/N...   the search over a trie of N SIDs beside the same search without any trie, 32
                   queries: what the constraint costs, whatever the number of SIDs
transformers/...   the search beside transformers' `generate` with `prefix_allowed_tokens_fn`, the
                   same weights and 10,000 SIDs; the two are first seen to compute the same logits
scoring/100        100 items of a query scored by `score_pairs` beside 100 teacher-forced passes
trie/...           seconds to build it and bytes a SID; `other` is the goal
step/...           the search alone, logits for free, see search_step.py; beside STATIC with
                   `--static FOLDER`, its checkout; `--step` runs nothing else
language_model/... the first two again, of a decoder-only model with 3 x 512 codes and ten beams, 1
                   and 32 queries: SmolLM2-135M's shape with random weights, or the Llama of
                   `--weights FOLDER`; `--language_model` runs nothing else. The rival has the SIDs
                   as further tokens of its vocabulary, over all of which its softmax is.

The rivals are in the extra `bench`.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import rivals
from lines import line, write
from search_step import cells
from shapes import SMOLLM2_135M, T5_SMALL
from timing import compare, show

from dsirm_jax.generator.architectures.architecture import Architecture, init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.t5 import T5Config, decoder_inputs
from dsirm_jax.generator.architectures.t5_stacks import Transformer
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.sids import trie as tries

SIZES, WIDE, LM_SIZES = (216, 512, 512), (2048, 1024, 1024), (512, 512, 512)
TEXT, LENGTH, BEAMS, BATCH, ITEMS = 32_000, 16, 5, 32, 100
SMOLLM2_TEXT, LM_BEAMS = 49_152, 10


class Model(NamedTuple):
    """A generator that searches.

    Attributes:
      config: its network, `unscanned`.
      params: of it.
      beams: that it keeps.
    """

    config: Architecture
    params: Any
    beams: int


def main() -> None:
    """Runs all cases and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, no trie beyond 3e7 SIDs")
    parser.add_argument("--step", action="store_true", help="the search alone, and nothing else")
    parser.add_argument(
        "--language_model", action="store_true", help="the decoder-only one, and nothing else"
    )
    parser.add_argument(
        "--weights", type=Path, help="Hugging Face folder of a Llama, SmolLM2-135M's"
    )
    parser.add_argument("--static", type=Path, help="folder that has the package static_decoding")
    parser.add_argument("--json", type=Path, help="file of one JSON object a line")
    parser.add_argument("--trie", nargs=2, metavar=("ITEMS", "SIZES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trie:
        number, sizes = given.trie
        print(json.dumps(_measured_trie(int(number), tuple(map(int, sizes.split("/"))))))
        return
    rounds = 6 if given.quick else 30
    step = cells(rounds=rounds, static=given.static)
    if given.step:
        _report(step, given.json)
        return
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise SystemExit(f"benchmarks/decoding.py needs {package}: pip install '.[bench]'")
    cases = []
    if not given.language_model:
        model, many = _small(), (10**4, 10**6) if given.quick else (10**4, 10**6, 3 * 10**7)
        cases += [
            _constrained("", model, many, rows=BATCH, rounds=rounds),
            _transformers("", model, rounds=rounds),
            _scoring(model, rounds=rounds),
            _tries(quick=given.quick),
            step,
        ]
    cases.append(_of_language_model(given.weights, rounds=max(rounds // 3, 3)))
    _report(itertools.chain(*cases), given.json)


def _of_language_model(weights: Path | None, *, rounds: int) -> Iterator[dict]:
    model = _language_model(weights)
    for rows in (1, BATCH):
        name = f"language_model/batch{rows}/"
        yield from _constrained(name, model, (10**6,), rows=rows, rounds=rounds)
    yield from _transformers("language_model/", model, rounds=rounds)


def _report(cases: Iterable[dict], file: Path | None) -> None:
    lines = []
    for case in cases:
        show(case)
        lines.append(case)
    write(file, lines)


def _small() -> Model:
    config = T5_SMALL.fitted_to(text_vocab_size=TEXT, sid_sizes=SIZES)
    return Model(config, init_params(config, seed=0), BEAMS)


def _language_model(weights: Path | None) -> Model:
    """Returns SmolLM2-135M's shape with random weights, or the model of a folder."""
    if weights is None:
        config = SMOLLM2_135M.fitted_to(text_vocab_size=SMOLLM2_TEXT, sid_sizes=LM_SIZES)
        config = config.unscanned()
        return Model(config, init_params(config, seed=0), LM_BEAMS)
    of_text = DecoderConfig.of_folder(weights)
    config = of_text.fitted_to(text_vocab_size=of_text.text_vocab_size, sid_sizes=LM_SIZES)
    params = config.pretrained(weights, seed=0)
    return Model(config.unscanned(), jax.device_put(config.unstacked(params)), LM_BEAMS)


def _queries(rows: int, config: Architecture) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=1))
    return generator.integers(3, config.text_vocab_size, (rows, LENGTH)).astype(np.int32)


def _sids(number: int, sizes: tuple[int, ...]) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=number))
    return np.stack([generator.integers(0, size, number, np.int32) for size in sizes], axis=1)


def _search(model: Model, trie: tries.Trie | None, tokens: np.ndarray) -> Callable[[], object]:
    if trie is not None:
        trie = jax.device_put(trie)
    return lambda: jax.block_until_ready(
        beam_search(model.params, trie, tokens, config=model.config, beams=model.beams)
    )


def _constrained(
    name: str, model: Model, sids: Sequence[int], *, rows: int, rounds: int
) -> Iterator[dict]:
    tokens = _queries(rows, model.config)
    free = _search(model, None, tokens)
    for number in sids:
        sizes = model.config.sid_sizes
        trie = tries.build(_sids(number, sizes), sizes=sizes)
        case = f"{name}constrained/N{number:.0e}".replace("e+0", "e")
        yield compare(case, _search(model, trie, tokens), free, rounds=rounds)


def _transformers(name: str, model: Model, *, rounds: int) -> Iterator[dict]:
    """The search beside transformers', once the two have computed the same logits."""
    config = model.config
    sizes, text = config.sid_sizes, config.text_vocab_size
    sids, few = _sids(10**4, sizes), _queries(2, config)
    is_t5 = isinstance(config, T5Config)
    theirs = (rivals.t5 if is_t5 else rivals.llama)(model.params, config)
    logits = rivals.t5_logits if is_t5 else rivals.llama_logits
    ours = config.teacher_forced(model.params, few, sids[:2, None])
    rivals.check_logits(ours, logits(theirs, few, sids[:2], config), config)
    trie = tries.build(sids, sizes=sizes)
    allowed = rivals.following(sids, sizes=sizes, text=text)
    for rows in (1, BATCH):
        tokens = _queries(rows, config)
        read = tokens if is_t5 else rivals.started(tokens, config)
        before = 1 if is_t5 else read.shape[1]
        generate = rivals.constrained_search(
            theirs, allowed, read, beams=model.beams, levels=len(sizes), before=before
        )
        for row in generate()[:, before:].tolist():
            assert row[-1] in allowed[tuple(row[:-1])]
        case = f"{name}transformers/batch{rows}"
        yield compare(case, _search(model, trie, tokens), generate, rounds=max(rounds // 3, 3))


def _scoring(model: Model, *, rounds: int) -> Iterator[dict]:
    params, config = model.params, model.config
    tokens, sids = _queries(1, config), _sids(ITEMS, SIZES)
    inputs = np.asarray(decoder_inputs(sids, config=config))
    fitted = FittedGenerator(config=config, params=params, max_pieces=LENGTH, sid_version="")
    forced = jax.jit(lambda *given: Transformer(config).apply({"params": params}, *given))

    def one_by_one() -> None:
        for row in inputs:
            jax.block_until_ready(forced(tokens, row[None, None]))

    def ours() -> np.ndarray:
        return score_pairs(
            fitted=fitted,
            pieces=tokens.tolist(),
            query_index=np.zeros(ITEMS, np.int64),
            sids=sids,
            batch_size=1,
        )

    yield compare(f"scoring/{ITEMS}", ours, one_by_one, rounds=max(rounds // 6, 3))


def _tries(*, quick: bool) -> Iterator[dict]:
    """Every trie is made in a process of its own."""
    cases = [(3 * 10**7, SIZES, 10.0, 1.0, None), (10**8, WIDE, None, 4.0, 12.0)]
    for number, sizes, seconds, size, with_items in cases[: 1 if quick else None]:
        name = "/".join(map(str, sizes))
        command = [sys.executable, __file__, "--trie", str(number), name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        label = f"N{number:.0e}".replace("e+0", "e") + f"/{sizes[0]}"
        for kind, goal, unit in (
            ("seconds", seconds, "s"),
            ("bytes", size, "bytes a SID"),
            ("with_items", with_items, "bytes a SID"),
        ):
            if goal:
                ours = found[kind]
                yield line(f"trie/{kind}/{label}", ours, goal, unit, ratio=goal / ours)


def _measured_trie(number: int, sizes: tuple[int, ...]) -> dict:
    sids = _sids(number, sizes)
    started = time.perf_counter()
    trie = tries.build(sids, sizes=sizes)
    seconds = time.perf_counter() - started
    size = sum(array.nbytes for array in jax.tree.leaves(trie))
    items = tries.postings(sids, sizes=sizes)
    leaves = len(items.starts) - 1
    with_items = size + items.rows.nbytes + items.starts.nbytes
    return {"seconds": seconds, "bytes": size / leaves, "with_items": with_items / leaves}


if __name__ == "__main__":
    main()
