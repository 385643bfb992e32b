"""What a relevance head is: settings that learn parameters from pairs, and apply them in JAX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dsirm_jax.io.checks import check_holds
from dsirm_jax.relevance.pairs import LabelledPairs

if TYPE_CHECKING:
    from dsirm_jax.training.settings import Training

BINARY, GRADED = LOSSES = ("binary", "graded")
RANKING = "ranking"


class Fitting(NamedTuple):
    """How a fit goes on, beside the settings of the head.

    Attributes:
      name: what progress and errors call it, e.g. `relevance full`.
      training: settings of gradient steps, for the heads that take some.
      directory: where checkpoints and logs go.
      seed: of all that is random.
      columns: names of the features, in order, for settings that name some.
      elsewhere: names of features that the run has and these pairs lack.
    """

    name: str
    training: Training
    directory: Path
    seed: int
    columns: tuple[str, ...] = ()
    elsewhere: frozenset[str] = frozenset()


class StepProgram(NamedTuple):
    """A gradient step, and what it takes, as shapes.

    Attributes:
      step: compiled `(state, batch) -> (state, metrics)`.
      state: `training.loop.TrainState`.
      batch: arrays by name, of a whole batch.
    """

    step: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    state: Any
    batch: dict[str, jax.ShapeDtypeStruct]


@runtime_checkable
class Head(Protocol):
    """A kind of head: a frozen dataclass of settings that can be hashed.

    Its parameters are a pytree of arrays. Its file holds them and the settings, which are numbers,
    strings, other dataclasses, or tuples of these.
    """

    @property
    def loss(self) -> str:
        """What it minimises: "binary", relevant against not; "graded", over the grades;
        "ranking", how pairs of one query stand to each other, so that outputs have no zero."""

    def params_like(self, *, features: int, grades: int) -> Any:
        """Returns the tree of its parameters, as shapes.

        Args:
          features: columns that it reads.
          grades: that the training pairs had.
        """

    def fit(self, pairs: LabelledPairs, fitting: Fitting) -> Any:
        """Returns the parameters that it learns, on the host: a function of its arguments alone."""

    def outputs(
        self, params: Any, features: Float[Array, "pair feature"], *, grades: int
    ) -> Float[Array, "pair output"]:
        """Returns what it makes of features, not calibrated; can be traced by `jax.jit`.

        Args:
          params: what it has learnt.
          features: as they come, not standardised, and finite.
          grades: that the training pairs had.

        Returns:
          float32 of `num_outputs` columns: the log-odds of being relevant, a score that rises with
          them, or the log-probability of each grade but for a constant.
        """

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[StepProgram, ...]:
        """Returns the gradient steps that `fit` takes, those of a network each; of others none.

        Args:
          training: settings of the steps.
          rows: training pairs.
          features: columns that it reads.
          relevant: whether each grade counts as relevant.
        """


def check_loss(head: Head, *, losses: tuple[str, ...] = LOSSES) -> None:
    """Raises InputError where a head has a loss that is none of its kind's."""
    check_holds(
        head.loss in losses,
        binding=f"{type(head).__name__}.loss",
        value=head.loss,
        remedy=" or ".join(map(repr, losses)),
    )


class Ranker(Protocol):
    """Settings of a head with losses within queries: the weight of each, 0 where it has none."""

    @property
    def loss(self) -> str: ...

    @property
    def listwise(self) -> float: ...

    @property
    def pairwise(self) -> float: ...


def ranks(head: Ranker) -> bool:
    """Returns whether a head has a loss within queries."""
    return bool(head.listwise or head.pairwise)


def check_ranking(head: Ranker) -> None:
    """Raises InputError where the weights of losses within queries are out of range."""
    kind = type(head).__name__
    for field, value in (("listwise", head.listwise), ("pairwise", head.pairwise)):
        check_holds(
            0 <= value < math.inf,
            binding=f"{kind}.{field}",
            value=value,
            remedy="a number of at least 0",
        )
    check_holds(
        head.loss != RANKING or ranks(head),
        binding=f"{kind}.loss",
        value=head.loss,
        remedy=f"{kind}.listwise or {kind}.pairwise beside it, above 0, or {BINARY!r}",
    )


def check_head(value: object, *, binding: str) -> None:
    """Raises InputError where something else than a head is bound, such as its class."""
    check_holds(
        isinstance(value, Head) and not isinstance(value, type),
        binding=binding,
        value=value,
        remedy="a head with its parentheses, such as @trees.BoostedTrees()",
    )


def num_outputs(head: Head, *, grades: int) -> int:
    """Returns 1, or one per grade; two grades are told apart by the log-odds of one."""
    return grades if head.loss == GRADED and grades > 2 else 1


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
    counts = jnp.asarray(relevant)
    yes, no = (
        jax.nn.logsumexp(jnp.where(chosen, outputs, -jnp.inf), axis=1)
        for chosen in (counts, ~counts)
    )
    return yes - no
