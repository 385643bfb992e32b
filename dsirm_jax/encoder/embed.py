"""Applies a trained tower to texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from dsirm_jax.encoder.model import TextTower
from dsirm_jax.training.progress import progress

ROWS = 1024


def embed(
    *,
    tower: TextTower,
    params: Any,
    pieces: Sequence[Sequence[int]],
    max_pieces: int,
    name: str,
) -> Float[np.ndarray, "text dim"]:
    """Returns the vectors of tokenised texts, in order.

    Args:
      tower: the Flax module.
      params: its parameters.
      pieces: SentencePiece ids of each text; cut at `max_pieces`.
      max_pieces: pieces read of a text.
      name: shown with the progress.

    Returns:
      float32 `[text, dim]`, each of length 1.
    """
    apply = jax.jit(tower.apply)
    vectors = np.empty((len(pieces), tower.dim), np.float32)
    starts = range(0, len(pieces), ROWS)
    for start in progress(starts, total=len(starts), name=name, unit="batch"):
        chunk = pieces[start : start + ROWS]
        padded = np.zeros((ROWS, max_pieces), np.int32)  # one shape, so one compilation
        for row, ids in enumerate(chunk):
            padded[row, : min(len(ids), max_pieces)] = ids[:max_pieces]
        vectors[start : start + len(chunk)] = apply(params, padded)[: len(chunk)]
    return vectors
