"""Fits a generator to texts and their SIDs in memory; the stage `generate` reads a dataset."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int

from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.fitted import FittedGenerator
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.train import train
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import codes
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch
from dsirm_jax.training.settings import Training


def fit_generator(
    *,
    config: Architecture,
    training: Training,
    pieces: Sequence[Sequence[int]],
    sids: Int[np.ndarray, "text level"],
    max_pieces: int,
    directory: str | os.PathLike[str],
    objective: GeneratorObjective | None = None,
    sid_version: str = "",
    seed: int = 0,
    devices: Sequence[jax.Device] | None = None,
) -> FittedGenerator:
    """Returns a generator that writes SIDs such as those of the texts it was fitted to.

    Args:
      config: the network, with the vocabulary and the SIDs' sizes, see `Architecture.fitted_to`.
      training: length, batch size and optimizer.
      pieces: tokens of each text, from 1 on: 0 is padding.
      sids: int `[text, level]`, the codes to write for each text.
      max_pieces: tokens read of a text.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      objective: what is minimised beside the negative log-probability of the SIDs; nothing when
        not given.
      sid_version: of the SIDs, see `sids.codes.SidTable`.
      seed: of parameters, of the order of the texts and of dropout.
      devices: see `train`.

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: no texts, not as many SIDs, a code or a token that does not exist, or texts of no
        length.
    """
    sids = np.asarray(sids, np.int32)
    codes.validate(sids, sizes=config.sid_sizes)
    if not len(pieces) == len(sids) > 0:
        raise InputError(f"{len(pieces)} texts, but {len(sids)} SIDs: give one a text")
    if max_pieces < 1:
        raise InputError(f"max_pieces is {max_pieces}: read 1 or more of a text")
    texts = rectangle(pieces, shape=(len(pieces), max_pieces))
    if texts.min() < 0 or texts.max() >= config.text_vocab_size:
        raise InputError(
            f"tokens from {texts.min()} to {texts.max()}, but the vocabulary has "
            f"{config.text_vocab_size}: make the texts' pieces with that vocabulary"
        )
    params = train(
        config=config,
        objective=objective or GeneratorObjective(),
        training=training,
        batches=functools.partial(
            _batches, texts, sids, config=config, batch_size=training.batch_size, seed=seed
        ),
        num_rows=len(texts),
        directory=Path(directory),
        seed=seed,
        devices=devices,
    )
    return FittedGenerator(
        config=config.unscanned(),
        params=config.unstacked(params),
        max_pieces=max_pieces,
        sid_version=sid_version,
    )


def _batches(
    texts: Int[np.ndarray, "text piece"],
    sids: Int[np.ndarray, "text level"],
    start: int,
    *,
    config: Architecture,
    batch_size: int,
    seed: int,
) -> Iterator[Batch]:
    """Yields what `train.batch_spec` describes, all texts weighing the same."""
    tokens = np.asarray(
        codes.to_tokens(sids, sizes=config.sid_sizes, text_vocab_size=config.text_vocab_size)
    )
    for rows in index_batches(rows=len(texts), batch_size=batch_size, seed=seed, start=start):
        yield {
            "encoder_input_tokens": texts[rows],
            "decoder_target_tokens": tokens[rows],
            "decoder_loss_weights": np.ones((len(rows), tokens.shape[1]), np.float32),
        }
