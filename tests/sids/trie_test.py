import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.errors import InputError
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


@settings(deadline=None, max_examples=40)
@given(catalogues())
def test_children_are_those_of_a_set_of_tuples(drawn):
    sids, sizes = drawn
    trie = tries.build(sids, sizes=sizes)
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


@settings(deadline=None, max_examples=40)
@given(catalogues(), st.randoms(use_true_random=False))
def test_find_enumerate_and_items(drawn, random):
    sids, sizes = drawn
    trie, found = tries.build(sids, sizes=sizes), tries.postings(sids, sizes=sizes)
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


def test_runs_inside_jit_on_any_leading_axes():
    sizes = (3, 40, 2)
    sids = np.array([[0, 39, 1], [0, 32, 0], [2, 0, 1], [2, 0, 1]])
    trie = jax.device_put(tries.build(sids, sizes=sizes))
    grid = np.array(list(itertools.product(*map(range, sizes)))).reshape(3, 40, 2, 3)
    inside = jax.jit(tries.contains)(trie, jax.numpy.asarray(grid))
    assert inside.shape == (3, 40, 2)
    assert np.argwhere(inside).tolist() == [[0, 32, 0], [0, 39, 1], [2, 0, 1]]
    mask = jax.jit(tries.child_mask, static_argnames="level")(
        trie, level=1, nodes=jax.numpy.asarray([[0], [1]])
    )
    assert mask.shape == (2, 1, 40) and mask.sum(axis=-1).tolist() == [[2], [1]]


def test_host_and_device_agree():
    sizes = (5, 70, 33)
    sids = np.random.default_rng(0).integers(0, sizes, (300, 3))
    host = tries.build(sids, sizes=sizes)
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


def test_empty_and_invalid_catalogues_are_refused():
    with pytest.raises(InputError, match="at least one SID"):
        tries.build(np.empty((0, 2), np.int32), sizes=(2, 2))
    with pytest.raises(InputError, match="level 2: code 2"):
        tries.build(np.array([[0, 2]]), sizes=(2, 2))
