"""A MODEL_DIR with what the stage `relevance` reads, from numbers of this file's own."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.tables import write_features
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import write_versioned

QUERIES, ITEMS_OF_QUERY = 90, 8
PAIRS = QUERIES * ITEMS_OF_QUERY
SPLITS = np.repeat(["train", "head", "test"], QUERIES // 3)
"""Of each query."""
QUERY = np.repeat(np.arange(QUERIES), ITEMS_OF_QUERY)
ITEM = np.tile(np.arange(40), PAIRS // 40)


def truth(seed=0):
    """Returns features of all pairs, one of which tells, and which items are relevant."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(PAIRS, 3)).astype(np.float32)
    relevant = features[:, 0] + generator.normal(size=PAIRS) > 0
    return features, relevant


def prepare(model_dir, *, relevant, features, item_index=ITEM, sid_version="v"):
    """Writes the tables that stages before would have, and returns where they are.

    Args:
      model_dir: where to.
      relevant: bool `[pair]`.
      features: float32 `[pair, 3]`: one that needs no SIDs, and two that do.
      item_index: that the table of features has.
      sid_version: of the features that need SIDs.
    """
    layout = Layout(model_dir=model_dir)
    for name in ("prepare", "features", "match", "quantize", "generate"):
        layout.stage(name).mkdir(parents=True)
    names = np.array([f"query {number}" for number in range(QUERIES)])
    label = np.where(relevant, "E", "I")
    pq.write_table(
        pa.table(
            {
                "query_index": QUERY,
                "item_index": ITEM,
                "query": names[QUERY],
                "item_id": [f"item {number}" for number in ITEM],
                "label": label,
                "gain": relevant.astype(np.float32),
                "relevant": relevant,
                "split": SPLITS[QUERY],
                "weight": np.ones(PAIRS, np.float32),
            }
        ),
        layout.judgements,
    )
    pq.write_table(pa.table({"query": names, "segment": ["tail"] * QUERIES}), layout.queries)
    categories = pa.array([["home"]] * 40, pa.list_(pa.string()))
    texts = [f"thing {number}" for number in range(40)]
    nothing = pa.nulls(40, pa.string())
    pq.write_table(
        pa.table(
            {
                "title": texts,
                "brand": nothing,
                "colour": nothing,
                "category": categories,
                "text": texts,
            }
        ),
        layout.items,
    )
    write_versioned(layout.sids, pa.table({"item_id": ["item 0"]}), version="v")
    pq.write_table(
        pa.table({"query_index": np.arange(60, 90), "ranks": [[1, 2]] * 30}), layout.hits
    )
    pairs = {"query_index": QUERY, "item_index": item_index}
    dense = FeatureTable(names=("cosine",), groups=("dense",), values=features[:, :1])
    write_features(layout.features, dense, pairs=pairs)
    of_sids = FeatureTable(names=("one", "two"), groups=("prefix",) * 2, values=features[:, 1:])
    pairs = {"query_index": QUERY, "item_index": ITEM}
    write_features(layout.sid_features, of_sids, pairs=pairs, sid_version=sid_version)
    return layout
