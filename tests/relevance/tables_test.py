from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsirm_jax.relevance import tables


def test_queries_with_fewer_beams_are_filled_up_and_not_valid(tmp_path):
    path = tmp_path / "query_sids.parquet"
    rows = {
        "query": ["a", "b", "c"],
        "sids": [[[1, 2]], [[3, 4], [5, 6]], []],
        "log_probs": [[-1.0], [-0.5, -2.0], []],
    }
    types = {"sids": pa.list_(pa.list_(pa.int32())), "log_probs": pa.list_(pa.float32())}
    columns = {name: pa.array(values, types.get(name)) for name, values in rows.items()}
    pq.write_table(pa.table(columns), path)
    beams = tables.read_beams(path, levels=2)
    assert beams.valid.tolist() == [[True, False], [True, True], [False, False]]
    for query, (sids, log_probs) in enumerate(zip(rows["sids"], rows["log_probs"], strict=True)):
        assert beams.sids[query][beams.valid[query]].tolist() == sids
        assert beams.log_probs[query][beams.valid[query]].tolist() == log_probs
    assert np.isneginf(beams.log_probs[~beams.valid]).all()
