"""Search by lists: candidates lie in lists by their nearest centroid, and few lists are read.

That is an inverted file whose lists hold numbers of rows alone, 4 bytes a candidate; cosines are
those of the vectors themselves, which may be memory-mapped. Source: Jégou, Douze & Schmid,
"Product quantization for nearest neighbor search" (2011), without its codes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence
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
_QUERIES_AT_ONCE = 1024
"""Queries that are searched for at once, for what they read of all lists is in memory; and rows
that are compared with all centroids."""


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
        row = np.zeros((len(queries), k), np.int32)
        cosine = np.full((len(queries), k), -np.inf, np.float32)

        def keep(query: int, rows: np.ndarray, cosines: np.ndarray) -> None:
            cosines[rows == own[query]] = -np.inf
            best = greatest(cosines, k=min(k, len(rows)), number=rows)
            row[query, : len(best)], cosine[query, : len(best)] = rows[best], cosines[best]

        def find(block: np.ndarray) -> None:
            nearness = directions[block] @ self.lists.centroids.T
            chosen = [self._chosen(of_query, least=k + 1) for of_query in nearness]
            compared = self._compared(directions[block], chosen)
            for query, of_query in zip(block.tolist(), compared, strict=True):
                keep(query, *of_query)

        if not len(queries):
            return Neighbours(row, cosine)
        if len(queries) == 1:
            chosen = self._chosen(self.lists.centroids @ directions[0], least=k + 1)
            keep(0, *self._read(directions[0], chosen))
            return Neighbours(row, cosine)
        # Queries that are near to each other read the same lists.
        order = np.argsort(nearest_lists(directions, self.lists.centroids), kind="stable")
        blocks = np.split(order, range(_QUERIES_AT_ONCE, len(order), _QUERIES_AT_ONCE))
        workers = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        with threadpool_limits(1, user_api="blas"), workers:
            list(workers.map(find, blocks))
        return Neighbours(row, cosine)

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

    def _read(
        self, query: Float[np.ndarray, " dim"], chosen: Int[np.ndarray, " probe"]
    ) -> tuple[Int[np.ndarray, " read"], Float[np.ndarray, " read"]]:
        """Returns the candidates of some lists, and their cosines to a query of length 1."""
        starts, rows = self.lists.starts, self.lists.rows
        near = np.concatenate([rows[starts[number] : starts[number + 1]] for number in chosen])
        cosines = np.empty(len(near), np.float32)
        block = np.empty((min(_ROWS_AT_ONCE, len(near)), len(query)), np.float32)
        for start in range(0, len(near), _ROWS_AT_ONCE):
            here = near[start : start + _ROWS_AT_ONCE]
            # All rows exist; mode "raise" would copy the block once more.
            copied = np.take(self.vectors, here, axis=0, out=block[: len(here)], mode="clip")
            np.dot(copied, query, out=cosines[start : start + len(here)])
        return near, cosines

    def _compared(
        self,
        queries: Float[np.ndarray, "query dim"],
        chosen: Sequence[Int[np.ndarray, " _"]],
    ) -> Iterator[tuple[Int[np.ndarray, " _"], Float[np.ndarray, " _"]]]:
        """Yields for each query what `_read` returns; a list is read once for all of them."""
        lists, probe = self.lists, np.concatenate(chosen)
        first = np.cumsum([0, *map(len, chosen)])  # probe of each query, and the number of all
        query = np.repeat(np.arange(len(chosen)), np.diff(first))
        lengths = np.diff(lists.starts)[probe]
        place = np.cumsum(lengths) - lengths  # of what a query reads of a list
        rows = np.empty(lengths.sum(), np.int32)
        cosines = np.empty(len(rows), np.float32)
        order = np.argsort(probe, kind="stable")
        numbers, starts = np.unique(probe[order], return_index=True)
        for number, of_list in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            members = lists.rows[lists.starts[number] : lists.starts[number + 1]]
            into = place[of_list, None] + np.arange(len(members))
            rows[into] = members
            cosines[into] = queries[query[of_list]] @ self.vectors[members].T
        bounds = np.append(place, len(rows))[first]
        for start, end in itertools.pairwise(bounds.tolist()):
            yield rows[start:end], cosines[start:end]


def nearest_lists(
    rows: Float[np.ndarray, "row dim"], centroids: Float[np.ndarray, "list dim"]
) -> Int[np.ndarray, " row"]:
    """Returns the list whose centroid is nearest to each row; rows may be memory-mapped."""
    blocks = (rows[at : at + _QUERIES_AT_ONCE] for at in range(0, len(rows), _QUERIES_AT_ONCE))
    return np.concatenate(
        [np.empty(0, int), *(np.argmax(block @ centroids.T, axis=1) for block in blocks)]
    )


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
