import itertools
import pathlib
import tempfile

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.io import arrays as files
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import trie as tries


@st.composite
def catalogues(draw):
    """SIDs with duplicates, levels of one code and levels wider than one bitmap word."""
    size = st.one_of(st.just(1), st.integers(2, 5), st.sampled_from([31, 32, 33, 64, 70]))
    sizes = tuple(draw(st.lists(size, min_size=1, max_size=4)))
    row = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    rows = draw(st.lists(row, min_size=1, max_size=40))
    return np.asarray(rows, np.int32), sizes


def prefixes_of(sids, depth):
    return sorted({tuple(map(int, row[:depth])) for row in sids})


KINDS = st.sampled_from([None, tries.BITMAP, tries.RANGES])


@settings(deadline=None, max_examples=60)
@given(catalogues(), KINDS)
def test_children_are_those_of_a_set_of_tuples(drawn, kind):
    sids, sizes = drawn
    trie = tries.build(sids, sizes=sizes, kind=kind)
    for level, size in enumerate(sizes):
        parents, below = prefixes_of(sids, level), prefixes_of(sids, level + 1)
        nodes = np.arange(len(parents))
        mask = np.asarray(tries.child_mask(trie, level=level, nodes=nodes))
        assert mask.shape == (len(parents), size)
        assert {(*parents[n], c) for n, c in np.argwhere(mask)} == set(below)
        node, code = np.nonzero(mask)
        found = tries.child(trie, level=level, nodes=node, codes=code)
        expected = [below.index((*parents[n], c)) for n, c in zip(node, code, strict=True)]
        np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=60)
@given(catalogues(), KINDS, st.randoms(use_true_random=False))
def test_find_enumerate_and_items(drawn, kind, random):
    sids, sizes = drawn
    trie, found = tries.build(sids, sizes=sizes, kind=kind), tries.postings(sids, sizes=sizes)
    whole = prefixes_of(sids, len(sizes))
    assert [tuple(row) for row in tries.enumerate_sids(trie)] == whole
    probes = [tuple(random.randrange(-1, size + 1) for size in sizes) for _ in range(20)]
    for probe in [*whole, *probes]:
        for depth in range(len(sizes) + 1):
            prefix = probe[:depth]
            below = [sid for sid in whole if sid[:depth] == prefix]
            assert bool(tries.contains(trie, np.array(prefix, np.int32))) == bool(below)
            assert [tuple(row) for row in tries.enumerate_sids(trie, prefix)] == below
            items = [row for row, sid in enumerate(sids) if tuple(sid[:depth]) == prefix]
            assert sorted(tries.items_below(trie, found, prefix)) == items
    leaves = tries.find(trie, sids)
    np.testing.assert_array_equal(leaves, [whole.index(tuple(sid)) for sid in sids])


@pytest.mark.parametrize("kind", [tries.BITMAP, tries.RANGES])
def test_runs_inside_jit_on_any_leading_axes(kind):
    sizes = (3, 40, 2)
    sids = np.array([[0, 39, 1], [0, 32, 0], [2, 0, 1], [2, 0, 1]])
    trie = jax.device_put(tries.build(sids, sizes=sizes, kind=kind))
    grid = np.array(list(itertools.product(*map(range, sizes)))).reshape(3, 40, 2, 3)
    inside = jax.jit(tries.contains)(trie, jax.numpy.asarray(grid))
    assert inside.shape == (3, 40, 2)
    assert np.argwhere(inside).tolist() == [[0, 32, 0], [0, 39, 1], [2, 0, 1]]
    mask = jax.jit(tries.child_mask, static_argnames="level")(
        trie, level=1, nodes=jax.numpy.asarray([[0], [1]])
    )
    assert mask.shape == (2, 1, 40) and mask.sum(axis=-1).tolist() == [[2], [1]]


@pytest.mark.parametrize("kind", [tries.BITMAP, tries.RANGES])
def test_host_and_device_agree(kind):
    sizes = (5, 70, 33)
    sids = np.random.default_rng(0).integers(0, sizes, (300, 3))
    host = tries.build(sids, sizes=sizes, kind=kind)
    device = jax.device_put(host)
    for depth in (1, 2, 3):
        on_host = tries.find(host, sids[:, :depth])
        on_device = jax.jit(tries.find)(device, jax.numpy.asarray(sids[:, :depth]))
        assert on_host.dtype == on_device.dtype == np.int32
        np.testing.assert_array_equal(on_host, on_device)


def test_memory_of_a_dense_trie():
    sids = np.array(list(itertools.product(range(16), range(64), range(64))))
    trie = tries.build(sids, sizes=(16, 64, 64))
    size = sum(array.nbytes for array in jax.tree.leaves(trie))
    assert size == (1 * 4 + 16 * 8 + 1024 * 8) + 4 * (1 + 16 + 1024)
    assert size / len(sids) < 0.2


def test_a_level_takes_the_smaller_form():
    # One node with 2 of 64 codes: 8 bytes of bits or 2 codes of a byte; then two nodes, 63 of 64.
    sids = np.array([[code, below] for code in (3, 60) for below in range(63)])
    trie = tries.build(sids, sizes=(64, 64))
    first, second = trie.levels
    assert isinstance(first, tries.Ranges) and first.codes.tolist() == [3, 60]
    assert first.codes.dtype == np.uint8 and first.starts.tolist() == [0, 2] and first.widest == 2
    assert isinstance(second, tries.Bitmap) and second.bitmaps.shape == (2, 2)


@settings(deadline=None, max_examples=30)
@given(catalogues(), KINDS)
def test_bounds_are_the_first_children_and_their_number(drawn, kind):
    sids, sizes = drawn
    trie = tries.build(sids, sizes=sizes, kind=kind)
    for depth, level in enumerate(trie.levels):
        bounds = level.bounds().tolist()
        assert len(bounds) == len(prefixes_of(sids, depth)) + 1
        assert bounds[-1] == len(prefixes_of(sids, depth + 1))
        spans = [level.span(node, node + 1) for node in range(len(bounds) - 1)]
        assert spans == list(itertools.pairwise(bounds))


def test_a_form_is_found_by_its_name_and_by_its_arrays():
    for form in (tries.Bitmap, tries.Ranges):
        assert tries.form_named(form.form) is form
        assert tries.form_with(reversed(form.array_names)) is form
    assert tries.form_with(["codes"]) is None


def test_a_level_takes_the_form_it_is_told():
    sids = np.array([[0, 1], [2, 2]])
    for forms in itertools.product((tries.BITMAP, tries.RANGES), repeat=2):
        assert tries.forms(tries.build(sids, sizes=(3, 3), kind=forms)) == forms


@settings(deadline=None, max_examples=60)
@given(catalogues(), st.integers(0, 40))
def test_adding_sids_equals_building_from_all(drawn, first):
    sids, sizes = drawn
    first = max(1, min(first, len(sids)))
    grown = tries.add(tries.build(sids[:first], sizes=sizes), sids[first:])
    jax.tree.map(np.testing.assert_array_equal, grown, tries.build(sids, sizes=sizes))


@settings(deadline=None, max_examples=30)
@given(catalogues(), KINDS)
def test_a_saved_trie_is_mapped_as_it_was(drawn, kind):
    sids, sizes = drawn
    trie = tries.build(sids, sizes=sizes, kind=kind)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trie.safetensors"
        tries.save(path, jax.device_put(trie))
        loaded = tries.load(path)
        assert jax.tree.structure(loaded) == jax.tree.structure(trie)
        for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(trie), strict=True):
            assert isinstance(ours, np.memmap) and ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(tries.find(loaded, sids), tries.find(trie, sids))


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_what_is_no_whole_trie_is_refused(damage, tmp_path):
    path = tmp_path / "trie.safetensors"
    if damage == "cut":
        tries.save(path, tries.build(np.array([[0, 1], [1, 0]]), sizes=(2, 2)))
        path.write_bytes(path.read_bytes()[:-3])
    if damage == "other":
        path.write_bytes(b"0" * 100)
    with pytest.raises(InputError, match="trie.safetensors: no trie"):
        tries.load(path)


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        pytest.param(tries.BITMAP, "1/bitmaps", [[2], [0]], id="no child"),
        pytest.param(tries.BITMAP, "1/bitmaps", [[8], [1]], id="bit beyond the codes"),
        pytest.param(tries.BITMAP, "1/first_child", [0, 7], id="child beyond the leaves"),
        pytest.param(tries.BITMAP, "0/first_child", [0, 1], id="more nodes than the root"),
        pytest.param(tries.RANGES, "1/codes", [1, 3], id="code beyond the level"),
        pytest.param(tries.RANGES, "1/starts", [0, 2, 1], id="falling starts"),
        pytest.param(tries.RANGES, "1/starts", [0, 1, 9], id="start beyond the codes"),
    ],
)
def test_arrays_that_are_no_trie_are_refused(kind, name, values, tmp_path):
    path = tmp_path / "trie.safetensors"
    trie = tries.build(np.array([[0, 1], [1, 0]]), sizes=(2, 3), kind=kind)
    tries.save(path, trie)
    arrays, sizes = files.load(path, kind="trie", otherwise="")
    files.save(
        path,
        arrays | {name: np.array(values, arrays[name].dtype)},
        kind="trie",
        description=sizes,
    )
    with pytest.raises(InputError, match=r"trie\.safetensors: level \d is no level of a trie"):
        tries.load(path)


def test_numbers_of_postings_are_as_small_as_they_can_be():
    found = tries.postings(np.array([[1, 1], [0, 1], [1, 1]]), sizes=(2, 2))
    assert found.rows.dtype == found.starts.dtype == np.uint8
    assert found.rows.tolist() == [1, 0, 2] and found.starts.tolist() == [0, 1, 3]


def test_empty_and_invalid_catalogues_are_refused():
    with pytest.raises(InputError, match="at least one SID"):
        tries.build(np.empty((0, 2), np.int32), sizes=(2, 2))
    with pytest.raises(InputError, match="level 2: code 2"):
        tries.build(np.array([[0, 2]]), sizes=(2, 2))
