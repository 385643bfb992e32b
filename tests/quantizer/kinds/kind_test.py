"""A kind of one's own: one file, and one line of gin."""

import importlib
import json
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dsirm_jax.data.vectors import VectorFiles, shard, write_vectors
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.kinds.kind import Kind
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.run import configuration
from dsirm_jax.run.layout import Layout
from dsirm_jax.sids.codes import read_sids
from dsirm_jax.stages import assign, quantize

SIGNS = '''
"""Codes by sign: level `l` looks at the l-th number of a vector, scaled."""

import dataclasses

import numpy as np

from dsirm_jax.quantizer.model import Codebook, Identity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signs:
    scale: float

    continues = False

    def module(self, *, dim):
        return Identity()

    def codebook(self, arrays, *, level, size):
        return Codebook(**arrays)

    def fit(self, items, *, sizes, learning, directory, start):
        axes = self.scale * np.eye(items.dim, dtype="f4")
        words = [np.stack([-axis, axis]) for axis in axes[: len(sizes)]]
        ones = np.ones(2, "f4")
        return {}, tuple(Codebook(codewords=w, count=ones, total=w) for w in words)

    def step(self, *, dim, sizes, pinned, learning, rows):
        return None
'''
GIN = """
from __gin__ import dynamic_registration
from dsirm_jax.quantizer import config as quantizer_config
include 'gin/models/tiny.gin'
quantizer_config.QuantizerConfig.codebook_sizes = (2, 2)
quantizer_config.QuantizerConfig.pin_depth = 0
"""
ONE_LINE = ["import signs", "quantizer_config.QuantizerConfig.kind = @signs.Signs()"]


@pytest.fixture
def signs(tmp_path):
    """A module outside the package, which is forgotten afterwards."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "signs.py").write_text(textwrap.dedent(SIGNS))
    sys.path.insert(0, str(folder))
    yield importlib.import_module("signs")
    sys.path.remove(str(folder))
    del sys.modules["signs"]


def write_run(layout, vectors):
    """Writes what `prepare` and `encode` leave of some items and one query, and makes folders."""
    for stage in ("prepare", "encode", "quantize", "assign"):
        layout.stage(stage).mkdir(parents=True)
    ids = [f"i{row}" for row in range(len(vectors))]
    categories = pa.array([["Home"]] * len(ids), pa.list_(pa.string()))
    pq.write_table(
        pa.table({"item_id": ids, "title": ids, "brand": ids, "category": categories}),
        layout.items,
    )
    pq.write_table(pa.table({"query": ["lamp"]}), layout.queries)
    judged = {"query_index": [0], "item_index": [0], "relevant": [True], "split": ["train"]}
    pq.write_table(pa.table(judged), layout.judgements)
    for pattern, names, rows, column in (
        (layout.item_vectors, ids, vectors, "item_id"),
        (layout.query_vectors, ["lamp"], vectors[:1], "query"),
    ):
        write_vectors(shard(pattern, number=0, total=1), names, rows, id_column=column)


def test_a_kind_is_one_file_and_one_line_of_gin(tmp_path, signs):
    vectors = np.array([[1, -2, 0], [-1, 3, 0], [2, 2, 1], [-4, -4, 2]], "f4")
    layout = Layout(model_dir=tmp_path / "run")
    write_run(layout, vectors)
    (tmp_path / "own.gin").write_text(GIN)
    configuration.parse(
        files=[str(tmp_path / "own.gin")],
        bindings=["\n".join([*ONE_LINE, "signs.Signs.scale = 0.5"])],
    )
    bound = configuration.bound(quantize.run)
    assert bound["config"].kind == signs.Signs(scale=0.5)
    assert isinstance(bound["config"].kind, Kind)

    quantize.run(layout, seed=0, **bound)
    table = read_sids(layout.sids)
    np.testing.assert_array_equal(table.sids, vectors[:, :2] > 0)
    assert json.loads(layout.health.read_text())["sid_version"] == table.version

    read = quantizers.load(layout.quantizer)
    assert (read.config, read.version) == (bound["config"], table.version)
    assign.run(layout, vectors=VectorFiles(pattern=str(layout.item_vectors)))
    np.testing.assert_array_equal(read_sids(layout.assigned).sids, table.sids)

    later = Layout(model_dir=tmp_path / "later")
    write_run(later, -vectors)
    quantize.run(later, seed=0, **bound, previous=layout)
    assert read_sids(later.sids).version == table.version


def test_a_file_needs_its_kind_to_be_imported(tmp_path, signs):
    from dsirm_jax.quantizer import QuantizerConfig, Training, TrainingItems, save, train

    fitted = train(
        config=QuantizerConfig(codebook_sizes=(2, 2), kind=signs.Signs(scale=1.0)),
        items=TrainingItems(items=np.eye(3, dtype="f4")),
        training=Training(epochs=0, batch_size=1, learning_rate=0.0),
    )
    save(tmp_path / "q.safetensors", fitted)
    hidden = sys.modules.pop("signs")
    try:
        with pytest.raises(InputError, match=r"q.safetensors: signs.Signs is needed, .* import "):
            quantizers.load(tmp_path / "q.safetensors")
    finally:
        sys.modules["signs"] = hidden


@pytest.mark.parametrize(
    "kind", [RqVae(latent_dim=2, hidden_dim=2), ResidualKmeans(), HierarchicalKmeans()]
)
def test_the_kinds_of_the_package_are_kinds(kind):
    assert isinstance(kind, Kind)
    assert isinstance(hash(kind.module(dim=3)), int)
