"""The one training loop; `pmap` and `jit` differ only in the step and the placement."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import struct

from dsirm_jax.training import checkpoints
from dsirm_jax.training.meshes import Placement
from dsirm_jax.training.progress import progress
from dsirm_jax.training.settings import Training

log = logging.getLogger(__name__)
Batch = dict[str, np.ndarray]
Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """What a step changes: the step count, the parameters and the optimizer's state."""

    step: jax.Array
    params: Any
    opt_state: Any


def fit(
    *,
    name: str,
    state: Any,
    step: Callable[[Any, Any], tuple[Any, Metrics]],
    batches: Callable[[int], Iterator[Batch]],
    num_steps: int,
    directory: Path,
    training: Training,
    placement: Placement,
) -> Any:
    """Fits `state` for `num_steps` steps and returns it.

    The newest checkpoint in `directory/checkpoints` wins over `state`: a run that was killed goes
    on where it stopped. The stream of batches and every random key are functions of the step
    alone, so parameters and step are all that a checkpoint needs.

    Args:
      name: stage name for progress and errors.
      state: initial state (host side), a pytree.
      step: compiled `(state, batch) -> (state, metrics)`; metrics are scalars with a `loss`.
      batches: `batches(start)` yields the global batches of steps `start, start + 1, ...`.
      num_steps: steps in all.
      directory: where `checkpoints/` and TensorBoard's `logs/` go.
      training: settings; here `checkpoint_every` and `log_every`.
      placement: how the step wants its arguments.

    Returns:
      The final state, as `placement.get_state` gives it.

    Raises:
      FloatingPointError: a loss was not finite; the message names the step. No checkpoint is
        written after the last finite one.
    """
    from clu import metric_writers

    directory = Path(directory)
    is_first = jax.process_index() == 0
    logs = [metric_writers.SummaryWriter(str(directory / "logs"))] if is_first else []
    writer = metric_writers.MultiWriter(logs)
    shown: dict[str, float] = {}
    window: list[Metrics] = []

    def settle_window(last_step: int) -> None:
        """Checks and logs the metrics since the last call; only finite states are ever saved."""
        if not window:
            return
        first_step = last_step - len(window) + 1
        rows = [{key: float(np.mean(value)) for key, value in m.items()} for m in window]
        for offset, row in enumerate(rows):
            if not math.isfinite(row["loss"]):
                raise FloatingPointError(
                    f"{name}: the loss is {row['loss']} at step {first_step + offset}; nothing was "
                    f"saved since the last finite checkpoint. Lower Training.learning_rate or look "
                    f"at the rows of that step"
                )
        shown.update({key: float(np.mean([row[key] for row in rows])) for key in rows[0]})
        writer.write_scalars(last_step, shown)
        window.clear()

    with checkpoints.manager(directory / "checkpoints") as opened:
        state, start = checkpoints.restore_newest(opened, like=state)
        if start:
            log.info("%s: goes on from the checkpoint of step %d of %d", name, start, num_steps)
        state = placement.put_state(state)
        stream = zip(range(start + 1, num_steps + 1), batches(start) if start < num_steps else ())
        if is_first:
            stream = progress(stream, total=num_steps, name=name, initial=start, values=shown)
        for index, batch in stream:
            state, metrics = step(state, placement.put_batch(batch))
            window.append(metrics)
            is_last = index == num_steps
            if is_last or index % training.log_every == 0:
                settle_window(index)
            if is_last or index % training.checkpoint_every == 0:
                settle_window(index)
                checkpoints.save(opened, step=index, state=placement.get_state(state))
        if not num_steps:
            checkpoints.save(opened, step=0, state=placement.get_state(state))
    writer.close()
    return placement.get_state(state)
