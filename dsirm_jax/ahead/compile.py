"""Every stage's step, compiled ahead of time for chips that are not here.

What is compiled is what training runs: the stages' own `make_step` functions and placements, with
shapes in place of arrays.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.io.checks import check_whole
from dsirm_jax.io.errors import InputError

if TYPE_CHECKING:
    import jax

    from dsirm_jax.ahead.programs import Program

ROWS = 1_000_000  # of an epoch: they change constants of the schedule, no shapes
EXCEEDED = re.compile(r"\(([\d.]+)([KMG])\) exceeds available HBM")
Bindings = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """What steps are compiled for, and those of their shapes that only tables have.

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

    def __post_init__(self) -> None:
        for name in ("sids", "features"):
            check_whole(f"Target.{name}", getattr(self, name), least=1)
        if self.vector_dim is not None:
            check_whole("Target.vector_dim", self.vector_dim, least=1)
        check_whole("Target.grades", self.grades, least=2)


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
            tempfile.TemporaryFile() as messages,
            concurrent.futures.ProcessPoolExecutor(
                1, spawn, initializer=_to_file, initargs=(os.getpid(), messages.fileno())
            ) as pool,
        ):
            try:
                outcome = pool.submit(compile_one, name, bindings, target).result()
            except concurrent.futures.process.BrokenProcessPool:
                messages.seek(0)
                last = messages.read().decode(errors="replace").strip().splitlines()[-1:]
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
    compilable = STEPS[name](bindings, target, devices)
    if compilable is None:
        return Outcome(step=name, reason="nothing is trained")
    step, arguments, static, used_devices = compilable
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
    compiled = bindings["encode"]["encoder"].training_step(
        devices=devices, vocab_size=_vocabulary_size(bindings), rows=ROWS
    )
    return compiled and (*compiled, {}, len(devices))


def quantize_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the quantizer; see `encode_step`."""
    from dsirm_jax.quantizer.learning import Learning
    from dsirm_jax.training.meshes import pmapped

    bound = bindings["quantize"]
    config, training = bound["config"], bound["training"]
    if not training.epochs:
        return None
    dim = target.vector_dim or bindings["encode"]["encoder"].dim
    if dim is None:
        raise InputError("Target.vector_dim: bind the width of the vectors that are given")
    learning = Learning(
        objective=bound["objective"],
        upkeep=bound["upkeep"],
        training=training,
        seed=0,
        devices=tuple(devices),
    )
    step = config.kind.step(
        dim=dim, sizes=config.codebook_sizes, pinned=config.pins, learning=learning, rows=ROWS
    )
    if step is None:
        return None
    placement = pmapped(devices)
    arguments = (placement.state_like(step.state), placement.batch_like(step.batch))
    return step.function, arguments, {}, len(devices)


def generate_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the generator; see `encode_step`."""
    from dsirm_jax.generator.train import (
        batch_spec,
        generator_state_shapes,
        generator_state_shardings,
        make_step,
    )
    from dsirm_jax.training.meshes import data_mesh, sharded
    from dsirm_jax.training.settings import make_optimizer

    bound, config = bindings["generate"], _generator_config(bindings)
    training = bound["training"]
    if not training.epochs:
        return None
    optimizer = make_optimizer(training, num_steps=training.num_steps(ROWS))
    mesh = data_mesh(devices, model_parallel=bound.get("model_parallel", 1))
    shardings = generator_state_shardings(config, optimizer=optimizer, mesh=mesh)
    step = make_step(
        config,
        objective=bound["objective"],
        optimizer=optimizer,
        seed=0,
        shardings=shardings,
        precision=training.matmul_precision,
    )
    batch = batch_spec(config, rows=training.batch_size, length=bound["max_pieces"])
    placement = sharded(mesh, state_shardings=shardings)
    state = placement.state_like(generator_state_shapes(config, optimizer=optimizer))
    return step, (state, placement.batch_like(batch)), {}, len(devices)


def search_step(bindings: Bindings, target: Target, devices: Sequence[jax.Device]) -> Any:
    """Returns the same of the generator's search, on the devices of one host.

    libtpu compiles for whole slices alone, so that these are a slice of their own.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from dsirm_jax.ahead.chips import Slice
    from dsirm_jax.generator.architectures.architecture import param_shapes
    from dsirm_jax.generator.predict import SHARD_ROWS, queries_at_once, search_on_mesh
    from dsirm_jax.sids.trie import abstract_trie
    from dsirm_jax.training.meshes import data_mesh, sharded

    bound = bindings["generate"]
    config = _generator_config(bindings).unscanned()
    local = Slice(name=target.topology).host().devices()
    mesh = data_mesh(local)
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = param_shapes(config)
    trie = abstract_trie(config.sid_sizes, sids=target.sids)
    params, trie = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), (params, trie)
    )
    rows = queries_at_once(
        config,
        params,
        max_pieces=bound["max_pieces"],
        hypotheses=bound["beams"],
        rows=SHARD_ROWS,
        devices=len(local),
        memory=Slice(name=target.topology).chip.memory,
    )
    tokens = jax.ShapeDtypeStruct((rows, bound["max_pieces"]), jnp.int32)
    tokens = sharded(mesh).batch_like(tokens)
    static = {"config": config, "beams": bound["beams"], "mesh": mesh}
    return search_on_mesh, (params, trie, tokens), static, len(local)


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
    "generate/settings.Training.batch_size with more accumulate_steps, or remat of "
    "generate.run.config",
    "search": "a smaller generate.run.beams or generate.run.config",
    "relevance": "a smaller relevance/settings.Training.batch_size",
}


def _generator_config(bindings: Bindings) -> Any:
    from dsirm_jax.data.vocabularies import folder
    from dsirm_jax.generator.architectures.architecture import check_architecture

    own = bindings["generate"].get("vocabulary")
    return check_architecture(bindings["generate"]["config"]).fitted_to(
        text_vocab_size=folder.read(Path(own)).size if own else _vocabulary_size(bindings),
        sid_sizes=bindings["quantize"]["config"].codebook_sizes,
    )


def _vocabulary_size(bindings: Bindings) -> int:
    from dsirm_jax.data import vocabulary

    given = bindings["prepare"].get("vocabulary")
    return vocabulary.size(given) if given else bindings["prepare"]["vocabulary_size"]
