"""How the rows of steps come to the devices: made on the host, or gathered from tables there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsirm_jax.training.batches import cut_batches
from dsirm_jax.training.meshes import DATA_AXIS, Placement, check_divisible

Batch = dict[str, np.ndarray]
StepMetrics = dict[str, jax.Array]
Step = Callable[[Any, Any], tuple[Any, StepMetrics]]


class Feed(Protocol):
    """What a training program reads, and the program."""

    @property
    def at_once(self) -> int:
        """Returns the most steps that one call of the program may take."""
        ...

    def placed(self, sizes: Iterable[int], *, start: int) -> Iterator[Any]:
        """Yields, on the devices, what each call of the program reads.

        Args:
          sizes: steps of each call.
          start: the steps before the first of them.
        """
        ...

    def program(self, step: Step) -> Step:
        """Returns a compiled `(state, placed) -> (state, metrics)`.

        Args:
          step: takes one step, compiled.

        Returns:
          The program; where it may take several steps, its metrics have a first axis of steps.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostFeed:
    """Whole batches that the host makes; a call takes one step.

    Attributes:
      batches: `batches(start)` yields the global batches of steps `start, start + 1, ...`.
      placement: how the step wants them.
    """

    batches: Callable[[int], Iterator[Batch]]
    placement: Placement

    at_once = 1

    def placed(self, sizes: Iterable[int], *, start: int) -> Iterator[Any]:
        """See `Feed.placed`."""
        for _, batch in zip(sizes, self.batches(start), strict=False):
            yield self.placement.put_batch(batch)

    def program(self, step: Step) -> Step:
        """See `Feed.program`."""
        return step


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TableFeed:
    """Numbers of rows, by which each device gathers its share of a batch from whole tables.

    For steps that are shorter than what it takes a host to make and send a batch, and to dispatch a
    step. It is for one process.

    Attributes:
      tables: arrays of the host, which go to every device, whole, when the first rows do.
      gather: `(tables, rows) -> batch`, traced; rows are int32 `[device, row]`, and so begin the
        arrays of the batch, as those of `meshes.pmapped` do.
      order: `order(position)` yields the order of the rows, int `[row]`, in pieces, from that
        position of the concatenated epochs on.
      batch_size: rows of a step, over all devices.
      devices: that the rows are split over.
      at_once: see `Feed.at_once`.
    """

    tables: Any
    gather: Callable[[Any, jax.Array], Any]
    order: Callable[[int], Iterator[np.ndarray]]
    batch_size: int
    devices: Sequence[jax.Device]
    at_once: int

    def __post_init__(self) -> None:
        check_divisible(self.batch_size, len(self.devices))

    def placed(self, sizes: Iterable[int], *, start: int) -> Iterator[Any]:
        """See `Feed.placed`; numbers are int32 `[step, device, row]`."""
        mesh = Mesh(np.asarray(self.devices), (DATA_AXIS,))
        tables = jax.device_put(self.tables, NamedSharding(mesh, PartitionSpec()))
        share = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
        order = self.order(start * self.batch_size)
        for rows in cut_batches(order, (size * self.batch_size for size in sizes)):
            shape = (-1, len(self.devices), self.batch_size // len(self.devices))
            yield tables, jax.device_put(rows.astype(np.int32).reshape(shape), share)

    def program(self, step: Step) -> Step:
        """See `Feed.program`."""

        def steps(state: Any, placed: tuple[Any, jax.Array]) -> tuple[Any, StepMetrics]:
            tables, rows = placed

            def one(state: Any, chosen: jax.Array) -> tuple[Any, StepMetrics]:
                # A step computes what it does of a host's batch: nothing is fused with the look-up.
                batch = jax.lax.optimization_barrier(self.gather(tables, chosen))
                return step(state, batch)

            return jax.lax.scan(one, state, rows)

        return jax.jit(steps, donate_argnums=0)
