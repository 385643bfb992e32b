import dataclasses
import hashlib
import itertools

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.pairs import MOST_POSITIVES
from dsirm_jax.data.vectors import write_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.model import UNPINNED
from dsirm_jax.quantizer.training_items import NO_QUERY, TrainingItems, batch_spec, batches_of
from dsirm_jax.quantizer.training_tables import read_training_items
from tests.quantizer.fitting_test import CONFIG, make_items


def test_rows_are_all_pairs_and_the_items_without_a_query():
    items = make_items()
    rows = items.rows()
    assert set(rows[:, 1]) == set(range(len(items.items)))
    alone = rows[rows[:, 0] == NO_QUERY, 1]
    assert not set(alone) & set(items.pairs[:, 1])
    assert len(rows) == len(items.pairs) + len(alone)


@pytest.mark.parametrize("pinned", [True, False])
def test_a_batch_is_what_its_spec_says(pinned):
    items = make_items(pinned=pinned)
    batch = next(batches_of(items, rows=items.rows(), batch_size=16, seed=0)(0))
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), batch)
    assert shapes == batch_spec(rows=16, dim=12, pinned=pinned, positives=2)
    ahead = batch_spec(rows=16, dim=12, pinned=pinned)
    assert ahead["positives"].shape == (16, MOST_POSITIVES)


def test_a_row_has_the_vectors_of_its_query_and_item_or_zeros():
    items = make_items()
    rows = np.array([[3, 5], [NO_QUERY, 7]])
    batch = next(batches_of(items, rows=rows, batch_size=2, seed=0)(0))
    order = np.argsort(batch["item_index"])
    np.testing.assert_array_equal(batch["item"][order], items.items[[5, 7]])
    np.testing.assert_array_equal(batch["query"][order], [items.queries[3], np.zeros(12)])
    np.testing.assert_array_equal(batch["has_query"][order], [1, 0])


def test_the_order_of_rows_stays_what_it_was():
    """As earlier versions had it, whose checkpoints go on with it."""
    items, digest = make_items(), hashlib.sha256()
    batches = batches_of(items, rows=items.rows(), batch_size=32, seed=3)
    for batch in itertools.islice(batches(5), 20):
        digest.update(batch["item_index"].tobytes())
    assert digest.hexdigest().startswith("823946952e32ab7d")


def test_items_without_any_query_make_batches():
    items = TrainingItems(items=make_items().items)
    assert (items.queries.shape, items.pairs.shape) == ((0, 12), (0, 2))
    batch = next(batches_of(items, rows=items.rows(), batch_size=32, seed=0)(0))
    assert not batch["query"].any() and not batch["has_query"].any()
    assert (batch["positives"] == -1).all()


def test_a_query_that_is_not_finite_is_named_by_its_number():
    items = make_items()
    items.queries[5] = np.nan
    batches = batches_of(items, rows=items.rows(), batch_size=96, seed=0)
    with pytest.raises(FloatingPointError, match=r"step 12 is refused .* query_index 5 are not"):
        next(batches(11))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(
            {"items": np.zeros((0, 12), "f4")},
            r"items has the shape \(0, 12\); .* at least one item",
            id="no items",
        ),
        pytest.param(
            {"items": np.zeros((96, 0), "f4")},
            r"items has the shape \(96, 0\)",
            id="items without columns",
        ),
        pytest.param(
            {"items": np.zeros(12, "f4")},
            r"items has the shape \(12,\)",
            id="items of one dimension",
        ),
        pytest.param(
            {"queries": np.zeros((24, 5), "f4")},
            r"queries has the shape \(24, 5\); pass \[query, 12",
            id="queries of another width",
        ),
        pytest.param(
            {"pairs": np.zeros((3, 3), "i8")},
            r"pairs has the shape \(3, 3\); pass \[pair, 2\]",
            id="pairs of three",
        ),
        pytest.param(
            {"pairs": np.array([[24, 0]])},
            r"pairs\[:, 0\] has 24 in row 0; pass numbers from 0 to 23",
            id="query out of range",
        ),
        pytest.param(
            {"pairs": np.array([[0, 9], [0, -1]])},
            r"pairs\[:, 1\] has -1 in row 1; .* 0 to 95",
            id="item out of range",
        ),
        pytest.param(
            {"pinned": np.zeros(3, "i4")},
            r"pinned has the shape \(3,\); pass \[96\]",
            id="too few pinned",
        ),
        pytest.param(
            {"pinned": np.full(96, 4, "i4")},
            r"pinned has 4 in row 0; pass numbers from -1 to 3",
            id="pinned out of range",
        ),
    ],
)
def test_arrays_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(InputError, match=f"TrainingItems.{message}"):
        dataclasses.replace(make_items(), **changed)


def write_tables(folder):
    ids, titles = ["a", "b", "c", "d"], ["Desk Lamps", "Floor Lamp", "Office Chair, Black", "12"]
    paths = pa.array([["Home", "Light"], None, None, None], pa.list_(pa.string()))
    pq.write_table(
        pa.table({"item_id": ids, "title": titles, "category": paths}), folder / "items.parquet"
    )
    pq.write_table(pa.table({"query": ["lamp"]}), folder / "queries.parquet")
    judged = {"query_index": [0], "item_index": [1], "relevant": [True], "split": ["train"]}
    pq.write_table(pa.table(judged), folder / "judgements.parquet")
    write_vectors(folder / "i.parquet", ids, np.eye(4), id_column="item_id")
    write_vectors(folder / "q.parquet", ["lamp"], np.eye(4)[:1], id_column="query")


def read_pinned(folder, **config):
    read = read_training_items(
        items=folder / "items.parquet",
        queries=folder / "queries.parquet",
        judgements=folder / "judgements.parquet",
        item_vectors=folder / "i.parquet",
        query_vectors=folder / "q.parquet",
        config=dataclasses.replace(CONFIG, **config),
        scratch=folder,
    )
    return read.names, None if read.pinned is None else read.pinned.tolist()


def test_first_codes_are_pinned_by_category_or_by_the_title(tmp_path):
    write_tables(tmp_path)
    assert read_pinned(tmp_path) == (("Home",), [0, UNPINNED, UNPINNED, UNPINNED])
    assert read_pinned(tmp_path, pin_depth=0) == ((), None)
    of_titles = (("lamp", "chair"), [0, 0, 1, UNPINNED])
    assert read_pinned(tmp_path, pin_depth=0, title_language="en") == of_titles
    assert read_pinned(tmp_path, title_language="en") == read_pinned(tmp_path)
    assert read_pinned(tmp_path, pin_depth=0, title_language="fr") == ((), None)


def test_a_catalogue_without_items_is_refused(tmp_path):
    write_tables(tmp_path)
    empty = pq.read_table(tmp_path / "items.parquet")[:0]
    pq.write_table(empty, tmp_path / "items.parquet")
    with pytest.raises(InputError, match=r"items.parquet: no items; .* at least one"):
        read_pinned(tmp_path)
