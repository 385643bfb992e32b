"""The programs of docs/offline.md, in the engines that they are for."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.serving.offline import score_batches
from tests.serving import tiny

pytestmark = pytest.mark.slow
TEXT = Path("docs/offline.md").read_text("utf-8")
PROGRAMS = dict(re.findall(r'^```python title="(\w+)"\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(
    ("engine", "package"),
    [
        pytest.param("spark", "pyspark", id="spark"),
        pytest.param("beam", "apache_beam", id="beam"),
    ],
)
def test_an_engine_has_the_scores_of_the_scorer(made, tmp_path, engine, package):
    pytest.importorskip(package)
    queries = [*tiny.QUERIES, "green phone case", "ruž mug 64 oz"]
    pairs = [(query, f"item {number}") for query in queries for number in range(0, 62, 3)]
    order = np.random.default_rng(0).permutation(len(pairs))
    asked, ids = zip(*(pairs[row] for row in order), strict=True)
    table = pa.table({"query": asked, "item_id": ids})
    pq.write_table(table, tmp_path / "pairs.parquet", row_group_size=100)
    program = PROGRAMS[engine].replace("out/demo/export/bundle", str(made))
    for name in ("pairs.parquet", "scores"):
        program = program.replace(f'"{name}"', f'"{tmp_path / name}"')
    # As a program of its own: an engine's workers are processes, or threads, that it starts.
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"PYSPARK_PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    written = [
        pq.ParquetFile(path).read()
        for path in tmp_path.rglob("*")
        if path.is_file() and re.match(r"(part-|scores)", path.name)
    ]
    found = pa.concat_tables(written).sort_by([("query", "ascending"), ("item_id", "ascending")])
    expected = pa.Table.from_batches(score_batches(table.to_batches(), bundle=made)).sort_by(
        [("query", "ascending"), ("item_id", "ascending")]
    )
    for name in ("query", "item_id", "reason"):
        assert found[name].to_pylist() == expected[name].to_pylist()
    ours, other = (each["score"].to_numpy() for each in (found, expected))
    np.testing.assert_allclose(ours, other, atol=2e-6, equal_nan=True)
    assert np.isnan(ours).sum() == 14  # item 60 is not in the catalogue
