"""Where vectors lie and how far apart: what a quantizer takes out where it would spoil the fit.

The RQ-VAE's parameters start at a fixed size and move in steps of a fixed one, and float32 keeps
seven digits: vectors a thousandth in size, or a thousand times farther from the origin than from
one another, end with one SID for all.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int, Shaped

from dsirm_jax.io import arrays
from dsirm_jax.quantizer.training_items import TrainingItems, check_finite

log = logging.getLogger(__name__)
SAMPLE_ROWS = 20_000
SPREADS = (0.1, 100.0)
"""Spreads that a quantizer is fitted to as they are; vectors of length 1 have at most 1."""
FARTHEST = 30.0
"""How many spreads from the origin vectors may lie, likewise."""
OUTLIERS = 0.05
"""Share of the vectors, the farthest, that a spread leaves out."""
BLOCK_ROWS = 16_384


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Scaling:
    """A centre that is subtracted, and a spread that is divided by.

    Attributes:
      centre: float64 `[dim]`.
      spread: float64 scalar, above 0.
    """

    centre: Float64[np.ndarray, " dim"]
    spread: Float64[np.ndarray, ""]

    def apply(self, vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
        """Returns float32 vectors around the origin, centred before they are rounded."""
        return ((vectors.astype(np.float64) - self.centre) / self.spread).astype(np.float32)

    def apply_to(self, items: TrainingItems, *, folder: Path) -> TrainingItems:
        """Returns training items with these vectors, memory-mapped.

        Args:
          items: as they are.
          folder: of the temporary files.

        Raises:
          FloatingPointError: a vector's square is not finite before it is scaled.
        """

        def scaled(rows: Float[np.ndarray, "row dim"], name: str) -> Float[np.ndarray, "row dim"]:
            out = arrays.scratch(rows.shape, np.float32, folder=folder)
            for start in range(0, len(rows), BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                numbers = np.arange(start, start + len(rows[block]))
                check_finite(rows[block], numbers, name=name, step=0)
                out[block] = self.apply(rows[block])
            return out

        return dataclasses.replace(
            items, items=scaled(items.items, "item"), queries=scaled(items.queries, "query")
        )


def scaling_of(items: TrainingItems, *, seed: int) -> Scaling | None:
    """Returns the scaling that items need, by a sample of them; None where they need none.

    The centre is the median in every dimension, and the spread the root mean square distance to it
    without the farthest `OUTLIERS`, both of the distinct vectors: neither a default vector that
    many items share nor a few huge ones decide. Vectors whose spread is within `SPREADS` and whose
    centre is at most `FARTHEST` spreads from the origin stay as they are; those of length 1 do,
    unless all but point the same way.

    Args:
      items: what a quantizer is to be fitted to.
      seed: of the sample.

    Returns:
      The scaling, or None. Source: this project.
    """
    numbers = sample_rows(len(items.items), seed=seed)
    rows = items.items[distinct(items.items[numbers], numbers)]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("rd,rd->r", rows, rows)
    rows = rows[np.isfinite(squares)].astype(np.float64)  # others are refused when they are learnt
    if len(rows) < 2:
        return None
    centre = np.median(rows, axis=0)
    rows -= centre
    spread = float(np.sqrt(without_outliers(np.einsum("rd,rd->r", rows, rows)).mean()))
    offset = float(np.linalg.norm(centre))
    if not spread or (SPREADS[0] <= spread <= SPREADS[1] and offset <= FARTHEST * spread):
        return None
    log.info(
        "quantize: the vectors lie %.3g from the origin and %.3g from one another's middle; the "
        "quantizer centres and scales them, and all that it is given",
        *(offset, spread),
    )
    return Scaling(centre=centre, spread=np.array(spread))


def sample_rows(count: int, *, seed: int) -> Int[np.ndarray, " row"]:
    """Returns the numbers of some of so many rows, at most `SAMPLE_ROWS`, ascending."""
    generator = np.random.Generator(np.random.Philox(key=seed))
    return np.sort(generator.permutation(count)[:SAMPLE_ROWS])


def distinct(
    rows: Float[np.ndarray, "row dim"], numbers: Int[np.ndarray, " row"]
) -> Int[np.ndarray, " distinct"]:
    """Returns the numbers of the first of all rows that are the same, ascending."""
    _, first = np.unique(as_bytes(rows), return_index=True)
    return numbers[np.sort(first)]


def as_bytes(rows: Float[np.ndarray, "row dim"]) -> Shaped[np.ndarray, " row"]:
    """Returns one value a row, such that rows of the same numbers have the same one."""
    rows = np.ascontiguousarray(rows) + 0  # no negative zeros
    return rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()


def without_outliers(squares: Float[np.ndarray, " row"]) -> Float[np.ndarray, " kept"]:
    """Returns the squares without the largest `OUTLIERS` of them, ascending."""
    return np.sort(squares)[: len(squares) - int(OUTLIERS * len(squares))]
