"""An ONNX graph under construction, and the heads that can be written into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.heads.head import Head

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

ONNX_ML = "ai.onnx.ml"


class Graph:
    """Nodes and constants; a value goes by its name, and an array is a constant.

    Attributes:
      nodes: in the order in which they were added, which is one that they can run in.
      constants: arrays that they read.
    """

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def add(self, operator: str, *inputs: str | np.ndarray, domain: str = "", **given: Any) -> str:
        """Adds a node; returns the name of its first output.

        Args:
          operator: its type.
          inputs: names of values, or arrays.
          domain: that has the operator.
          given: its attributes.
        """
        return self.outputs(operator, *inputs, count=1, domain=domain, **given)[0]

    def outputs(
        self,
        operator: str,
        *inputs: str | np.ndarray,
        count: int,
        domain: str = "",
        **given: Any,
    ) -> list[str]:
        """Adds a node; returns the names of its first `count` outputs."""
        from onnx import helper

        names = [
            self.constant(value) if isinstance(value, np.ndarray) else value for value in inputs
        ]
        number = len(self.nodes)
        outputs = [f"{operator}_{number}_{output}" for output in range(count)]
        name = f"{operator}_{number}"
        self.nodes.append(
            helper.make_node(operator, names, outputs, name=name, domain=domain, **given)
        )
        return outputs

    def constant(self, array: np.ndarray) -> str:
        """Adds an array; returns its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


@runtime_checkable
class OnnxHead(Protocol):
    """What a head has beside `Head` that is exported to ONNX."""

    def add_to(self, graph: Graph, params: Any, features: str, *, grades: int) -> str:
        """Adds what `Head.outputs` computes to a graph.

        Args:
          graph: that gets the nodes.
          params: what the head has learnt, on the host.
          features: name of float32 `[pair, feature]`.
          grades: that the training pairs had.

        Returns:
          The name of the outputs, float32 `[pair, output]`.
        """


def added(head: Head, graph: Graph, params: Any, features: str, *, grades: int) -> str:
    """Returns `OnnxHead.add_to` of a head of any kind.

    Raises:
      InputError: its kind has no such method.
    """
    if not isinstance(head, OnnxHead):
        name = type(head).__name__
        raise InputError(f"{name} has no ONNX form; give it the method OnnxHead.add_to")
    return head.add_to(graph, params, features, grades=grades)


def interpolated(
    graph: Graph,
    values: str,
    *,
    knots: Float[np.ndarray, "column knot"],
    heights: Float[np.ndarray, "column knot"],
    extrapolated: bool,
) -> str:
    """Adds `jnp.interp` of every column; returns the name of the result, `[pair, column]`.

    While it runs it holds a number for each pair, column and knot.

    Args:
      graph: that gets the nodes.
      values: name of float32 `[pair, column]`.
      knots: float32, of each column, rising but for repetitions of the last; at least two.
      heights: float32 likewise, the result at each.
      extrapolated: beyond the outer knots it goes on as it ends; else it stays as it is there.
    """
    columns, count = knots.shape
    widths, rises = np.diff(knots), np.diff(heights)
    is_flat = np.abs(widths) <= np.spacing(np.finfo(np.float32).eps)
    widths, rises = np.where(is_flat, 1, widths), np.where(is_flat, 0, rises)
    first = np.arange(columns, dtype=np.int32) * (count - 1)  # segment of each column
    segment = graph.add("Add", _inner_knots_reached(graph, values, knots), first)
    start, height, width, rise = (
        graph.add("Gather", part.astype(np.float32).ravel(), segment)
        for part in (knots[:, :-1], heights[:, :-1], widths, rises)
    )
    share = graph.add("Div", graph.add("Sub", values, start), width)
    found = graph.add("Add", height, graph.add("Mul", share, rise))
    if extrapolated:
        return found
    is_below, is_above = (
        graph.add("Less", values, knots[:, 0]),
        graph.add("Greater", values, knots[:, -1]),
    )
    found = graph.add("Where", is_below, heights[:, 0], found)
    return graph.add("Where", is_above, heights[:, -1], found)


def _inner_knots_reached(graph: Graph, values: str, knots: Float[np.ndarray, "column knot"]) -> str:
    """Adds the number of knots, the outer two left out, that are not above each value, int32."""
    from onnx import TensorProto

    if knots.shape[1] == 2:
        shape = graph.add("Shape", values)
        return graph.add("Expand", np.zeros((), np.int32), shape)
    by_knot = graph.add("Unsqueeze", values, np.array([2]))
    reached = graph.add("GreaterOrEqual", by_knot, knots[:, 1:-1])
    numbers = graph.add("Cast", reached, to=TensorProto.INT32)
    return graph.add("ReduceSum", numbers, np.array([2]), keepdims=0)
