"""Features to the probability that an item is relevant to a query."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.devices.precision import exact
from dsirm_jax.devices.stream import memory_limit, rows_per_chunk, stream
from dsirm_jax.io.errors import InputError
from dsirm_jax.metrics import esci
from dsirm_jax.relevance.calibration import calibrated_probabilities
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.head import GRADED, relevance_logits
from dsirm_jax.relevance.lists import list_columns, with_list_columns
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.sids.arrays import AnyArray

SCORED_AT_ONCE = 1 << 14
SCORED_BYTES = 1 << 14
"""Of a pair on a device, with what a head makes of its features on the way."""


def score(
    fitted: FittedHead, features: FeatureTable, *, lists: Int[np.ndarray, " pair"] | None = None
) -> Float[np.ndarray, " pair"]:
    """Returns the calibrated probability of being relevant, float32 `[pair]`.

    Args:
      fitted: a head.
      features: the columns that it reads, among any others.
      lists: any number that the pairs of a query share, of a head that compares these; the table
        then has all pairs that are to be compared.

    Raises:
      InputError: the table lacks a column, or the head wants lists.
    """
    return _in_blocks(_input_probabilities, fitted, inputs(fitted, features, lists=lists))


def inputs(
    fitted: FittedHead, features: FeatureTable, *, lists: Int[np.ndarray, " pair"] | None
) -> FeatureTable:
    """Returns all columns that a head is given; arguments and errors as `score` has them."""
    table = features.select(fitted.features)
    if not fitted.in_lists:
        return table
    if lists is None:
        raise InputError(
            f"the head compares {fitted.in_lists[0]} of a query's pairs; say which pairs are of "
            f"one query, as score(..., lists=...)"
        )
    return with_list_columns(table, lists, names=fitted.in_lists)


def grade_probabilities(
    fitted: FittedHead, features: FeatureTable, *, lists: Int[np.ndarray, " pair"] | None = None
) -> Float[np.ndarray, "pair grade"]:
    """Returns the probability of each grade; those of relevant grades add up to `score`.

    Args:
      fitted: a head of loss "graded".
      features: as in `score`.
      lists: likewise.

    Raises:
      InputError: the head knows no grades, or the table lacks a column.
    """
    if fitted.head.loss != GRADED:
        name = type(fitted.head).__name__
        raise InputError(
            f"gin binding {name}.loss is {fitted.head.loss!r}; bind {GRADED!r} to tell grades apart"
        )
    given = inputs(fitted, features, lists=lists)
    return _in_blocks(_pair_grades, fitted, given, columns=len(fitted.relevant))


def esci_probabilities(
    fitted: FittedHead,
    features: FeatureTable,
    *,
    grade_of: Mapping[str, tuple[float, bool]],
    lists: Int[np.ndarray, " pair"] | None = None,
) -> Float[np.ndarray, "pair 4"] | None:
    """Returns the probability of each of E, S, C and I; None where the head cannot tell them apart.

    Args:
      fitted: a head.
      features: as in `score`.
      grade_of: gain of each label, and whether it counts as relevant.
      lists: as in `score`.
    """
    grades = {label: grade_of[label] for label in esci.LABELS if label in grade_of}
    if fitted.head.loss != GRADED or len(set(grades.values())) < len(grades):
        return None
    probabilities = grade_probabilities(fitted, features, lists=lists)
    known = zip(fitted.gains, fitted.relevant, strict=True)
    columns = dict(zip(known, probabilities.T, strict=True))
    absent = np.zeros(len(probabilities), np.float32)  # of a label that training pairs do not have
    by_label = {label: columns.get(grade, absent) for label, grade in grades.items()}
    return np.stack([by_label.get(label, absent) for label in esci.LABELS], axis=1)


def mean_of_halves(
    values: Sequence[Float[np.ndarray, "pair *what"]], *, where: Bool[np.ndarray, "half pair"]
) -> Float[np.ndarray, "pair *what"]:
    """Returns the mean of the values from each half of a cross-fit that counts.

    Probabilities are averaged and not features: the mean of two halves' features is less noisy than
    those that a head was fitted to.

    Args:
      values: from the features of each half, of the same pairs.
      where: the halves that count, at least one a pair.
    """
    shares = (where / where.sum(axis=0)).astype(np.float32)
    return np.einsum("hp,hp...->p...", shares, np.stack(values))


def logits(fitted: FittedHead, given: FeatureTable) -> Float[np.ndarray, " pair"]:
    """Returns what `inputs` come to before calibration, float32 `[pair]`: log-odds, or a score."""
    return _in_blocks(_pair_logits, fitted, given)


def _in_blocks(
    apply: Callable[[FittedHead, AnyArray], Array],
    fitted: FittedHead,
    given: FeatureTable,
    *,
    columns: int | None = None,
) -> Float[np.ndarray, "pair *column"]:
    """Applies a compiled function to blocks of one shape.

    Args:
      apply: to a head and some rows of the columns that it is given.
      fitted: the head.
      given: all rows.
      columns: of the result; None where it has one number a row.
    """
    values = given.select(fitted.inputs).values
    at_once = rows_per_chunk(
        sent=values.itemsize * max(len(fitted.inputs), 1),
        held=SCORED_BYTES,
        rows=len(values),
        least=SCORED_AT_ONCE,
        devices=1,
        memory=memory_limit(jax.local_devices()[:1]),
    )
    rows = min(at_once, 1 << max(len(values) - 1, 1).bit_length())

    def blocks() -> Iterator[tuple[slice, Float[np.ndarray, "row feature"]]]:
        for start in range(0, len(values), rows):
            block = values[start : start + rows]
            here = slice(start, start + len(block))
            if len(block) < rows:
                block = np.pad(block, ((0, rows - len(block)), (0, 0)))
            yield here, block

    scores = np.empty((len(values),) if columns is None else (len(values), columns), np.float32)
    head = jax.device_put(fitted) if len(values) > rows else fitted
    for here, found in stream(blocks(), step=functools.partial(apply, head)):
        scores[here] = found[: here.stop - here.start]
    return scores


@jax.jit
def pair_probabilities(
    fitted: FittedHead,
    values: Float[Array, "pair feature"],
    lists: Int[Array, " pair"] | None = None,
) -> Float[Array, " pair"]:
    """Returns what `score` does, of the columns that a head reads, in their order.

    Args:
      fitted: the head.
      values: of whole lists.
      lists: as in `lists.list_columns`; not looked at by a head that compares no pairs.
    """
    if fitted.in_lists:
        assert lists is not None
        columns = np.array([fitted.features.index(name) for name in fitted.in_lists])
        values = jnp.concatenate([values, list_columns(values[:, columns], lists)], axis=1)
    return _input_probabilities(fitted, values)


@jax.jit
def _input_probabilities(
    fitted: FittedHead, values: Float[Array, "pair feature"]
) -> Float[Array, " pair"]:
    return calibrated_probabilities(fitted.curve, _pair_logits(fitted, values))


@jax.jit
def _pair_logits(fitted: FittedHead, values: Float[Array, "pair feature"]) -> Float[Array, " pair"]:
    return relevance_logits(_outputs(fitted, values), fitted.relevant)


@jax.jit
def _pair_grades(
    fitted: FittedHead, values: Float[Array, "pair feature"]
) -> Float[Array, "pair grade"]:
    outputs = _outputs(fitted, values)
    relevant = jnp.asarray(fitted.relevant)
    logits = relevance_logits(outputs, fitted.relevant)
    probability = calibrated_probabilities(fitted.curve, logits)[:, None]
    within = [
        jax.nn.softmax(jnp.where(chosen, outputs, -jnp.inf), axis=1)
        for chosen in (relevant, ~relevant)
    ]
    return probability * within[0] + (1 - probability) * within[1]


@exact
def _outputs(
    fitted: FittedHead, values: Float[Array, "pair feature"]
) -> Float[Array, "pair output"]:
    return fitted.head.outputs(fitted.params, values, grades=len(fitted.relevant))
