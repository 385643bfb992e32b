"""How long and how fast a model is fitted."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from dsirm_jax.devices.precision import FASTEST, PRECISIONS
from dsirm_jax.io.checks import check_choice, check_number, check_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.records import LATER

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The settings that every learnt stage has.

    Attributes:
      epochs: passes over the training rows; a fraction stops within a pass, 0 trains nothing.
      batch_size: rows in one step, over all devices.
      learning_rate: peak of the schedule (linear warm-up, then cosine to zero); Adafactor's is
        relative to the root mean square of each parameter.
      warmup_share: share of the steps spent warming up.
      optimizer: "adamw", or "adafactor", whose second moments take next to no memory.
      weight_decay: AdamW's decoupled weight decay.
      clip_norm: global gradient norm above which gradients are scaled down.
      checkpoint_every: steps between checkpoints.
      log_every: steps between log lines and TensorBoard points.
      accumulate_steps: steps whose gradients are averaged into one update; the negatives of a step
        are its own.
      max_skipped_steps: steps with a loss or gradient that is not finite that are left out, each
        named in the log, before training stops; counted from each start.
      held_out: share of the training queries that are held out, of `encode` and `generate`, all
        spellings of a query together. The loss of their rows is measured at every checkpoint, and
        training ends with the one where it was least.
      matmul_precision: of float32 products while training, one of `devices.precision.PRECISIONS`;
        codes are picked in full float32 at any, and a CPU multiplies so always.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    warmup_share: float = 0.05
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    checkpoint_every: int = 500
    log_every: int = 50
    accumulate_steps: int = 1
    max_skipped_steps: int = 0
    held_out: float = 0.0
    matmul_precision: str = dataclasses.field(default=FASTEST, metadata=LATER)

    def __post_init__(self) -> None:
        check_choice("Training.matmul_precision", self.matmul_precision, PRECISIONS)
        if self.optimizer not in ("adamw", "adafactor"):
            raise InputError(
                f"gin binding Training.optimizer is {self.optimizer!r}; bind 'adamw' or 'adafactor'"
            )
        for name in ("batch_size", "checkpoint_every", "log_every", "accumulate_steps"):
            check_whole(f"Training.{name}", getattr(self, name), least=1)
        check_whole("Training.max_skipped_steps", self.max_skipped_steps, least=0)
        for name in ("epochs", "learning_rate", "weight_decay"):
            check_number(f"Training.{name}", getattr(self, name), least=0, below=math.inf)
        check_number("Training.warmup_share", self.warmup_share, least=0, most=1)
        check_number("Training.clip_norm", self.clip_norm, above=0)
        check_number("Training.held_out", self.held_out, least=0, below=1)
        if self.optimizer == "adafactor" and self.weight_decay:
            raise InputError("Training.weight_decay is AdamW's: bind it to 0 for 'adafactor'")

    def check_none_held_out(self, name: str) -> None:
        """Raises InputError where a stage that holds nothing out is bound to."""
        if self.held_out:
            raise InputError(
                f"{name}: Training.held_out = {self.held_out}, but `encode` and `generate` alone "
                f"hold queries out; bind it to 0"
            )

    def num_steps(self, rows: int) -> int:
        """Steps for `rows` training rows; a part of a batch counts as a step."""
        return max(math.ceil(self.epochs * rows / self.batch_size), 1 if self.epochs else 0)


def make_optimizer(training: Training, *, num_steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of `training` under its warm-up and cosine schedule.

    Args:
      training: the settings.
      num_steps: length of the schedule in steps.

    Returns:
      AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101), or Adafactor as T5 has it (Shazeer & Stern
      2018, arXiv 1804.04235: factored, no momentum, decay `1 - t^-0.8`, updates clipped at 1 and
      scaled by the parameters).
    """
    import optax

    num_updates = max(num_steps // training.accumulate_steps, 1)
    warmup = int(training.warmup_share * num_updates)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=training.learning_rate if warmup == 0 else 0.0,
        peak_value=training.learning_rate,
        warmup_steps=warmup,
        decay_steps=num_updates,
    )
    if training.optimizer == "adafactor":
        rule = optax.adafactor(schedule)
    else:
        rule = optax.adamw(schedule, weight_decay=training.weight_decay)
    rule = optax.chain(optax.clip_by_global_norm(training.clip_norm), rule)
    if training.accumulate_steps > 1:
        several = optax.MultiSteps(rule, every_k_schedule=training.accumulate_steps)
        rule = several.gradient_transformation()
    if training.max_skipped_steps:
        rule = optax.apply_if_finite(rule, max_consecutive_errors=training.max_skipped_steps)
    return rule
