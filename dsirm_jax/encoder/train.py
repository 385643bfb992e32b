"""Fits the two towers to the relevant pairs of the training queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dsirm_jax.encoder.losses import Pairs, symmetric_info_nce, with_items
from dsirm_jax.encoder.model import TextTower, TwoTowers
from dsirm_jax.training import checkpoints
from dsirm_jax.training.loop import Batch, StepMetrics, TrainState, fit, mean_loss
from dsirm_jax.training.meshes import data_mesh, sharded
from dsirm_jax.training.settings import Training, make_optimizer


def text_tower(config: TwoTowers, *, vocab_size: int) -> TextTower:
    """Returns the Flax module for a vocabulary."""
    return TextTower(vocab_size=vocab_size, dim=config.dim, hidden_dim=config.hidden_dim)


def train(
    *,
    config: TwoTowers,
    vocab_size: int,
    batches: Callable[[int], Iterator[Batch]],
    num_rows: int,
    positives: Int[np.ndarray, "query positive"],
    directory: Path,
    seed: int,
    start: Path | None = None,
    held_out: Sequence[Batch] = (),
) -> Any:
    """Fits the shared tower with in-batch softmax in both directions.

    Args:
      config: shape of the tower and how it is trained.
      vocab_size: pieces in the vocabulary.
      batches: `batches(start)` yields, from step `start` on, rows of `tasks.query_item`: pieces
        `query` and `item`, int32 `[row, length]`, `query_index` and `item_index`, int64 `[row]`.
      num_rows: training rows in an epoch.
      positives: items relevant to each query, see `pairs.positives_of`.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      seed: of the parameters.
      start: directory of another run, whose parameters this one goes on from; with no epochs of
        training they stay as they are.
      held_out: such batches, whose loss says which checkpoint is the best, which training then ends
        with.

    Returns:
      The parameters. Source: two-tower training with in-batch negatives (Yi et al. 2019).

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: there is no run of this shape at `start`.
    """
    tower = text_tower(config, vocab_size=vocab_size)

    def judged(batch: Batch) -> Batch:
        return {
            "query": batch["query"],
            "item": batch["item"],
            "item_index": batch["item_index"].astype(np.int32),
            "positives": positives[batch["query_index"]],
        }

    return fit_pairs(
        embed=tower.apply,
        params=tower.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32)),
        temperature=config.temperature,
        training=config.training,
        batches=lambda start: map(judged, batches(start)),
        num_rows=num_rows,
        directory=directory,
        start=start,
        held_out=list(map(judged, held_out)),
    )


def make_loss(
    *, embed: Callable[[Any, Array], Float[Array, "row dim"]], temperature: float
) -> Callable[[Any, Any], Float[Array, ""]]:
    """Returns `loss(params, batch)`; see `fit_pairs` for its arguments and its batches."""

    def loss(params, batch):
        rows = everyone = Pairs(
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
) -> Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]:
    """Returns the compiled training step; see `fit_pairs` for its arguments and its batches."""
    loss_fn = make_loss(embed=embed, temperature=temperature)

    @jax.jit(donate_argnums=0)
    def step(state: TrainState, batch):
        loss, gradient = jax.value_and_grad(loss_fn)(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    return step


def read_params(config: TwoTowers, *, vocab_size: int, directory: Path) -> Any:
    """Returns the parameters that `train` arrived at in the directory of a finished stage.

    Raises:
      InputError: there is no good checkpoint of this shape.
    """
    tower = text_tower(config, vocab_size=vocab_size)
    params = tower.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    opt_state = make_optimizer(config.training, num_steps=1).init(params)
    like = TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=opt_state)
    return checkpoints.read_result(directory / "checkpoints", like=jax.device_get(like)).params


def fit_pairs(
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
) -> Any:
    """Fits any encoder that both sides share, with in-batch softmax in both directions.

    Args:
      embed: `embed(params, features)` returns the vectors of rows `query`, `item` or `negative`.
      params: the first parameters.
      temperature: τ of the softmax over cosines.
      training: length, batch size and learning rate.
      batches: `batches(start)` yields, from step `start` on, features `query` and `item`,
        `[row, ...]`, with `item_index`, int32 `[row]`, and `positives` of the query, int32
        `[row, positive]`; and, where rows bring negatives along, features `negative`,
        `[row, negative, ...]`, with `negative_index`, int32 `[row, negative]`.
      num_rows: training rows in an epoch.
      directory: see `train`.
      start: see `train`.
      held_out: see `train`.

    Returns:
      The parameters. Source: as `train`; negatives that come along: Karpukhin et al. 2020, arXiv
      2004.04906.

    Raises:
      FloatingPointError: see `train`.
      InputError: see `train`.
    """
    num_steps = training.num_steps(num_rows)
    optimizer = make_optimizer(training, num_steps=num_steps)
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params)
    )
    if start is not None:
        before = checkpoints.read_result(start / "checkpoints", like=jax.device_get(state))
        state = state.replace(params=before.params)
    placement = sharded(data_mesh())
    loss = jax.jit(make_loss(embed=embed, temperature=temperature))
    state = fit(
        name="encode",
        state=jax.device_get(state),  # the step takes the place of its arguments
        step=make_step(embed=embed, optimizer=optimizer, temperature=temperature),
        batches=batches,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=placement,
        held_out=mean_loss(loss, held_out, placement=placement) if held_out else None,
    )
    return jax.device_get(state.params)
