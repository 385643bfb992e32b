"""A tiny shop on disk, and T5X's programs run on it; everything is skipped without T5X."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

QUERIES, ITEMS, SIZES = 24, 16, (3, 4, 4)
LENGTHS = {"inputs": 6, "targets": len(SIZES)}
MODEL = """
from __gin__ import dynamic_registration
from dsirm_jax.generator.architectures import t5
t5.T5Config:
  emb_dim = 16
  num_heads = 2
  head_dim = 8
  mlp_dim = 32
  num_encoder_layers = 2
  num_decoder_layers = 2
  dropout_rate = 0.1
"""


@pytest.fixture(scope="session")
def t5x():
    """Skips where T5X is not installed; looks for it without importing it, which takes seconds."""
    names = ("t5x", "airio", "jestimator")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; docs/t5x.md says how to")


@pytest.fixture(scope="session")
def shop(t5x, tmp_path_factory):
    """The files of a run that T5X needs: dataset, vocabulary, SIDs; and a text of queries."""
    from dsirm_jax.data import dataset, vocabulary
    from dsirm_jax.data.schema import EXAMPLES
    from dsirm_jax.sids.codes import sid_writer

    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    texts = [f"Chair number {item} in red oak" for item in range(ITEMS)]
    queries = [f"red chair {query}" for query in range(QUERIES)]
    vocabulary.train_vocabulary(
        texts=iter(texts + queries), size=320, path=folder / "vocabulary.model", seed=0
    )
    items = {"item_index": pa.array(range(ITEMS), pa.int64()), "text": texts}
    pq.write_table(pa.table(items), folder / "items.parquet")
    examples = [
        {
            "query": queries[query],
            "text": texts[item],
            "query_index": query,
            "item_index": item,
            "gain": float(item % 2 + 1) / 2,
            "relevant": item != query % ITEMS,
            "weight": 1.0 + query,
            "split": ("train", "train", "head", "test")[query % 4],
        }
        for query in range(QUERIES)
        for item in sorted({query % ITEMS, (query + 1) % ITEMS, (query + 2) % ITEMS})
    ]
    table = pa.Table.from_pylist(examples, schema=EXAMPLES)
    pq.write_table(table, folder / "examples.parquet")
    dataset.write_dataset(prepare_dir=folder, data_dir=folder / "tfds")
    sids = rng.integers(0, SIZES, (ITEMS, len(SIZES))).astype(np.int32)
    with sid_writer(folder / "sids.parquet", version="1") as write:
        write(pa.array([str(n) for n in range(ITEMS)]), sids, np.zeros(sids.shape), np.zeros(ITEMS))
    (folder / "queries.txt").write_text("\n".join(queries) + "\n")
    (folder / "model.gin").write_text(MODEL)
    return folder


@pytest.fixture(scope="session")
def t5x_run(shop):
    """Runs one of T5X's programs as a user does; `t5x_run(program, *more_files, MACRO=value)`."""

    def run(program, *files, **macros):
        macros |= {
            "VOCABULARY_PATH": str(shop / "vocabulary.model"),
            "SIDS": str(shop / "sids.parquet"),
            "SID_SIZES": SIZES,
            "TASK_FEATURE_LENGTHS": LENGTHS,
            "BEAMS": 4,
        }
        own = f"gin/t5x/{program}.gin"
        done = subprocess.run(
            [
                *(sys.executable, "-m", f"t5x.{program}"),
                *(f"--gin_file={file}" for file in (shop / "model.gin", own, *files)),
                *(f"--gin.{name}={value!r}" for name, value in macros.items()),
            ],
            env=os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


@pytest.fixture(scope="session")
def trained(shop, t5x_run):
    """Returns the checkpoint of 20 steps under `t5x.train`."""
    t5x_run(
        "train",
        TFDS_DIR=str(shop / "tfds"),
        MODEL_DIR=str(shop / "model"),
        TRAIN_STEPS=20,
        BATCH_SIZE=8,
    )
    return shop / "model/checkpoint_20"
