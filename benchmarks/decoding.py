"""Constrained search, the trie and scoring at T5-small size, on the CPU, in one run.

    python benchmarks/decoding.py [--quick] [--step] [--static FOLDER] [--json FILE]

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

The rivals are in the extra `bench`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import traverse_util
from lines import line, write
from search_step import cells
from timing import compare, show

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config, decoder_inputs
from dsirm_jax.generator.architectures.t5_stacks import Transformer
from dsirm_jax.generator.architectures.t5_text import EMBEDDING, OUTPUT
from dsirm_jax.generator.architectures.t5_weights import hugging_face_names
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.score import score_pairs
from dsirm_jax.run import configuration
from dsirm_jax.sids import trie as tries
from dsirm_jax.stages import generate

if TYPE_CHECKING:
    import torch

SIZES, WIDE = (216, 512, 512), (2048, 1024, 1024)
TEXT, LENGTH, BEAMS, BATCH, ITEMS = 32_000, 16, 5, 32, 100


def main() -> None:
    """Runs all cases and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, no trie beyond 3e7 SIDs")
    parser.add_argument("--step", action="store_true", help="the search alone, and nothing else")
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
    config = _small()
    params = init_params(config, seed=0)
    cases = itertools.chain(
        _constrained(params, config, rounds=rounds, quick=given.quick),
        _transformers(params, config, rounds=rounds),
        _scoring(params, config, rounds=rounds),
        _tries(quick=given.quick),
        step,
    )
    _report(cases, given.json)


def _report(cases: Iterable[dict], file: Path | None) -> None:
    lines = []
    for case in cases:
        show(case)
        lines.append(case)
    write(file, lines)


def _small() -> T5Config:
    configuration.parse(
        files=["gin/runs/demo.gin", "gin/models/t5_small.gin"],
        bindings=["MODEL_DIR = ''"],
        search_paths=[],
    )
    config = configuration.bound(generate.run)["config"]
    return dataclasses.replace(config, text_vocab_size=TEXT, sid_sizes=SIZES)


def _queries(rows: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=1))
    return generator.integers(3, TEXT, (rows, LENGTH)).astype(np.int32)


def _sids(number: int, sizes: tuple[int, ...]) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=number))
    return np.stack([generator.integers(0, size, number, np.int32) for size in sizes], axis=1)


def _search(params, trie, tokens: np.ndarray, *, config: T5Config) -> Callable[[], object]:
    if trie is not None:
        trie = jax.device_put(trie)
    return lambda: jax.block_until_ready(
        beam_search(params, trie, tokens, config=config, beams=BEAMS)
    )


def _constrained(params, config: T5Config, *, rounds: int, quick: bool) -> Iterator[dict]:
    tokens = _queries(BATCH)
    free = _search(params, None, tokens, config=config)
    for number in (10**4, 10**6) if quick else (10**4, 10**6, 3 * 10**7):
        trie = tries.build(_sids(number, SIZES), sizes=SIZES)
        name = f"constrained/N{number:.0e}".replace("e+0", "e")
        yield compare(name, _search(params, trie, tokens, config=config), free, rounds=rounds)


def _transformers(params, config: T5Config, *, rounds: int) -> Iterator[dict]:
    import torch

    model, sids = _torch_model(params, config), _sids(10**4, SIZES)
    _check_same(params, config, model, sids)
    trie = tries.build(sids, sizes=SIZES)
    following: dict[tuple[int, ...], set[int]] = {}
    firsts = TEXT + np.cumsum([0, *SIZES[:-1]])
    for sid in (sids + firsts).tolist():
        for depth in range(3):
            following.setdefault(tuple(sid[:depth]), set()).add(sid[depth])
    allowed = {prefix: sorted(codes) for prefix, codes in following.items()}
    for rows in (1, BATCH):
        tokens = _queries(rows)

        generate = _generate(model, allowed, torch.from_numpy(tokens).long())
        for row in generate()[:, 1:].tolist():
            assert row[2] in following[tuple(row[:2])]
        ours = _search(params, trie, tokens, config=config)
        yield compare(f"transformers/batch{rows}", ours, generate, rounds=max(rounds // 3, 3))


def _generate(
    model, allowed: dict[tuple[int, ...], list[int]], tokens: torch.Tensor
) -> Callable[[], torch.Tensor]:
    import torch

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return model.generate(
                input_ids=tokens,
                num_beams=BEAMS,
                num_return_sequences=BEAMS,
                min_new_tokens=3,
                max_new_tokens=3,
                do_sample=False,
                prefix_allowed_tokens_fn=lambda _, prefix: allowed[tuple(prefix[1:].tolist())],
            )

    return run


def _torch_model(params, config: T5Config):
    """Returns transformers' T5 with our weights."""
    import torch
    from transformers import T5Config as TheirConfig
    from transformers import T5ForConditionalGeneration

    described = TheirConfig(
        vocab_size=config.vocab_size,
        d_model=config.emb_dim,
        d_kv=config.head_dim,
        d_ff=config.mlp_dim,
        num_heads=config.num_heads,
        num_layers=config.num_encoder_layers,
        num_decoder_layers=config.num_decoder_layers,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
        eos_token_id=None,
    )
    model = T5ForConditionalGeneration(described).eval()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.empty(config.vocab_size, config.emb_dim))
    theirs = model.state_dict()
    names = hugging_face_names(config) | {OUTPUT: "lm_head.weight"}
    with torch.no_grad():
        for ours, array in traverse_util.flatten_dict(params, sep="/").items():
            array = np.asarray(array)
            array = array if ours == EMBEDDING or array.ndim == 1 else array.T
            theirs[names[ours]].copy_(torch.from_numpy(np.array(array)))
    model.generation_config.eos_token_id = None
    return model


def _check_same(params, config: T5Config, model, sids: np.ndarray) -> None:
    import torch

    tokens, some = _queries(2), sids[:2]
    inputs = np.asarray(decoder_inputs(some, config=config))
    ours = Transformer(config).apply({"params": params}, tokens, inputs[:, None])
    with torch.inference_mode():
        theirs = model(
            input_ids=torch.from_numpy(tokens).long(),
            decoder_input_ids=torch.from_numpy(inputs).long(),
        ).logits.numpy()
    first = TEXT
    for level, size in enumerate(SIZES):
        columns = theirs[:, level, first : first + size]
        np.testing.assert_allclose(ours[level][:, 0], columns, rtol=1e-3, atol=1e-3)
        first += size


def _scoring(params, config: T5Config, *, rounds: int) -> Iterator[dict]:
    tokens, sids = _queries(1), _sids(ITEMS, SIZES)
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
