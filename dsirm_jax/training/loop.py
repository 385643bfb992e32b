"""The one training loop; `pmap` and `jit` differ only in the step and the placement."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dsirm_jax.devices.stream import read_ahead
from dsirm_jax.training import checkpoints, events, memory, preemption, profiling
from dsirm_jax.training.feeds import Batch, Feed, HostFeed, Step, StepMetrics
from dsirm_jax.training.meshes import Placement
from dsirm_jax.training.progress import progress
from dsirm_jax.training.settings import Training

log = logging.getLogger(__name__)
AHEAD = 2
"""Calls of the program whose batches are made and sent while it runs."""


class TrainState(struct.PyTreeNode):
    """What a step changes: the step count, the parameters and the optimizer's state.

    Trees of its shapes and of its shardings have the same form.
    """

    step: Any
    params: Any
    opt_state: Any


def fit(
    *,
    name: str,
    state: Any,
    step: Step,
    batches: Callable[[int], Iterator[Batch]],
    num_steps: int,
    directory: Path,
    training: Training,
    placement: Placement,
    held_out: Callable[[Any], float] | None = None,
    feed: Feed | None = None,
) -> Any:
    """Fits `state` for `num_steps` steps and returns it.

    The newest checkpoint in `directory/checkpoints` wins over `state`: a run that was killed goes
    on where it stopped. The stream of batches and every random key are functions of the step
    alone, so parameters and step are all that a checkpoint needs.

    Args:
      name: stage name for progress and errors.
      state: initial state (host side), a pytree.
      step: compiled `(state, batch) -> (state, metrics)`; metrics are scalars with a `loss` and,
        where there is one, a `gradient_norm`.
      batches: `batches(start)` yields the global batches of steps `start, start + 1, ...`; a thread
        takes them while steps run, and what it raises comes out when the batch is due.
      num_steps: steps in all.
      directory: where `checkpoints/` and TensorBoard's `logs/` go.
      training: settings; here `checkpoint_every`, `log_every` and `max_skipped_steps`.
      placement: how the step wants its arguments.
      held_out: the loss of rows held out under a state, measured at every checkpoint.
      feed: how the batches come to the devices; made by the host when not given. From another one,
        `batches` say no more than which rows were at fault.

    Returns:
      The final state, as `placement.get_state` gives it; or that of the checkpoint where the loss
      of the rows held out was least.

    Raises:
      FloatingPointError: a loss, a gradient or the state was not finite, more often than
        `training.max_skipped_steps` lets pass; the message names the step and its rows. No
        checkpoint is written after the last finite one.
      InputError: a step does not fit into memory, or the last checkpoint is of another model.
      StorageError: the last checkpoint could not be written.
      SystemExit: SIGTERM came; the state is saved. Its code is `preemption.EXIT_CODE`.
    """
    directory = Path(directory)
    is_first = jax.process_index() == 0
    shown: dict[str, float] = {}
    window: list[tuple[range, StepMetrics]] = []  # of the calls since the last log line
    skipped = 0
    feed = feed or HostFeed(batches=batches, placement=placement)
    program, at_once = feed.program(step), steps_at_once(feed, training)

    def fed(start: int) -> Generator[tuple[range, Any]]:
        """Yields the steps of each call of the program, and what it reads, which a thread makes."""
        if start >= num_steps:
            return
        sizes = map(len, calls(start, num_steps, at_once=at_once))
        placed = read_ahead(feed.placed(sizes, start=start), count=AHEAD)
        with contextlib.closing(placed):
            yield from zip(calls(start, num_steps, at_once=at_once), placed, strict=False)

    def settle_window(last_step: int) -> None:
        """Checks and logs the metrics since the last call; only finite states are ever saved."""
        nonlocal skipped
        fetched = jax.device_get([metrics for _, metrics in window])  # all at once
        rows = [
            row
            for (steps, _), metrics in zip(window, fetched, strict=True)
            for row in _by_step(metrics, steps=len(steps))
        ]
        for step_number, row in enumerate(rows, start=last_step - len(rows) + 1):
            for key in ("loss", "gradient_norm"):
                if not math.isfinite(row.get(key, 0.0)):
                    at_fault = _rows_at_fault(next(batches(step_number - 1)))
                    problem = f"{name}: the {key} is {row[key]} at step {step_number}{at_fault}"
                    skipped += 1
                    if skipped > training.max_skipped_steps:
                        raise FloatingPointError(
                            f"{problem}; nothing was saved since the last finite checkpoint. Lower "
                            f"Training.learning_rate or look at the rows of that step"
                        )
                    log.warning("%s; the step is left out", problem)
                    break
        rows = [row for row in rows if all(map(math.isfinite, row.values()))]
        if rows:
            shown.update({key: float(np.mean([row[key] for row in rows])) for key in rows[0]})
            log_scalars(last_step, shown)
        window.clear()

    def measured(loss: float, *, step_number: int) -> float:
        """Checks and logs the loss of the rows held out, and returns it."""
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"{name}: the loss of the rows held out is {loss} after step {step_number}; "
                f"nothing was saved since the last finite checkpoint. Lower Training.learning_rate"
            )
        log_scalars(step_number, {checkpoints.LOSS: loss})
        log.info("%s: loss %.6g of the rows held out after step %d", name, loss, step_number)
        return loss

    def save(step_number: int, *, scheduled: bool = True) -> None:
        kept = placement.get_state(state)
        if not _is_finite(kept):
            raise FloatingPointError(
                f"{name}: the state after step {step_number} is not finite, though the losses are; "
                f"nothing was saved since the last finite checkpoint. Lower Training.learning_rate"
            )
        # Only where an uninterrupted run measures, too: what is best must not hang on a SIGTERM.
        loss = None
        if held_out and scheduled:
            loss = measured(held_out(state), step_number=step_number)
        checkpoints.save(opened, step=step_number, state=kept, loss=loss)

    stops = False
    with (
        preemption.notice() as stopping,
        events.writer(directory / "logs" if is_first else None) as log_scalars,
        checkpoints.manager(directory / "checkpoints", best=held_out is not None) as opened,
        contextlib.ExitStack() as opened_input,
    ):
        state = placement.put_state(state)
        kept, start = checkpoints.restore_newest(opened, like=placement.get_state(state))
        if start:
            log.info("%s: goes on from the checkpoint of step %d of %d", name, start, num_steps)
            state = placement.put_state(kept)
        del kept  # with a mesh, a second copy of the state
        source = opened_input.enter_context(contextlib.closing(fed(start)))
        stream: Iterator[tuple[range, Any]] = source
        if is_first:
            stream = progress(
                stream,
                total=num_steps,
                name=name,
                count=lambda call: len(call[0]),
                initial=start,
                values=shown,
            )
            stream = profiling.traced(stream, logs=directory / "logs")
        for steps, placed in stream:
            index = steps[-1]
            if steps[0] == start + 1:
                memory.check_fits(program, state, placed, name=name)
            state, metrics = program(state, placed)
            # One call may wait while another runs: a longer queue gains nothing, and XLA's CPU
            # backend deadlocks in the collectives of several devices when many steps are queued.
            jax.block_until_ready([metrics for _, metrics in window[-1:]])
            window.append((steps, metrics))
            stops = stopping()
            scheduled = index == num_steps or index % training.checkpoint_every == 0
            saves = stops or scheduled
            if saves or index % training.log_every == 0:
                settle_window(index)
            if saves:
                save(index, scheduled=scheduled)
            if stops:
                break
        if not num_steps:
            save(0)
        if held_out and not stops:
            kept, best = checkpoints.restore_best(opened, like=placement.get_state(state))
            log.info("%s: the parameters are those of step %d of %d", name, best, num_steps)
            state = placement.put_state(kept)
    if stops:
        log.warning(
            "%s: SIGTERM: step %d of %d is saved; the same command goes on from there",
            *(name, index, num_steps),
        )
        raise SystemExit(preemption.EXIT_CODE)
    return placement.get_state(state)


def steps_at_once(feed: Feed, training: Training) -> int:
    """Returns the steps of one call: as many as a feed may, ending wherever a log line is due."""
    between = math.gcd(training.log_every, training.checkpoint_every)
    return max(size for size in range(1, feed.at_once + 1) if between % size == 0)


def calls(done: int, last: int, *, at_once: int) -> Iterator[range]:
    """Yields the steps of each call of a program, which takes `at_once` of them or one.

    Args:
      done: steps that were taken before.
      last: the last step.
      at_once: steps of a call; it ends at a multiple of them, whatever `done` is.
    """
    while done < last:
        size = at_once if done % at_once == 0 and done + at_once <= last else 1
        yield range(done + 1, done + size + 1)
        done += size


def mean_loss(
    loss: Callable[[Any, Any], jax.Array], batches: Sequence[Batch], *, placement: Placement
) -> Callable[[TrainState], float]:
    """Returns what `fit` measures on rows held out: the mean of a loss over some batches.

    Args:
      loss: compiled `(params, batch) -> loss`.
      batches: of the rows.
      placement: how the loss wants its arguments.
    """

    def held_out(state: TrainState) -> float:
        # One after the other: see `fit` on steps that are queued.
        losses = [float(loss(state.params, placement.put_batch(batch))) for batch in batches]
        return float(np.mean(losses))

    return held_out


def _by_step(metrics: Mapping[str, np.ndarray], *, steps: int) -> list[dict[str, float]]:
    """Returns the metrics of each step of a call, each the mean over the devices."""
    means = {key: np.reshape(value, (steps, -1)).mean(axis=1) for key, value in metrics.items()}
    return [{key: float(mean[step]) for key, mean in means.items()} for step in range(steps)]


def _is_finite(state: Any) -> bool:
    """Returns whether every number of a state is finite."""
    inexact = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return bool(_all_finite(inexact))


@jax.jit
def _all_finite(arrays: list[jax.Array]) -> jax.Array:
    parts = (jnp.isfinite(x).all() for x in arrays)
    return functools.reduce(jnp.logical_and, parts, jnp.array(True))


def _rows_at_fault(batch: Batch, *, most: int = 20) -> str:
    """Returns the ids of a batch's rows that hold numbers that are not finite, or of all rows."""
    rows = len(next(iter(batch.values())))
    broken = np.zeros(rows, bool)
    for values in batch.values():
        if np.issubdtype(values.dtype, np.inexact):
            broken |= ~np.isfinite(values).reshape(rows, -1).all(axis=1)
    chosen = np.flatnonzero(broken) if broken.any() else np.arange(rows)
    ids = {key: values[chosen] for key, values in batch.items() if key.endswith("_index")}
    if not ids:
        if not broken.any():
            return ""
        ids = {"row": chosen}
    named = []
    for key, values in ids.items():
        distinct = np.unique(values)
        more = ", ..." if len(distinct) > most else ""
        named.append(f"{key} {', '.join(map(str, distinct[:most]))}{more}")
    return f" ({'; '.join(named)})"
