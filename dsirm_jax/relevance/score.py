"""Features to the probability that an item is relevant to a query."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import esci
from dsirm_jax.relevance import calibration
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.model import (
    GRADED,
    BoostedTrees,
    Mlp,
    MlpParams,
    TreeParams,
    outputs,
    relevance_logits,
)
from dsirm_jax.relevance.schema import FeatureTable

PAIRS_AT_ONCE = 1 << 14


def score(fitted: FittedHead, features: FeatureTable) -> Float[np.ndarray, " pair"]:
    """Returns the calibrated probability of being relevant, float32 `[pair]`.

    Args:
      fitted: a head.
      features: the columns that it reads, among any others.

    Raises:
      InputError: the table lacks one of them.
    """
    return _in_blocks(probabilities, fitted, features)


def grade_probabilities(
    fitted: FittedHead, features: FeatureTable
) -> Float[np.ndarray, "pair grade"]:
    """Returns the probability of each grade; those of relevant grades add up to `score`.

    Args:
      fitted: a head of loss "graded".
      features: as in `score`.

    Raises:
      InputError: the head knows no grades, or the table lacks a column.
    """
    if fitted.head.loss != GRADED:
        name = type(fitted.head).__name__
        raise InputError(f"a head tells grades apart only with {name}.loss = {GRADED!r}: bind it")
    return _in_blocks(_grades, fitted, features)


def esci_probabilities(
    fitted: FittedHead, features: FeatureTable, *, grade_of: Mapping[str, tuple[float, bool]]
) -> Float[np.ndarray, "pair 4"] | None:
    """Returns the probability of each of E, S, C and I; None where the head cannot tell them apart.

    Args:
      fitted: a head.
      features: as in `score`.
      grade_of: gain of each label, and whether it counts as relevant.
    """
    grades = {label: grade_of[label] for label in esci.GAINS if label in grade_of}
    if fitted.head.loss != GRADED or len(set(grades.values())) < len(grades):
        return None
    found = grade_probabilities(fitted, features)
    of_grade = dict(zip(zip(fitted.gains, fitted.relevant, strict=True), found.T, strict=True))
    nothing = np.zeros(len(found), np.float32)  # of a label that training pairs do not have
    return np.stack([of_grade.get(grades.get(label), nothing) for label in esci.GAINS], axis=1)


def mean_of_halves(
    found: Sequence[Float[np.ndarray, "pair *what"]], *, where: Bool[np.ndarray, "half pair"]
) -> Float[np.ndarray, "pair *what"]:
    """Returns the mean, over the halves of a cross-fit that count, of what was found from each.

    Probabilities are averaged and not features: the mean of two halves' features is less noisy than
    those that a head was fitted to.

    Args:
      found: from the features of each half, of the same pairs.
      where: the halves that count, at least one a pair.
    """
    shares = (where / where.sum(axis=0)).astype(np.float32)
    return np.einsum("hp,hp...->p...", shares, np.stack(found))


def logits(fitted: FittedHead, features: FeatureTable) -> Float[np.ndarray, " pair"]:
    """Returns the log-odds of being relevant before calibration, float32 `[pair]`."""
    return _in_blocks(_logits, fitted, features)


def _in_blocks(apply: Callable, fitted: FittedHead, features: FeatureTable) -> np.ndarray:
    """Applies a jitted function to blocks of one shape."""
    values = features.select(fitted.features).values
    rows = min(PAIRS_AT_ONCE, 1 << max(len(values) - 1, 1).bit_length())
    static = (fitted.head, fitted.relevant)
    blocks = []
    for start in range(0, len(values), rows):
        block = values[start : start + rows]
        padded = np.pad(block, ((0, rows - len(block)), (0, 0)))
        found = apply(*static, fitted.params, fitted.curve, padded)
        blocks.append(np.asarray(found)[: len(block)])
    shape = (0, len(fitted.relevant)) if apply is _grades else 0
    return np.concatenate([np.empty(shape, np.float32), *blocks])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(head, relevant, params, curve, values):
    return relevance_logits(outputs(head, params, values, grades=len(relevant)), relevant)


@functools.partial(jax.jit, static_argnums=(0, 1))
def probabilities(
    head: Mlp | BoostedTrees,
    relevant: tuple[bool, ...],
    params: MlpParams | TreeParams,
    curve: calibration.Curve,
    values: Float[Array, "pair feature"],
) -> Float[Array, " pair"]:
    """Returns what `score` does, of the parts of a head and of the columns that it reads."""
    return calibration.probabilities(curve, _logits(head, relevant, params, curve, values))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _grades(head, relevant, params, curve, values):
    found = outputs(head, params, values, grades=len(relevant))
    of_grade = jnp.asarray(relevant)
    probability = calibration.probabilities(curve, relevance_logits(found, relevant))[:, None]
    among = [
        jax.nn.softmax(jnp.where(chosen, found, -jnp.inf), axis=1)
        for chosen in (of_grade, ~of_grade)
    ]
    return probability * among[0] + (1 - probability) * among[1]
