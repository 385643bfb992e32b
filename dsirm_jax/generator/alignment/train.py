"""Trains a fitted generator on with rewards of the SIDs that it writes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.devices.precision import FASTEST, multiplying
from dsirm_jax.generator.alignment.alignment import Alignment
from dsirm_jax.generator.alignment.losses import advantages, divergence, policy_loss
from dsirm_jax.generator.alignment.queries import RewardedQueries, rewards_of
from dsirm_jax.generator.alignment.sampling import (
    allowed_codes,
    draw_keys,
    drawn_experts,
    drawn_sids,
    policy_log_probs,
)
from dsirm_jax.generator.architectures.architecture import Architecture, learnt, with_learnt
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.losses import level_log_probs
from dsirm_jax.generator.predict import predict_sids
from dsirm_jax.generator.train import generator_state_shardings
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids.trie import Trie
from dsirm_jax.training.loop import StepMetrics, TrainState, fit
from dsirm_jax.training.meshes import Placement, data_mesh, sharded
from dsirm_jax.training.settings import make_optimizer

log = logging.getLogger(__name__)
BEAMS = 10
"""SIDs of each query held out that are looked at."""


class Given(NamedTuple):
    """What a step reads beside the state.

    Attributes:
      batch: see `RewardedQueries.batches`.
      reference: what the generator learns, as it was before alignment.
      trie: the existing SIDs.
    """

    batch: Mapping[str, jax.Array]
    reference: Any
    trie: Trie


class Aligned(NamedTuple):
    """What alignment gives.

    Attributes:
      params: of the aligned generator, or as they were where that one is not better.
      is_better: whether it is the aligned one.
      before: reward of the queries held out, see `held_out_reward`, without alignment.
      after: and with it.
    """

    params: Any
    is_better: bool
    before: float
    after: float


def make_step(
    config: Architecture,
    *,
    alignment: Alignment,
    optimizer: optax.GradientTransformation,
    seed: int,
    shardings: TrainState | None = None,
    precision: str = FASTEST,
) -> Callable[[TrainState, Given], tuple[TrainState, StepMetrics]]:
    """Returns the compiled step: draws, rewards, and `alignment.updates` of the parameters.

    Args:
      config: the generator's network.
      alignment: the settings.
      optimizer: what makes updates of gradients.
      seed: of the draws.
      shardings: where the state lies and stays.
      precision: see `Training.matmul_precision`; SIDs are drawn in full float32 at any.
    """
    policy = functools.partial(policy_log_probs, config=config, temperature=alignment.temperature)

    @multiplying(precision)
    def step(state: TrainState, given: Given) -> tuple[TrainState, StepMetrics]:
        batch, tokens, samples = given.batch, given.batch["tokens"], alignment.samples
        keys = draw_keys(
            seed,
            step=state.step,
            queries=batch["query_index"],
            draws=samples + alignment.experts,
        )
        drawn = drawn_sids(
            *(state.params, given.trie, tokens, keys[:, :samples]),
            config=config,
            temperature=alignment.temperature,
        )
        experts = drawn_experts(batch["sids"], batch["rewards"], keys[:, samples:])
        group = jnp.concatenate([drawn, experts], axis=1)
        rewards = rewards_of(
            group,
            sids=batch["sids"],
            rewards=batch["rewards"],
            prefix_share=alignment.prefix_share,
        )
        scaled = advantages(rewards, least_deviation=alignment.least_deviation)
        allowed = allowed_codes(given.trie, group)
        frozen = with_learnt(state.params, given.reference)
        reference = jax.lax.stop_gradient(policy(frozen, tokens, group, allowed))

        def loss_of(changed: Any, before: Float[Array, "query member level"] | None) -> Any:
            of_codes = policy(with_learnt(state.params, changed), tokens, group, allowed)
            log_probs = level_log_probs(of_codes, group)
            when_drawn = jax.lax.stop_gradient(log_probs) if before is None else before
            of_samples = divergence(of_codes, reference)[:, :samples]
            kl = jnp.mean(jnp.sum(of_samples, axis=-1))
            gain = policy_loss(log_probs, when_drawn, scaled, clip=alignment.clip)
            return gain + alignment.kl * kl, (when_drawn, kl)

        changed, opt_state = learnt(config, state.params), state.opt_state
        before = None
        losses: list[jax.Array] = []
        kls: list[jax.Array] = []
        norms: list[jax.Array] = []
        for _ in range(alignment.updates):
            (loss, (before, kl)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
                changed, before
            )
            updates, opt_state = optimizer.update(gradient, opt_state, changed)
            changed = optax.apply_updates(changed, updates)
            losses, kls = [*losses, loss], [*kls, kl]
            norms = [*norms, optax.tree.norm(gradient)]
        metrics = {
            "loss": jnp.mean(jnp.stack(losses)),
            "gradient_norm": jnp.mean(jnp.stack(norms)),
            "kl": jnp.mean(jnp.stack(kls)),
            "reward": jnp.mean(rewards[:, :samples]),
        }
        params = with_learnt(state.params, changed)
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics

    places = None if shardings is None else (shardings, None)
    return jax.jit(step, out_shardings=places, donate_argnums=0)


def align(
    *,
    config: Architecture,
    alignment: Alignment,
    params: Any,
    trie: Trie,
    queries: RewardedQueries,
    held_out: Bool[np.ndarray, " query"],
    max_pieces: int,
    directory: Path,
    seed: int,
    devices: Sequence[jax.Device] | None = None,
    model_parallel: int = 1,
) -> Aligned:
    """Trains a generator on until what it writes for queries held out is worth no more.

    Args:
      config: the generator's network, as it was trained.
      alignment: the settings.
      params: the supervised generator's parameters: the start, and the reference.
      trie: the existing SIDs.
      queries: those that rewards are known of.
      held_out: which of them are not learnt from.
      max_pieces: tokens read of a query.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      seed: of the order of the queries and of all draws.
      devices: that share the queries; all when not given.
      model_parallel: see `generator.train.train`.

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: no query is left to learn from, or none is held out.
    """
    training = alignment.training
    learning, measured = queries.only(~held_out), queries.only(held_out)
    if not (len(learning) and len(measured)):
        raise InputError(
            f"alignment: {len(queries)} queries with rewards, {len(measured)} of them held out; "
            f"bind Training.held_out of Alignment.training to another share, or add judgements"
        )
    num_steps = training.num_steps(len(learning))
    optimizer = make_optimizer(training, num_steps=num_steps * alignment.updates)
    mesh = data_mesh(devices, model_parallel=model_parallel)
    shardings = generator_state_shardings(config, optimizer=optimizer, mesh=mesh)
    params = jax.device_get(params)
    existing = jax.device_put(trie, NamedSharding(mesh, PartitionSpec()))
    placed = jax.device_put(params, shardings.params)
    # The state is given away to each step: the reference has memory of its own.
    copied = jax.jit(
        functools.partial(jax.tree.map, jnp.copy), out_shardings=learnt(config, shardings.params)
    )
    reference = copied(learnt(config, placed))
    state = TrainState(
        step=jax.device_put(jnp.zeros((), jnp.int32), shardings.step),
        params=placed,
        opt_state=jax.jit(optimizer.init, out_shardings=shardings.opt_state)(
            learnt(config, placed)
        ),
    )
    rows = sharded(mesh, state_shardings=shardings)
    placement = Placement(
        put_state=rows.put_state,
        put_batch=lambda batch: Given(rows.put_batch(batch), reference, existing),
        get_state=rows.get_state,
        state_like=rows.state_like,
        batch_like=rows.batch_like,
    )
    reward = functools.partial(
        held_out_reward, config=config, alignment=alignment, trie=trie, queries=measured
    )
    reward = functools.partial(reward, max_pieces=max_pieces, devices=devices)
    before = reward(params)

    def loss(state: TrainState) -> float:
        return 1 - reward(multihost_utils.process_allgather(state.params, tiled=True))

    state = fit(
        name="align",
        state=state,
        step=make_step(
            config,
            alignment=alignment,
            optimizer=optimizer,
            seed=seed,
            shardings=shardings,
            precision=training.matmul_precision,
        ),
        batches=functools.partial(
            learning.batches, batch_size=training.batch_size, max_pieces=max_pieces, seed=seed
        ),
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=placement,
        held_out=loss,
    )
    best = multihost_utils.process_allgather(state.params, tiled=True)
    after = reward(best)
    is_better = after > before
    log.info(
        "align: %.4f of the best reward in the first %d beams of %d queries held out, %.4f before: "
        "%s",
        *(after, BEAMS, len(measured), before),
        "the aligned generator is taken" if is_better else "the supervised one stays",
    )
    return Aligned(best if is_better else params, is_better, before, after)


def held_out_reward(
    params: Any,
    *,
    config: Architecture,
    alignment: Alignment,
    trie: Trie,
    queries: RewardedQueries,
    max_pieces: int,
    devices: Sequence[jax.Device] | None = None,
) -> float:
    """Returns the best reward among a query's first 1, 2, .. `BEAMS` beams, in the mean.

    With rewards of 0 and 1, and none for prefixes, that is the mean of hit@1 to hit@`BEAMS`.

    Args:
      params: of the generator, in memory of the host.
      config: its network.
      alignment: the settings.
      trie: the existing SIDs.
      queries: what they are worth to whom.
      max_pieces: tokens read of a query.
      devices: that share the queries; all when not given.
    """
    found = predict_sids(
        fitted=FittedGenerator(
            config=config.unscanned(),
            params=config.unstacked(params),
            max_pieces=max_pieces,
            sid_version="",
        ),
        trie=trie,
        pieces=queries.pieces,
        beams=BEAMS,
        devices=None if devices is None else _local(devices),
    )
    return float(np.mean(_best_so_far(np.asarray(found.sids), queries, alignment.prefix_share)))


def _best_so_far(
    beams: Int[np.ndarray, "query beam level"], queries: RewardedQueries, prefix_share: float
) -> Float[np.ndarray, "query beam"]:
    """Returns the best reward of the beams up to each; what is not valid has no code, and none."""
    worth = rewards_of(beams, sids=queries.sids, rewards=queries.rewards, prefix_share=prefix_share)
    return np.maximum.accumulate(np.asarray(worth), axis=1)


def _local(devices: Sequence[jax.Device]) -> list[jax.Device]:
    return [device for device in devices if device.process_index == jax.process_index()]
