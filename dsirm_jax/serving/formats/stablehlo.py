"""The models as StableHLO programs, which any runtime that knows it can compile.

| file | from | to |
| --- | --- | --- |
| `encoder.stablehlo` | parameters, pieces `[batch, piece]` | vectors `[batch, dim]` |
| `search.stablehlo` | parameters, trie, tokens `[batch, max_pieces]` | SIDs, log-probs |
| `score.stablehlo` | parameters, tokens, SIDs `[batch, sid, level]` | log-probs of prefixes |
| `head-NAME.stablehlo` | parameters, features `[pair, feature]` | probabilities `[pair]` |

A head that compares the pairs of a query takes `lists` `[pair]` as its last argument: a number of
each pair's query, int32 from 0 to below the number of pairs.

Batches may have any size. Neither parameters nor the trie are inside: files are small, and new
items need no new program. A program is for CPUs, CUDA and TPUs, in the StableHLO of
`portable.VERSION`, and is called through `jax.export.deserialize(...).call(...)`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax import export
from jaxtyping import Array, Float, Int

from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.score import encode_texts, score_sids
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.relevance.fitted import FittedHead, plain_params, with_params
from dsirm_jax.relevance.score import pair_probabilities
from dsirm_jax.serving.bundle.models import Models
from dsirm_jax.serving.formats.portable import exported
from dsirm_jax.sids.trie import Dimension, Level, Trie, form_named, form_with

ENCODER, SEARCH, SCORE = "encoder", "search", "score"

PlainTrie = tuple[dict[str, Array], ...]
"""A dictionary a level: its arrays by their names, see `trie.Level`."""


def programs_of(models: Models, *, beams: int, forms: Sequence[str]) -> dict[str, export.Exported]:
    """Returns the programs of a bundle by their names.

    Args:
      models: whose programs they are.
      beams: SIDs that the search finds for a query.
      forms: of each level of the trie, see `trie.forms`.
    """
    programs = {SEARCH: search_program(models.generator, beams=beams, forms=forms)}
    programs[SCORE] = score_program(models.generator)
    if models.encoder is not None:
        programs[ENCODER] = encoder_program(models.encoder.module, models.encoder.params)
    return programs | {f"head-{name}": head_program(head) for name, head in models.heads.items()}


def write_programs(folder: Path, programs: Mapping[str, export.Exported]) -> None:
    """Writes programs by their names into a folder, `model/` of a bundle."""
    for name, program in programs.items():
        with replacing(program_file(folder, name)) as partial:
            partial.write_bytes(program.serialize())


def read_program(folder: Path, name: str) -> Callable[..., Any]:
    """Returns a program as a function, for whichever device JAX has here.

    Raises:
      InputError: the file is not a program that this version of JAX reads.
    """
    file = program_file(folder, name)
    try:
        program = export.deserialize(bytearray(file.read_bytes()))
    except Exception as error:  # a flatbuffer that is damaged raises whatever comes
        raise InputError(
            f"{file}: jax {jax.__version__} cannot read it ({error}); upgrade jax, copy the bundle "
            f"again, or export it anew"
        ) from error
    return jax.jit(program.call)


def program_file(folder: Path, name: str) -> Path:
    """Returns the file of a program in `model/`."""
    return folder / f"{name}.stablehlo"


def encoder_program(module: nn.Module, params: Any) -> export.Exported:
    """Returns texts to vectors: `(params, pieces) -> vectors`."""
    batch, length = export.symbolic_shape("batch, length")
    pieces = jax.ShapeDtypeStruct((batch, length), np.int32)
    return exported(module.apply, shapes(params), pieces)


def search_program(
    generator: FittedGenerator, *, beams: int, forms: Sequence[str]
) -> export.Exported:
    """Returns query tokens to SIDs: `(params, trie, tokens) -> (sids, log_probs)`.

    SIDs that do not exist, which only a very small catalogue has, have the log-probability −inf.
    """
    function = functools.partial(search_plain, config=generator.config, beams=beams)
    scope = export.SymbolicScope()
    (batch,) = export.symbolic_shape("batch", scope=scope)
    tokens = jax.ShapeDtypeStruct((batch, generator.max_pieces), np.int32)
    trie = trie_shapes(generator.config.sid_sizes, forms=forms, scope=scope)
    return exported(function, shapes(generator.params), trie, tokens)


def score_program(generator: FittedGenerator) -> export.Exported:
    """Returns the log-probabilities of prefixes: `(params, tokens, sids) -> log_probs`."""
    function = functools.partial(score_plain, config=generator.config)
    batch, sids = export.symbolic_shape("batch, sid")
    tokens = jax.ShapeDtypeStruct((batch, generator.max_pieces), np.int32)
    codes = jax.ShapeDtypeStruct((batch, sids, len(generator.config.sid_sizes)), np.int32)
    return exported(function, shapes(generator.params), tokens, codes)


def head_program(head: FittedHead) -> export.Exported:
    """Returns features to probabilities: `(params, features) -> probabilities`.

    The parameters are those of `relevance.fitted.plain_params`, the features the columns of the
    head in their order. A head that compares pairs has a third argument, see `head_arguments`.
    """
    (pairs,) = export.symbolic_shape("pair")
    features = jax.ShapeDtypeStruct((pairs, len(head.features)), np.float32)
    lists = jax.ShapeDtypeStruct((pairs,), np.int32)
    function = functools.partial(head_probabilities, head=head)
    return exported(function, *head_arguments(head, shapes(plain_params(head)), features, lists))


def head_arguments(head: FittedHead, params: Any, features: Any, lists: Any) -> tuple[Any, ...]:
    """Returns what the program of a head takes: lists where it compares the pairs of a query."""
    return (params, features, lists) if head.in_lists else (params, features)


def search_plain(
    params: Any,
    trie: PlainTrie,
    tokens: Int[Array, "batch length"],
    *,
    config: Architecture,
    beams: int,
) -> tuple[Int[Array, "batch beam level"], Float[Array, "batch beam"]]:
    """Returns SIDs and log-probabilities of `beam_search`, with a trie of plain containers."""
    existing = of_plain(trie, sizes=config.sid_sizes)
    best = beam_search(params, existing, tokens, config=config, beams=beams)
    return best.sids, best.log_probs


def score_plain(
    params: Any,
    tokens: Int[Array, "batch length"],
    sids: Int[Array, "batch sid level"],
    *,
    config: Architecture,
) -> Float[Array, "batch sid level"]:
    """Returns `score_sids` of the queries with these tokens."""
    return score_sids(params, encode_texts(params, tokens, config=config), sids, config=config)


def head_probabilities(
    params: dict[str, Any],
    features: Float[Array, "pair feature"],
    lists: Int[Array, " pair"] | None = None,
    *,
    head: FittedHead,
) -> Float[Array, " pair"]:
    """Returns the probabilities of pairs; of `head` its parameters do not count."""
    return pair_probabilities(with_params(head, params), features, lists)


def plain(trie: Trie) -> PlainTrie:
    """Returns a trie as the programs take it."""
    return tuple(
        {name: getattr(level, name) for name in level.array_names} for level in trie.levels
    )


def of_plain(levels: PlainTrie, *, sizes: Sequence[int]) -> Trie:
    """Undoes `plain`; any node may have children under all codes, whatever items come later."""
    return Trie(
        levels=tuple(_level(arrays, size=size) for arrays, size in zip(levels, sizes, strict=True))
    )


def _level(arrays: dict[str, Array], *, size: int) -> Level:
    form = form_with(arrays)
    if form is None:
        raise ValueError(f"no form of a level has the arrays {sorted(arrays)}")
    return form.of_any(arrays, size=size)


def trie_shapes(
    sizes: Sequence[int], *, forms: Sequence[str], scope: export.SymbolicScope | None = None
) -> tuple[dict[str, jax.ShapeDtypeStruct], ...]:
    """Returns the shapes of a trie with any number of SIDs.

    Args:
      sizes: codes per level.
      forms: of each level.
      scope: of the names of the dimensions; one of its own when not given.
    """
    scope = scope or export.SymbolicScope()
    levels: list[dict[str, jax.ShapeDtypeStruct]] = []
    nodes: Dimension = 1
    for depth, (size, form) in enumerate(zip(sizes, forms, strict=True), start=1):
        names = f"children{depth}, nodes{depth}"
        children, below = export.symbolic_shape(names, scope=scope)
        levels.append(form_named(form).shapes(size=size, nodes=nodes, children=children))
        nodes = below
    return tuple(levels)


def shapes(tree: Any) -> Any:
    """Returns the shapes of arrays."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)
