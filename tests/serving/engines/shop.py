"""A shop small enough to be reckoned with by brute force."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import list_column, write_versioned

ITEMS, LEVELS, BEAMS, VERSION = 25, 3, 6, "a1b2c3d4e5f60718"
TITLE = 'Tom\'s 12" mug\\pot {"a": 1} $1 <b> \u2028 ß 👟; DROP TABLE items'
QUERIES = ["red mug", "it's 5\\\" {pot}", "nothing"]


def write_run(model_dir, *, sids, beams, version=VERSION):
    """Writes the tables of a run that an engine's files are made of.

    Args:
      model_dir: where to.
      sids: of the items.
      beams: SIDs and probabilities of each of `QUERIES`.
      version: of the SIDs.
    """
    layout = Layout(model_dir=model_dir)
    for path in (layout.items, layout.sids, layout.query_sids):
        path.parent.mkdir(parents=True)
    numbers = range(len(sids))
    items = {
        "item_id": [f"item {number}" for number in numbers],
        "title": [TITLE if number == 3 else f"mug {number}" for number in numbers],
        "brand": [None if number % 2 else "Acme" for number in numbers],
        "colour": pa.array([None] * len(sids), pa.string()),
        "category": [["Home", "Mugs"] if number % 3 else None for number in numbers],
    }
    # Row groups of the two tables begin at different rows.
    pq.write_table(pa.table(items), layout.items, row_group_size=7)
    table = pa.table({"item_id": items["item_id"], "sid": list_column(sids.astype(np.int32))})
    write_versioned(layout.sids, table, version=version)
    answers = {
        "query": QUERIES,
        "sids": pa.array([of.tolist() for of, _ in beams], pa.list_(pa.list_(pa.int32()))),
        "log_probs": [np.log(each).astype(np.float32).tolist() for _, each in beams],
    }
    write_versioned(layout.query_sids, pa.table(answers), version=version)
    return layout
