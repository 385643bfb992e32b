"""Cross-entropy of SIDs, each level over its own codes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dsirm_jax.io.checks import check_choice
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.records import LATER

MEAN, MARGINAL = "mean", "marginal"
"""Losses of several SIDs of a query."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorObjective:
    """What the generator minimises beside the negative log-probability of the targets.

    Attributes:
      label_smoothing: share of a target's probability that is spread evenly over its level's codes.
      z_loss: weight of the squared logarithm of each softmax's normaliser, which keeps logits near
        zero; T5X's is 1e-4.
      of_several: of a query that is learnt with several SIDs, "mean" takes the mean of their
        losses, "marginal" the negative log-probability that one of them is written; see
        `Curriculum.sids_of_query`.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    of_several: str = dataclasses.field(default=MEAN, metadata=LATER)

    def __post_init__(self) -> None:
        check_choice("GeneratorObjective.of_several", self.of_several, (MEAN, MARGINAL))
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"gin binding GeneratorObjective.label_smoothing is {self.label_smoothing!r}; bind "
                f"a share of at least 0 and below 1"
            )
        if not 0 <= self.z_loss < math.inf:
            raise InputError(
                f"gin binding GeneratorObjective.z_loss is {self.z_loss!r}; bind a finite number "
                f"of at least 0"
            )


class WeightedSum(NamedTuple):
    """A mean per level in two parts: those of several batches or devices add up to the exact mean.

    Attributes:
      loss: weighted sum over the rows, nats, float32 `[level]`.
      weight: sum of the rows' weights, float32 `[level]`.
    """

    loss: Float[Array, " level"]
    weight: Float[Array, " level"]


def level_log_probs(
    logits: Sequence[Float[Array, "*rows _code"]], sids: Int[Array, "*rows level"]
) -> Float[Array, "*rows level"]:
    """Returns `log P(c_l | query, c_1 .. c_{l-1})` of every level, float32 `[..., level]`.

    Args:
      logits: per level `[..., sizes[level]]`, teacher-forced.
      sids: int `[..., level]` codes.
    """
    columns = [
        jnp.take_along_axis(jax.nn.log_softmax(level), sids[..., index, None], axis=-1)
        for index, level in enumerate(logits)
    ]
    return jnp.concatenate(columns, axis=-1)


def cross_entropy(
    logits: Sequence[Float[Array, "*rows _code"]],
    sids: Int[Array, "*rows level"],
    weights: Float[Array, "*rows level"],
    *,
    objective: GeneratorObjective = GeneratorObjective(),
) -> WeightedSum:
    """Returns the weighted loss of the target SIDs.

    Per level, with K codes, logits `x`, `log Z = logsumexp(x)`, `log P = x - log Z` and target `c`:
    `-(1 - label_smoothing) log P_c - label_smoothing / K sum_k log P_k + z_loss (log Z)^2`.

    Args:
      logits: per level `[..., sizes[level]]`, teacher-forced.
      sids: int `[..., level]` target codes.
      weights: float `[..., level]`; 0 leaves a target out.
      objective: what is added to the negative log-probability of the targets.

    Returns:
      Sums over all rows. Source: this project (softmax per level); label smoothing of Szegedy et
      al. 2016, arXiv 1512.00567; z-loss of Mesh TensorFlow, Shazeer et al. 2018, arXiv 1811.02084.
    """
    loss = -level_log_probs(logits, sids)
    if objective.label_smoothing:
        loss += objective.label_smoothing * (_evenly(logits) - loss)
    if objective.z_loss:
        loss += objective.z_loss * _log_z(logits) ** 2
    rows = tuple(range(weights.ndim - 1))
    return WeightedSum(jnp.sum(loss * weights, axis=rows), jnp.sum(weights, axis=rows))


def marginal_cross_entropy(
    logits: Sequence[Float[Array, "row sid _code"]],
    sids: Int[Array, "row sid level"],
    weights: Float[Array, "row sid"],
    *,
    objective: GeneratorObjective = GeneratorObjective(),
) -> WeightedSum:
    """Returns the weighted loss of rows that any of several SIDs answers.

    With a row's weights `w_s` over their sum `W`, and `P_l(s) = P(c_1 .. c_l of s | query)`, level
    l's share is `M_{l-1} - M_l`, where `M_l = log sum_s w_s / W P_l(s)`; the levels together are
    `-log sum_s w_s / W P(s | query)`. Label smoothing and z-loss are means over the SIDs.

    Args:
      logits: per level `[row, sid, sizes[level]]`, teacher-forced.
      sids: int `[row, sid, level]` codes.
      weights: float `[row, sid]`; 0 leaves a SID out.
      objective: what is added.

    Returns:
      Sums over the rows, each weighing `W`. Source: marginal likelihood, as of several spans that
      answer a question in Min et al. 2019, arXiv 1909.04849.
    """
    total = jnp.sum(weights, axis=1)
    share = weights / jnp.where(total > 0, total, 1.0)[:, None]
    # A row without weight, which does not count, has the logarithm of something.
    share = jnp.where(total[:, None] > 0, share, 1.0 / weights.shape[1])[..., None]
    down_to = jnp.cumsum(level_log_probs(logits, sids), axis=-1)
    reached = jax.nn.logsumexp(down_to, axis=1, b=share)  # [row, level]
    loss = -jnp.diff(reached, axis=-1, prepend=0.0)
    if objective.label_smoothing:
        evenly = jnp.sum(share * _evenly(logits), axis=1)
        loss += objective.label_smoothing * (evenly - loss)
    if objective.z_loss:
        loss += objective.z_loss * jnp.sum(share * _log_z(logits) ** 2, axis=1)
    weight = jnp.broadcast_to(jnp.sum(total), loss.shape[1:])
    return WeightedSum(jnp.sum(loss * total[:, None], axis=0), weight)


def _evenly(logits: Sequence[Float[Array, "*rows _code"]]) -> Float[Array, "*rows level"]:
    """Returns the cross-entropy of each level with the same probability for all of its codes."""
    return jnp.stack([-jnp.mean(jax.nn.log_softmax(level), axis=-1) for level in logits], axis=-1)


def _log_z(logits: Sequence[Float[Array, "*rows _code"]]) -> Float[Array, "*rows level"]:
    """Returns the logarithms of the softmaxes' normalisers."""
    return jnp.stack([jax.nn.logsumexp(level, axis=-1) for level in logits], axis=-1)


def mean_per_level(total: WeightedSum) -> Float[Array, " level"]:
    """Returns the mean loss per level; 0 where nothing has weight."""
    return total.loss / jnp.where(total.weight > 0, total.weight, 1.0)
