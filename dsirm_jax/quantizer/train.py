"""Fits a quantizer of any kind; those that learn from batches do so with a pmapped step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pyarrow.parquet as pq
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from dsirm_jax.data.pairs import positives_of, relevant_pairs
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.vectors import read_categories, read_vectors
from dsirm_jax.encoder.losses import QueryItemRows
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import kmeans
from dsirm_jax.quantizer.codebooks import (
    Upkeep,
    category_codes,
    code_sums,
    initial_codebooks,
    moved,
    picking,
    random_codebooks,
)
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.losses import (
    QuantizerObjective,
    commitment_loss,
    contrastive_loss,
    reconstruction_loss,
)
from dsirm_jax.quantizer.model import (
    HIERARCHICAL_KMEANS,
    RESIDUAL_KMEANS,
    Autoencoder,
    Codebook,
    Codebooks,
    Identity,
    QuantizerConfig,
    autoencoder,
    residual_quantize,
    straight_through,
)
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch, TrainState, fit
from dsirm_jax.training.meshes import DATA_AXIS, pmapped
from dsirm_jax.training.settings import Training, make_optimizer

NO_QUERY = -1
PRINCIPAL_ROWS = 20_000


class QuantizerState(TrainState):
    """Parameters of the autoencoder and, moved by averages and not by gradients, the codebooks."""

    codebooks: Codebooks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalogue:
    """What the quantizer is fitted to.

    Attributes:
      items: float32 `[item, dim]` dense vectors, in memory or memory-mapped.
      queries: float32 `[query, dim]` dense vectors, likewise.
      pairs: int64 `[pair, 2]` relevant (query, item) numbers of the training queries.
      pinned: int32 `[item]` pinned first codes, or None.
      names: the category that each pinned code means; empty without any.
    """

    items: Float[np.ndarray, "item dim"]
    queries: Float[np.ndarray, "query dim"]
    pairs: Int[np.ndarray, "pair 2"]
    pinned: Int[np.ndarray, " item"] | None
    names: tuple[str, ...] = ()

    def sizes(self, config: QuantizerConfig) -> tuple[int, ...]:
        """Returns the codes per level: a pinned first level has one for every category."""
        first, *others = config.codebook_sizes
        return (len(self.names) or first, *others)

    def rows(self) -> Int[np.ndarray, "row 2"]:
        """Returns the training rows: every pair, and every item that no query asks for alone."""
        every = self.alone()
        asked_for = np.zeros(len(every), bool)
        asked_for[self.pairs[:, 1]] = True
        return np.concatenate([self.pairs, every[~asked_for]])

    def alone(self) -> Int[np.ndarray, "row 2"]:
        """Returns the training rows of a quantizer without queries: every item once."""
        items = np.arange(len(self.items))
        return np.stack([np.full_like(items, NO_QUERY), items], axis=1)


def read_catalogue(
    *,
    items: Path,
    queries: Path,
    judgements: Path,
    item_vectors: Path,
    query_vectors: Path,
    config: QuantizerConfig,
    scratch: Path,
    known: Sequence[str] = (),
    only_known: bool = False,
) -> Catalogue:
    """Reads what the quantizer is fitted to.

    Args:
      items: prepare's items table.
      queries: prepare's queries table.
      judgements: prepare's judgements table; only its training queries are used.
      item_vectors: dense vectors of the items.
      query_vectors: dense vectors of the queries.
      config: says whether categories are pinned.
      scratch: folder of the temporary files that hold the vectors, memory-mapped.
      known: categories that have codes already and keep them, see `category_codes`.
      only_known: other categories get none.

    Returns:
      The catalogue; its categories are those of the items, up to the first level's size.
    """
    item_ids = pq.read_table(items, columns=["item_id"])["item_id"]
    query_ids = pq.read_table(queries, columns=["query"])["query"]
    pinned, names = None, ()
    if config.pin_depth or config.title_language:
        pinned, names = category_codes(
            read_categories([items], depth=config.pin_depth, title_language=config.title_language),
            most=len(known) if only_known else config.codebook_sizes[0],
            known=known,
        )
    return Catalogue(
        items=read_vectors(item_vectors, ids=item_ids, id_column="item_id", scratch=scratch),
        queries=read_vectors(query_vectors, ids=query_ids, id_column="query", scratch=scratch),
        pairs=relevant_pairs(judgements, split=TRAIN),
        pinned=pinned if names else None,
        names=names,
    )


def batches_of(
    catalogue: Catalogue, *, rows: Int[np.ndarray, "row 2"], batch_size: int, seed: int
) -> Callable[[int], Iterator[Batch]]:
    """Returns `batches(start)`; each batch gathers the vectors of `batch_size` of the rows.

    The iterators raise FloatingPointError, before the step is taken, where a vector's square is not
    finite.
    """
    positives = positives_of(catalogue.pairs, queries=len(catalogue.queries))

    def batches(start: int) -> Iterator[Batch]:
        order = index_batches(rows=len(rows), batch_size=batch_size, seed=seed, start=start)
        for step, chosen in enumerate(order, start=start + 1):
            query, item = rows[chosen].T
            has_query = query != NO_QUERY
            batch = {
                "item": catalogue.items[item],  # [row, dim]
                "query": np.where(has_query[:, None], catalogue.queries[query], 0),  # [row, dim]
                "has_query": has_query.astype(np.float32),  # [row]
                "item_index": item.astype(np.int32),  # [row]
                "positives": positives[query],  # [row, positive]
            }
            for name, index in (("item", item), ("query", query)):
                _check_finite(batch[name], index, name=name, step=step)
            if catalogue.pinned is not None:
                batch["pinned"] = catalogue.pinned[item]  # [row]
            yield batch

    return batches


def _check_finite(
    vectors: Float[np.ndarray, "row dim"], index: Int[np.ndarray, " row"], *, name: str, step: int
) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(np.einsum("rd,rd->r", vectors, vectors))
    if not finite.all():
        at_fault = ", ".join(map(str, np.unique(index[~finite])[:20]))
        raise FloatingPointError(
            f"quantize: step {step} is refused and nothing changed: the vectors with {name}_index "
            f"{at_fault} are not finite; mend them and run `dsirm encode` again"
        )


def make_step(
    *,
    model: Autoencoder,
    optimizer: optax.GradientTransformation,
    objective: QuantizerObjective,
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
    pick = picking(upkeep, axis=DATA_AXIS)

    def loss_fn(params, codebooks, batch, num_rows, num_queries):
        def encode(vectors):
            return model.apply(params, vectors, method=Autoencoder.encode)

        def decode(latents):
            return model.apply(params, latents, method=Autoencoder.decode)

        item = encode(batch["item"])
        query = encode(batch["query"])
        item_codes = residual_quantize(item, codebooks, pinned=batch.get("pinned"), pick=pick)
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
        rows = QueryItemRows(
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
        # Items are assigned to the nearest codes, however they are picked in training.
        assigned = residual_quantize(item, codebooks, pinned=batch.get("pinned"))
        agrees = jnp.cumprod(assigned.codes == query_codes.codes, axis=1) * has_query[:, None]
        for level, share in enumerate(jnp.sum(agrees, axis=0) / jnp.maximum(num_queries, 1.0)):
            terms[f"agreement_{level + 1}"] = share
        return loss, (item_codes, terms)

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
        codebooks, health = moved(
            state.codebooks, quantized, upkeep=upkeep, pinned=pinned, key=key, axis=DATA_AXIS
        )
        new = QuantizerState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            codebooks=codebooks,
        )
        # A batch that is not finite must not reach parameters or averages: the loop stops on its
        # loss, and the last checkpoint is whole.
        terms["gradient_norm"] = optax.tree.norm(gradient)
        finite = jnp.isfinite(terms["loss"]) & jnp.isfinite(terms["gradient_norm"])
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return kept, terms | health

    return jax.pmap(step, axis_name=DATA_AXIS, devices=devices, donate_argnums=0)


def initial_state(
    *,
    catalogue: Catalogue,
    sizes: tuple[int, ...],
    upkeep: Upkeep,
    model: Autoencoder | Identity,
    optimizer: optax.GradientTransformation,
    seed: int,
    start: FittedQuantizer | None = None,
) -> QuantizerState:
    """Returns the state before the first step, a quantizer's that is there or one made of a sample.

    In a sample of the catalogue parameters start from its principal axes, and codebooks from
    k-means in the space that those give.
    """
    if start is not None:
        params, codebooks = continued(start, catalogue=catalogue, sizes=sizes, seed=seed)
    else:
        params_key, codebook_key = jax.random.split(jax.random.key(seed))
        params = model.init(params_key, jnp.zeros((1, catalogue.items.shape[1])))
        sample = _sample(catalogue, most=upkeep.init_rows or PRINCIPAL_ROWS, seed=seed)
        if params:
            params = principal_start(params, catalogue.items[sample])
        latents = model.apply(params, catalogue.items[sample], method="encode")
        if upkeep.init_rows:
            pinned = None if catalogue.pinned is None else jnp.asarray(catalogue.pinned[sample])
            codebooks = initial_codebooks(
                latents,
                sizes=sizes,
                pinned=pinned,
                key=codebook_key,
                iterations=upkeep.init_iterations,
            )
        else:
            codebooks = random_codebooks(sizes, dim=latents.shape[1], key=codebook_key)
    return QuantizerState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        codebooks=codebooks,
    )


def state_shapes(
    model: Autoencoder | Identity,
    *,
    sizes: tuple[int, ...],
    dim: int,
    optimizer: optax.GradientTransformation,
) -> QuantizerState:
    """Returns the shapes and dtypes of a training state, for vectors of `dim` numbers."""
    key = jax.random.key(0)
    row = jax.ShapeDtypeStruct((1, dim), jnp.float32)
    params = jax.eval_shape(model.init, key, row)
    latent = jax.eval_shape(functools.partial(model.apply, method="encode"), params, row)
    books = functools.partial(random_codebooks, sizes, dim=latent.shape[1])
    return QuantizerState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        params=params,
        opt_state=jax.eval_shape(optimizer.init, params),
        codebooks=jax.eval_shape(lambda: books(key=key)),
    )


def continued(
    start: FittedQuantizer, *, catalogue: Catalogue, sizes: tuple[int, ...], seed: int
) -> tuple[Any, Codebooks]:
    """Returns a quantizer's parameters and codebooks, with a code for every new category.

    Args:
      start: the quantizer.
      catalogue: its first names are those of `start`.
      sizes: codes per level.
      seed: of the rows of new categories that are looked at.
    """
    first, *others = start.codebooks
    new = sizes[0] - first.size
    if not new:
        return start.params, start.codebooks
    rows = np.flatnonzero(catalogue.pinned >= first.size)
    generator = np.random.Generator(np.random.Philox(key=seed))
    rows = np.sort(generator.permutation(rows)[:PRINCIPAL_ROWS])
    latents = start.model.apply(start.params, catalogue.items[rows], method="encode")
    count, total = code_sums(latents, catalogue.pinned[rows] - first.size, size=new)
    means = total / jnp.maximum(count, 1)[:, None]
    added = Codebook(codewords=means, count=jnp.ones(new), total=means)
    grown = jax.tree.map(lambda *parts: jnp.concatenate(parts), first, added)
    return start.params, (grown, *others)


def principal_start(params: Any, vectors: Float[np.ndarray, "row dim"]) -> Any:
    """Returns parameters under which encoding is the projection onto principal axes.

    The linear paths of encoder and decoder are the axes and their transpose, and the hidden layers
    add nothing yet: training starts from the best linear code of this width, in which k-means finds
    the codewords that it would find among the vectors.

    Args:
      params: of an `Autoencoder`.
      vectors: float32 `[row, dim]`, a sample.

    Returns:
      New parameters. Source: this project (docs/quantizer.md has what it gains).
    """
    layers = dict(params["params"])
    dim, width = layers["encoder_linear"]["kernel"].shape
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)  # ascending
    axes = np.pad(axes[:, ::-1], ((0, 0), (0, max(width - dim, 0))))[:, :width]
    layers["encoder_linear"] = {"kernel": jnp.asarray(axes, jnp.float32)}
    layers["decoder_linear"] = {"kernel": jnp.asarray(axes.T, jnp.float32)}
    for name in ("encoder_out", "decoder_out"):
        layers[name] = jax.tree.map(jnp.zeros_like, layers[name])
    return {"params": layers}


def _sample(catalogue: Catalogue, *, most: int, seed: int) -> Int[np.ndarray, " row"]:
    """Returns the numbers of some items, ascending; their vectors are checked."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    sample = np.sort(generator.permutation(len(catalogue.items))[:most])
    _check_finite(catalogue.items[sample], sample, name="item", step=0)
    return sample


def train(
    *,
    config: QuantizerConfig,
    objective: QuantizerObjective,
    upkeep: Upkeep,
    training: Training,
    catalogue: Catalogue,
    directory: Path,
    seed: int,
    start: FittedQuantizer | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> FittedQuantizer:
    """Fits a quantizer to a catalogue and, where its kind can, to the queries that items answer.

    Args:
      config: kind and shape of the quantizer.
      objective: weights of the loss; k-means has none of its terms.
      upkeep: how codebooks follow the data.
      training: length, batch size and learning rate; hierarchical k-means needs none of them.
      catalogue: vectors, relevant pairs and pinned codes, the same on every process.
      directory: where checkpoints and logs go, one for all processes; an interrupted run goes on
        from there.
      seed: of parameters, row order and restarts.
      start: a quantizer of this shape to go on from; with no epochs of training it stays as it is,
        and hierarchical k-means always does.
      devices: devices to run on, see `pmapped`; all of every process when not given.

    Returns:
      The quantizer, on the host, the same on every process. Source: DSIRM (arXiv 2606.04374); for
      k-means see `kmeans`.

    Raises:
      FloatingPointError: a vector or the loss was not finite.
      InputError: `start` has another shape.
    """
    sizes, dim = catalogue.sizes(config), catalogue.items.shape[1]
    fitted = functools.partial(FittedQuantizer, config=config, dim=dim, names=catalogue.names)
    if start is not None:
        _check_shape(start, config=config, dim=dim)
    if config.kind == HIERARCHICAL_KMEANS:
        codebooks = (
            start.codebooks
            if start is not None
            else _hierarchical(upkeep=upkeep, catalogue=catalogue, sizes=sizes, seed=seed)
        )
        return fitted(params={}, codebooks=codebooks)
    devices = list(devices or jax.devices())
    model = autoencoder(config, dim=dim)
    rows = catalogue.alone() if config.kind == RESIDUAL_KMEANS else catalogue.rows()
    training.check_none_held_out("quantize")
    num_steps = training.num_steps(len(rows))
    optimizer = make_optimizer(training, num_steps=num_steps)
    state = initial_state(
        catalogue=catalogue,
        sizes=sizes,
        upkeep=upkeep,
        model=model,
        optimizer=optimizer,
        seed=seed,
        start=start,
    )
    shared = {
        "upkeep": upkeep,
        "pinned": catalogue.pinned is not None,
        "seed": seed,
        "devices": devices,
    }
    if config.kind == RESIDUAL_KMEANS:
        step = kmeans.make_step(**shared)
    else:
        step = make_step(model=model, optimizer=optimizer, objective=objective, **shared)
    state = fit(
        name="quantize",
        state=jax.device_get(state),
        step=step,
        batches=batches_of(catalogue, rows=rows, batch_size=training.batch_size, seed=seed),
        num_steps=num_steps,
        directory=directory,
        training=training,
        placement=pmapped(devices),
    )
    return fitted(params=state.params, codebooks=state.codebooks)


def _hierarchical(
    *, upkeep: Upkeep, catalogue: Catalogue, sizes: tuple[int, ...], seed: int
) -> Codebooks:
    sample = _sample(catalogue, most=upkeep.init_rows, seed=seed)
    codebooks = kmeans.hierarchical_codebooks(
        catalogue.items[sample],
        sizes=sizes,
        pinned=None if catalogue.pinned is None else catalogue.pinned[sample],
        key=jax.random.key(seed),
        iterations=upkeep.init_iterations,
    )
    return multihost_utils.broadcast_one_to_all(codebooks)


def _check_shape(start: FittedQuantizer, *, config: QuantizerConfig, dim: int) -> None:
    of_assignment = {"beams": config.beams, "bucket_cap": config.bucket_cap}
    before = dataclasses.replace(start.config, **of_assignment)
    if (before, start.dim) != (config, dim):
        raise InputError(
            f"the quantizer to go on from has {before} for vectors of {start.dim} numbers, not "
            f"{config} for {dim}; bind the same QuantizerConfig, or no Job.previous"
        )
