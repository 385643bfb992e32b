"""How a quantizer is fitted: all settings that are not its shape, in one value."""

from __future__ import annotations

import dataclasses

import jax

from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.training.settings import Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning:
    """The settings of a fit, whatever the kind; each kind takes what it needs.

    Attributes:
      objective: weights of the loss.
      upkeep: how codebooks follow the data.
      training: length, batch size and learning rate.
      seed: of all that is random.
      devices: devices to run on, of every process.
    """

    objective: QuantizerObjective
    upkeep: Upkeep
    training: Training
    seed: int
    devices: tuple[jax.Device, ...]
