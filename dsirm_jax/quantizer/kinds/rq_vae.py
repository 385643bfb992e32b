"""The RQ-VAE of DSIRM: a residual quantizer of learnt latents, bridged to the queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dsirm_jax.devices.precision import multiplying
from dsirm_jax.io.checks import check_whole
from dsirm_jax.quantizer.batchwise import BatchwiseKind, Learner, QuantizerState
from dsirm_jax.quantizer.codebooks import moved, picking
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.losses import Coded, alignment_loss, loss_terms
from dsirm_jax.quantizer.model import (
    Codebook,
    Quantized,
    decode,
    encode,
    residual_quantize,
    straight_through,
)
from dsirm_jax.quantizer.prediction import CLASSIFIERS, predicted
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.training.meshes import DATA_AXIS


@dataclasses.dataclass(frozen=True, kw_only=True)
class RqVae(BatchwiseKind):
    """DSIRM's quantizer; TIGER's where `QuantizerObjective.contrastive` is 0.

    Attributes:
      latent_dim: width of the space that is quantized.
      hidden_dim: width of the one hidden layer of encoder and decoder.

    Raises:
      InputError: a width is below 1.
    """

    latent_dim: int
    hidden_dim: int

    def __post_init__(self) -> None:
        check_whole("RqVae.latent_dim", self.latent_dim, least=1)
        check_whole("RqVae.hidden_dim", self.hidden_dim, least=1)

    def module(self, *, dim: int) -> Autoencoder:
        """See `Kind.module`."""
        return Autoencoder(dim=dim, latent_dim=self.latent_dim, hidden_dim=self.hidden_dim)

    def epoch(self, items: TrainingItems) -> Int[np.ndarray, "row 2"]:
        """Returns every relevant pair, and every item without a query alone."""
        return items.rows()

    def learner(self, *, dim: int) -> Learner:
        """Returns what is learnt from batches of vectors of this width."""
        return Learner(
            module=self.module(dim=dim),
            make_step=make_step,
            first_params=principal_start,
            predicts=True,
        )


class Autoencoder(nn.Module):
    """Maps dense vectors to the quantized space and back; a hidden layer beside a linear path."""

    dim: int
    latent_dim: int
    hidden_dim: int

    def setup(self) -> None:
        self.encoder_hidden = nn.Dense(self.hidden_dim)
        self.encoder_out = nn.Dense(self.latent_dim)
        self.encoder_linear = nn.Dense(self.latent_dim, use_bias=False)
        self.decoder_hidden = nn.Dense(self.hidden_dim)
        self.decoder_out = nn.Dense(self.dim)
        self.decoder_linear = nn.Dense(self.dim, use_bias=False)

    def encode(self, vectors: Float[Array, "row dim"]) -> Float[Array, "row latent"]:
        """Returns the latent vectors that are quantized."""
        return self.encoder_linear(vectors) + self.encoder_out(
            nn.gelu(self.encoder_hidden(vectors))
        )

    def decode(self, latents: Float[Array, "row latent"]) -> Float[Array, "row dim"]:
        """Returns the dense vectors that quantized latents stand for."""
        return self.decoder_linear(latents) + self.decoder_out(
            nn.gelu(self.decoder_hidden(latents))
        )

    def __call__(self, vectors: Float[Array, "row dim"]) -> Float[Array, "row dim"]:
        return self.decode(self.encode(vectors))


def make_step(
    *,
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    learning: Learning,
    pinned: bool,
) -> Callable[[QuantizerState, Any], tuple[QuantizerState, dict[str, jax.Array]]]:
    """Returns the pmapped training step.

    Losses are sums over a device's rows divided by the global number of rows, gradients and
    codebook statistics are summed over devices and negatives are gathered from all of them, so
    that the result is that of one device with the same global batch.

    Args:
      module: the encoder and decoder.
      optimizer: of their parameters.
      learning: objective, upkeep of the codebooks, seed of the restarts, and devices.
      pinned: the batch has `pinned` first codes.

    Returns:
      `(state, batch) -> (state, metrics)`. Source: DSIRM (arXiv 2606.04374).
    """
    upkeep, objective = learning.upkeep, learning.objective
    pick = picking(upkeep, axis=DATA_AXIS)

    def loss_fn(
        params: Any, codebooks: tuple[Codebook, ...], batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[Quantized, dict[str, Array]]]:
        def coded(
            vectors: Float[Array, "row dim"],
            latents: Float[Array, "row latent"],
            quantized: Quantized,
        ) -> Coded:
            passed = straight_through(latents, quantized.prefixes[:, -1])
            return Coded(
                vectors=vectors,
                residuals=quantized.residuals,
                prefixes=quantized.prefixes,
                quantized=passed,
                decoded=decode(module, params, passed),
            )

        item, query = (encode(module, params, batch[side]) for side in ("item", "query"))
        item_codes = residual_quantize(item, codebooks, pinned=batch.get("pinned"), pick=pick)
        query_codes = residual_quantize(query, codebooks)
        has_query = batch["has_query"]
        num_queries = jnp.maximum(jax.lax.psum(jnp.sum(has_query), DATA_AXIS), 1.0)
        terms = loss_terms(
            item=coded(batch["item"], item, item_codes),
            query=coded(batch["query"], query, query_codes),
            has_query=has_query,
            item_index=batch["item_index"],
            positives=batch["positives"],
            objective=objective,
            axis=DATA_AXIS,
        )
        if objective.alignment:
            apart = jnp.zeros_like(has_query)
            for level, book in enumerate(codebooks):
                query_costs, item_costs = (
                    book.costs(of.residuals[:, level], of.codes[:, level])
                    for of in (query_codes, item_codes)
                )
                apart += alignment_loss(query_costs, item_costs, temperature=objective.temperature)
            terms["alignment"] = jnp.sum(apart * has_query) / num_queries
            terms["loss"] += objective.alignment * terms["alignment"]
        if "attributes" in batch:
            prefixes = item_codes.prefixes
            prefixes = straight_through(jnp.broadcast_to(item[:, None], prefixes.shape), prefixes)
            terms["prediction"] = predicted(
                params[CLASSIFIERS], prefixes, batch["attributes"], axis=DATA_AXIS
            )
            terms["loss"] += objective.prediction * terms["prediction"]
        # Items are assigned to the nearest codes, however they are picked in training.
        assigned = residual_quantize(item, codebooks, pinned=batch.get("pinned"))
        agrees = jnp.cumprod(assigned.codes == query_codes.codes, axis=1) * has_query[:, None]
        for level, share in enumerate(jnp.sum(agrees, axis=0) / num_queries):
            terms[f"agreement_{level + 1}"] = share
        return terms["loss"], (item_codes, terms)

    @multiplying(learning.training.matmul_precision)
    def step(
        state: QuantizerState, batch: Mapping[str, Array]
    ) -> tuple[QuantizerState, dict[str, Array]]:
        gradient, (quantized, terms) = jax.grad(loss_fn, has_aux=True)(
            state.params, state.codebooks, batch
        )
        gradient, terms = jax.lax.psum((gradient, terms), DATA_AXIS)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        key = jax.random.fold_in(jax.random.key(learning.seed), state.step)
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

    return jax.pmap(step, axis_name=DATA_AXIS, devices=list(learning.devices), donate_argnums=0)


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
