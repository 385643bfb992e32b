"""Fits the two towers to the relevant pairs of the training queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Int

from dsirm_jax.encoder.losses import Pairs, symmetric_info_nce
from dsirm_jax.encoder.model import TextTower, TwoTowers
from dsirm_jax.training import checkpoints
from dsirm_jax.training.loop import Batch, TrainState, fit
from dsirm_jax.training.meshes import data_mesh, sharded
from dsirm_jax.training.settings import make_optimizer


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

    Returns:
      The parameters. Source: two-tower training with in-batch negatives (Yi et al. 2019).

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: there is no run of this shape at `start`.
    """
    tower = text_tower(config, vocab_size=vocab_size)
    num_steps = config.training.num_steps(num_rows)
    optimizer = make_optimizer(config.training, num_steps=num_steps)

    def loss_fn(params, batch):
        pairs = Pairs(
            query=tower.apply(params, batch["query"]),
            item=tower.apply(params, batch["item"]),
            item_index=batch["item_index"],
            positives=batch["positives"],
            has_query=jnp.ones(batch["item_index"].shape),
        )
        own = jnp.arange(pairs.item.shape[0])
        return jnp.mean(symmetric_info_nce(pairs, pairs, own=own, temperature=config.temperature))

    @jax.jit
    def step(state: TrainState, batch):
        loss, gradient = jax.value_and_grad(loss_fn)(state.params, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    def judged(start: int) -> Iterator[Batch]:
        for batch in batches(start):
            yield {
                "query": batch["query"],
                "item": batch["item"],
                "item_index": batch["item_index"].astype(np.int32),
                "positives": positives[batch["query_index"]],
            }

    params = tower.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params)
    )
    if start is not None:
        before = checkpoints.read_newest(start / "checkpoints", like=jax.device_get(state))
        state = state.replace(params=before.params)
    state = fit(
        name="encode",
        state=state,
        step=step,
        batches=judged,
        num_steps=num_steps,
        directory=directory,
        training=config.training,
        placement=sharded(data_mesh()),
    )
    return jax.device_get(state.params)
