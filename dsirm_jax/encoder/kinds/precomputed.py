"""Vectors of the user's own, copied into the run."""

from __future__ import annotations

import dataclasses
import functools
import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.io.checks import check_text

if TYPE_CHECKING:
    import jax
    import numpy as np
    from jaxtyping import Float

    from dsirm_jax.encoder.kinds.protocol import RunTables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precomputed:
    """Vectors of the shop's own two-tower model (the paper's setting).

    Attributes:
      items: Parquet file or glob with columns item_id and vector: lists of numbers of any kind, of
        any scale, see `vectors.read_vectors`.
      queries: Parquet file or glob with columns query and vector, likewise.
    """

    items: str
    queries: str

    def __post_init__(self) -> None:
        check_text("Precomputed.items", self.items)
        check_text("Precomputed.queries", self.queries)

    @property
    def dim(self) -> None:
        return None

    @property
    def made_once(self) -> bool:
        return False  # copies cost nothing

    def files(self) -> list[str]:
        """Returns the files read."""
        from dsirm_jax.data.vectors import shards

        named = (glob.glob(pattern) or shards(pattern) for pattern in (self.items, self.queries))
        return sorted(file for files in named for file in files)

    def fit(
        self, tables: RunTables, *, directory: Path, seed: int, start: Path | None = None
    ) -> None:
        """Copies the vectors, in the order of the run's tables; see `DenseEncoder.fit`."""
        from dsirm_jax.data.vectors import copy_vectors
        from dsirm_jax.training import processes

        for vectors, table, id_column, pattern in (
            (self.items, tables.items, "item_id", tables.item_vectors),
            (self.queries, tables.queries, "query", tables.query_vectors),
        ):
            copy = functools.partial(copy_vectors, vectors, table=table, id_column=id_column)
            processes.first(functools.partial(copy, pattern=pattern))

    def query_vectors(
        self, texts: Sequence[str], *, directory: Path, vocabulary: Path
    ) -> Float[np.ndarray, "text dim"]:
        """Reads the vectors of further queries; see `DenseEncoder.query_vectors`."""
        from dsirm_jax.data.vectors import read_vectors

        return read_vectors(self.queries, ids=texts, id_column="query")

    def fitted(self, *, directory: Path, vocabulary: Path) -> None:
        """Returns None: nothing here makes a vector of a new text."""
        return None

    @classmethod
    def restored(cls, described: Mapping[str, Any], **_: Any) -> None:
        """Returns None, as `fitted`."""
        return None

    def training_step(self, *, devices: Sequence[jax.Device], vocab_size: int, rows: int) -> None:
        """Returns None: nothing is trained."""
        return None
