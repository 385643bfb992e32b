"""Lists against exhaustive search, which is the reference."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.nearest import lists as files
from dsirm_jax.relevance.nearest.build import build, made, updated, without
from dsirm_jax.relevance.nearest.exact import Exact, exhaustive
from dsirm_jax.relevance.nearest.lengths import unit
from dsirm_jax.relevance.nearest.lists import Listed, search_in
from dsirm_jax.relevance.nearest.search import ITEMS
from dsirm_jax.relevance.nearest.settings import ListSettings

DIM, ITEM_COUNT, K = 16, 6000, 50


def clustered(rows: int, *, seed: int) -> np.ndarray:
    """Returns vectors around 60 centres, which lie around eight."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(8, DIM)), 8, axis=0) + 0.6 * random.normal(
        size=(64, DIM)
    )
    random = np.random.default_rng(seed)
    spread = 0.5 * random.normal(size=(rows, DIM))
    return unit(centres[random.integers(len(centres), size=rows)] + spread)


@pytest.fixture(scope="module")
def vectors():
    return clustered(ITEM_COUNT, seed=1)


@pytest.fixture(scope="module")
def queries():
    return clustered(300, seed=2)


@pytest.fixture(scope="module")
def lists(vectors, queries):
    return build(vectors, queries=queries, k=K, recall=0.98)


def share_found(search, vectors, queries):
    found = search.nearest(queries, k=K).row
    best = np.argsort(-(unit(queries) @ vectors.T), axis=1)[:, :K]
    return np.mean([len({*one} & {*other}) / K for one, other in zip(found, best, strict=True)])


def with_probes(lists, probes):
    return dataclasses.replace(lists, measured=dataclasses.replace(lists.measured, probes=probes))


def test_few_lists_find_what_they_were_asked_to(lists, vectors):
    others = clustered(200, seed=3)
    assert share_found(Listed(vectors, lists), vectors, others) >= 0.97
    sizes = np.diff(lists.starts)
    assert lists.measured.probes * sizes.mean() < len(vectors) / 8
    assert share_found(Listed(vectors, with_probes(lists, 1)), vectors, others) < 0.8


def test_the_recall_that_is_reported_is_that_of_a_search(lists, vectors, queries):
    taken = queries[np.random.default_rng(0).permutation(len(queries))[1::2]]
    assert lists.measured.queries == len(taken)
    found = share_found(Listed(vectors, lists), vectors, taken)
    assert lists.measured.recall == pytest.approx(found, abs=2e-4)
    assert 0.97 <= lists.measured.recall < 1
    fewer = with_probes(lists, lists.measured.probes - 1)
    choosing = queries[np.random.default_rng(0).permutation(len(queries))[::2]]
    assert share_found(Listed(vectors, fewer), vectors, choosing) < 0.98


@pytest.mark.parametrize("rows", [1, 5])
def test_all_lists_find_what_exhaustive_search_does(lists, vectors, queries, rows):
    search, reference = Listed(vectors, with_probes(lists, len(lists.centroids))), Exact(vectors)
    own = np.array([17, -1, 3, -1, 5])[:rows]
    for given in (None, own):
        found = search.nearest(3 * queries[:rows], k=K, own=given)
        expected = reference.nearest(3 * queries[:rows], k=K, own=given)
        np.testing.assert_array_equal(found.row, expected.row)
        np.testing.assert_allclose(found.cosine, expected.cosine, atol=1e-6)
    row = search.nearest(vectors[17:18], k=1, own=own[:1]).row[0, 0]
    assert row == np.argsort(-(vectors @ vectors[17]))[1]


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_queries_that_share_lists_find_what_each_does_alone(lists, vectors, at_once, monkeypatch):
    monkeypatch.setattr(files, "_QUERIES_AT_ONCE", at_once)
    search, asked = Listed(vectors, with_probes(lists, 2)), clustered(40, seed=5)
    own = np.where(np.arange(40) % 3, -1, search.nearest(asked, k=1).row[:, 0])
    found = search.nearest(asked, k=K, own=own)
    for query in range(40):
        alone = search.nearest(asked[query : query + 1], k=K, own=own[query : query + 1])
        np.testing.assert_array_equal(found.row[query], alone.row[0])
        np.testing.assert_allclose(found.cosine[query], alone.cosine[0], atol=1e-6)


def test_no_queries_have_no_neighbours(lists, vectors):
    found = Listed(vectors, lists).nearest(vectors[:0], k=K)
    assert found.row.shape == found.cosine.shape == (0, K)


def test_of_equal_candidates_the_first_come_first():
    corners = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)[
        np.random.default_rng(0).permutation(12)
    ]
    lists = build(corners, queries=np.eye(4, dtype=np.float32), k=3, recall=1.0)
    for query in np.eye(4, dtype=np.float32):
        found = Listed(corners, lists).nearest(query[None], k=3)
        np.testing.assert_array_equal(found.row, Exact(corners).nearest(query[None], k=3).row)


def test_more_lists_are_read_where_few_hold_too_few(lists, vectors, queries):
    search = Listed(vectors, with_probes(lists, 1))
    found = search.nearest(queries[:2], k=900)
    assert (found.cosine > -np.inf).all()
    assert [len({*row}) for row in found.row.tolist()] == [900, 900]
    assert (np.diff(found.cosine, axis=1) <= 0).all()
    whole = search.nearest(queries[:1], k=10**6, own=np.array([4]))
    assert whole.row.shape == (1, ITEM_COUNT)
    assert (whole.row[0, -1], whole.cosine[0, -1]) == (4, -np.inf)


def test_further_candidates_are_found_and_recall_is_measured_again(lists, vectors, queries):
    few = updated(lists, np.concatenate([vectors, queries[:20]]), queries=queries)
    assert few.measured == lists.measured
    search = Listed(np.concatenate([vectors, queries[:20]]), few)
    found = search.nearest(queries[:20], k=1)
    np.testing.assert_array_equal(found.row[:, 0], ITEM_COUNT + np.arange(20))
    longer = np.concatenate([vectors, clustered(3000, seed=4)])
    many = updated(lists, longer, queries=queries)
    assert (many.measured.candidates, many.measured.target) == (9000, 0.98)
    assert share_found(Listed(longer, many), longer, clustered(200, seed=5)) >= 0.97


def test_candidates_that_go_leave_the_others_in_their_lists(lists, vectors):
    kept = np.arange(len(vectors)) % 3 > 0
    left = without(lists, kept)
    names = np.flatnonzero(kept)
    for old, new in zip(
        np.split(lists.rows, lists.starts[1:-1]),
        np.split(left.rows, left.starts[1:-1]),
        strict=True,
    ):
        assert names[new].tolist() == [row for row in old if kept[row]]
    assert left.starts[-1] == kept.sum()


def test_lists_are_the_same_on_any_number_of_threads(lists, vectors, queries):
    again = build(vectors, queries=queries, k=K, recall=0.98)
    for name in ("centroids", "starts", "rows"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lists, name))
    assert again.measured == lists.measured


def test_few_candidates_are_searched_exhaustively(vectors, queries, tmp_path):
    given = {"folder": tmp_path, "queries": queries}
    search = made(ITEMS, vectors, **given, settings=ListSettings())
    assert isinstance(search, Exact)
    assert not list(tmp_path.iterdir())
    assert isinstance(search_in(tmp_path, ITEMS, vectors, otherwise="x"), Exact)
    assert isinstance(exhaustive(ITEMS, vectors), Exact)


@pytest.fixture
def folder(vectors, lists, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors)
    files.save(files.lists_file(tmp_path, ITEMS), lists)
    return tmp_path


def test_processes_map_the_same_file(folder, lists, vectors, queries):
    np.save(folder / "queries.npy", queries[:3])
    code = f"""
import pathlib, numpy as np
from dsirm_jax.relevance.nearest.lists import search_in
folder = pathlib.Path({str(folder)!r})
vectors = np.load(folder / "vectors.npy", mmap_mode="r")
search = search_in(folder, "items", np.asarray(vectors), otherwise="x")
maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
assert any("r--" in line and "near_items" in line for line in maps)
print(search.nearest(np.load(folder / "queries.npy"), k=5).row.ravel().tolist())
"""
    two = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    expected = str(Listed(vectors, lists).nearest(queries[:3], k=5).row.ravel().tolist())
    assert [process.communicate()[0].strip() for process in two] == [expected] * 2


@pytest.mark.parametrize("change", ["twice", "outside", "descends", "dim", "probes", "another"])
def test_lists_that_do_not_go_together_are_refused(folder, lists, vectors, change):
    path, rows, starts = files.lists_file(folder, ITEMS), lists.rows.copy(), lists.starts.copy()
    wrong = lists
    if change in ("twice", "outside"):
        rows[0] = rows[1] if change == "twice" else len(rows)
        wrong = dataclasses.replace(lists, rows=rows)
    if change == "descends":
        starts[1:3] = starts[2:0:-1] + np.array([1, -1])
        wrong = dataclasses.replace(lists, starts=starts)
    if change == "dim":
        wrong = dataclasses.replace(lists, centroids=lists.centroids[:, :3])
    if change == "probes":
        wrong = with_probes(lists, len(lists.centroids) + 1)
    files.save(path, wrong)
    with pytest.raises(InputError, match=f"{path}: copy it again"):
        rows = vectors[:-1] if change == "another" else vectors
        search_in(folder, ITEMS, rows, otherwise="copy it again")


def test_a_file_that_is_cut_off_is_refused(folder, vectors):
    path = files.lists_file(folder, ITEMS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path}: copy it again"):
        search_in(folder, ITEMS, vectors, otherwise="copy it again")


@pytest.mark.parametrize(("name", "value"), [("least", 1), ("recall", 0.0), ("recall", 1.5)])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"ListSettings.{name}"):
        ListSettings(**{name: value})
