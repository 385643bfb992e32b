from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from dsirm_jax.report import tree
from dsirm_jax.report.catalogue import PageItems, category_prefixes
from dsirm_jax.sids.codes import prefix_keys

SIZES = (3, 4, 5)


def catalogue_of(sids):
    keys = prefix_keys(sids.astype(np.int64), sizes=SIZES)
    order = np.argsort(keys[:, -1], kind="stable")
    paths = pa.chunked_array([[[f"code {sid[0]}"] for sid in sids]])
    categories, names = category_prefixes(paths, depth=1)
    return PageItems(
        titles=pa.chunked_array([[str(sid) for sid in sids]]),
        categories=categories,
        category_names=names,
        sids=sids,
        sizes=SIZES,
        order=order,
        keys=keys[order],
    )


def prefixes_in(nodes, path=()):
    for node in nodes:
        here = (*path, node[0])
        yield here, node
        yield from prefixes_in(node[5], here)


many_sids = hnp.arrays(
    np.int32,
    st.tuples(st.integers(1, 40), st.just(3)),
    elements=st.integers(0, 2),
)


@settings(deadline=None, max_examples=40)
@given(sids=many_sids)
def test_a_whole_tree_counts_every_prefix_of_every_item(sids):
    expected = Counter(tuple(sid[:length]) for sid in sids.tolist() for length in (1, 2, 3))
    found = tree.sid_tree(catalogue_of(sids), most=10**6)
    nodes = dict(prefixes_in(found["nodes"]))
    assert {path: node[1] for path, node in nodes.items()} == expected
    assert all(node[6] == 0 for node in nodes.values())
    for path, (_, items, category, share, rows, children, _) in nodes.items():
        assert (found["categories"][category], share) == (f"code {path[0]}", 100)
        assert all(tuple(sids[row][: len(path)]) == path for row in rows)
        assert len(set(rows)) == len(rows) <= items
        counts = [child[1] for child in children]
        assert counts == sorted(counts, reverse=True)


@settings(deadline=None, max_examples=40)
@given(sids=many_sids, most=st.integers(3, 60))
def test_a_tree_that_is_cut_keeps_the_largest_children_and_tells_how_many_are_missing(sids, most):
    expected = Counter(tuple(sid[:length]) for sid in sids.tolist() for length in (1, 2, 3))
    found = tree.sid_tree(catalogue_of(sids), most=most)
    shown = dict(prefixes_in(found["nodes"]))
    assert len(shown) == sum(found["shown"])
    assert found["prefixes"] == [
        sum(len(path) == length for path in expected) for length in (1, 2, 3)
    ]
    widest = max((len(node[5]) for node in shown.values()), default=0)
    # One child each is always kept: every branch can be opened down to a whole SID.
    assert len(shown) <= most or widest <= 1
    for path, node in shown.items():
        children = sorted(
            (n for p, n in expected.items() if p[:-1] == path and len(p) == len(path) + 1),
            reverse=True,
        )
        kept = [child[1] for child in node[5]]
        assert kept == children[: len(kept)]
        assert node[6] == len(children) - len(kept)
        assert len(path) == 3 or kept


def test_a_huge_first_level_is_cut_too():
    sids = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 1], [2, 0, 0], [2, 1, 0], [2, 1, 1]], np.int32)
    found = tree.sid_tree(catalogue_of(sids), most_first=2)
    assert [node[0] for node in found["nodes"]] == [2, 1]
    assert found["hidden"] == 1


def test_rows_of_a_tree_are_those_of_all_its_nodes():
    nodes = [[0, 2, -1, 0, [7, 8], [[1, 1, -1, 0, [7], [], 0]], 0], [1, 1, -1, 0, [9], [], 0]]
    assert tree.tree_rows(nodes) == [7, 8, 7, 9]
