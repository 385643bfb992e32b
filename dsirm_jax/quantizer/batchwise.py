"""Fitting from batches: what the kinds that learn in pmapped steps share."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.quantizer.codebooks import Upkeep, code_sums, initial_codebooks, random_codebooks
from dsirm_jax.quantizer.kinds.kind import BatchStep, Fit
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.model import Codebook, LevelCodebook, encode
from dsirm_jax.quantizer.prediction import with_classifiers, without_classifiers
from dsirm_jax.quantizer.resident import table_feed
from dsirm_jax.quantizer.training_items import TrainingItems, batch_spec, batches_of
from dsirm_jax.training.loop import TrainState, fit
from dsirm_jax.training.meshes import pmapped
from dsirm_jax.training.settings import make_optimizer

START_ROWS = 20_000
"""Items that a start looks at where `Upkeep.init_rows` is 0."""


class QuantizerState(TrainState):
    """Parameters and, moved by averages and not by gradients, the codebooks."""

    codebooks: tuple[Codebook, ...]


class MakeStep(Protocol):
    """Makes the pmapped step of a kind."""

    def __call__(
        self,
        *,
        module: nn.Module,
        optimizer: optax.GradientTransformation,
        learning: Learning,
        pinned: bool,
    ) -> Callable[[QuantizerState, Any], tuple[QuantizerState, dict[str, jax.Array]]]:
        """Returns `(state, batch) -> (state, metrics)` over `learning.devices`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """What differs between the kinds that learn from batches.

    Attributes:
      module: the encoder and decoder.
      make_step: makes the step.
      first_params: makes the parameters to start from of fresh ones and a sample of the items.
      predicts: whether the step learns to tell the attributes of items, where they have any.
    """

    module: nn.Module
    make_step: MakeStep
    first_params: Callable[[Any, Float[np.ndarray, "row dim"]], Any] = lambda params, _: params
    predicts: bool = False


class BatchwiseKind(abc.ABC):
    """A kind that learns from batches; what is its own are the learner and what a row is."""

    continues = True

    @abc.abstractmethod
    def learner(self, *, dim: int) -> Learner:
        """Returns what is learnt from batches of vectors of this width."""

    @abc.abstractmethod
    def epoch(self, items: TrainingItems) -> Int[np.ndarray, "row 2"]:
        """Returns the training rows; see `fit_batches`."""

    def codebook(self, arrays: Mapping[str, Any], *, level: int, size: int) -> Codebook:
        """See `Kind.codebook`."""
        del level, size
        return Codebook(**arrays)

    def fit(
        self,
        items: TrainingItems,
        *,
        sizes: tuple[int, ...],
        learning: Learning,
        directory: Path,
        start: Fit | None,
    ) -> Fit:
        """See `Kind.fit`."""
        return fit_batches(
            self.learner(dim=items.dim),
            items=items,
            rows=self.epoch(items),
            sizes=sizes,
            learning=learning,
            directory=directory,
            start=start,
        )

    def step(
        self, *, dim: int, sizes: tuple[int, ...], pinned: bool, learning: Learning, rows: int
    ) -> BatchStep:
        """See `Kind.step`."""
        return batch_step(
            self.learner(dim=dim),
            dim=dim,
            sizes=sizes,
            pinned=pinned,
            learning=learning,
            rows=rows,
        )


def fit_batches(
    learner: Learner,
    *,
    items: TrainingItems,
    rows: Int[np.ndarray, "row 2"],
    sizes: tuple[int, ...],
    learning: Learning,
    directory: Path,
    start: Fit | None,
    room: int | None = None,
) -> Fit:
    """Returns parameters and codebooks after all steps, on the host.

    Args:
      learner: the step and where it starts.
      items: what the quantizer is fitted to.
      rows: numbers of a query, or `NO_QUERY`, and of an item: what an epoch passes over.
      sizes: codes per level.
      learning: settings.
      directory: where checkpoints and logs go, one for all processes; an interrupted run goes on
        from there.
      start: an earlier fit to learn on from.
      room: see `resident.table_feed`.

    Raises:
      FloatingPointError: a vector or the loss was not finite.
    """
    training = learning.training
    if not learner.predicts:
        items = dataclasses.replace(items, attributes=None)
    num_steps = training.num_steps(len(rows))
    optimizer = make_optimizer(training, num_steps=num_steps)
    state = initial_state(
        learner,
        items=items,
        sizes=sizes,
        upkeep=learning.upkeep,
        optimizer=optimizer,
        seed=learning.seed,
        start=start,
    )
    feed = None
    if num_steps:
        feed = table_feed(
            items,
            rows=rows,
            batch_size=training.batch_size,
            seed=learning.seed,
            devices=learning.devices,
            room=room,
        )
    state = fit(
        name="quantize",
        state=jax.device_get(state),
        step=learner.make_step(
            module=learner.module,
            optimizer=optimizer,
            learning=learning,
            pinned=items.pinned is not None,
        ),
        batches=batches_of(items, rows=rows, batch_size=training.batch_size, seed=learning.seed),
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=pmapped(learning.devices),
        feed=feed,
    )
    return Fit(without_classifiers(state.params), state.codebooks)


def batch_step(
    learner: Learner,
    *,
    dim: int,
    sizes: tuple[int, ...],
    pinned: bool,
    learning: Learning,
    rows: int,
) -> BatchStep:
    """Returns the step of `fit_batches` and the shapes of its arguments; see `Kind.step`."""
    training = learning.training
    optimizer = make_optimizer(training, num_steps=training.num_steps(rows))

    def any_state() -> QuantizerState:
        key, vector = jax.random.key(0), jnp.zeros((1, dim))
        params = learner.module.init(key, vector)
        latent = encode(learner.module, params, vector)
        codebooks = random_codebooks(sizes, dim=latent.shape[1], key=key)
        return _unmoved(params, codebooks, optimizer=optimizer)

    return BatchStep(
        function=learner.make_step(
            module=learner.module, optimizer=optimizer, learning=learning, pinned=pinned
        ),
        state=jax.eval_shape(any_state),
        batch=batch_spec(rows=training.batch_size, dim=dim, pinned=pinned),
    )


@exact
def initial_state(
    learner: Learner,
    *,
    items: TrainingItems,
    sizes: tuple[int, ...],
    upkeep: Upkeep,
    optimizer: optax.GradientTransformation,
    seed: int,
    start: Fit | None = None,
) -> QuantizerState:
    """Returns the state before the first step: an earlier fit's, or one made of a sample.

    Of a sample, the learner makes the parameters, and k-means the codebooks in the space that those
    give.

    Args:
      learner: makes the parameters.
      items: what the sample is taken of.
      sizes: codes per level.
      upkeep: how codebooks start.
      optimizer: makes its own part of the state.
      seed: of parameters and codebooks.
      start: the earlier fit.
    """
    if start is not None:
        params = start.params
        codebooks = continued(start, module=learner.module, items=items, sizes=sizes, seed=seed)
    else:
        params_key, codebook_key = jax.random.split(jax.random.key(seed))
        sample = items.sample(most=upkeep.init_rows or START_ROWS, seed=seed)
        params = learner.first_params(
            learner.module.init(params_key, jnp.zeros((1, items.dim))), items.items[sample]
        )
        latents = encode(learner.module, params, items.items[sample])
        if upkeep.init_rows:
            codebooks = initial_codebooks(
                latents,
                sizes=sizes,
                pinned=None if items.pinned is None else jnp.asarray(items.pinned[sample]),
                key=codebook_key,
                iterations=upkeep.init_iterations,
            )
        else:
            codebooks = random_codebooks(sizes, dim=latents.shape[1], key=codebook_key)
    width = codebooks[0].codewords.shape[1]
    params = with_classifiers(params, items=items, levels=len(sizes), width=width)
    return _unmoved(params, codebooks, optimizer=optimizer)


def _unmoved(
    params: Any, codebooks: tuple[Codebook, ...], *, optimizer: optax.GradientTransformation
) -> QuantizerState:
    return QuantizerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        codebooks=codebooks,
    )


def continued(
    start: Fit, *, module: nn.Module, items: TrainingItems, sizes: tuple[int, ...], seed: int
) -> tuple[Codebook, ...]:
    """Returns the codebooks of an earlier fit with a code for every new category.

    Args:
      start: the earlier fit.
      module: that its parameters belong to.
      items: their first names are those of `start`.
      sizes: codes per level.
      seed: of the rows of new categories that are looked at.
    """
    first, *others = map(_averaged, start.codebooks)
    new = sizes[0] - first.size
    if not new:
        return (first, *others)
    assert items.pinned is not None  # categories alone make a first level grow
    rows = np.flatnonzero(items.pinned >= first.size)
    generator = np.random.Generator(np.random.Philox(key=seed))
    rows = np.sort(generator.permutation(rows)[:START_ROWS])
    latents = encode(module, start.params, items.items[rows])
    codes = jnp.asarray(items.pinned[rows] - first.size)
    count, total = code_sums(latents, codes, size=new)
    means = total / jnp.maximum(count, 1)[:, None]
    added = Codebook(codewords=means, count=jnp.ones(new), total=means)
    grown = jax.tree.map(lambda *parts: jnp.concatenate(parts), first, added)
    return (grown, *others)


def _averaged(level: LevelCodebook) -> Codebook:
    assert isinstance(level, Codebook)  # as every `BatchwiseKind` has
    return level
