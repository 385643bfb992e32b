"""What is scored anew and what the run knows; what the stage gives: tests/job/finished_test.py."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import score


@pytest.fixture
def layout(tmp_path):
    layout = Layout(model_dir=tmp_path)
    for path in (layout.queries, layout.predictions):
        path.parent.mkdir()
    return layout


def test_a_query_is_read_as_the_run_spells_it(layout):
    rows = {"query": ["Mug", "mug", "pot"], "frequency": [1.0, 3.0, 1.0]}
    pq.write_table(pa.table(rows), layout.queries)
    asked = ["MUG", "Mug", "pot", "Pot", "urn", "Urn"]
    assert score.as_spelt_in_run(layout, asked) == ["mug", "Mug", "pot", "pot", "urn", "Urn"]


def test_pairs_of_the_run_keep_its_numbers(layout):
    rows = {"query": ["mug", "pot"], "item_id": ["a", "a"], "full": np.float32([0.25, 0.5])}
    pq.write_table(pa.table(rows), layout.predictions)
    ids = pa.chunked_array([["a", "b"], ["a", "a"]])
    found = score.predicted(layout, ["pot", "pot", "mug", "pot"], ids)
    np.testing.assert_array_equal(found, [0.5, np.nan, 0.25, 0.5])


def test_pairs_of_a_file_stand_once_in_the_order_in_which_they_come():
    names, items, rows = score.distinct(["b", "a", "b", "b"], [7, 7, 3, 7])
    assert (names, items.tolist(), rows.tolist()) == (["b", "a", "b"], [7, 7, 3], [0, 1, 2, 0])
    assert [len(part) for part in score.distinct([], [])] == [0, 0, 0]
