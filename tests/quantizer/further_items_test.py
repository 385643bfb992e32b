import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.vectors import VectorFiles
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import read_sids
from dsirm_jax.stages import assign, quantize
from dsirm_jax.training.settings import Training
from tests.quantizer.kinds.kind_test import write_run

ROWS = 60
PATHS = [["Home", "Lamps"], ["Shoes"], None]


def vectors_of(seed=0):
    return np.random.default_rng(seed).normal(size=(ROWS, 4)).astype("f4")


def quantized(layout, vectors, *, previous=None, **config):
    """Writes a run of items of two categories, and of some of none, up to their SIDs."""
    write_run(layout, vectors)
    items = pq.read_table(layout.items)
    paths = pa.array([PATHS[row % 3] for row in range(ROWS)], pa.list_(pa.string()))
    titles = pa.array([f"acme {['lamp', 'shoe', 'mug'][row % 3]}" for row in range(ROWS)])
    items = items.set_column(3, "category", paths).set_column(1, "title", titles)
    pq.write_table(items, layout.items)
    quantize.run(
        layout,
        seed=0,
        config=QuantizerConfig(codebook_sizes=(4, 8), kind=HierarchicalKmeans(), **config),
        objective=QuantizerObjective(),
        upkeep=Upkeep(init_iterations=3),
        training=Training(epochs=1, batch_size=8, learning_rate=1e-3),
        previous=previous,
    )
    return pq.read_table(layout.sids)["sid"].to_pylist()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    layout = Layout(model_dir=tmp_path_factory.mktemp("run"))
    return layout, quantized(layout, vectors_of(), pin_depth=1)


def assigned(layout, path, **columns):
    table = {"item_id": [f"new{row}" for row in range(ROWS)]} | columns
    table |= {"vector": pa.array(list(table.get("vector", vectors_of())), pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), path)
    assign.run(layout, vectors=VectorFiles(pattern=str(path)))
    return pq.read_table(layout.assigned)


TEXTS = [" > ".join(PATHS[row % 3] or []) for row in range(ROWS)]


@pytest.mark.parametrize(
    "category",
    [
        pytest.param([PATHS[row % 3] for row in range(ROWS)], id="lists"),
        pytest.param(TEXTS, id="texts"),
        pytest.param(pa.array(TEXTS).dictionary_encode(), id="dictionary"),
        pytest.param([f" {text}&nbsp; " for text in TEXTS], id="uncleaned"),
    ],
)
def test_further_items_have_the_sids_of_the_run(run, tmp_path, category, caplog):
    layout, sids = run
    ids = [f" new{row} " for row in range(ROWS)]
    found = assigned(layout, tmp_path / "v.parquet", item_id=ids, category=category)
    assert found["sid"].to_pylist() == sids
    assert found["item_id"].to_pylist() == [f"new{row}" for row in range(ROWS)]
    assert "20 of 60 items have no category; their first codes are the nearest" in caplog.text


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        pytest.param(
            {}, "column 'category' is missing, by which .*; add it, with nulls", id="none"
        ),
        pytest.param(
            {"categories": TEXTS},
            r"'category' is missing, .*item_id, categories, vector",
            id="typo",
        ),
        pytest.param({"category": [1] * ROWS}, "'category' has type int64; write lists", id="type"),
        pytest.param(
            {"category": TEXTS, "vector": [[1.0] * 7] * ROWS},
            "row 1: column 'vector' has 7 numbers, where the quantizer was fitted to 4",
            id="width",
        ),
        pytest.param(
            {"category": TEXTS, "vector": [[1e30] * 4] * ROWS},
            "row 1: .* has the length 2e[+]30, whose square",
            id="huge",
        ),
        pytest.param(
            {"category": TEXTS, "item_id": ["a"] * ROWS},
            "row 2: column 'item_id' has 'a' a second time",
            id="id twice",
        ),
        pytest.param(
            {"category": TEXTS, "item_id": [None] * ROWS},
            "row 1: column 'item_id' is empty",
            id="no id",
        ),
        pytest.param(
            {"category": TEXTS, "vector": vectors_of() * 100},
            "give vectors of the same model and scale",
            id="large",
        ),
        pytest.param(
            {"category": TEXTS, "vector": vectors_of() / 1e6},
            "carry 0.00 of the .* bits that tell their vectors apart within a first code",
            id="small",
        ),
    ],
)
def test_what_is_wrong_with_further_items_is_said(run, tmp_path, columns, message):
    with pytest.raises(InputError, match=message) as error:
        assigned(run[0], tmp_path / "v.parquet", **columns)
    assert "\n" not in str(error.value)


def test_categories_that_no_code_is_for_are_counted(run, tmp_path, caplog):
    assigned(run[0], tmp_path / "v.parquet", category=["Toys", "Home > Lamps"] * (ROWS // 2))
    assert "30 of 60 items have a category that no first code is for, such as 'Toys'" in caplog.text


def test_titles_name_first_codes_where_the_run_pinned_by_them(tmp_path):
    layout = Layout(model_dir=tmp_path / "run")
    sids = quantized(layout, vectors_of(), title_language="en")
    assert json.loads(layout.health.read_text())["pinned_categories"] == ["lamp", "mug", "shoe"]
    titles = [f"acme {['lamp', 'shoe', 'mug'][row % 3]}" for row in range(ROWS)]
    # Categories have no part in it, though there are some.
    found = assigned(layout, tmp_path / "v.parquet", title=titles, category=["Home"] * ROWS)
    assert found["sid"].to_pylist() == sids
    with pytest.raises(InputError, match="column 'title' is missing, by which"):
        assigned(layout, tmp_path / "v.parquet", category=TEXTS)


def test_a_frozen_quantizer_refuses_vectors_of_another_scale(tmp_path):
    before, after = (Layout(model_dir=tmp_path / name) for name in ("before", "after"))
    quantized(before, vectors_of())
    with pytest.raises(InputError, match=r"sids.parquet: 1 SIDs of 60 items carry 0.00 of the 5.0"):
        quantized(after, vectors_of() / 1e6, previous=before)
    assert len(np.unique(read_sids(after.sids).sids, axis=0)) == 1
    assert after.health.is_file()
