"""Fits a quantizer of any kind."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.kind import Fit
from dsirm_jax.quantizer.learning import Learning
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.scaling import scaling_of
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.training import processes
from dsirm_jax.training.settings import Training


def train(
    *,
    config: QuantizerConfig,
    items: TrainingItems,
    training: Training,
    objective: QuantizerObjective | None = None,
    upkeep: Upkeep | None = None,
    directory: Path | None = None,
    seed: int = 0,
    start: FittedQuantizer | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> FittedQuantizer:
    """Fits a quantizer to items and, where its kind can, to the queries that they answer.

    Args:
      config: kind and shape of the quantizer.
      items: vectors, relevant pairs and pinned codes, the same on every process.
      training: length, batch size and learning rate; hierarchical k-means needs none of them.
      objective: weights of the loss, the defaults when not given; k-means has none of its terms.
      upkeep: how codebooks follow the data, the defaults when not given.
      directory: where checkpoints and logs go, one for all processes; an interrupted run goes on
        from there. When not given, nothing is kept.
      seed: of parameters, row order and restarts.
      start: a quantizer of this shape to go on from; with no epochs of training it stays as it is,
        and one of a kind that does not `continue` always does.
      devices: devices to run on, see `pmapped`; all of every process when not given.

    Returns:
      The quantizer, on the host, the same on every process. Source: DSIRM (arXiv 2606.04374); for
      the other kinds see theirs.

    Raises:
      FloatingPointError: a vector or the loss was not finite.
      InputError: `start` has another shape, a pinned code is none of the first level, or several
        processes have no directory.
    """
    training.check_none_held_out("quantize")
    if start is not None:
        _check_shape(start, config=config, dim=items.dim)
    sizes = items.sizes(config.codebook_sizes)
    objective = objective or QuantizerObjective()
    if objective.prediction and items.attributes is None:
        raise InputError(
            f"gin binding QuantizerObjective.prediction is {objective.prediction}, but "
            f"TrainingItems.attributes is None: pass the classes of items, or bind 0"
        )
    if items.pinned is not None and items.pinned.max() >= sizes[0]:
        raise InputError(
            f"TrainingItems.pinned has the code {items.pinned.max()}, but the first level has "
            f"{sizes[0]}: pass lower ones, or bind a larger QuantizerConfig.codebook_sizes"
        )
    learning = Learning(
        objective=objective,
        upkeep=upkeep or Upkeep(),
        training=training,
        seed=seed,
        devices=tuple(devices or jax.devices()),
    )
    # What goes on from a quantizer keeps its scaling: codes mean what they did.
    scaling = scaling_of(items, seed=seed) if start is None else start.scaling
    if start is not None and not config.kind.continues:
        params, codebooks = start.params, start.codebooks
    else:
        with _kept(directory) as folder:
            params, codebooks = config.kind.fit(
                items if scaling is None else scaling.apply_to(items, folder=folder),
                sizes=sizes,
                learning=learning,
                directory=folder,
                start=None if start is None else Fit(start.params, start.codebooks),
            )
    return FittedQuantizer(
        config=config,
        dim=items.dim,
        params=params,
        codebooks=codebooks,
        names=items.names,
        types=items.types,
        scaling=scaling,
    )


@contextlib.contextmanager
def _kept(directory: Path | None) -> Iterator[Path]:
    """Yields a directory, or a temporary one."""
    if directory is not None:
        yield directory
        return
    if processes.several():
        raise InputError("several processes fit one quantizer: pass a `directory` that all share")
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _check_shape(start: FittedQuantizer, *, config: QuantizerConfig, dim: int) -> None:
    before = dataclasses.replace(start.config, beams=config.beams, bucket_cap=config.bucket_cap)
    if (before, start.dim) != (config, dim):
        raise InputError(
            f"the quantizer to go on from has {before} for vectors of {start.dim} numbers, not "
            f"{config} for {dim}; bind the same QuantizerConfig, or no Job.previous"
        )
