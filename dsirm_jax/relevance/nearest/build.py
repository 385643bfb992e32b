"""Makes lists: centroids by k-means in two steps, and as many probes as a recall takes."""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from threadpoolctl import threadpool_limits

from dsirm_jax.relevance.nearest import lists as files
from dsirm_jax.relevance.nearest.exact import Exact, nearest_rows
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.lists import Listed, Lists, Measured
from dsirm_jax.relevance.nearest.search import Search
from dsirm_jax.relevance.nearest.settings import ListSettings

log = logging.getLogger(__name__)
LISTS_PER_ROOT = 4
"""Lists of n candidates are this many times √n: a query then reads about as many centroids as
candidates."""
TAUGHT = 32
"""Candidates per list that k-means sees."""
ITERATIONS = 10
QUERIES = 512
"""Queries that recall is measured with, half of them to choose probes."""
NEIGHBOURS = 50
"""Neighbours of a query that recall counts."""
GROWTH = 1.1
"""Recall is measured again once there are so many times the candidates, or so few."""
_ROWS_AT_ONCE = 1 << 16


def made(
    name: str,
    vectors: Float[np.ndarray, "candidate dim"],
    *,
    folder: Path,
    settings: ListSettings,
    queries: Float[np.ndarray, "query dim"],
) -> Search:
    """Returns the search of vectors, by lists that it makes and writes where they are many.

    Args:
      name: of what is searched.
      vectors: see `search.SearchOf`.
      folder: where to.
      settings: see `ListSettings`.
      queries: such as will be searched for.
    """
    if len(vectors) < settings.least:
        return Exact(vectors)
    lists = build(vectors, queries=queries, k=NEIGHBOURS, recall=settings.recall)
    files.save(files.lists_file(folder, name), lists)
    told(name, lists)
    return Listed(vectors, lists)


def told(name: str, lists: Lists) -> None:
    """Logs what lists find."""
    found = lists.measured
    log.info(
        "nearest %s: %s of %s lists are read of %s; recall@%s %.4f on %s queries (wanted %s)",
        *(name, found.probes, len(lists.centroids), f"{found.candidates:,}"),
        *(found.k, found.recall, found.queries, found.target),
    )
    if found.recall < found.target - 0.01:
        log.warning("nearest %s: recall is lower than wanted; raise ListSettings.recall", name)


def build(
    vectors: Float[np.ndarray, "candidate dim"],
    *,
    queries: Float[np.ndarray, "query dim"],
    k: int,
    recall: float,
    seed: int = 0,
) -> Lists:
    """Returns lists of vectors; the same ones on any number of cores.

    Args:
      vectors: of length 1, in memory or memory-mapped.
      queries: of any length, such as will be searched for.
      k: neighbours of a query that recall counts.
      recall: share of these that is to be found.
      seed: of the candidates that k-means sees, and where it starts.
    """
    random = np.random.default_rng(seed)
    count = min(math.ceil(LISTS_PER_ROOT * math.sqrt(len(vectors))), len(vectors))
    sample = random.permutation(len(vectors))[: TAUGHT * count]
    taught = np.asarray(vectors[np.sort(sample)])
    groups = _centroids(taught, size=math.ceil(math.sqrt(count)), seed=seed)
    group = files.nearest_lists(taught, groups)
    within, parents = [], []
    for number in range(len(groups)):
        members = taught[group == number]
        if len(members):
            size = math.ceil(count * len(members) / len(taught))
            within.append(_centroids(members, size=size, seed=seed))
            parents.append(np.full(len(within[-1]), number))
    centroids, parent = np.concatenate(within), np.concatenate(parents)
    list_of = np.concatenate(
        [_in_two_steps(b, groups, centroids, parent) for b in _blocks(vectors)]
    )
    return measured(
        _listed(centroids, list_of), vectors, queries=queries, k=k, recall=recall, seed=seed
    )


def extended(lists: Lists, vectors: Float[np.ndarray, "candidate dim"]) -> Lists:
    """Returns lists with further candidates, behind those that they have, in their nearest lists.

    Args:
      lists: of the first candidates.
      vectors: of all candidates, of length 1, in memory or memory-mapped.
    """
    list_of = files.nearest_lists(vectors[len(lists.rows) :], lists.centroids)
    # Further candidates have the highest numbers: each is behind all that its list has.
    order = np.argsort(list_of, kind="stable")
    number = (len(lists.rows) + order).astype(np.int32)
    rows = np.insert(lists.rows, lists.starts[1:][list_of[order]], number)
    counts = np.bincount(list_of, minlength=len(lists.centroids))
    starts = lists.starts + np.concatenate([[0], np.cumsum(counts)])
    return dataclasses.replace(lists, starts=starts, rows=rows)


def without(lists: Lists, kept: Bool[np.ndarray, " candidate"]) -> Lists:
    """Returns lists of the candidates that stay, under the numbers that they then have.

    Args:
      lists: of all candidates.
      kept: which of them stay.
    """
    stays = kept[lists.rows]
    number = np.cumsum(kept, dtype=np.int32) - 1
    starts = np.concatenate([[0], np.cumsum(stays)])[lists.starts]
    return dataclasses.replace(lists, starts=starts, rows=number[lists.rows[stays]])


def measured(
    lists: Lists,
    vectors: Float[np.ndarray, "candidate dim"],
    *,
    queries: Float[np.ndarray, "query dim"],
    k: int,
    recall: float,
    seed: int = 0,
) -> Lists:
    """Returns lists with the least probes that reach a recall, and what recall they have.

    A neighbour is found where its list is among those that are read, so that exhaustive search
    alone tells the recall of any number of probes. Half of the queries choose it, the others tell.

    Args:
      lists: of the vectors.
      vectors: see `build`.
      queries: likewise.
      k: likewise.
      recall: likewise.
      seed: of the queries that are taken.
    """
    taken = np.random.default_rng(seed).permutation(len(queries))[:QUERIES]
    directions = unit(queries[taken])
    near = nearest_rows(queries=directions, candidates=vectors, k=k).row
    list_of = np.empty(len(vectors), np.int32)
    list_of[lists.rows] = np.repeat(np.arange(len(lists.centroids)), np.diff(lists.starts))
    order = np.argsort(-(directions @ lists.centroids.T), axis=1, kind="stable")
    rank = np.empty_like(order)  # [query, list]
    np.put_along_axis(rank, order, np.arange(order.shape[1])[None], axis=1)
    ranks = np.take_along_axis(rank, list_of[near], axis=1)  # [query, neighbour]
    choosing, telling = ranks[::2], ranks[1::2] if len(ranks) > 1 else ranks
    probes = int(np.quantile(choosing, recall, method="inverted_cdf")) + 1
    found = Measured(
        probes=probes,
        recall=float((telling < probes).mean()),
        target=recall,
        k=k,
        queries=len(telling),
        candidates=len(vectors),
    )
    return dataclasses.replace(lists, measured=found)


def updated(
    lists: Lists,
    vectors: Float[np.ndarray, "candidate dim"],
    *,
    queries: Float[np.ndarray, "query dim"],
) -> Lists:
    """Returns `extended` lists, measured again where candidates are many more or fewer.

    Args:
      lists: of the first candidates.
      vectors: of all.
      queries: such as will be searched for; without any nothing is measured.
    """
    longer, before = extended(lists, vectors), lists.measured
    growth = len(vectors) / before.candidates
    if 1 / GROWTH < growth < GROWTH or not len(queries):
        return longer
    return measured(longer, vectors, queries=queries, k=before.k, recall=before.target)


def _listed(centroids: Float[np.ndarray, "list dim"], list_of: Int[np.ndarray, " row"]) -> Lists:
    """Returns lists of which nothing is measured yet: all of them are read."""
    counts = np.bincount(list_of, minlength=len(centroids))
    return Lists(
        centroids=centroids,
        starts=np.concatenate([[0], np.cumsum(counts)]),
        rows=np.argsort(list_of, kind="stable").astype(np.int32),
        measured=Measured(
            probes=len(centroids), recall=1.0, target=1.0, k=0, queries=0, candidates=len(list_of)
        ),
    )


def _centroids(
    rows: Float[np.ndarray, "row dim"], *, size: int, seed: int
) -> Float[np.ndarray, "centroid dim"]:
    """Returns centroids of length 1 by k-means."""
    from sklearn.cluster import KMeans

    means = KMeans(
        min(size, len(rows)), init="random", n_init=1, max_iter=ITERATIONS, random_state=seed
    )
    # Several threads add up in an order that differs from run to run.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that are fewer than centroids, once told apart
        return unit(means.fit(rows).cluster_centers_)


def _in_two_steps(
    rows: Float[np.ndarray, "row dim"],
    groups: Float[np.ndarray, "group dim"],
    centroids: Float[np.ndarray, "centroid dim"],
    parent: Int[np.ndarray, " centroid"],
) -> Int[np.ndarray, " row"]:
    """Returns the nearest centroid of those of a row's two nearest groups.

    Args:
      rows: of length 1.
      groups: of centroids.
      centroids: by group.
      parent: group of each.
    """
    first = np.searchsorted(parent, np.arange(len(groups) + 1))
    nearest = np.argpartition(-(rows @ groups.T), min(1, len(groups) - 1), axis=1)[:, :2]
    best, place = np.full(len(rows), -np.inf, np.float32), np.zeros(len(rows), int)
    for group in np.unique(parent):
        (members,) = np.nonzero((nearest == group).any(axis=1))
        own = centroids[first[group] : first[group + 1]]
        cosines = rows[members] @ own.T
        nearer = np.argmax(cosines, axis=1)
        cosine = cosines[np.arange(len(members)), nearer]
        is_better = cosine > best[members]
        members = members[is_better]
        best[members], place[members] = cosine[is_better], first[group] + nearer[is_better]
    return place


def _blocks(
    vectors: Float[np.ndarray, "row dim"],
) -> Iterator[Float[np.ndarray, "row dim"]]:
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        yield vectors[start : start + _ROWS_AT_ONCE]
