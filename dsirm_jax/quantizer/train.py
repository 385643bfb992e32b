"""Fits the residual quantizer with a pmapped step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from dsirm_jax.data.pairs import positives_of, relevant_pairs
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.vectors import read_vectors
from dsirm_jax.encoder.losses import Pairs
from dsirm_jax.quantizer import codebooks as upkeep_of
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.losses import (
    Objective,
    commitment_loss,
    contrastive_loss,
    reconstruction_loss,
)
from dsirm_jax.quantizer.model import (
    Autoencoder,
    Codebook,
    QuantizerConfig,
    residual_quantize,
    straight_through,
)
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch, TrainState, fit
from dsirm_jax.training.meshes import DATA_AXIS, pmapped
from dsirm_jax.training.settings import Training, adamw

NO_QUERY = -1


class QuantizerState(TrainState):
    """Parameters of the autoencoder and, moved by averages and not by gradients, the codebooks."""

    codebooks: tuple[Codebook, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What the quantizer is fitted to.

    Attributes:
      items: float32 `[item, dim]` dense vectors.
      queries: float32 `[query, dim]` dense vectors.
      pairs: int64 `[pair, 2]` relevant (query, item) numbers of the training queries.
      pinned: int32 `[item]` pinned first codes, or None.
    """

    items: Float[np.ndarray, "item dim"]
    queries: Float[np.ndarray, "query dim"]
    pairs: Int[np.ndarray, "pair 2"]
    pinned: Int[np.ndarray, " item"] | None

    def rows(self) -> Int[np.ndarray, "row 2"]:
        """Returns the training rows: every pair, and every item that no query asks for alone."""
        alone = np.setdiff1d(np.arange(len(self.items)), self.pairs[:, 1])
        unqueried = np.stack([np.full_like(alone, NO_QUERY), alone], axis=1)
        return np.concatenate([self.pairs, unqueried])


def read_catalogue(
    *,
    items: Path,
    queries: Path,
    judgements: Path,
    item_vectors: Path,
    query_vectors: Path,
    config: QuantizerConfig,
) -> tuple[Catalogue, tuple[int, ...], tuple[str, ...]]:
    """Reads what the quantizer is fitted to.

    Args:
      items: prepare's items table.
      queries: prepare's queries table.
      judgements: prepare's judgements table; only its training queries are used.
      item_vectors: dense vectors of the items.
      query_vectors: dense vectors of the queries.
      config: says whether categories are pinned.

    Returns:
      The catalogue, the codes per level and the category of each pinned code (empty when none).
      A pinned first level has as many codes as there are categories, up to its configured size.
    """
    table = pq.read_table(items, columns=["item_id", "category"])
    query_ids = pq.read_table(queries, columns=["query"])["query"].to_pylist()
    paths = table["category"].to_pylist()
    categories = [" > ".join(path[: config.pin_depth]) if path else None for path in paths]
    pinned, names, sizes = None, (), config.codebook_sizes
    if config.pin_depth and any(categories):
        pinned, names = upkeep_of.category_codes(categories, most=sizes[0])
        sizes = (len(names), *sizes[1:])
    catalogue = Catalogue(
        items=read_vectors(item_vectors, ids=table["item_id"].to_pylist(), id_column="item_id"),
        queries=read_vectors(query_vectors, ids=query_ids, id_column="query"),
        pairs=relevant_pairs(judgements, split=TRAIN),
        pinned=pinned,
    )
    return catalogue, sizes, names


def batches_of(
    catalogue: Catalogue, *, batch_size: int, seed: int
) -> Callable[[int], Iterator[Batch]]:
    """Returns `batches(start)`; each batch gathers the vectors of `batch_size` training rows."""
    rows = catalogue.rows()
    positives = positives_of(catalogue.pairs, queries=len(catalogue.queries))

    def batches(start: int) -> Iterator[Batch]:
        for chosen in index_batches(rows=len(rows), batch_size=batch_size, seed=seed, start=start):
            query, item = rows[chosen].T
            has_query = query != NO_QUERY
            batch = {
                "item": catalogue.items[item],  # [row, dim]
                "query": catalogue.queries[query] * has_query[:, None],  # [row, dim]
                "has_query": has_query.astype(np.float32),  # [row]
                "item_index": item.astype(np.int32),  # [row]
                "positives": positives[query],  # [row, positive]
            }
            if catalogue.pinned is not None:
                batch["pinned"] = catalogue.pinned[item]  # [row]
            yield batch

    return batches


def make_step(
    *,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    upkeep: Upkeep,
    pinned: bool,
    seed: int,
    devices: Sequence[jax.Device],
) -> Callable[[QuantizerState, Any], tuple[QuantizerState, dict[str, jax.Array]]]:
    """Returns the pmapped training step.

    Losses are sums over a device's rows divided by the global number of rows, gradients and
    codebook statistics are summed over devices and negatives are gathered from all of them, so
    that the result is that of one device with the same global batch.
    """

    def loss_fn(params, codebooks, batch, num_rows, num_queries):
        def encode(vectors):
            return model.apply(params, vectors, method=Autoencoder.encode)

        def decode(latents):
            return model.apply(params, latents, method=Autoencoder.decode)

        item = encode(batch["item"])
        query = encode(batch["query"])
        item_codes = residual_quantize(item, codebooks, pinned=batch.get("pinned"))
        query_codes = residual_quantize(query, codebooks)
        item_hat = straight_through(item, item_codes.prefixes[:, -1])
        query_hat = straight_through(query, query_codes.prefixes[:, -1])
        has_query = batch["has_query"]

        def item_and_query_mean(item_rows, query_rows):
            total = jnp.sum(item_rows) + jnp.sum(query_rows * has_query)
            return total / (num_rows + num_queries)

        reconstruction = item_and_query_mean(
            reconstruction_loss(batch["item"], decode(item_hat)),
            reconstruction_loss(batch["query"], decode(query_hat)),
        )
        commitment = item_and_query_mean(
            commitment_loss(item_codes.residuals, item_codes.prefixes),
            commitment_loss(query_codes.residuals, query_codes.prefixes),
        )
        rows = Pairs(
            query=query_hat,
            item=item_hat,
            item_index=batch["item_index"],
            positives=batch["positives"],
            has_query=has_query,
        )
        everyone = jax.tree.map(
            lambda array: jax.lax.all_gather(array, DATA_AXIS, tiled=True), rows
        )
        first = jax.lax.axis_index(DATA_AXIS) * item.shape[0]
        contrastive = jnp.sum(
            contrastive_loss(
                rows,
                everyone,
                own=first + jnp.arange(item.shape[0]),
                temperature=objective.temperature,
            )
        ) / jnp.maximum(num_queries, 1.0)
        loss = (
            reconstruction + objective.commitment * commitment + objective.contrastive * contrastive
        )
        terms = {
            "loss": loss,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "contrastive": contrastive,
        }
        return loss, (item_codes, terms)

    def updated_codebooks(codebooks, quantized, key):
        rows = quantized.codes.shape[0]
        num_rows = rows * jax.lax.axis_size(DATA_AXIS)
        first_row = jax.lax.axis_index(DATA_AXIS) * rows
        new, restarts = [], []
        for level, codebook in enumerate(codebooks):
            residual, size = quantized.residuals[:, level], codebook.codewords.shape[0]
            sums = upkeep_of.code_sums(residual, quantized.codes[:, level], size=size)
            count, total = jax.lax.psum(sums, DATA_AXIS)
            codebook = upkeep_of.follow(codebook, count=count, total=total, decay=upkeep.decay)
            if not (level == 0 and pinned):
                # Every device draws the same global rows and contributes those that it holds.
                level_key = jax.random.fold_in(key, level)
                row = jax.random.randint(level_key, (size,), 0, num_rows) - first_row
                here = (row >= 0) & (row < rows)
                drawn = residual[jnp.clip(row, 0, rows - 1)] * here[:, None]
                codebook, dead = upkeep_of.restart_dead(
                    codebook,
                    replacements=jax.lax.psum(drawn, DATA_AXIS),
                    below=upkeep.restart_below,
                )
                restarts.append(jnp.sum(dead))
            new.append(codebook)
        return tuple(new), sum(restarts, start=jnp.zeros((), jnp.int32))

    def step(state: QuantizerState, batch):
        rows = batch["item"].shape[0]
        num_rows = jnp.float32(rows * jax.lax.axis_size(DATA_AXIS))
        num_queries = jax.lax.psum(jnp.sum(batch["has_query"]), DATA_AXIS)
        gradient, (quantized, terms) = jax.grad(loss_fn, has_aux=True)(
            state.params, state.codebooks, batch, num_rows, num_queries
        )
        gradient, terms = jax.lax.psum((gradient, terms), DATA_AXIS)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        codebooks, restarts = updated_codebooks(state.codebooks, quantized, key)
        new = QuantizerState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            codebooks=codebooks,
        )
        # A batch that is not finite must not reach parameters or averages: the loop stops on its
        # loss, and the last checkpoint is whole.
        finite = jnp.isfinite(terms["loss"]) & jnp.isfinite(optax.tree.norm(gradient))
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return kept, terms | {"restarts": restarts}

    return jax.pmap(step, axis_name=DATA_AXIS, devices=devices, donate_argnums=0)


def initial_state(
    *,
    catalogue: Catalogue,
    sizes: tuple[int, ...],
    upkeep: Upkeep,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    seed: int,
) -> QuantizerState:
    """Returns random parameters and the k-means codebooks of a sample of the catalogue."""
    params_key, codebook_key = jax.random.split(jax.random.key(seed))
    params = model.init(params_key, jnp.zeros((1, catalogue.items.shape[1])))
    generator = np.random.Generator(np.random.Philox(key=seed))
    sample = np.sort(generator.permutation(len(catalogue.items))[: upkeep.init_rows])
    latents = model.apply(params, catalogue.items[sample], method=Autoencoder.encode)
    codebooks = upkeep_of.initial_codebooks(
        latents,
        sizes=sizes,
        pinned=None if catalogue.pinned is None else jnp.asarray(catalogue.pinned[sample]),
        key=codebook_key,
        iterations=upkeep.init_iterations,
    )
    return QuantizerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        codebooks=codebooks,
    )


def train(
    *,
    config: QuantizerConfig,
    objective: Objective,
    upkeep: Upkeep,
    training: Training,
    catalogue: Catalogue,
    sizes: tuple[int, ...],
    directory: Path,
    seed: int,
    devices: Sequence[jax.Device] | None = None,
) -> QuantizerState:
    """Fits the residual quantizer to a catalogue and the queries that its items answer.

    Args:
      config: shape of the quantizer.
      objective: weights of the loss.
      upkeep: how codebooks follow the data.
      training: length, batch size and learning rate.
      catalogue: vectors, relevant pairs and pinned codes.
      sizes: codes per level; `config.codebook_sizes`, the first one fitted to the categories when
        they are pinned.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      seed: of parameters, row order and restarts.
      devices: local devices to run on; all when not given.

    Returns:
      The final state on the host. Source: DSIRM (arXiv 2606.04374).

    Raises:
      FloatingPointError: the loss was not finite.
    """
    devices = list(devices or jax.local_devices())
    model = autoencoder(config, dim=catalogue.items.shape[1])
    num_steps = training.num_steps(len(catalogue.rows()))
    optimizer = adamw(training, num_steps=num_steps)
    state = initial_state(
        catalogue=catalogue,
        sizes=sizes,
        upkeep=upkeep,
        model=model,
        optimizer=optimizer,
        seed=seed,
    )
    return fit(
        name="quantize",
        state=jax.device_get(state),
        step=make_step(
            model=model,
            optimizer=optimizer,
            objective=objective,
            upkeep=upkeep,
            pinned=catalogue.pinned is not None,
            seed=seed,
            devices=devices,
        ),
        batches=batches_of(catalogue, batch_size=training.batch_size, seed=seed),
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=pmapped(devices),
    )


def autoencoder(config: QuantizerConfig, *, dim: int) -> Autoencoder:
    """Returns the Flax module for dense vectors of width `dim`."""
    return Autoencoder(dim=dim, latent_dim=config.latent_dim, hidden_dim=config.hidden_dim)
