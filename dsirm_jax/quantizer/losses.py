"""The quantizer's objective: `|z - dec(ẑ)|² + β·commitment + γ·InfoNCE(query, item)`.

Source: DSIRM (Wang et al. 2026, arXiv 2606.04374); weights and temperature from secondary notes on
it and on CQ-SID (arXiv 2605.14434). The terms have one value a row, so that a mean over rows is the
same however the rows are split over devices.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dsirm_jax.encoder.losses import QueryItemRows, symmetric_info_nce
from dsirm_jax.io.checks import check_holds, check_number
from dsirm_jax.io.records import LATER


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantizerObjective:
    """Weights of the terms.

    Attributes:
      commitment: β, pull of the encoder towards the codewords (secondary note: 1).
      contrastive: γ, weight of the query-item term (secondary note: 0.001); 0 leaves an
        unsupervised RQ-VAE.
      temperature: τ of the contrastive term and of the alignment (secondary note: 0.1).
      alignment: weight of how far a query's distribution over the codes of every level is from that
        of its item, see `alignment_loss`.
      prediction: weight of how well `attributes` are told from an item's prefix vectors, by linear
        classifiers that are learnt along and not kept, see `prediction_loss`.
      attributes: that are told: "type", "brand", "colour" and "size" as `data.item_text` has them,
        or columns of texts of the items table.

    Raises:
      InputError: a weight is negative, the temperature is not above 0, or one is no finite number;
        or there are no attributes to predict.
    """

    commitment: float = 1.0
    contrastive: float = 0.1
    temperature: float = 0.1
    alignment: float = dataclasses.field(default=0.0, metadata=LATER)
    prediction: float = dataclasses.field(default=0.0, metadata=LATER)
    attributes: tuple[str, ...] = dataclasses.field(default=("type", "brand"), metadata=LATER)

    def __post_init__(self) -> None:
        for name in ("alignment", "prediction"):
            weight = getattr(self, name)
            check_number(f"QuantizerObjective.{name}", weight, least=0, below=math.inf)
        check_holds(
            not isinstance(self.attributes, str) and len(self.attributes) > 0,
            binding="QuantizerObjective.attributes",
            value=self.attributes,
            remedy="names of attributes, such as ('type', 'brand')",
        )
        object.__setattr__(self, "attributes", tuple(self.attributes))
        check_number("QuantizerObjective.commitment", self.commitment, least=0, below=math.inf)
        check_number("QuantizerObjective.contrastive", self.contrastive, least=0, below=math.inf)
        check_number("QuantizerObjective.temperature", self.temperature, above=0, below=math.inf)


class Coded(NamedTuple):
    """Dense vectors and what a quantizer makes of them.

    Attributes:
      vectors: float32 `[row, dim]`.
      residuals: float32 `[row, level, latent]`: what each level codes, `r_0 .. r_{L-1}`.
      prefixes: float32 `[row, level, latent]`: sums of the codewords down to each level.
      quantized: float32 `[row, latent]`: the last prefix vector, straight through.
      decoded: float32 `[row, dim]`: `dec` of it.
    """

    vectors: Float[Array, "row dim"]
    residuals: Float[Array, "row level latent"]
    prefixes: Float[Array, "row level latent"]
    quantized: Float[Array, "row latent"]
    decoded: Float[Array, "row dim"]


def loss_terms(
    *,
    item: Coded,
    query: Coded,
    has_query: Float[Array, " row"],
    item_index: Int[Array, " row"],
    positives: Int[Array, "row positive"],
    objective: QuantizerObjective,
    axis: str | None = None,
) -> dict[str, Float[Array, ""]]:
    """Returns the loss and its terms: means over the items and the queries that are there.

    Args:
      item: the items of this device's rows.
      query: their queries; rows without one count for nothing.
      has_query: 1 where a row has a query, else 0.
      item_index: number of each row's item.
      positives: numbers of the items relevant to each query, filled up with -1.
      objective: weights and temperature.
      axis: mapped axis of the devices that hold the other rows of the batch; None: there are none.

    Returns:
      Scalars `loss`, `reconstruction`, `commitment` and `contrastive`: this device's share, the sum
      of which over `axis` is the value of the whole batch. Source: DSIRM (arXiv 2606.04374).
    """
    rows = has_query.shape[0]
    pairs = QueryItemRows(
        query=query.quantized,
        item=item.quantized,
        item_index=item_index,
        positives=positives,
        has_query=has_query,
    )
    everyone, num_rows, num_queries = pairs, jnp.float32(rows), jnp.sum(has_query)
    own = jnp.arange(rows)
    if axis is not None:
        everyone = jax.tree.map(lambda array: jax.lax.all_gather(array, axis, tiled=True), pairs)
        num_rows = jnp.float32(rows * jax.lax.axis_size(axis))
        num_queries = jax.lax.psum(num_queries, axis)
        own += jax.lax.axis_index(axis) * rows

    def mean(item_rows: Float[Array, " row"], query_rows: Float[Array, " row"]) -> Float[Array, ""]:
        total = jnp.sum(item_rows) + jnp.sum(query_rows * has_query)
        return total / (num_rows + num_queries)

    reconstruction = mean(
        reconstruction_loss(item.vectors, item.decoded),
        reconstruction_loss(query.vectors, query.decoded),
    )
    commitment = mean(
        commitment_loss(item.residuals, item.prefixes),
        commitment_loss(query.residuals, query.prefixes),
    )
    contrastive = jnp.sum(
        contrastive_loss(pairs, everyone, own=own, temperature=objective.temperature)
    ) / jnp.maximum(num_queries, 1.0)
    return {
        "loss": (
            reconstruction + objective.commitment * commitment + objective.contrastive * contrastive
        ),
        "reconstruction": reconstruction,
        "commitment": commitment,
        "contrastive": contrastive,
    }


def reconstruction_loss(
    vectors: Float[Array, "row dim"], decoded: Float[Array, "row dim"]
) -> Float[Array, " row"]:
    """Returns `|z - dec(ẑ)|²` of every row."""
    return jnp.sum((vectors - decoded) ** 2, axis=-1)


def commitment_loss(
    residuals: Float[Array, "row level dim"], prefixes: Float[Array, "row level dim"]
) -> Float[Array, " row"]:
    """Returns `Σ_l |r_{l-1} - sg(e_{l,c_l})|²` of every row.

    Args:
      residuals: what each level codes, `r_0 .. r_{L-1}`.
      prefixes: sums of the codewords down to each level; `r_{l-1} - e_l = r_0 - prefix_l`.
    """
    latents = residuals[:, :1]  # [row, 1, dim]
    return jnp.sum((latents - jax.lax.stop_gradient(prefixes)) ** 2, axis=(1, 2))


def contrastive_loss(
    rows: QueryItemRows, everyone: QueryItemRows, *, own: Int[Array, " row"], temperature: float
) -> Float[Array, " row"]:
    """Returns symmetric InfoNCE of every row on the **quantized** query and item vectors.

    `½ (-log softmax_i cos(q̂, î)/τ - log softmax_q cos(î, q̂)/τ)`, over the rows of all devices;
    rows without a query give 0.

    Args:
      rows: quantized vectors of this device, straight through.
      everyone: those of all devices.
      own: where each row lies in `everyone`.
      temperature: τ.
    """
    return symmetric_info_nce(rows, everyone, own=own, temperature=temperature)


def alignment_loss(
    query_costs: Float[Array, "row code"],
    item_costs: Float[Array, "row code"],
    *,
    temperature: float,
) -> Float[Array, " row"]:
    """Returns how far a query's distribution over the codes of a level is from its item's.

    `KL(sg(p) ‖ q)`, where `p` and `q` are `softmax(-|r - e|² / τ)` of item and query over the
    level's codewords, which stay as they are: the item teaches the query.

    Args:
      query_costs: `|e|²/2 - r·e` of every code, as `LevelCodebook.costs` gives them.
      item_costs: likewise.
      temperature: τ.

    Returns:
      One value a row. Source: CHAP (Meituan), its hierarchical alignment by distillation, as a
      secondary note has it.
    """
    teacher = jax.nn.log_softmax(-2 * jax.lax.stop_gradient(item_costs) / temperature, axis=-1)
    learner = jax.nn.log_softmax(-2 * query_costs / temperature, axis=-1)
    return jnp.sum(jnp.exp(teacher) * (teacher - learner), axis=-1)


def prediction_loss(
    logits: Float[Array, "row level class"], classes: Int[Array, " row"]
) -> Float[Array, " row"]:
    """Returns the cross-entropy of an attribute of every row's item, the mean over levels.

    Args:
      logits: of the attribute's classes, by level.
      classes: number of the item's class, -1 where it is not known, which gives 0.

    Returns:
      One value a row. Source: this project.
    """
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    is_own = jnp.arange(logits.shape[-1]) == classes[:, None, None]
    return -jnp.mean(jnp.sum(jnp.where(is_own, log_probs, 0.0), axis=-1), axis=1)
