"""Fits and calibrates a relevance head, on queries that no earlier stage has seen."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import calibration as calibrations
from dsirm_jax.relevance.calibration import Calibration
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.linear import fit_linear
from dsirm_jax.relevance.losses import binary_loss, graded_loss, listwise_loss
from dsirm_jax.relevance.model import (
    Blend,
    BlendParams,
    Head,
    Linear,
    Mlp,
    MlpParams,
    Params,
    network,
    num_outputs,
    outputs,
    relevance_logits,
)
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import logits
from dsirm_jax.relevance.trees import fit_trees
from dsirm_jax.training.batches import cut_batches, index_batches, visits
from dsirm_jax.training.loop import Batch, TrainState, fit
from dsirm_jax.training.meshes import data_mesh, sharded
from dsirm_jax.training.settings import Training, make_optimizer


def train(
    *,
    name: str,
    features: FeatureTable,
    labels: Bool[np.ndarray, " pair"],
    gains: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, " pair"],
    queries: Sequence[str],
    head: Head,
    training: Training,
    calibration: Calibration,
    directory: Path,
    seed: int,
) -> FittedHead:
    """Fits a head to the pairs of the split `head` and calibrates it.

    Args:
      name: what progress and errors call it, e.g. `relevance full`.
      features: of the pairs of the split `head`, never of queries of another split.
      labels: whether each pair is relevant.
      gains: gain of each pair; pairs of one gain and label are of one grade.
      weights: importance of each pair, non-negative; a pair without any is left out.
      queries: text of each pair's query.
      head: its shape.
      training: settings of the fit of an `Mlp`; the other heads have theirs in their shape.
      calibration: how probabilities are made honest.
      directory: where an `Mlp`'s checkpoints and logs go.
      seed: seed of the initial parameters, the order of pairs and the choice of queries that
        calibrate.

    Returns:
      The head that `score.score` wants.

    Raises:
      InputError: the pairs to fit to do not hold both relevant and irrelevant ones.
      FloatingPointError: the loss was not finite.
        Source: an MLP head as in Wang et al. 2026, arXiv 2606.04374 (secondary note).
    """
    counted = np.asarray(weights) > 0
    labels = np.asarray(labels, bool)[counted]
    gains, weights = (np.asarray(of, np.float32)[counted] for of in (gains, weights))
    hashes = query_hashes(queries, seed=seed)[counted]
    grades, grade = np.unique(np.stack([gains, labels], axis=1), axis=0, return_inverse=True)
    pairs = {
        "features": np.asarray(features.values, np.float32)[counted],
        "labels": labels,
        "grades": grade.astype(np.int32).reshape(-1),
        "gains": gains,
        "weights": weights,
        "queries": np.unique(hashes, return_inverse=True)[1].astype(np.int32),
    }
    relevant = tuple(grades[:, 1].astype(bool).tolist())

    def fitted_to(rows: Bool[np.ndarray, " pair"], name: str, directory: Path) -> FittedHead:
        chosen = {key: values[rows] for key, values in pairs.items()}
        _check_classes(chosen["labels"], name=name)
        params = _fit(
            head,
            chosen,
            relevant=relevant,
            name=name,
            training=training,
            directory=directory,
            seed=seed,
        )
        return FittedHead(
            head=head,
            features=features.names,
            gains=tuple(grades[:, 0].tolist()),
            relevant=relevant,
            params=params,
            curve=calibrations.AS_IT_IS,
        )

    kept = features.rows(counted)
    if calibration.folds:
        fitted = fitted_to(np.ones(len(labels), bool), name, directory)
        held_out = np.ones(len(labels), bool)
        unseen = np.zeros(len(labels), np.float32)
        part = (hashes * calibration.folds).astype(int)
        for number in np.unique(part):
            rows = part == number
            other = fitted_to(~rows, f"{name}, fold {number}", directory / f"fold_{number}")
            unseen[rows] = logits(other, kept.rows(rows))
    else:
        held_out = hashes < calibration.share
        fitted = fitted_to(~held_out, name, directory)
        unseen = logits(fitted, kept)
    curve = calibrations.fit(
        calibration.kind,
        logits=unseen[held_out],
        labels=labels[held_out],
        weights=weights[held_out],
    )
    return dataclasses.replace(fitted, curve=curve)


def _check_classes(labels: Bool[np.ndarray, " pair"], *, name: str) -> None:
    if not (labels.any() and not labels.all()):
        raise InputError(
            f"{name}: the {len(labels)} pairs of the split head that the head is fitted to are of "
            f"one class only; give more queries to the head or bind relevant_labels so that both "
            f"relevant and irrelevant pairs remain"
        )


def _fit(
    head: Head, pairs: Batch, *, relevant: tuple[bool, ...], name: str, directory: Path, **of_mlp
) -> Params:
    """Returns what a head of any kind learns from pairs."""
    if isinstance(head, Blend):
        parts = [
            _fit(
                part,
                pairs,
                relevant=relevant,
                name=f"{name}, part {number}",
                directory=directory / f"part_{number}",
                **of_mlp,
            )
            for number, part in enumerate(head.heads)
        ]
        return BlendParams(parts=tuple(parts))
    if isinstance(head, Mlp):
        return _fit_mlp(head, pairs, relevant=relevant, name=name, directory=directory, **of_mlp)
    outputs = num_outputs(head, grades=len(relevant))
    told = {
        "features": pairs["features"],
        "classes": pairs["labels"].astype(int) if outputs == 1 else pairs["grades"],
        "outputs": outputs,
        "weights": pairs["weights"],
    }
    if isinstance(head, Linear):
        return fit_linear(head, **told)
    return fit_trees(head, **told, seed=of_mlp["seed"])


def _fit_mlp(
    head: Mlp,
    pairs: Batch,
    *,
    relevant: tuple[bool, ...],
    name: str,
    training: Training,
    directory: Path,
    seed: int,
) -> MlpParams:
    training.check_none_held_out(name)
    num_steps = training.num_steps(len(pairs["labels"]))
    optimizer = make_optimizer(training, num_steps=num_steps)
    params = initial_params(head, pairs["features"], grades=len(relevant), seed=seed)
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params.network)
    )
    order = {"batch_size": training.batch_size, "seed": seed}

    def batches(start: int) -> Iterator[Batch]:
        if head.listwise:
            orders = query_batches(queries=pairs["queries"], **order, start=start)
        else:
            orders = index_batches(rows=len(pairs["labels"]), **order, start=start)
        for rows in orders:
            batch = {key: values[rows] for key, values in pairs.items()}
            of_batch = np.unique(batch["queries"], return_inverse=True)[1]
            yield batch | {"queries": of_batch.astype(np.int32)}

    state = fit(
        name=name,
        state=state,
        step=make_step(head, optimizer, relevant=relevant),
        batches=batches,
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=sharded(data_mesh()),
    )
    return jax.device_get(state.params)


def initial_params(
    head: Mlp, features: Float[np.ndarray, "pair feature"], *, grades: int, seed: int
) -> MlpParams:
    """Returns fresh parameters, with the mean and standard deviation of `features`."""
    deviation = features.std(axis=0, dtype=np.float64)
    module = network(head, grades=grades)
    return MlpParams(
        network=module.init(jax.random.key(seed), features[:1])["params"],
        mean=jnp.asarray(features.mean(axis=0, dtype=np.float64), jnp.float32),
        scale=jnp.asarray(np.where(deviation > 1e-6, deviation, 1.0), jnp.float32),
    )


def make_step(head: Mlp, optimizer: Any, *, relevant: tuple[bool, ...]):
    """Returns the compiled `(state, batch) -> (state, metrics)`; only the network is learnt."""

    def loss_fn(network, params, batch):
        params = params.replace(network=network)
        found = outputs(head, params, batch["features"], grades=len(relevant))
        log_odds = relevance_logits(found, relevant)
        weights = batch["weights"]
        if found.shape[1] == 1:
            loss = binary_loss(log_odds, batch["labels"], weights)
        else:
            loss = graded_loss(found, batch["grades"], weights)
        if head.listwise:
            in_lists = listwise_loss(log_odds, batch["gains"], weights, batch["queries"])
            loss += head.listwise * in_lists
        return loss

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


def query_batches(
    *, queries: Int[np.ndarray, " pair"], batch_size: int, seed: int, start: int = 0
) -> Iterator[Int[np.ndarray, " batch_size"]]:
    """Yields row numbers batch by batch, without end; the pairs of a query follow each other.

    A query at the border of two batches is cut in two lists.

    Args:
      queries: number of each pair's query.
      batch_size: rows in a batch.
      seed: seed of the order.
      start: first step to yield.
    """
    rows = np.argsort(queries, kind="stable")
    sizes = np.unique(queries, return_counts=True)[1]
    first = np.cumsum(sizes) - sizes
    visited = visits(sizes=sizes, seed=seed, start=start * batch_size)
    ordered = (rows[first[query] + within] for query, within in visited)
    return cut_batches(ordered, itertools.repeat(batch_size))


def query_hashes(queries: Sequence[str], *, seed: int) -> Float[np.ndarray, " pair"]:
    """Returns a number in [0, 1) for each pair's query, from its text and the seed alone.

    All pairs of a query are on one side of any bound, and new queries move no old one.
    """
    found = {query: _uniform(query, seed) for query in set(queries)}
    return np.fromiter((found[query] for query in queries), float, len(queries))


def _uniform(query: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}\t{query}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
