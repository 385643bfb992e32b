"""Items that a quantizer was not fitted to: their categories, and whether their vectors suit."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from dsirm_jax.data.text import clean
from dsirm_jax.data.vectors import SEPARATOR, read_categories, vector_blocks
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.codebooks import category_codes
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.health import check_carried
from dsirm_jax.quantizer.model import UNPINNED
from dsirm_jax.quantizer.scaling import SAMPLE_ROWS
from dsirm_jax.sids.codes import read_sids

log = logging.getLogger(__name__)
STRANGE = 10.0
"""Mean squared error, in variances of the vectors that a quantizer was fitted to, of strange ones:
those of other items of the same model have less than 1."""


def pinned_codes(
    files: Sequence[str], *, fitted: FittedQuantizer, items: Path
) -> Int[np.ndarray, " item"] | None:
    """Returns the first codes that the categories of further items pin.

    Args:
      files: Parquet files of the items, see `read_categories`.
      fitted: the quantizer; with its categories.
      items: `prepare/items.parquet` of its run: where no item there has a category, codes are
        named by product types of titles.

    Returns:
      int32 `[item]`, `UNPINNED` where no category is known; None where no first code is pinned.

    Raises:
      InputError: a file has no column of categories, or of titles where these name the codes.
    """
    if not fitted.names:
        return None
    config = fitted.config
    by_title = not (config.pin_depth and _has_categories(items))
    column, depth = ("title", 0) if by_title else ("category", config.pin_depth)
    for file in files:
        if column not in (names := pq.read_schema(file).names):
            raise InputError(
                f"{file}: column {column!r} is missing, by which this run's first codes are "
                f"pinned; add it, with nulls where it is not known (the file has "
                f"{', '.join(names[:20])})"
            )
    types = fitted.title_types if by_title else None
    categories = _cleaned(read_categories(files, depth=depth, types=types))
    codes, _ = category_codes(categories, most=len(fitted.names), known=fitted.names)
    unknown = pc.fill_null(pc.equal(categories, ""), True).to_numpy(zero_copy_only=False)
    _warn(files, unknown, what=f"no {column}" if not by_title else "no product type in its title")
    strange = (codes == UNPINNED) & ~unknown
    example = categories[int(np.argmax(strange))].as_py() if strange.any() else None
    _warn(files, strange, what=f"a category that no first code is for, such as {example!r}")
    return codes


def check_fit(
    files: Sequence[str],
    *,
    fitted: FittedQuantizer,
    assigned: Path,
    health: Path,
    sids: Path,
) -> None:
    """Raises InputError where vectors are not of the model that a quantizer was fitted to.

    Args:
      files: Parquet files of the vectors.
      fitted: the quantizer.
      assigned: table of the SIDs that it gave them.
      health: `health.json` of its run.
      sids: table of the SIDs of its run.
    """
    table, share = read_sids(assigned), json.loads(health.read_text("utf-8"))
    share = share["reconstruction_error"]
    if share:
        spread = float(np.mean(read_sids(sids).errors)) / share
        error = float(np.mean(table.errors, dtype=np.float64)) / spread
        if error > STRANGE:
            raise InputError(
                f"{files[0]}: the vectors lie {error:.3g} times as far (squared) from what their "
                f"SIDs stand for as the run's from their mean; give vectors of the same model and "
                f"scale, normalised if those are"
            )
    check_carried(
        table.sids[:SAMPLE_ROWS],
        table.errors[:SAMPLE_ROWS],
        vectors=_first_vectors(files),
        fitted=fitted,
        where=files[0],
    )


def _first_vectors(files: Sequence[str]) -> Float[np.ndarray, "row dim"]:
    """Returns the first `SAMPLE_ROWS` vectors."""
    blocks, rows = [], 0
    for file in files:
        for _, _, block in vector_blocks(file, id_column="item_id"):
            blocks.append(block)
            rows += len(block)
            if rows >= SAMPLE_ROWS:
                return np.concatenate(blocks)[:SAMPLE_ROWS]
    return np.concatenate(blocks)


def _has_categories(items: Path) -> bool:
    return pc.any(pc.is_valid(pq.read_table(items, columns=["category"])["category"])).as_py()


def _cleaned(categories: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns paths with the levels cleaned as `prepare` does; empty without any."""
    distinct = categories.unique().to_pylist()
    levels = {path: [clean(name) for name in (path or "").split(SEPARATOR)] for path in distinct}
    names = pa.array([SEPARATOR.join(filter(None, levels[path])) for path in distinct], pa.string())
    places = pc.index_in(categories, pa.array(distinct, pa.string()))
    return pa.chunked_array([names.take(chunk) for chunk in places.chunks], pa.string())


def _warn(files: Sequence[str], rows: np.ndarray, *, what: str) -> None:
    if count := int(rows.sum()):
        log.warning(
            "%s: %s of %s items have %s; their first codes are the nearest ones, not pinned",
            *(files[0], f"{count:,}", f"{len(rows):,}", what),
        )
