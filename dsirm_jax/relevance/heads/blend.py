"""A mean of several heads of any kinds."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from dsirm_jax.io.checks import check_holds
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.branches import TreeSum, tree_sum
from dsirm_jax.relevance.heads.head import Fitting, Head, StepProgram, check_head
from dsirm_jax.relevance.heads.onnx_graph import Graph, added
from dsirm_jax.relevance.pairs import LabelledPairs

if TYPE_CHECKING:
    from dsirm_jax.training.settings import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blend:
    """The mean of the log-odds, or of the grades' log-probabilities, of several heads.

    Attributes:
      heads: each fitted on its own, of one loss.
    """

    heads: tuple[Head, ...]

    def __post_init__(self) -> None:
        check_holds(
            isinstance(self.heads, tuple) and bool(self.heads),
            binding="Blend.heads",
            value=self.heads,
            remedy="a tuple of one head or more",
        )
        for number, head in enumerate(self.heads):
            check_head(head, binding=f"Blend.heads[{number}]")
        losses = sorted({head.loss for head in self.heads})
        if len(losses) > 1:
            raise InputError(
                f"gin binding Blend.heads has heads of the losses {', '.join(losses)}; bind heads "
                f"of one loss"
            )

    @property
    def loss(self) -> str:
        """What all of them minimise."""
        return self.heads[0].loss

    def params_like(self, *, features: int, grades: int) -> BlendParams:
        return BlendParams(
            parts=tuple(head.params_like(features=features, grades=grades) for head in self.heads)
        )

    def fit(self, pairs: LabelledPairs, fitting: Fitting) -> BlendParams:
        return BlendParams(
            parts=tuple(
                head.fit(
                    pairs,
                    fitting._replace(
                        name=f"{fitting.name}, part {number}",
                        directory=fitting.directory / f"part_{number}",
                    ),
                )
                for number, head in enumerate(self.heads)
            )
        )

    def outputs(
        self, params: BlendParams, features: Float[Array, "pair feature"], *, grades: int
    ) -> Float[Array, "pair output"]:
        parts = zip(self.heads, params.parts, strict=True)
        outputs = (head.outputs(part, features, grades=grades) for head, part in parts)
        return sum(outputs, jnp.zeros((), jnp.float32)) / len(self.heads)

    def add_to(self, graph: Graph, params: BlendParams, features: str, *, grades: int) -> str:
        parts = zip(self.heads, params.parts, strict=True)
        outputs = [added(head, graph, part, features, grades=grades) for head, part in parts]
        return graph.add("Div", graph.add("Sum", *outputs), np.array(len(outputs), np.float32))

    def tree_sum(self, params: BlendParams) -> TreeSum:
        first, *others = map(tree_sum, self.heads, params.parts)
        return functools.reduce(TreeSum.plus, others, first).scaled(1 / len(self.heads))

    def step_programs(
        self, training: Training, *, rows: int, features: int, relevant: tuple[bool, ...]
    ) -> tuple[StepProgram, ...]:
        return tuple(
            program
            for head in self.heads
            for program in head.step_programs(
                training, rows=rows, features=features, relevant=relevant
            )
        )


class BlendParams(struct.PyTreeNode):
    """What the heads of a `Blend` have learnt, in their order."""

    parts: tuple[Any, ...]
