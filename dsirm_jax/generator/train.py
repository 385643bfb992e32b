"""Fits the generator: text in, SID out, with teacher forcing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import FASTEST, multiplying
from dsirm_jax.generator import losses
from dsirm_jax.generator.architectures.architecture import (
    Architecture,
    init_params,
    learnt,
    param_shapes,
    with_learnt,
)
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.sids import codes
from dsirm_jax.training.loop import Batch, StepMetrics, TrainState, fit, mean_loss
from dsirm_jax.training.meshes import data_mesh, optimizer_shardings, param_shardings, sharded
from dsirm_jax.training.settings import Training, make_optimizer


def batch_spec(
    config: Architecture, *, rows: int, length: int, sids: int = 1
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of a batch, by the names that SeqIO has for its features.

    Args:
      config: the generator's network.
      rows: texts in a batch, each with the SID to write.
      length: tokens of a text.
      sids: that a text may be answered with; the targets have an axis for several.

    Returns:
      `encoder_input_tokens`, text tokens, padded; `decoder_target_tokens`, the SIDs' tokens, see
      `sids.codes.to_tokens`; and `decoder_loss_weights`, 0 leaving a target out.
    """
    shape = (rows, *([sids] if sids > 1 else []), len(config.sid_sizes))
    return {
        "encoder_input_tokens": jax.ShapeDtypeStruct((rows, length), jnp.int32),
        "decoder_target_tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "decoder_loss_weights": jax.ShapeDtypeStruct(shape, jnp.float32),
    }


def teacher_forced(
    params: Any,
    batch: Mapping[str, jax.Array],
    *,
    config: Architecture,
    key: jax.Array | None = None,
) -> tuple[tuple[Float[Array, "row hypothesis _code"], ...], Int[Array, "row hypothesis level"]]:
    """Returns the logits of every level of a batch's targets, and their codes.

    Args:
      params: parameters of the generator.
      batch: see `batch_spec`.
      config: the generator's network.
      key: of dropout; none of it when not given.
    """
    targets = codes.from_tokens(
        batch["decoder_target_tokens"],
        sizes=config.sid_sizes,
        text_vocab_size=config.text_vocab_size,
    )
    sids = _by_hypothesis(jnp.asarray(targets))
    logits = config.teacher_forced(params, batch["encoder_input_tokens"], sids, key=key)
    return logits, sids


def batch_loss(
    params: Any,
    batch: Mapping[str, jax.Array],
    *,
    config: Architecture,
    objective: GeneratorObjective,
    key: jax.Array | None = None,
) -> tuple[Float[Array, ""], Float[Array, " level"]]:
    """Returns the mean loss of a batch's SIDs and the mean of each level, nats.

    Args:
      params: see `teacher_forced`.
      batch: see `batch_spec`.
      config: see `teacher_forced`.
      objective: what is minimised beside the negative log-probability of the SIDs.
      key: see `teacher_forced`.
    """
    logits, sids = teacher_forced(params, batch, config=config, key=key)
    weights = _by_hypothesis(batch["decoder_loss_weights"])
    if objective.of_several == losses.MARGINAL and sids.shape[1] > 1:
        total = losses.marginal_cross_entropy(logits, sids, weights[..., 0], objective=objective)
    else:
        total = losses.cross_entropy(logits, sids, weights, objective=objective)
    per_level = losses.mean_per_level(total)
    return jnp.sum(per_level), per_level


def _by_hypothesis(targets: Array) -> Array:
    """Returns targets, or their weights, `[row, hypothesis, level]`."""
    return targets if targets.ndim == 3 else targets[:, None]


def make_generator_loss(
    config: Architecture, *, objective: GeneratorObjective, seed: int
) -> Callable[[Any, Any, jax.Array], Any]:
    """Returns `loss(params, batch, step) -> (mean loss of a SID in nats, mean per level)`.

    The dropout masks are a function of `seed` and `step` alone.
    """
    key = jax.random.key(seed)

    def loss_fn(
        params: Any, batch: Mapping[str, jax.Array], step: jax.Array
    ) -> tuple[Float[Array, ""], Float[Array, " level"]]:
        dropout = jax.random.fold_in(key, step)
        return batch_loss(params, batch, config=config, objective=objective, key=dropout)

    return loss_fn


def generator_state_shapes(
    config: Architecture, *, optimizer: optax.GradientTransformation
) -> TrainState:
    """Returns the shapes and dtypes of a training state."""
    params = param_shapes(config)
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=params,
        opt_state=jax.eval_shape(optimizer.init, learnt(config, params)),
    )


def generator_state_shardings(
    config: Architecture, *, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Returns where a training state lies on a mesh, see `meshes.MESH_AXES`.

    Raises:
      InputError: the model axis does not divide the model.
    """
    shapes = param_shapes(config)
    places = param_shardings(mesh, axes=config.logical_axes(), shapes=shapes)
    return TrainState(
        step=NamedSharding(mesh, PartitionSpec()),
        params=places,
        opt_state=optimizer_shardings(
            mesh,
            optimizer=optimizer,
            params=learnt(config, shapes),
            shardings=learnt(config, places),
        ),
    )


def make_step(
    config: Architecture,
    *,
    objective: GeneratorObjective,
    optimizer: optax.GradientTransformation,
    seed: int,
    shardings: TrainState,
    precision: str = FASTEST,
) -> Callable[[TrainState, Mapping[str, jax.Array]], tuple[TrainState, StepMetrics]]:
    """Returns the compiled training step.

    Args:
      config: the generator's network.
      objective: see `batch_loss`.
      optimizer: what makes updates of gradients.
      seed: of dropout.
      shardings: where the state lies and stays, see `generator_state_shardings`.
      precision: see `Training.matmul_precision`.
    """
    loss_fn = make_generator_loss(config, objective=objective, seed=seed)

    @multiplying(precision)
    def step(state: TrainState, batch: Mapping[str, jax.Array]) -> tuple[TrainState, StepMetrics]:
        def loss_of(changed: Any) -> Any:
            return loss_fn(with_learnt(state.params, changed), batch, state.step)

        changed = learnt(config, state.params)
        (loss, per_level), gradient = jax.value_and_grad(loss_of, has_aux=True)(changed)
        updates, opt_state = optimizer.update(gradient, state.opt_state, changed)
        params = with_learnt(state.params, optax.apply_updates(changed, updates))
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        metrics |= {f"loss_level_{level}": value for level, value in enumerate(per_level, start=1)}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return jax.jit(step, out_shardings=(shardings, None), donate_argnums=0)


def train(
    *,
    config: Architecture,
    objective: GeneratorObjective,
    training: Training,
    batches: Callable[[int], Iterator[Batch]],
    num_rows: int,
    directory: Path,
    seed: int,
    params: Any = None,
    devices: Sequence[jax.Device] | None = None,
    model_parallel: int = 1,
    held_out: Sequence[Batch] = (),
) -> Any:
    """Fits the generator to (text, SID) rows.

    Args:
      config: the generator's network.
      objective: what is minimised beside the negative log-probability of the SIDs.
      training: length, batch size and optimizer.
      batches: `batches(start)` yields, from step `start` on, what `batch_spec` describes.
      num_rows: training rows in an epoch.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      seed: of the parameters and of dropout.
      params: what to start from; fresh parameters when not given.
      devices: what rows and parameters are split over; all devices when not given. Losses are means
        over the global batch, so the devices do not change the result.
      model_parallel: devices that share a row and split its parameters, see `meshes.MESH_AXES`.
      held_out: batches whose loss says which checkpoint is the best, which training then ends with.

    Returns:
      The parameters, in memory of the host. Source: teacher forcing with a softmax per level, this
      project.

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: `model_parallel` divides not the devices, or not the model.
    """
    num_steps = training.num_steps(num_rows)
    optimizer = make_optimizer(training, num_steps=num_steps)
    mesh = data_mesh(devices, model_parallel=model_parallel)
    shardings = generator_state_shardings(config, optimizer=optimizer, mesh=mesh)
    if params is None:
        fresh = functools.partial(init_params, config, seed=seed)
        params = jax.jit(fresh, out_shardings=shardings.params)()
    else:
        params = jax.device_put(params, shardings.params)
    state = TrainState(
        step=jax.device_put(jnp.zeros((), jnp.int32), shardings.step),
        params=params,
        opt_state=jax.jit(optimizer.init, out_shardings=shardings.opt_state)(
            learnt(config, params)
        ),
    )
    placement = sharded(mesh, state_shardings=shardings)

    @jax.jit
    @multiplying(training.matmul_precision)
    def loss(params: Any, batch: Mapping[str, jax.Array]) -> jax.Array:
        return batch_loss(params, batch, config=config, objective=objective)[0]

    state = fit(
        name="generate",
        state=state,
        step=make_step(
            config,
            objective=objective,
            optimizer=optimizer,
            seed=seed,
            shardings=shardings,
            precision=training.matmul_precision,
        ),
        batches=batches,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=placement,
        held_out=mean_loss(loss, held_out, placement=placement) if held_out else None,
    )
    return multihost_utils.process_allgather(state.params, tiled=True)
