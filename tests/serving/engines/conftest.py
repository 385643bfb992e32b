"""A run of a small shop."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import list_column, write_versioned
from tests.serving.engines.shop import BEAMS, ITEMS, LEVELS, QUERIES, TITLE, VERSION


@pytest.fixture
def beams():
    """SIDs of three queries, none of the last; the second's probabilities are next to nothing."""
    random = np.random.default_rng(0)
    sids = random.integers(0, 4, (2, BEAMS, LEVELS))
    probabilities = random.dirichlet(np.ones(BEAMS), 2)
    probabilities[1] *= 1e-5
    return [*zip(sids, probabilities, strict=True), (np.empty((0, LEVELS), int), np.empty(0))]


@pytest.fixture
def sids():
    return np.random.default_rng(1).integers(0, 4, (ITEMS, LEVELS))


@pytest.fixture
def layout(tmp_path, sids, beams):
    layout = Layout(model_dir=tmp_path / "run")
    for path in (layout.items, layout.sids, layout.query_sids):
        path.parent.mkdir(parents=True)
    numbers = range(ITEMS)
    items = {
        "item_id": [f"item {number}" for number in numbers],
        "title": [TITLE if number == 3 else f"mug {number}" for number in numbers],
        "brand": [None if number % 2 else "Acme" for number in numbers],
        "colour": pa.array([None] * ITEMS, pa.string()),
        "category": [["Home", "Mugs"] if number % 3 else None for number in numbers],
    }
    # Row groups of the two tables begin at different rows.
    pq.write_table(pa.table(items), layout.items, row_group_size=7)
    table = pa.table({"item_id": items["item_id"], "sid": list_column(sids.astype(np.int32))})
    write_versioned(layout.sids, table, version=VERSION)
    answers = {
        "query": QUERIES,
        "sids": pa.array([of.tolist() for of, _ in beams], pa.list_(pa.list_(pa.int32()))),
        "log_probs": [np.log(each).astype(np.float32).tolist() for _, each in beams],
    }
    write_versioned(layout.query_sids, pa.table(answers), version=VERSION)
    return layout


@pytest.fixture
def vectors():
    found = np.random.default_rng(2).normal(size=(ITEMS, 4)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
