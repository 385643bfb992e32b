"""What a quantizer is fitted to: items, the queries that they answer, and batches of both."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dsirm_jax.data.pairs import MOST_POSITIVES, positives_of
from dsirm_jax.data.title_types import TitleTypes
from dsirm_jax.devices.stream import made_ahead
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.model import UNPINNED
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch

NO_QUERY = -1
UNKNOWN = -1
"""Class of an attribute that is not known."""
MOST_THREADS = 8
"""That gather vectors: more are no faster than a machine's memory."""


def _no_queries() -> Float[np.ndarray, "0 0"]:
    return np.zeros((0, 0), np.float32)  # of any width


def _no_pairs() -> Int[np.ndarray, "0 2"]:
    return np.zeros((0, 2), np.int64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingItems:
    """What a quantizer is fitted to.

    Attributes:
      items: float32 `[item, dim]` dense vectors, in memory or memory-mapped.
      queries: float32 `[query, dim]` dense vectors, likewise; none when not given.
      pairs: int64 `[pair, 2]` relevant (query, item) numbers of the training queries; likewise.
      pinned: int32 `[item]` pinned first codes, or None.
      names: the category that each pinned code means; empty without any.
      types: how titles became these; None where they are categories, or by the first rules.
      attributes: int32 `[item, attribute]` classes of the attributes that a quantizer may learn to
        tell, -1 where one is not known; or None.

    Raises:
      InputError: there is no item, shapes do not go together, or a number is out of range.
    """

    items: Float[np.ndarray, "item dim"]
    queries: Float[np.ndarray, "query dim"] = dataclasses.field(default_factory=_no_queries)
    pairs: Int[np.ndarray, "pair 2"] = dataclasses.field(default_factory=_no_pairs)
    pinned: Int[np.ndarray, " item"] | None = None
    names: tuple[str, ...] = ()
    types: TitleTypes | None = None
    attributes: Int[np.ndarray, "item attribute"] | None = None

    def __post_init__(self) -> None:
        if self.items.ndim != 2 or not self.items.size:
            raise InputError(
                f"TrainingItems.items has the shape {self.items.shape}; a quantizer requires at "
                f"least one item: pass float32 [item, dim]"
            )
        count, dim = self.items.shape
        if self.queries.shape == (0, 0):
            object.__setattr__(self, "queries", np.zeros((0, dim), np.float32))
        if self.queries.ndim != 2 or self.queries.shape[1] != dim:
            raise InputError(
                f"TrainingItems.queries has the shape {self.queries.shape}; pass [query, {dim}], "
                f"as wide as the items"
            )
        if self.pairs.ndim != 2 or self.pairs.shape[1] != 2:
            raise InputError(
                f"TrainingItems.pairs has the shape {self.pairs.shape}; pass [pair, 2]"
            )
        for column, limit in enumerate((len(self.queries), count)):
            _check_range(f"pairs[:, {column}]", self.pairs[:, column], least=0, limit=limit)
        if self.pinned is not None:
            if self.pinned.shape != (count,):
                raise InputError(
                    f"TrainingItems.pinned has the shape {self.pinned.shape}; pass [{count}], a "
                    f"code for each item"
                )
            limit = len(self.names) or np.iinfo(np.int32).max
            _check_range("pinned", self.pinned, least=UNPINNED, limit=limit)
        if self.attributes is not None:
            if self.attributes.ndim != 2 or len(self.attributes) != count:
                raise InputError(
                    f"TrainingItems.attributes has the shape {self.attributes.shape}; pass "
                    f"[{count}, attribute], a class of each attribute of every item"
                )
            largest = np.iinfo(np.int32).max
            _check_range("attributes", self.attributes.ravel(), least=UNKNOWN, limit=largest)

    @property
    def dim(self) -> int:
        """Width of the dense vectors."""
        return self.items.shape[1]

    def sizes(self, codebook_sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the codes per level: a pinned first level has one for every category."""
        first, *others = codebook_sizes
        return (len(self.names) or first, *others)

    def rows(self) -> Int[np.ndarray, "row 2"]:
        """Returns the training rows: every pair, and every item without a query alone."""
        every = self.alone()
        has_query = np.zeros(len(every), bool)
        has_query[self.pairs[:, 1]] = True
        return np.concatenate([self.pairs, every[~has_query]])

    def alone(self) -> Int[np.ndarray, "row 2"]:
        """Returns the training rows of a quantizer without queries: every item once."""
        items = np.arange(len(self.items))
        return np.stack([np.full_like(items, NO_QUERY), items], axis=1)

    def sample(self, *, most: int, seed: int) -> Int[np.ndarray, " row"]:
        """Returns the numbers of some items, ascending.

        Args:
          most: items, if there are so many.
          seed: of the choice.

        Raises:
          FloatingPointError: the square of one of their vectors is not finite.
        """
        generator = np.random.Generator(np.random.Philox(key=seed))
        numbers = np.sort(generator.permutation(len(self.items))[:most])
        check_finite(self.items[numbers], numbers, name="item", step=0)
        return numbers


def _check_range(name: str, values: np.ndarray, *, least: int, limit: int) -> None:
    outside = (values < least) | (values >= limit)
    if outside.any():
        raise InputError(
            f"TrainingItems.{name} has {values[np.argmax(outside)]} in row {np.argmax(outside)}; "
            f"pass numbers from {least} to {limit - 1}"
        )


def batch_spec(
    *, rows: int, dim: int, pinned: bool, positives: int = MOST_POSITIVES, attributes: int = 0
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns what a batch is: shapes and dtypes, by name.

    Args:
      rows: of a batch, over all devices.
      dim: width of the dense vectors.
      pinned: whether first codes are pinned.
      positives: most items that are relevant to one query.
      attributes: of an item that are told from its codes.
    """
    shape = jax.ShapeDtypeStruct
    spec = {
        "item": shape((rows, dim), np.float32),
        "query": shape((rows, dim), np.float32),  # zeros without one
        "has_query": shape((rows,), np.float32),
        "item_index": shape((rows,), np.int32),
        "positives": shape((rows, positives), np.int32),  # items relevant to the query
    }
    if attributes:
        spec["attributes"] = shape((rows, attributes), np.int32)
    return spec | ({"pinned": shape((rows,), np.int32)} if pinned else {})


def batches_of(
    items: TrainingItems, *, rows: Int[np.ndarray, "row 2"], batch_size: int, seed: int
) -> Callable[[int], Iterator[Batch]]:
    """Returns `batches(start)`; each batch, see `batch_spec`, gathers vectors of some of the rows.

    The iterators raise FloatingPointError, before the step is taken, where a vector's square is not
    finite.

    Args:
      items: the vectors.
      rows: numbers of a query, or `NO_QUERY`, and of an item.
      batch_size: rows of a batch.
      seed: of their order.
    """
    positives = positives_of(items.pairs, queries=len(items.queries))
    spec = batch_spec(
        rows=batch_size,
        dim=items.dim,
        pinned=items.pinned is not None,
        positives=positives.shape[1],
        attributes=0 if items.attributes is None else items.attributes.shape[1],
    )

    def batch(place: tuple[int, Int[np.ndarray, " row"]]) -> Batch:
        step, chosen = place
        query, item = rows[chosen].T
        has_query = query != NO_QUERY
        if has_query.any():
            vectors = items.queries[query]
            vectors[~has_query] = 0.0
        else:
            vectors = np.zeros(spec["query"].shape, np.float32)
        values = {
            "item": items.items[item],
            "query": vectors,
            "has_query": has_query,
            "item_index": item,
            "positives": positives[query],
        }
        if items.pinned is not None:
            values["pinned"] = items.pinned[item]
        if items.attributes is not None:
            values["attributes"] = items.attributes[item]
        for name, index in (("item", item), ("query", query)):
            check_finite(values[name], index, name=name, step=step)
        return {name: np.asarray(values[name], shape.dtype) for name, shape in spec.items()}

    def batches(start: int) -> Iterator[Batch]:
        order = index_batches(rows=len(rows), batch_size=batch_size, seed=seed, start=start)
        places = enumerate(order, start=start + 1)
        threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
        return made_ahead(batch, places, depth=threads, threads=threads)

    return batches


def check_finite(
    vectors: Float[np.ndarray, "row dim"], index: Int[np.ndarray, " row"], *, name: str, step: int
) -> None:
    """Raises FloatingPointError where a vector's square is not finite.

    Args:
      vectors: float32 `[row, dim]`.
      index: their numbers.
      name: what they are: item or query.
      step: the step that they are for.
    """
    finite = finite_squares(vectors)
    if not finite.all():
        at_fault = ", ".join(map(str, np.unique(index[~finite])[:20]))
        raise FloatingPointError(
            f"quantize: step {step} is refused and nothing changed: the vectors with {name}_index "
            f"{at_fault} are not finite; fix them and run `dsirm encode` again"
        )


def finite_squares(vectors: Float[np.ndarray, "row dim"]) -> Bool[np.ndarray, " row"]:
    """Returns which vectors have a finite square."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.isfinite(np.einsum("rd,rd->r", vectors, vectors))
