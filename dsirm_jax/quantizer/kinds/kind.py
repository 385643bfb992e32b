"""What every kind of quantizer can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import flax.linen as nn
    import jax

    from dsirm_jax.quantizer.learning import Learning
    from dsirm_jax.quantizer.model import Codebooks, LevelCodebook
    from dsirm_jax.quantizer.training_items import TrainingItems


class Fit(NamedTuple):
    """What a fit gives, and another one may go on from.

    Attributes:
      params: of the module.
      codebooks: one per level.
    """

    params: Any
    codebooks: Codebooks


class BatchStep(NamedTuple):
    """A step that learns from batches, and what it is called with.

    Attributes:
      function: compiled, or to be: `(state, batch) -> (state, metrics)`.
      state: shapes and dtypes of the state, before `training.meshes.pmapped` places it.
      batch: those of a batch of all devices, likewise.
    """

    function: Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]
    state: Any
    batch: dict[str, jax.ShapeDtypeStruct]


@runtime_checkable
class Kind(Protocol):
    """A way to give dense vectors codes: a frozen dataclass, whose fields gin binds.

    The fields say what is saved with a fitted quantizer, as JSON values.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    continues: bool
    """Whether it can learn on from an earlier fit; another kind leaves that as it is."""

    def module(self, *, dim: int) -> nn.Module:
        """Returns a hashable Flax module whose methods `encode` and `decode` map `[row, dim]`.

        Args:
          dim: width of the dense vectors.
        """
        ...

    def codebook(self, arrays: Mapping[str, Any], *, level: int, size: int) -> LevelCodebook:
        """Returns the codebook of a level from the arrays that a file has of it.

        Args:
          arrays: the fields of the codebook that are arrays, by name.
          level: from 0.
          size: its codes, by `QuantizerConfig.codebook_sizes`.
        """
        ...

    def fit(
        self,
        items: TrainingItems,
        *,
        sizes: tuple[int, ...],
        learning: Learning,
        directory: Path,
        start: Fit | None,
    ) -> Fit:
        """Returns parameters of the module and a codebook for every level, on the host.

        Args:
          items: what it is fitted to, the same on every process.
          sizes: codes per level.
          learning: objective, upkeep of the codebooks, length, seed and devices.
          directory: where checkpoints and logs go.
          start: an earlier fit of the same shape to learn on from, where the kind `continues`.
        """
        ...

    def step(
        self, *, dim: int, sizes: tuple[int, ...], pinned: bool, learning: Learning, rows: int
    ) -> BatchStep | None:
        """Returns the step of `fit`, to be compiled ahead of time; None where it has none.

        Args:
          dim: width of the dense vectors.
          sizes: codes per level.
          pinned: whether first codes are pinned.
          learning: objective, upkeep of the codebooks, length, seed and devices.
          rows: training rows of an epoch.
        """
        ...
