"""A dataset whose rows the tests of tasks read."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data import vocabulary
from dsirm_jax.data.task_blocks import read_block
from tests.data.task_rows import (
    ITEMS,
    QUERIES,
    SIZES,
    build,
    example,
    item_text,
    query_text,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Query q is for items q, q + 1 and q + 2, relevant but for the last."""
    folder = tmp_path_factory.mktemp("prepare")
    model = folder / "vocabulary.model"
    texts = itertools.chain(map(query_text, range(QUERIES)), map(item_text, range(ITEMS)))
    vocabulary.train_vocabulary(texts=texts, size=400, path=model, seed=0)
    pairs = itertools.product(range(QUERIES), range(3))
    examples = [example(query, query + step) for query, step in pairs]
    return {"tfds_dir": build(folder, examples), "vocabulary": model}


@pytest.fixture(scope="module")
def queries(tmp_path_factory):
    path = tmp_path_factory.mktemp("queries") / "queries.parquet"
    pq.write_table(pa.table({"query": [query_text(number) for number in range(QUERIES)]}), path)
    return path


@pytest.fixture(scope="module")
def sids():
    return np.random.default_rng(0).integers(0, SIZES, (ITEMS, 3)).astype(np.int32)


@pytest.fixture
def read_once():
    """Reads each block but once, as TensorFlow takes a tenth of a second to set that up."""
    blocks = {}

    def read(task, edges, lengths, block, *, queries):
        key = (task.name, tuple(edges[block : block + 2]), tuple(lengths.items()))
        if key not in blocks:
            blocks[key] = read_block(task, edges, lengths, block)
        return blocks[key]

    return read
