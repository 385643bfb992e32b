"""Fits and calibrates the relevance head, on queries that no earlier stage has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from dsirm_jax.errors import InputError
from dsirm_jax.relevance.losses import binary_loss
from dsirm_jax.relevance.model import Head, HeadConfig, HeadParams, logits
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch, TrainState, fit
from dsirm_jax.training.meshes import data_mesh, sharded
from dsirm_jax.training.settings import Training, make_optimizer

TEMPERATURES = (0.1, 10.0)


def train(
    *,
    name: str,
    features: Float[np.ndarray, "pair feature"],
    labels: Bool[np.ndarray, " pair"],
    weights: Float[np.ndarray, " pair"],
    queries: Sequence[str],
    head: HeadConfig,
    training: Training,
    directory: Path,
    seed: int,
    calibration_share: float = 0.2,
) -> HeadParams:
    """Fits the head to the pairs of the split `head` and calibrates it.

    Args:
      name: what progress and errors call it, e.g. `relevance full`.
      features: of the pairs of the split `head`, never of queries of another split.
      labels: whether each pair is relevant.
      weights: importance of each pair, non-negative.
      queries: text of each pair's query.
      head: shape of the network.
      training: settings of the fit.
      directory: where checkpoints and logs go.
      seed: seed of the initial parameters, the order of pairs and the choice of queries that
        calibrate.
      calibration_share: share of the queries that the fit leaves out and the temperature is fitted
        on; 0 leaves the temperature at 1.

    Returns:
      The parameters that `score.score` wants.

    Raises:
      InputError: the pairs to fit to do not hold both relevant and irrelevant ones.
      FloatingPointError: the loss was not finite.
        Source: an MLP head as in Wang et al. 2026, arXiv 2606.04374 (secondary note).
    """
    held_out = calibration_queries(queries, share=calibration_share, seed=seed)
    fitted = {
        "features": np.asarray(features, np.float32)[~held_out],
        "labels": np.asarray(labels, bool)[~held_out],
        "weights": np.asarray(weights, np.float32)[~held_out],
    }
    if not (fitted["labels"].any() and not fitted["labels"].all()):
        raise InputError(
            f"{name}: the {len(fitted['labels'])} pairs of the split head that the head is fitted "
            f"to are of one class only; give more queries to the head or bind relevant_labels so "
            f"that both relevant and irrelevant pairs remain"
        )
    num_steps = training.num_steps(len(fitted["labels"]))
    optimizer = make_optimizer(training, num_steps=num_steps)
    params = initial_params(head, fitted["features"], seed=seed)
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params.network)
    )

    def batches(start: int) -> Iterator[Batch]:
        orders = index_batches(
            rows=len(fitted["labels"]), batch_size=training.batch_size, seed=seed, start=start
        )
        for rows in orders:
            yield {key: array[rows] for key, array in fitted.items()}

    state = fit(
        name=name,
        state=state,
        step=make_step(head, optimizer),
        batches=batches,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=sharded(data_mesh()),
    )
    params = jax.device_get(state.params)
    apply = jax.jit(logits, static_argnums=0)
    temperature = fit_temperature(
        np.asarray(apply(head, params, np.asarray(features, np.float32)[held_out])),
        np.asarray(labels, bool)[held_out],
        np.asarray(weights, np.float64)[held_out],
    )
    return params.replace(temperature=np.float32(temperature))


def initial_params(
    head: HeadConfig, features: Float[np.ndarray, "pair feature"], *, seed: int
) -> HeadParams:
    """Returns fresh parameters, with the mean and standard deviation of `features`."""
    deviation = features.std(axis=0, dtype=np.float64)
    return HeadParams(
        network=Head(head).init(jax.random.key(seed), features[:1])["params"],
        mean=jnp.asarray(features.mean(axis=0, dtype=np.float64), jnp.float32),
        scale=jnp.asarray(np.where(deviation > 1e-6, deviation, 1.0), jnp.float32),
        temperature=jnp.ones((), jnp.float32),
    )


def make_step(head: HeadConfig, optimizer: Any):
    """Returns the compiled `(state, batch) -> (state, metrics)`; only the network is learnt."""

    def loss_fn(network, params, batch):
        predicted = logits(head, params.replace(network=network), batch["features"])
        return binary_loss(predicted, batch["labels"], batch["weights"])

    @jax.jit(donate_argnums=0)
    def step(state: TrainState, batch: Batch):
        params = state.params
        loss, gradients = jax.value_and_grad(loss_fn)(params.network, params, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, params.network)
        network = jax.tree.map(jnp.add, params.network, updates)
        state = state.replace(
            step=state.step + 1, params=params.replace(network=network), opt_state=opt_state
        )
        return state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}

    return step


def calibration_queries(
    queries: Sequence[str], *, share: float, seed: int
) -> Bool[np.ndarray, " pair"]:
    """Returns whether each pair's query is one of those kept for calibration.

    A query's side depends on its text and the seed alone, so all its pairs are on one side and
    new queries move no old one.

    Args:
      queries: text of each pair's query.
      share: expected share of the queries kept.
      seed: seed of the hash.
    """
    kept = {query: _uniform(query, seed) < share for query in set(queries)}
    return np.fromiter((kept[query] for query in queries), bool, len(queries))


def fit_temperature(
    logits: Float[np.ndarray, " pair"],
    labels: Bool[np.ndarray, " pair"],
    weights: Float[np.ndarray, " pair"],
) -> float:
    """Returns the temperature t that minimises the weighted log-loss of sigmoid(logits / t).

    Args:
      logits: uncalibrated log-odds.
      labels: whether each pair is relevant.
      weights: importance of each pair.

    Returns:
      t within `TEMPERATURES`; 1 when one class is missing, for then no t is best.
        Source: Guo et al. 2017, arXiv 1706.04599.
    """
    from scipy.optimize import minimize_scalar

    if not (labels.any() and not labels.all()):
        return 1.0
    signed = np.where(labels, logits, -logits).astype(np.float64)

    def loss(log_temperature: float) -> float:
        losses = np.logaddexp(0.0, -signed / np.exp(log_temperature))
        return float(np.sum(weights * losses))

    bounds = tuple(np.log(TEMPERATURES))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _uniform(query: str, seed: int) -> float:
    """A number in [0, 1) from a hash."""
    digest = hashlib.blake2b(f"{seed}\t{query}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
