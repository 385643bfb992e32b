"""Vectors and their lengths."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real

_ROWS_AT_ONCE = 1 << 16


def unit(vectors: Real[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows dim"]:
    """Returns vectors (along the last axis) of length 1, float32; a zero vector stays zero."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / lengths(vectors)[..., None]


def normalise(vectors: Float[np.ndarray, "row dim"]) -> None:
    """Divides vectors, in memory or memory-mapped, by their lengths in place."""
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        vectors[rows] = unit(vectors[rows])


def lengths(vectors: Float[np.ndarray, "*rows dim"]) -> Float[np.ndarray, "*rows"]:
    """Returns the lengths of vectors along the last axis, at least 1e-12."""
    return np.maximum(np.sqrt(np.einsum("...d,...d->...", vectors, vectors)), 1e-12)
