"""What is computed for a query: the parts `search` and `features` of `benchmarks/device.py`."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from lines import line
from timing import compare_queued, milliseconds, queued

from dsirm_jax.generator.architectures.architecture import Architecture, init_params
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.sids import trie as tries
from dsirm_jax.sids.codes import unpack
from dsirm_jax.sids.prefix_match import Beams, prefix_features

if TYPE_CHECKING:
    from device_sizes import Sizes

MOST_ITEMS, MANY_PAIRS = 1000, 10**6
BEAMS, QUERIES = 10, 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class FreeLogits(Architecture):
    """A generator whose logits are the row of a table that its last code names: they cost nothing.

    All levels have as many codes; the table's last row is for the first level.
    """

    text_vocab_size: int = 0
    sid_sizes: tuple[int, ...] = ()

    def init(self, key):
        size = self.sid_sizes[0]
        return jax.random.normal(key, (size + 1, size))

    def logical_axes(self):
        raise NotImplementedError("it is not trained")

    def encode(self, params, tokens):
        return jnp.full((len(tokens), 1), len(params) - 1)

    def decode(self, params, state, codes, past=None):
        last = state if past is None else codes[..., -1]
        return (params[last],), last


def search(sizes: Sizes) -> Iterator[dict]:
    """Times the search beside STATIC's with logits for free, and constrained beside free."""
    levels = (sizes.level,) * 3
    config = FreeLogits(sid_sizes=levels)
    table = init_params(config, seed=0)
    for number in sizes.sids:
        sids = distinct_sids(number, levels)
        existing = jax.device_put(tries.build(sids, sizes=levels))
        has_rival = importlib.util.find_spec("static_decoding")
        other = static_search(sids, table) if has_rival else None
        cells = list(itertools.product(sizes.beams, sizes.batches))
        ours = [
            functools.partial(
                beam_search,
                table,
                existing,
                jnp.ones((rows, 1), jnp.int32),
                config=config,
                beams=beams,
            )
            for beams, rows in cells
        ]
        theirs = [other(rows, beams) for beams, rows in cells] if other else []
        with ThreadPoolExecutor() as pool:  # most of this part's time is compilation
            list(pool.map(lambda run: run(), [*ours, *theirs]))
        times = {"rounds": sizes.rounds, "calls": sizes.calls}
        for place, (beams, rows) in enumerate(cells):
            case = f"search/{number:.0e}/batch={rows}/beams={beams}".replace("e+0", "e")
            if other:
                np.testing.assert_array_equal(ours[place]().sids, theirs[place]())
                yield compare_queued(case, ours[place], theirs[place], **times)
            else:
                took = milliseconds(queued(ours[place], calls=sizes.calls), rounds=sizes.rounds)
                yield line(case, took / sizes.calls, None, "ms", ratio=None)
    yield from constrained(sizes)


def constrained(sizes: Sizes) -> Iterator[dict]:
    """Times a T5's search among existing SIDs beside its search among all combinations."""
    config = sizes.searched.fitted_to(
        text_vocab_size=sizes.vocabulary, sid_sizes=(sizes.level,) * 3
    )
    config = dataclasses.replace(config, dtype="bfloat16")
    params = init_params(config, seed=0)
    sids = distinct_sids(sizes.sids[-1], config.sid_sizes)
    existing = jax.device_put(tries.build(sids, sizes=config.sid_sizes))
    random = np.random.default_rng(1)
    tokens = random.integers(3, sizes.vocabulary, (QUERIES, sizes.pieces)).astype(np.int32)
    tokens = jax.device_put(tokens)

    def searched(trie: Any) -> Callable[[], Beams]:
        return lambda: beam_search(params, trie, tokens, config=config, beams=sizes.beams[0])

    yield compare_queued(
        "search/constrained/all",
        *map(searched, (existing, None)),
        rounds=sizes.rounds,
        calls=min(sizes.calls, 10),
    )


def distinct_sids(number: int, sizes: tuple[int, ...]) -> np.ndarray:
    """Returns about so many SIDs, drawn evenly from all, in their order."""
    random = np.random.default_rng(number)
    packed = np.unique(random.integers(0, np.prod(sizes), number))
    return unpack(packed, sizes=sizes)


def static_search(sids: np.ndarray, table: jax.Array) -> Callable[[int, int], Callable[[], Any]]:
    """Returns what makes a search of STATIC's of a batch size and beams; SIDs are in order."""
    from static_decoding.csr_utils import build_static_index
    from static_decoding.decoding_jax import sparse_transition_jax

    size = table.shape[1]
    packed, starts, branches, *dense = build_static_index(sids, size, dense_lookup_layers=2)
    arrays = jax.device_put((packed, starts, *dense))
    key = jax.random.key(0)

    def free_logits(last: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        return table[last], key

    def of(rows: int, beams: int) -> Callable[[], Any]:
        # As many candidates of each beam as there are beams: the search is exact.
        static = (rows, beams, beams, size, sids.shape[1], size, tuple(map(int, branches)))
        return lambda: sparse_transition_jax(free_logits, key, *static, *arrays, d_dense=2)

    return of


def features(sizes: Sizes) -> Iterator[dict]:
    """Counts pairs whose prefix features are computed a second."""
    compute = jax.jit(prefix_features)
    random = np.random.default_rng(0)
    for pairs in sizes.pairs:
        items = min(pairs, MOST_ITEMS) if pairs > MOST_ITEMS else 100
        queries, levels = pairs // items, len(sizes.codes)

        def codes(*shape: int) -> np.ndarray:
            return np.stack(
                [random.integers(0, size, shape).astype(np.int32) for size in sizes.codes], axis=-1
            )

        beams = Beams(
            sids=codes(queries, BEAMS),
            log_probs=-random.exponential(size=(queries, BEAMS)).astype(np.float32),
            valid=np.ones((queries, BEAMS), bool),
        )
        logs = -random.exponential(size=(2, queries, items, levels)).astype(np.float32)
        arguments = jax.device_put((beams, codes(queries, items), *logs))
        calls = sizes.calls if pairs < MANY_PAIRS else min(sizes.calls, 3)  # all have room at once
        step = queued(lambda given=arguments: compute(*given), calls=calls)
        took = milliseconds(step, rounds=sizes.rounds) / calls
        case = f"features/{pairs:.0e}".replace("e+0", "e")
        yield line(case, pairs / took / 1e3, None, "million pairs/s", ratio=None)
