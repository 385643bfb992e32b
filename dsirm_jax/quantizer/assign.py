"""Applies a trained quantizer: dense vectors to codes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.quantizer.model import Autoencoder, Codebook, residual_quantize
from dsirm_jax.quantizer.train import Catalogue
from dsirm_jax.training.progress import progress

ROWS = 4096


@functools.partial(jax.jit, static_argnames="model")
def _assign(model, params, codebooks, vectors, pinned):
    latents = model.apply(params, vectors, method=Autoencoder.encode)
    quantized = residual_quantize(latents, codebooks, pinned=pinned)
    left = jnp.sum((latents[:, None] - quantized.prefixes) ** 2, axis=-1)  # [row, level]
    decoded = model.apply(params, quantized.prefixes[:, -1], method=Autoencoder.decode)
    error = jnp.sum((vectors - decoded) ** 2, axis=-1)  # [row]
    return quantized.codes, jnp.sqrt(left), error


def assign(
    *,
    model: Autoencoder,
    params: Any,
    codebooks: tuple[Codebook, ...],
    chunks: Iterable[tuple[Float[np.ndarray, "row dim"], Int[np.ndarray, " row"] | None]],
) -> Iterator[tuple[Int[np.ndarray, "row level"], Float[np.ndarray, "row level"], np.ndarray]]:
    """Yields the codes of vectors, chunk by chunk: memory does not grow with the catalogue.

    Args:
      model: the autoencoder.
      params: its parameters.
      codebooks: one per level.
      chunks: float32 vectors of at most `ROWS` rows each, with pinned first codes or None.

    Yields:
      For every chunk: codes int32 `[row, level]`; distance to the prefix vector in the quantized
      space float32 `[row, level]`; squared reconstruction error float32 `[row]`.
    """
    for vectors, pinned in chunks:
        rows = len(vectors)
        # Every chunk has one shape, so the program is compiled once.
        filled = np.pad(vectors, ((0, ROWS - rows), (0, 0)))
        filled_pins = None if pinned is None else np.pad(pinned, (0, ROWS - rows))
        codes, distances, error = _assign(model, params, codebooks, filled, filled_pins)
        yield np.asarray(codes)[:rows], np.asarray(distances)[:rows], np.asarray(error)[:rows]


def sid_version(codebooks: tuple[Codebook, ...], names: Sequence[str]) -> str:
    """Returns what identifies SIDs: a hash of the codewords and of the categories pinned to them.

    Codes of two versions must never be joined: the same numbers mean different things.
    """
    digest = hashlib.sha256("\n".join(names).encode())
    for codebook in codebooks:
        digest.update(np.ascontiguousarray(codebook.codewords, np.float32).tobytes())
    return digest.hexdigest()[:16]


def assign_catalogue(
    *, model: Autoencoder, params: Any, codebooks: tuple[Codebook, ...], catalogue: Catalogue
) -> tuple[Int[np.ndarray, "item level"], Float[np.ndarray, "item level"], float]:
    """Returns codes, distances and the reconstruction error of a whole catalogue.

    Returns:
      Codes int32 `[item, level]`, distances float32 `[item, level]` (see `assign`) and the squared
      reconstruction error as a share of the vectors' variance, so that 0 is perfect and 1 is what
      the mean vector would give.
    """

    def chunks():
        starts = range(0, len(catalogue.items), ROWS)
        for start in progress(starts, total=len(starts), name="assign", unit="chunk"):
            rows = slice(start, start + ROWS)
            yield (
                catalogue.items[rows],
                catalogue.pinned[rows] if catalogue.pinned is not None else None,
            )

    parts = assign(model=model, params=params, codebooks=codebooks, chunks=chunks())
    codes, distances, errors = (np.concatenate(part) for part in zip(*parts))
    spread = np.mean(np.sum((catalogue.items - catalogue.items.mean(axis=0)) ** 2, axis=1))
    return codes, distances, float(np.mean(errors) / spread)
