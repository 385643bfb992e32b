"""Queries, items and pairs whose rows the tests of tasks read."""

import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.data import dataset
from dsirm_jax.data.schema import EXAMPLES

QUERIES, ITEMS, SIZES = 20, 30, (4, 8, 8)
LENGTHS = {"inputs": 12, "targets": 3}


def query_text(number):
    return f"red chair {number}"


def item_text(number):
    return f"Chair number {number} with a long title in red oak"


def build(folder, examples):
    items = {
        "item_index": pa.array(range(ITEMS), pa.int64()),
        "text": [item_text(item) for item in range(ITEMS)],
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    table = pa.Table.from_pylist(examples, schema=EXAMPLES)
    pq.write_table(table, folder / "examples.parquet", row_group_size=16)
    dataset.write_dataset(prepare_dir=folder, data_dir=folder / "tfds")
    return folder / "tfds"


def example(query, item):
    """A query's third item is not relevant."""
    return {
        "query": query_text(query),
        "text": item_text(item),
        "query_index": query,
        "item_index": item,
        "gain": [1.0, 0.5, 0.0][item - query],
        "relevant": item - query < 2,
        "weight": 1.0 + query,
        "split": ("train", "train", "head", "test")[query % 4],
    }


TRAINED = [query for query in range(QUERIES) if query % 4 < 2]
RELEVANT = {(query, query + step) for query in TRAINED for step in range(2)}


def padded(pieces, length):
    return tuple(([*pieces, *[0] * length])[:length])
