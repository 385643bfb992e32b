"""How long and how fast a model is fitted."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The settings that every learnt stage has.

    Attributes:
      epochs: passes over the training rows; a fraction stops within a pass, 0 trains nothing.
      batch_size: rows in one step, over all devices.
      learning_rate: peak of the schedule (linear warm-up, then cosine to zero).
      warmup_share: share of the steps spent warming up.
      weight_decay: AdamW's decoupled weight decay.
      clip_norm: global gradient norm above which gradients are scaled down.
      checkpoint_every: steps between checkpoints.
      log_every: steps between log lines and TensorBoard points.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    checkpoint_every: int = 500
    log_every: int = 50

    def num_steps(self, rows: int) -> int:
        """Steps for `rows` training rows; a part of a batch counts as a step."""
        return max(math.ceil(self.epochs * rows / self.batch_size), 1 if self.epochs else 0)


def adamw(training: Training, *, num_steps: int):
    """Returns AdamW under the warm-up and cosine schedule of `training`.

    Args:
      training: the settings.
      num_steps: length of the schedule in steps.

    Returns:
      An `optax.GradientTransformation`. Source: Loshchilov & Hutter 2019, arXiv 1711.05101.
    """
    import optax

    warmup = int(training.warmup_share * num_steps)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=training.learning_rate if warmup == 0 else 0.0,
        peak_value=training.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(num_steps, 1),
    )
    return optax.chain(
        optax.clip_by_global_norm(training.clip_norm),
        optax.adamw(schedule, weight_decay=training.weight_decay),
    )
