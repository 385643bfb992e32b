"""Relevance heads as ONNX, for ONNX Runtime and the engines that have it.

`head-NAME.onnx` has the inputs `features`, float32 `[pair, feature]`, finite, and of a head that
compares the pairs of a query `lists`, int64 `[pair]`, a number of each pair's query from 0 to below
the number of pairs. The outputs are `probability`, float32 `[pair]`, and of a head that tells
grades apart `grades`, float32 `[pair, grade]`. Its metadata has, as JSON, `features`, the names of
the columns in order, `in_lists`, those that are compared, `gains` and `relevant` of the grades, and
`version`, that of the head. Parameters and calibration are inside.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Float, Int

import dsirm_jax
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import GRADED, num_outputs
from dsirm_jax.relevance.heads.onnx_graph import ONNX_ML, Graph, added, interpolated
from dsirm_jax.relevance.lists import ALIKE, ALIKE_OF_LARGEST

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

log = logging.getLogger(__name__)
FEATURES, LISTS, PROBABILITY, GRADES = "features", "lists", "probability", "grades"
OPERATORS, ML_OPERATORS, IR = 18, 3, 8
"""Versions that ONNX Runtime reads from 1.14 on."""
INSTALL = "pip install '.[onnx]' in a checkout"
AppliedHead = Callable[
    [Float[np.ndarray, "pair feature"], Int[np.ndarray, " pair"]], Float[np.ndarray, " pair"]
]
"""Features, and numbers of the pairs' lists, to probabilities."""


def head_file(folder: Path, name: str) -> Path:
    """Returns the file of a head in `model/`."""
    return folder / f"head-{name}.onnx"


def write_heads(folder: Path, heads: Mapping[str, FittedHead]) -> None:
    """Writes heads by their names into a folder, `model/` of a bundle; what it cannot it logs."""
    if importlib.util.find_spec("onnx") is None:
        log.warning(
            "the bundle has no ONNX, for onnx is not installed: %s, and export anew", INSTALL
        )
        return
    for name, head in heads.items():
        try:
            model = onnx_model(head)
        except InputError as error:
            log.warning("the bundle has no %s: %s", head_file(folder, name).name, error)
            continue
        with replacing(head_file(folder, name)) as partial:
            partial.write_bytes(model.SerializeToString(deterministic=True))
        log.info("wrote %s", head_file(folder, name).name)


def is_readable(folder: Path, name: str) -> bool:
    """Returns whether a bundle has a head as ONNX that can be run here; logs why not."""
    file = head_file(folder, name)
    if not file.is_file():
        log.info("%s: no such file, the bundle was written without onnx", file)
        return False
    if importlib.util.find_spec("onnxruntime") is None:
        log.warning("%s is not compared, for ONNX Runtime is not installed: %s", file, INSTALL)
        return False
    return True


def read_head(path: Path) -> AppliedHead:
    """Returns a head as a function; lists only one that compares reads.

    Raises:
      InputError: ONNX Runtime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path}: ONNX Runtime is not installed: {INSTALL}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # it has a class of its own for each of its reasons
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: ONNX Runtime cannot read it ({reason}); export it anew"
        ) from error
    wanted = {given.name for given in session.get_inputs()}

    def probabilities(
        features: Float[np.ndarray, "pair feature"], lists: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        inputs = {FEATURES: features, LISTS: lists.astype(np.int64)}
        given = {name: values for name, values in inputs.items() if name in wanted}
        return session.run([PROBABILITY], given)[0]

    return probabilities


def onnx_model(fitted: FittedHead) -> ModelProto:
    """Returns a head as an ONNX model, see above.

    Raises:
      InputError: its kind, or that of a part of it, cannot be written so.
    """
    from onnx import TensorProto, helper

    graph, fitted = Graph(), jax.device_get(fitted)
    inputs = [
        helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["pair", len(fitted.features)])
    ]
    values = FEATURES
    if fitted.in_lists:
        inputs.append(helper.make_tensor_value_info(LISTS, TensorProto.INT64, ["pair"]))
        columns = np.array([fitted.features.index(name) for name in fitted.in_lists])
        compared = graph.add("Gather", FEATURES, columns, axis=1)
        values = graph.add("Concat", FEATURES, *_list_columns(graph, compared), axis=1)
    found = added(fitted.head, graph, fitted.params, values, grades=len(fitted.relevant))
    count = len(fitted.relevant)
    grouped = [np.flatnonzero(np.array(fitted.relevant) == side) for side in (True, False)]
    is_one = num_outputs(fitted.head, grades=count) == 1
    log_odds = found if is_one else _log_odds(graph, found, *grouped)
    knots, heights = (np.asarray(part)[None] for part in fitted.curve)
    calibrated = interpolated(graph, log_odds, knots=knots, heights=heights, extrapolated=True)
    chance = graph.add("Sigmoid", calibrated)
    axis = np.array([1])
    graph.nodes.append(_named("Squeeze", [chance, graph.constant(axis)], PROBABILITY))
    outputs = [helper.make_tensor_value_info(PROBABILITY, TensorProto.FLOAT, ["pair"])]
    if fitted.head.loss == GRADED:
        grades = _grades(graph, found, chance, grouped, is_one=is_one)
        graph.nodes.append(_named("Identity", [grades], GRADES))
        outputs.append(helper.make_tensor_value_info(GRADES, TensorProto.FLOAT, ["pair", count]))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "head", inputs, outputs, initializer=graph.constants),
        opset_imports=[
            helper.make_opsetid("", OPERATORS),
            helper.make_opsetid(ONNX_ML, ML_OPERATORS),
        ],
        ir_version=IR,
        producer_name="dsirm-jax",
        producer_version=dsirm_jax.__version__,
        doc_string="the probability that an item is relevant to a query, from features of the pair",
    )
    described = {
        FEATURES: json.dumps(fitted.features),
        "in_lists": json.dumps(fitted.in_lists),
        "gains": json.dumps(fitted.gains),
        "relevant": json.dumps(fitted.relevant),
        "version": json.dumps(fitted.version),
    }
    helper.set_model_props(model, described)
    return model


def _named(operator: str, inputs: list[str], output: str) -> NodeProto:
    from onnx import helper

    return helper.make_node(operator, inputs, [output], name=output)


def _log_odds(
    graph: Graph, outputs: str, yes: Int[np.ndarray, " relevant"], no: Int[np.ndarray, " other"]
) -> str:
    """Adds `head.relevance_logits` of a head with an output a grade, `[pair, 1]`."""
    sides = []
    for grades in (yes, no):
        some = graph.add("Gather", outputs, grades, axis=1)
        most = graph.add("ReduceMax", some, np.array([1]))
        rest = graph.add("ReduceSum", graph.add("Exp", graph.add("Sub", some, most)), np.array([1]))
        sides.append(graph.add("Add", most, graph.add("Log", rest)))
    return graph.add("Sub", *sides)


def _grades(
    graph: Graph, outputs: str, chance: str, grouped: list[np.ndarray], *, is_one: bool
) -> str:
    """Adds the probability of each grade: that of its side, shared within the side."""
    shares = (chance, graph.add("Sub", np.ones(1, np.float32), chance))
    parts = []
    for share, grades in zip(shares, grouped, strict=True):
        if is_one:
            parts.append(share)
            continue
        some = graph.add("Softmax", graph.add("Gather", outputs, grades, axis=1), axis=1)
        parts.append(graph.add("Mul", share, some))
    order = np.argsort(np.concatenate(grouped))
    return graph.add("Gather", graph.add("Concat", *parts, axis=1), order, axis=1)


def _list_columns(graph: Graph, values: str) -> tuple[str, str]:
    """Adds `lists.list_columns` of `[pair, column]`: centred values, and ranks."""
    from onnx import TensorProto

    add = graph.add
    shape = add("Shape", values)
    by_column = add("Expand", add("Unsqueeze", LISTS, np.array([1])), shape)

    def by_list(numbers: str, start: np.ndarray, reduction: str) -> str:
        spread = add("Expand", start, shape)
        return add("ScatterElements", spread, by_column, numbers, axis=0, reduction=reduction)

    def of_pairs(numbers: str) -> str:
        return add("GatherElements", numbers, by_column, axis=0)

    sums = functools.partial(by_list, start=np.zeros((), np.float32), reduction="add")
    greatest = functools.partial(by_list, start=np.array(-np.inf, np.float32), reduction="max")
    counts = sums(add("Expand", np.ones((), np.float32), shape))
    sizes = of_pairs(counts)
    shifted = add("Sub", values, of_pairs(greatest(values)))
    centred = add("Sub", shifted, add("Div", of_pairs(sums(shifted)), sizes))

    size = add("Abs", values)
    relative, of_largest = (np.array(share, np.float32) for share in (ALIKE, ALIKE_OF_LARGEST))
    alike = add(
        "Add",
        add("Mul", size, relative),
        add("Mul", of_pairs(greatest(size)), of_largest),
    )
    whole = add("Cast", counts, to=TensorProto.INT64)
    starts = of_pairs(add("CumSum", whole, np.array(0), exclusive=1))
    below = _reached(graph, values, add("Sub", values, alike), by_column, with_equal=False)
    not_above = _reached(graph, values, add("Add", values, alike), by_column, with_equal=True)
    twice = add("Sub", add("Add", below, not_above), add("Add", starts, starts))
    ranks = add("Div", add("Cast", twice, to=TensorProto.FLOAT), add("Add", sizes, sizes))
    return centred, ranks


def _reached(graph: Graph, values: str, bounds: str, lists: str, *, with_equal: bool) -> str:
    """Adds how many values of earlier lists, or below bounds in their own, there are, int64.

    Values and bounds are sorted together, by list and then by size; of equals those come first
    that stand first, which is why `with_equal` has the values there.
    """
    from onnx import TensorProto

    add = graph.add
    pairs = add("Shape", values, start=0, end=1)
    both = add("Concat", *((values, bounds) if with_equal else (bounds, values)), axis=0)
    twice = add("Shape", both, start=0, end=1)
    ascending: dict[str, Any] = {"axis": 0, "largest": 0, "sorted": 1}
    by_size = graph.outputs("TopK", both, twice, count=2, **ascending)[1]
    list_of = add("GatherElements", add("Concat", lists, lists, axis=0), by_size, axis=0)
    place = add("Range", np.array(0), add("Squeeze", twice), np.array(1))
    key = add("Add", add("Mul", list_of, twice), add("Unsqueeze", place, np.array([1])))
    by_list = graph.outputs("TopK", key, twice, count=2, **ascending)[1]
    order = add("GatherElements", by_size, by_list, axis=0)
    is_value = add("Less" if with_equal else "GreaterOrEqual", order, pairs)
    counted = add("CumSum", add("Cast", is_value, to=TensorProto.INT64), np.array(0))
    unsorted = add("ScatterElements", order, order, counted, axis=0)
    start, end = (pairs, twice) if with_equal else (np.array([0]), pairs)
    return add("Slice", unsorted, start, end, np.array([0]))
