"""Search by lists: candidates lie in lists by their nearest centroid, and few lists are read.

That is an inverted file whose lists hold numbers of rows alone, 4 bytes a candidate; cosines are
those of the vectors themselves, which may be memory-mapped. Source: Jégou, Douze & Schmid,
"Product quantization for nearest neighbor search" (2011), without its codes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from dsirm_jax.io import arrays
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.io.records import from_json
from dsirm_jax.relevance.nearest.exact import Exact, greatest
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.search import Neighbours, Search

KIND = "lists"
_ROWS_AT_ONCE = 2048
"""Vectors copied at a time: as many as a core keeps near while it multiplies them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """How much of what exhaustive search finds lists find.

    Attributes:
      probes: lists that a query reads.
      recall: share of the nearest that are found, of queries that had no part in choosing `probes`.
      target: what `probes` was chosen for.
      k: neighbours of a query that count.
      queries: that recall was measured on.
      candidates: there were then.
    """

    probes: int
    recall: float
    target: float
    k: int
    queries: int
    candidates: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """Which candidates lie near which centroid.

    Attributes:
      centroids: of length 1, one a list.
      starts: of every list in `rows`, int64; the last is their number.
      rows: of the candidates, int32, rising within a list.
      measured: see `Measured`.
    """

    centroids: Float[np.ndarray, "list dim"]
    starts: Int[np.ndarray, " list_1"]
    rows: Int[np.ndarray, " candidate"]
    measured: Measured

    def check(self, path: Path, shape: tuple[int, ...], *, otherwise: str) -> None:
        """Raises InputError unless every candidate is in one list.

        Args:
          path: the file that they come from.
          shape: of the candidates' vectors.
          otherwise: message, after the path.
        """
        candidates, dim = shape
        starts, rows, centroids = self.starts, self.rows, self.centroids
        holds = centroids.dtype == np.float32 and rows.dtype == np.int32 and starts.dtype == int
        holds = holds and starts.ndim == rows.ndim == 1
        holds = holds and centroids.shape == (len(starts) - 1, dim) and len(rows) == candidates
        holds = holds and 1 <= self.measured.probes <= len(centroids)
        holds = holds and starts[0] == 0 and starts[-1] == candidates
        holds = holds and bool((starts[1:] >= starts[:-1]).all())
        if holds and bool((rows >= 0).all() and (rows < candidates).all()):
            present = np.zeros(candidates, bool)
            present[rows] = True
            if present.all():
                return
        raise InputError(f"{path}: {otherwise}")


@dataclasses.dataclass(frozen=True, eq=False)
class Listed:
    """Reads the lists nearest to a query, see `search.Search`.

    Attributes:
      vectors: of the candidates, of length 1, in memory or memory-mapped.
      lists: of the same.
    """

    vectors: Float[np.ndarray, "candidate dim"]
    lists: Lists

    def nearest(
        self,
        queries: Float[np.ndarray, "query dim"],
        *,
        k: int,
        own: Int[np.ndarray, " query"] | None = None,
    ) -> Neighbours:
        k = min(k, len(self.vectors))
        directions = unit(queries)
        own = np.full(len(queries), -1) if own is None else own
        if len(queries) == 1:
            found = [self._nearest(directions[0], k, own[0])]
        else:
            workers = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
            with threadpool_limits(1, user_api="blas"), workers:
                found = list(workers.map(lambda q, o: self._nearest(q, k, o), directions, own))
        row = np.zeros((len(queries), k), np.int32)
        cosine = np.full((len(queries), k), -np.inf, np.float32)
        for place, (rows, cosines) in enumerate(found):
            row[place, : len(rows)], cosine[place, : len(rows)] = rows, cosines
        return Neighbours(row, cosine)

    def _nearest(
        self, query: Float[np.ndarray, " dim"], k: int, own: int
    ) -> tuple[Int[np.ndarray, " neighbour"], Float[np.ndarray, " neighbour"]]:
        """Returns rows and cosines of the nearest of one query, of length 1."""
        starts, rows = self.lists.starts, self.lists.rows
        chosen = self._chosen(self.lists.centroids @ query, least=k + 1)
        near = np.concatenate([rows[starts[place] : starts[place + 1]] for place in chosen])
        cosines = self._cosines(near, query)
        cosines[near == own] = -np.inf
        best = greatest(cosines, k=min(k, len(near)), number=near)
        return near[best], cosines[best]

    def _chosen(
        self, nearness: Float[np.ndarray, " list"], *, least: int
    ) -> Int[np.ndarray, " probe"]:
        """Returns the lists to read: more where they have fewer candidates than are wanted."""
        probes, starts = self.lists.measured.probes, self.lists.starts
        chosen = np.argpartition(-nearness, probes - 1)[:probes]
        if (starts[chosen + 1] - starts[chosen]).sum() >= least:
            return chosen
        order = np.argsort(-nearness, kind="stable")
        enough = np.searchsorted(np.cumsum(np.diff(starts)[order]), least) + 1
        return order[: max(probes, enough)]

    def _cosines(
        self, rows: Int[np.ndarray, " row"], query: Float[np.ndarray, " dim"]
    ) -> Float[np.ndarray, " row"]:
        cosines = np.empty(len(rows), np.float32)
        block = np.empty((min(_ROWS_AT_ONCE, len(rows)), len(query)), np.float32)
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            here = rows[start : start + _ROWS_AT_ONCE]
            # All rows exist; mode "raise" would copy the block once more.
            copied = np.take(self.vectors, here, axis=0, out=block[: len(here)], mode="clip")
            np.dot(copied, query, out=cosines[start : start + len(here)])
        return cosines


def lists_file(folder: Path, name: str) -> Path:
    """Returns the file of the lists of what has a name, see `search.SearchOf`."""
    return folder / f"near_{name}.safetensors"


def search_in(
    folder: Path,
    name: str,
    vectors: Float[np.ndarray, "candidate dim"],
    *,
    otherwise: str,
) -> Search:
    """Returns the search of vectors: by the lists of a folder where it has them, else exhaustive.

    Args:
      folder: that may have them.
      name: of what is searched, see `search.SearchOf`.
      vectors: likewise.
      otherwise: message, after the path, where a file is not whole.

    Raises:
      InputError: the file is not what was written, or is of other vectors.
    """
    path = lists_file(folder, name)
    if not path.exists():
        return Exact(vectors)
    lists = load(path, otherwise=otherwise)
    lists.check(path, vectors.shape, otherwise=otherwise)
    return Listed(vectors, lists)


def save(path: Path, lists: Lists) -> None:
    """Writes lists as one file, whole or not at all."""
    named = {"centroids": lists.centroids, "starts": lists.starts, "rows": lists.rows}
    arrays.save(path, named, kind=KIND, description=dataclasses.asdict(lists.measured))


def load(path: Path, *, otherwise: str) -> Lists:
    """Maps what `save` wrote into memory.

    Args:
      path: the file.
      otherwise: message, after the path, where it is not that.

    Raises:
      InputError: there is no such file, or it is not what was written.
    """
    named, description = arrays.load(path, kind=KIND, otherwise=otherwise, mapped=True)
    with naming(path, otherwise=otherwise):
        measured = from_json(Measured, description, name="the description")
        # Plain arrays are faster than mapped ones.
        plain = {name: np.asarray(array) for name, array in named.items()}
        return Lists(**plain, measured=measured)
