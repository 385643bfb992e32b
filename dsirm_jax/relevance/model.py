"""The relevance heads over the features of a pair: a network, trees, a linear one, a mean of these.

A head is a shape, its parameters (arrays alone) and `outputs`, which applies them: one output, the
log-odds of being relevant, or one per grade, of which those follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from dsirm_jax.io.errors import InputError

BINARY, GRADED = LOSSES = ("binary", "graded")
MOST_DEVIATIONS = 5.0  # A feature far outside what training saw must not run away with the score.
MOST_LEAVES = 32  # A tree's leaves are the bits of one word.
TREES_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mlp:
    """A multi-layer perceptron.

    Attributes:
      hidden: units of each hidden layer.
      loss: "binary", cross-entropy of relevant against not; "graded", cross-entropy over the grades
        of the judgements, whose probabilities add up to that of being relevant.
      listwise: weight of a cross-entropy within each query, over its pairs by gain, that is added.
    """

    hidden: tuple[int, ...] = (64, 32)
    loss: str = BINARY
    listwise: float = 0.0

    def __post_init__(self):
        _check_loss(self)
        if self.listwise < 0:
            raise InputError(f"Mlp.listwise = {self.listwise}: give 0 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoostedTrees:
    """Gradient-boosted regression trees on histograms of the features.

    Attributes:
      trees: rounds of boosting; each adds a tree, or one per grade.
      learning_rate: what a tree's values are multiplied by.
      leaves: most leaves of a tree, at most 32.
      min_leaf: fewest pairs in a leaf.
      l2: penalty on the values of leaves.
      columns: share of the features that each split chooses from, drawn anew.
      loss: as in `Mlp`.
    """

    trees: int = 150
    learning_rate: float = 0.04
    leaves: int = 6
    min_leaf: int = 80
    l2: float = 10.0
    columns: float = 0.3
    loss: str = BINARY

    def __post_init__(self):
        _check_loss(self)
        if not 2 <= self.leaves <= MOST_LEAVES:
            raise InputError(f"BoostedTrees.leaves = {self.leaves}: give 2 to {MOST_LEAVES}")
        if self.trees < 1:
            raise InputError(f"BoostedTrees.trees = {self.trees}: give 1 or more")
        if not 0 < self.columns <= 1:
            raise InputError(f"BoostedTrees.columns = {self.columns}: give above 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """Logistic regression on normal scores: each feature as the normal quantile of its rank.

    Attributes:
      l2: penalty: half of it times the squared weights is added to the pairs' cross-entropies,
        which are summed.
      knots: values of a feature whose ranks are kept; between them scores are interpolated.
      loss: as in `Mlp`.
    """

    l2: float = 100.0
    knots: int = 64
    loss: str = BINARY

    def __post_init__(self):
        _check_loss(self)
        if not self.l2 > 0:
            raise InputError(f"Linear.l2 = {self.l2}: give above 0")
        if self.knots < 2:
            raise InputError(f"Linear.knots = {self.knots}: give 2 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blend:
    """The mean of the log-odds, or of the grades' log-probabilities, of several heads.

    Attributes:
      heads: each fitted on its own, of one loss.
    """

    heads: tuple[Mlp | BoostedTrees | Linear, ...]

    def __post_init__(self):
        losses = sorted({head.loss for head in self.heads})
        if len(losses) != 1:
            raise InputError(f"Blend.heads have the losses {losses}: give one or more heads of one")

    @property
    def loss(self) -> str:
        """What all of them minimise."""
        return self.heads[0].loss


Head = Mlp | BoostedTrees | Linear | Blend


def _check_loss(head: Mlp | BoostedTrees | Linear) -> None:
    if head.loss not in LOSSES:
        raise InputError(f"{type(head).__name__}.loss = {head.loss!r}: choose from {LOSSES}")


class MlpParams(struct.PyTreeNode):
    """What an `Mlp` has learnt.

    Attributes:
      network: parameters of `Network`.
      mean: float32 `[feature]`, of the training pairs.
      scale: float32 `[feature]`, their standard deviation; 1 for a constant feature.
    """

    network: Any
    mean: Float[Array, " feature"]
    scale: Float[Array, " feature"]


class TreeParams(struct.PyTreeNode):
    """What `BoostedTrees` have learnt. The leaves of a tree are numbered from left to right.

    Attributes:
      feature: column that each split looks at, int32 `[round, output, split]`.
      threshold: float32 likewise; a pair goes left where its value is not above it, and always at
        a split that is padding.
      kept: the leaves, a bit each, that a pair may still reach once it has gone right.
      value: what each leaf adds, float32 `[round, output, leaf]`.
      baseline: what all pairs start from, float32 `[output]`.
    """

    feature: Int[Array, "round output split"]
    threshold: Float[Array, "round output split"]
    kept: UInt32[Array, "round output split"]
    value: Float[Array, "round output leaf"]
    baseline: Float[Array, " output"]


class LinearParams(struct.PyTreeNode):
    """What `Linear` has learnt.

    Attributes:
      knots: some values of each feature among the training pairs, float32 `[feature, knot]`, rising
        but for repetitions of the last.
      scores: normal quantile of the rank of each, likewise.
      weight: of each feature's score, float32 `[output, feature]`.
      bias: float32 `[output]`.
    """

    knots: Float[Array, "feature knot"]
    scores: Float[Array, "feature knot"]
    weight: Float[Array, "output feature"]
    bias: Float[Array, " output"]


class BlendParams(struct.PyTreeNode):
    """What the heads of a `Blend` have learnt, in their order."""

    parts: tuple[MlpParams | TreeParams | LinearParams, ...]


Params = MlpParams | TreeParams | LinearParams | BlendParams


class Network(nn.Module):
    """From standardised features to outputs, which are 0 at first."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "pair feature"]) -> Float[Array, "pair output"]:
        for units in self.hidden:
            x = nn.gelu(nn.Dense(units)(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.zeros)(x)


def num_outputs(head: Head, *, grades: int) -> int:
    """Returns 1, or one per grade; two grades are told apart by the log-odds of one."""
    return grades if head.loss == GRADED and grades > 2 else 1


def network(head: Mlp, *, grades: int) -> Network:
    """Returns the module of a head."""
    return Network(head.hidden, num_outputs(head, grades=grades))


def outputs(
    head: Head,
    params: Params,
    features: Float[Array, "pair feature"],
    *,
    grades: int,
) -> Float[Array, "pair output"]:
    """Returns what a head makes of features, not calibrated.

    Args:
      head: its shape.
      params: what it has learnt.
      features: as they come, not standardised, and finite.
      grades: how many the training pairs had.

    Returns:
      float32: the log-odds of being relevant, or the log-probability of each grade but for a
      constant.
    """
    if isinstance(head, Blend):
        parts = zip(head.heads, params.parts, strict=True)
        return sum(outputs(*part, features, grades=grades) for part in parts) / len(head.heads)
    if isinstance(head, BoostedTrees):
        return sum_of_trees(params, features)
    if isinstance(head, Linear):
        return normal_scores(params, features) @ params.weight.T + params.bias
    standardised = (features - params.mean) / params.scale
    clipped = jnp.clip(standardised, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    return network(head, grades=grades).apply({"params": params.network}, clipped)


def normal_scores(
    params: LinearParams, features: Float[Array, "pair feature"]
) -> Float[Array, "pair feature"]:
    """Returns the score of each feature; one outside what training saw has that of the nearest."""
    of_columns = jax.vmap(jnp.interp, in_axes=(1, 0, 0), out_axes=1)
    return of_columns(jnp.asarray(features), params.knots, params.scores)


def sum_of_trees(
    params: TreeParams, features: Float[Array, "pair feature"]
) -> Float[Array, "pair output"]:
    """Returns the baseline plus the value of the leaf that each tree sends a pair to.

    Every split is looked at, with no branch: where it sends the pair right, the leaves to its left
    are ruled out, and the first leaf that is left is the one. Source: Lucchese et al. 2015,
    QuickScorer.
    """
    columns = jnp.asarray(features).T  # [feature, pair]

    def of_tree(tree) -> Float[Array, " pair"]:
        feature, threshold, kept, value = tree
        goes_left = columns[feature] <= threshold[:, None]  # [split, pair]
        allowed = jnp.where(goes_left, jnp.uint32(0xFFFFFFFF), kept[:, None])
        reached = jax.lax.reduce(
            allowed, jnp.uint32(0xFFFFFFFF), jax.lax.bitwise_and, dimensions=(0,)
        )
        lowest = reached & (~reached + jnp.uint32(1))
        return value[jax.lax.population_count(lowest - jnp.uint32(1))]

    trees = (params.feature, params.threshold, params.kept, params.value)
    flat = [part.reshape(-1, part.shape[-1]) for part in trees]  # [tree, split or leaf]
    values = jax.lax.map(of_tree, flat, batch_size=TREES_AT_ONCE)  # [tree, pair]
    values = values.reshape(-1, len(params.baseline), features.shape[0])
    return (values.sum(axis=0) + params.baseline[:, None]).T


def relevance_logits(
    outputs: Float[Array, "pair output"], relevant: Sequence[bool]
) -> Float[Array, " pair"]:
    """Returns the log-odds of being relevant.

    Args:
      outputs: of a head.
      relevant: whether each grade counts as relevant; not looked at where there is one output.
    """
    if outputs.shape[1] == 1:
        return outputs[:, 0]
    of_grade = jnp.asarray(relevant)
    yes, no = (
        jax.nn.logsumexp(jnp.where(chosen, outputs, -jnp.inf), axis=1)
        for chosen in (of_grade, ~of_grade)
    )
    return yes - no
