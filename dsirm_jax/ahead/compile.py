"""Every stage's step, compiled ahead of time for chips that are not here.

What is compiled is what training runs: the stages' own `make_step` functions and placements, with
shapes in place of arrays.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.io.errors import InputError

if TYPE_CHECKING:
    import jax

    from dsirm_jax.ahead.programs import Program

ROWS = 1_000_000  # of an epoch: they change constants of the schedule, no shapes
EXCEEDED = re.compile(r"\(([\d.]+)([KMG])\) exceeds available HBM")
Bindings = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What steps are compiled for, and what of their shapes only tables would tell.

    Attributes:
      topology: chips, see `training.chips.Slice`.
      sids: distinct SIDs in the trie that the search walks.
      vector_dim: width of the dense vectors, where the encoder does not say.
      features: of the relevance head.
      grades: of judgements, where the head tells them apart.
    """

    topology: str
    sids: int = 10_000_000
    vector_dim: int | None = None
    features: int = 64
    grades: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one step.

    Attributes:
      step: one of `STEPS`.
      program: what it asks of a chip; None where it was not compiled.
      used: bytes that it needs on a chip; None where that is not known.
      reason: why it was not compiled, if it was not.
      seconds: that compilation took.
    """

    step: str
    program: Program | None = None
    used: int | None = None
    reason: str | None = None
    seconds: float = 0.0


def compile_all(
    bindings: Bindings, *, target: Target, steps: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Yields the outcome of every step, each compiled in a process of its own.

    libtpu ends the process when something is wrong with a program; the others still compile.

    Args:
      bindings: arguments of the functions of `pipeline`, by stage.
      target: what to compile for.
      steps: names of `STEPS`; all of them when not given.

    Raises:
      InputError: something is bound that does not go together, or the compiler is missing.
    """
    from dsirm_jax.ahead.chips import Slice

    chips = Slice(name=target.topology)
    os.environ.update(
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # no chip is touched that another process might hold
        TPU_SKIP_MDS_QUERY="1",
        JAX_PLATFORMS="cpu",
    )
    if chips.chip.topology is None:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={chips.size}"
    spawn = multiprocessing.get_context("spawn")
    for name in steps or STEPS:
        started = time.monotonic()
        with (
            tempfile.TemporaryFile() as said,
            concurrent.futures.ProcessPoolExecutor(
                1, spawn, initializer=_to_file, initargs=(os.getpid(), said.fileno())
            ) as pool,
        ):
            try:
                outcome = pool.submit(compile_one, name, bindings, target).result()
            except concurrent.futures.process.BrokenProcessPool:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                outcome = Outcome(step=name, reason=" ".join(["the compiler aborted", *last]))
        yield dataclasses.replace(outcome, seconds=time.monotonic() - started)


def _to_file(parent: int, descriptor: int) -> None:
    """Sends standard error, which libtpu fills with warnings, to a file of the parent's."""
    with open(f"/proc/{parent}/fd/{descriptor}", "ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)


def compile_one(name: str, bindings: Bindings, target: Target) -> Outcome:
    """Returns the outcome of one step, compiled in this process; see `compile_all`."""
    import jax

    from dsirm_jax.ahead import programs
    from dsirm_jax.ahead.chips import Slice

    devices = Slice(name=target.topology).devices()
    found = STEPS[name](bindings, target, devices)
    if found is None:
        return Outcome(step=name, reason="nothing is trained")
    step, arguments, static, used_devices = found
    try:
        program = programs.describe(step, *arguments, devices=used_devices, **static)
    except jax.errors.JaxRuntimeError as error:
        if over := EXCEEDED.search(str(error)):
            used = float(over[1]) * 2 ** {"K": 10, "M": 20, "G": 30}[over[2]]
            return Outcome(step=name, used=int(used), reason="does not fit")
        return Outcome(step=name, reason=str(error).splitlines()[0])
    return Outcome(step=name, program=program, used=program.memory.total)


def encode_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the step of the encoder, its arguments, and over how many devices it is split."""
    import jax
    import jax.numpy as jnp

    from dsirm_jax.data.pairs import MOST_POSITIVES
    from dsirm_jax.encoder.bert import Projection
    from dsirm_jax.encoder.model import Precomputed, TwoTowers
    from dsirm_jax.encoder.pretrained import load
    from dsirm_jax.encoder.train import make_step, text_tower
    from dsirm_jax.training.loop import TrainState
    from dsirm_jax.training.meshes import data_mesh, sharded
    from dsirm_jax.training.settings import make_optimizer

    encoder = bindings["encode"]["encoder"]
    if isinstance(encoder, Precomputed) or not encoder.training.epochs:
        return None
    rows, shape = encoder.training.batch_size, jax.ShapeDtypeStruct
    lengths = {"query": encoder.max_query_pieces, "item": encoder.max_item_pieces}
    features = {side: shape((rows, length), jnp.int32) for side, length in lengths.items()}
    if isinstance(encoder, TwoTowers):
        module, key = text_tower(encoder, vocab_size=_vocabulary_size(bindings)), jax.random.key(0)
        params = jax.eval_shape(module.init, key, jnp.zeros((1, 1), jnp.int32))
        optional = {}
    else:
        loaded = load(encoder, folder=Path(encoder.folder))
        module, params = loaded.module, loaded.params
        optional = {"query_index": shape((rows,), jnp.int32)}
        if encoder.frozen:
            width = module.config.hidden_size
            module = Projection(module.dim)
            params = {"params": params["params"]["projection"]}
            features = {side: shape((rows, width), jnp.float32) for side in features}
        if encoder.hard_negatives:
            several = (rows, encoder.hard_negatives)
            one = features["item"]
            optional["negative"] = shape((*several, *one.shape[1:]), one.dtype)
            optional["negative_index"] = shape(several, jnp.int32)
    steps = encoder.training.num_steps(ROWS)
    optimizer = make_optimizer(encoder.training, num_steps=steps)
    state = TrainState(
        step=shape((), jnp.int32),
        params=jax.eval_shape(lambda: params) if optional else params,
        opt_state=jax.eval_shape(optimizer.init, params),
    )
    batch = features | optional
    batch["item_index"] = shape((rows,), jnp.int32)
    batch["positives"] = shape((rows, MOST_POSITIVES), jnp.int32)
    placement = sharded(data_mesh(devices))
    step = make_step(embed=module.apply, optimizer=optimizer, temperature=encoder.temperature)
    return step, (placement.state_like(state), placement.batch_like(batch)), {}, len(devices)


def quantize_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the quantizer; see `encode_step`."""
    import jax
    import jax.numpy as jnp

    from dsirm_jax.data.pairs import MOST_POSITIVES
    from dsirm_jax.encoder.model import Precomputed
    from dsirm_jax.quantizer import kmeans
    from dsirm_jax.quantizer.model import HIERARCHICAL_KMEANS, RESIDUAL_KMEANS, autoencoder
    from dsirm_jax.quantizer.train import make_step, state_shapes
    from dsirm_jax.training.meshes import pmapped
    from dsirm_jax.training.settings import make_optimizer

    bound = bindings["quantize"]
    config, training = bound["config"], bound["training"]
    if config.kind == HIERARCHICAL_KMEANS or not training.epochs:
        return None
    encoder = bindings["encode"]["encoder"]
    dim = target.vector_dim or (None if isinstance(encoder, Precomputed) else encoder.dim)
    if dim is None:
        raise InputError("Target.vector_dim: bind the width of the vectors that are given")
    model = autoencoder(config, dim=dim)
    optimizer = make_optimizer(training, num_steps=training.num_steps(ROWS))
    pinned = bool(config.pin_depth or config.title_language)
    shared = {"upkeep": bound["upkeep"], "pinned": pinned, "seed": 0, "devices": devices}
    if config.kind == RESIDUAL_KMEANS:
        step = kmeans.make_step(**shared)
    else:
        step = make_step(model=model, optimizer=optimizer, objective=bound["objective"], **shared)
    state = state_shapes(model, sizes=config.codebook_sizes, dim=dim, optimizer=optimizer)
    rows, shape = training.batch_size, jax.ShapeDtypeStruct
    batch = {
        "item": shape((rows, dim), jnp.float32),
        "query": shape((rows, dim), jnp.float32),
        "has_query": shape((rows,), jnp.float32),
        "item_index": shape((rows,), jnp.int32),
        "positives": shape((rows, MOST_POSITIVES), jnp.int32),
    }
    if pinned:
        batch["pinned"] = shape((rows,), jnp.int32)
    placement = pmapped(devices)
    return step, (placement.state_like(state), placement.batch_like(batch)), {}, len(devices)


def generate_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the generator; see `encode_step`."""
    import jax
    import jax.numpy as jnp

    from dsirm_jax.generator.train import make_step, state_shapes, state_shardings
    from dsirm_jax.training.meshes import data_mesh, sharded
    from dsirm_jax.training.settings import make_optimizer

    bound, config = bindings["generate"], _generator_config(bindings)
    training = bound["training"]
    if not training.epochs:
        return None
    optimizer = make_optimizer(training, num_steps=training.num_steps(ROWS))
    mesh = data_mesh(devices, model_parallel=bound.get("model_parallel", 1))
    shardings = state_shardings(config, optimizer=optimizer, mesh=mesh)
    step = make_step(
        config, objective=bound["objective"], optimizer=optimizer, seed=0, shardings=shardings
    )
    rows, shape = training.batch_size, jax.ShapeDtypeStruct
    batch = {
        "encoder_input_tokens": shape((rows, bound["max_pieces"]), jnp.int32),
        "decoder_target_tokens": shape((rows, config.num_levels), jnp.int32),
        "decoder_loss_weights": shape((rows, config.num_levels), jnp.float32),
    }
    placement = sharded(mesh, state_shardings=shardings)
    state = placement.state_like(state_shapes(config, optimizer=optimizer))
    return step, (state, placement.batch_like(batch)), {}, len(devices)


def search_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the generator's search, on the devices of one host.

    libtpu compiles for whole slices alone, so that these are a slice of their own.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from dsirm_jax.ahead.chips import Slice
    from dsirm_jax.generator.model import init_params
    from dsirm_jax.generator.predict import SEARCHED_AT_ONCE, search, searched_at_once
    from dsirm_jax.sids.trie import shapes
    from dsirm_jax.training.meshes import data_mesh, sharded

    bound = bindings["generate"]
    config = dataclasses.replace(_generator_config(bindings), scan_layers=False)
    local = Slice(name=target.topology).host().devices()
    mesh = data_mesh(local)
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = jax.eval_shape(functools.partial(init_params, config, seed=0))
    trie = shapes(config.sid_sizes, sids=target.sids)
    params, trie = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), (params, trie)
    )
    rows = searched_at_once(SEARCHED_AT_ONCE, devices=len(local))
    tokens = jax.ShapeDtypeStruct((rows, bound["max_pieces"]), jnp.int32)
    tokens = sharded(mesh).batch_like(tokens)
    static = {"config": config, "beams": bound["beams"], "mesh": mesh}
    return search, (params, trie, tokens), static, len(local)


def relevance_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the head's network, of several the largest; see `encode_step`."""
    import jax

    from dsirm_jax.training.meshes import data_mesh, sharded

    bound = bindings["relevance"]
    head, training = bound["head"], bound["training"]
    if not training.epochs:
        return None
    best_alone = (*[False] * (target.grades - 1), True)  # which grades are relevant: no shape
    programs = head.step_programs(
        training, rows=ROWS, features=target.features, relevant=best_alone
    )
    if not programs:
        return None
    step, state, batch = max(
        programs, key=lambda program: sum(leaf.size for leaf in jax.tree.leaves(program.state))
    )
    placement = sharded(data_mesh(devices))
    return step, (placement.state_like(state), placement.batch_like(batch)), {}, len(devices)


STEPS = {
    "encode": encode_step,
    "quantize": quantize_step,
    "generate": generate_step,
    "search": search_step,
    "relevance": relevance_step,
}
REMEDIES = {
    "encode": "a smaller encode/settings.Training.batch_size",
    "quantize": "a smaller quantize/settings.Training.batch_size",
    "generate": "a larger generate.run.model_parallel, a smaller "
    "generate/settings.Training.batch_size with more accumulate_steps, or T5Config.remat",
    "search": "a smaller generate.run.beams or T5Config",
    "relevance": "a smaller relevance/settings.Training.batch_size",
}


def heading(target: Target) -> str:
    """Returns what one chip has, and the names of the columns of `rows`."""
    from dsirm_jax.ahead.chips import Slice

    chips = Slice(name=target.topology)
    chip = chips.chip
    return "\n".join(
        [
            f"{target.topology}: {chips.size} chips; each {chip.memory / 1e9:.1f} GB, "
            f"{chip.flops / 1e12:.0f} Tflop/s, {chip.bandwidth / 1e9:.0f} GB/s memory, "
            f"{chip.interconnect / 1e9:.0f} GB/s to others ({chip.source})",
            f"{'step':<10} {'arguments':>10} {'temporary':>10} {'code':>9} {'of memory':>9} "
            f"{'Gflop':>9} {'traffic':>9} {'sent':>9} {'least ms':>9}  bound by",
        ]
    )


def rows(outcome: Outcome, *, target: Target) -> str:
    """Returns what one step asks of a chip, and below it what it exchanges with others."""
    from dsirm_jax.ahead.chips import Slice

    chip, program = Slice(name=target.topology).chip, outcome.program
    if program is None:
        return f"{outcome.step:<10} {outcome.reason}"
    memory, seconds = program.memory, program.seconds(chip)
    binding = max(seconds, key=seconds.get)
    first = (
        f"{outcome.step:<10} {_size(memory.arguments):>10} "
        f"{_size(memory.temporaries + memory.outputs):>10} {_size(memory.code):>9} "
        f"{memory.total / chip.memory:>9.1%} {program.flops / 1e9:>9.1f} "
        f"{_size(program.traffic):>9} {_size(program.sent):>9} "
        f"{1e3 * seconds[binding]:>9.3f}  {binding}"
    )
    exchanges = (
        f"{'':<10} {each.calls} {each.kind} over {each.group}: {_size(each.sent)} sent"
        for each in program.collectives
    )
    return "\n".join([first, *exchanges])


def problems(outcomes: Sequence[Outcome], *, target: Target) -> list[str]:
    """Returns what does not fit or compile, each with the binding to change."""
    from dsirm_jax.ahead.chips import Slice

    room = Slice(name=target.topology).chip.memory
    found = []
    for each in outcomes:
        if each.used is not None and (each.used > room or each.program is None):
            found.append(
                f"{each.step} needs {_size(each.used)} of a chip's {_size(room)}; "
                f"bind {REMEDIES[each.step]}"
            )
        elif each.program is None and each.reason != "nothing is trained":
            found.append(f"{each.step}: {each.reason}")
    return found


def _generator_config(bindings: Bindings) -> Any:
    return dataclasses.replace(
        bindings["generate"]["config"],
        text_vocab_size=_vocabulary_size(bindings),
        sid_sizes=tuple(bindings["quantize"]["config"].codebook_sizes),
    )


def _vocabulary_size(bindings: Bindings) -> int:
    from dsirm_jax.data import vocabulary

    given = bindings["prepare"].get("vocabulary")
    return vocabulary.size(given) if given else bindings["prepare"]["vocabulary_size"]


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count / 1e3:.1f} kB"
