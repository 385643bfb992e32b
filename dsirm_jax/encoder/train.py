"""Fits an encoder that queries and items share to the relevant pairs of the training queries."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dsirm_jax.data import pairs
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.devices.precision import FASTEST, multiplying
from dsirm_jax.encoder.losses import QueryItemRows, symmetric_info_nce, with_items
from dsirm_jax.encoder.negatives import read_irrelevant
from dsirm_jax.io.errors import InputError
from dsirm_jax.training import checkpoints
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch, StepMetrics, TrainState, fit, mean_loss
from dsirm_jax.training.meshes import data_mesh, sharded
from dsirm_jax.training.settings import Training, make_optimizer

BatchSpec = Mapping[str, jax.ShapeDtypeStruct]


def batch_spec(
    *, rows: int, features: Mapping[str, jax.ShapeDtypeStruct], hard_negatives: int = 0
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and types of a batch.

    Args:
      rows: of a batch, over all devices.
      features: what the encoder reads of one `query` and of one `item`.
      hard_negatives: items that every row brings along.

    Returns:
      `query` and `item`, `[row, ...]`, and `query_index` and `item_index`, int32 `[row]`; the
      `positives` of the query, int32 `[row, positive]`, which may be narrower; and, where rows
      bring negatives along, `negative`, `[row, negative, ...]`, with `negative_index`, int32
      `[row, negative]`.
    """
    shape = jax.ShapeDtypeStruct
    spec = {side: shape((rows, *one.shape), one.dtype) for side, one in features.items()}
    spec |= {name: shape((rows,), jnp.int32) for name in ("query_index", "item_index")}
    spec["positives"] = shape((rows, pairs.MOST_POSITIVES), jnp.int32)
    if hard_negatives:
        one = features["item"]
        spec["negative"] = shape((rows, hard_negatives, *one.shape), one.dtype)
        spec["negative_index"] = shape((rows, hard_negatives), jnp.int32)
    return spec


def as_specified(batch: Mapping[str, np.ndarray], spec: BatchSpec) -> Batch:
    """Returns what a step reads of a batch, in the types of `batch_spec`."""
    return {name: np.asarray(batch[name], like.dtype) for name, like in spec.items()}


def pair_loss(
    *, embed: Callable[[Any, Array], Float[Array, "row dim"]], temperature: float
) -> Callable[[Any, Any], Float[Array, ""]]:
    """Returns `loss(params, batch)`; see `train` for its arguments and `batch_spec` for batches."""

    def loss(params: Any, batch: Mapping[str, Array]) -> Float[Array, ""]:
        rows = everyone = QueryItemRows(
            query=embed(params, batch["query"]),
            item=embed(params, batch["item"]),
            item_index=batch["item_index"],
            positives=batch["positives"],
            has_query=jnp.ones(batch["item_index"].shape),
        )
        if "negative" in batch:
            flat = batch["negative"].reshape(-1, *batch["negative"].shape[2:])
            everyone = with_items(
                rows, item=embed(params, flat), item_index=batch["negative_index"].reshape(-1)
            )
        own = jnp.arange(rows.item.shape[0])
        return jnp.mean(symmetric_info_nce(rows, everyone, own=own, temperature=temperature))

    return loss


def make_step(
    *,
    embed: Callable[[Any, Array], Float[Array, "row dim"]],
    optimizer: optax.GradientTransformation,
    temperature: float,
    precision: str = FASTEST,
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """Returns the compiled training step.

    Args:
      embed: see `train`.
      optimizer: what makes updates of gradients.
      temperature: see `train`.
      precision: see `Training.matmul_precision`.
    """
    loss_fn = pair_loss(embed=embed, temperature=temperature)

    @jax.jit(donate_argnums=0)
    @multiplying(precision)
    def step(state: TrainState, batch: Mapping[str, Array]) -> tuple[TrainState, StepMetrics]:
        loss, gradient = jax.value_and_grad(loss_fn)(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return step


def starting_state(params: Any, *, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the state that training starts from."""
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params)
    )


def step_for(
    *,
    embed: Callable[[Any, Array], Float[Array, "row dim"]],
    params: Any,
    temperature: float,
    training: Training,
    batch: BatchSpec,
    devices: Sequence[jax.Device],
    rows: int,
) -> tuple[Callable[[TrainState, Any], tuple[TrainState, StepMetrics]], tuple[Any, Any]]:
    """Returns the step that `train` runs, and the shapes of its state and batch on the devices.

    Args:
      embed: see `train`.
      params: see `train`; shapes will do.
      temperature: see `train`.
      training: see `train`.
      batch: see `batch_spec`.
      devices: that the rows of a batch are split over; they need not be here.
      rows: of an epoch.
    """
    optimizer = make_optimizer(training, num_steps=training.num_steps(rows))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    state = jax.eval_shape(functools.partial(starting_state, optimizer=optimizer), shapes)
    placement = sharded(data_mesh(devices))
    step = make_step(
        embed=embed,
        optimizer=optimizer,
        temperature=temperature,
        precision=training.matmul_precision,
    )
    return step, (placement.state_like(state), placement.batch_like(dict(batch)))


def train(
    *,
    embed: Callable[[Any, Array], Float[Array, "row dim"]],
    params: Any,
    temperature: float,
    training: Training,
    batches: Callable[[int], Iterator[Batch]],
    num_rows: int,
    directory: Path,
    start: Path | None = None,
    held_out: Sequence[Batch] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Fits any encoder that both sides share, with in-batch softmax in both directions.

    Args:
      embed: `embed(params, features)` returns the vectors of rows `query`, `item` or `negative`.
      params: the first parameters.
      temperature: τ of the softmax over cosines.
      training: length, batch size and learning rate.
      batches: `batches(step)` yields, from that step on, what `batch_spec` describes.
      num_rows: training rows in an epoch.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      start: directory of another run, whose parameters this one goes on from.
      held_out: such batches, whose loss says which checkpoint is the best, which training then ends
        with.
      devices: that the rows of a batch are split over; all of them when not given.

    Returns:
      The parameters. Source: two-tower training with in-batch negatives (Yi et al. 2019); negatives
      that come along: Karpukhin et al. 2020, arXiv 2004.04906.

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: there is no run of this shape at `start`.
    """
    num_steps = training.num_steps(num_rows)
    optimizer = make_optimizer(training, num_steps=num_steps)
    state = starting_state(params, optimizer=optimizer)
    if start is not None:
        before = checkpoints.read_result(start / "checkpoints", like=jax.device_get(state))
        state = state.replace(params=before.params)
    placement = sharded(data_mesh(devices))
    precision = training.matmul_precision
    loss = jax.jit(multiplying(precision)(pair_loss(embed=embed, temperature=temperature)))
    state = fit(
        name="encode",
        state=jax.device_get(state),  # the step takes the place of its arguments
        step=make_step(
            embed=embed, optimizer=optimizer, temperature=temperature, precision=precision
        ),
        batches=batches,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=placement,
        held_out=mean_loss(loss, held_out, placement=placement) if held_out else None,
    )
    return jax.device_get(state.params)


class PairBatches(NamedTuple):
    """The batches of an epoch and those held out from it.

    Attributes:
      batches: as `train` takes them.
      num_rows: training rows in an epoch.
      held_out: batches of the held-out queries.
    """

    batches: Callable[[int], Iterator[Batch]]
    num_rows: int
    held_out: Sequence[Batch]


def pair_batches(
    features: Mapping[str, np.ndarray],
    *,
    judgements: Path,
    queries: Path,
    training: Training,
    spec: BatchSpec,
    seed: int,
) -> PairBatches:
    """Returns batches of the relevant pairs of the training queries.

    Args:
      features: what the encoder reads, of all queries, `query`, and of all items, `item`.
      judgements: `prepare/judgements.parquet`.
      queries: `prepare/queries.parquet`.
      training: length, batch size and share held out.
      spec: see `batch_spec`; it says how many negatives every row brings along.
      seed: of the order of the rows, and of their negatives.

    Raises:
      InputError: no rows to train on, or all or none are held out.
    """
    num_items, num_queries = len(features["item"]), len(features["query"])
    relevant = pairs.relevant_pairs(judgements, split=TRAIN)
    if not len(relevant):
        raise InputError(f"{judgements}: no training rows; give judgements with relevant labels")
    positives = pairs.positives_of(relevant, queries=num_queries)
    irrelevant = read_irrelevant(judgements, queries=num_queries)

    size, apart = training.batch_size, np.zeros(len(relevant), bool)
    if share := training.held_out:
        apart = pairs.held_out_queries(queries, share=share, seed=seed)[relevant[:, 0]]
        if apart.all() or not apart.any():
            raise InputError(
                f"Training.held_out = {share} holds {apart.sum()} of {len(apart)} training rows "
                f"out; bind another share, or 0"
            )

    def batches(rows: Int[np.ndarray, "row 2"], start: int) -> Iterator[Batch]:
        order = index_batches(rows=len(rows), batch_size=size, seed=seed, start=start)
        for step, chosen in enumerate(order, start):
            query, item = rows[chosen].T
            batch = {
                "query": features["query"][query],
                "item": features["item"][item],
                "query_index": query,
                "item_index": item,
                "positives": positives[query],
            }
            if "negative" in spec:
                negative = irrelevant.draw(
                    query,
                    each=spec["negative"].shape[1],
                    num_items=num_items,
                    random=np.random.default_rng([seed, step]),
                )
                batch |= {"negative": features["item"][negative], "negative_index": negative}
            yield as_specified(batch, spec)

    whole = max(int(apart.sum()) // size, int(apart.any()))  # batches
    return PairBatches(
        batches=functools.partial(batches, relevant[~apart]),
        num_rows=int((~apart).sum()),
        held_out=list(itertools.islice(batches(relevant[apart], 0), whole)),
    )
