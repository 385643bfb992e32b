import json

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import health
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitted import FittedQuantizer
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.losses import QuantizerObjective
from dsirm_jax.quantizer.model import Codebook
from dsirm_jax.run.layout import Layout
from dsirm_jax.stages import quantize
from dsirm_jax.training.settings import Training
from tests.quantizer.kinds.kind_test import write_run


def run_stage(layout, *, sizes, **more):
    quantize.run(
        layout,
        seed=0,
        config=QuantizerConfig(codebook_sizes=sizes, kind=HierarchicalKmeans()),
        objective=QuantizerObjective(),
        upkeep=Upkeep(init_iterations=1),
        training=Training(epochs=1, batch_size=8, learning_rate=1e-3),
        **more,
    )
    return json.loads(layout.health.read_text())


@pytest.mark.parametrize("sizes", [(3,), (1, 1)], ids=["one level", "one code"])
def test_a_catalogue_of_one_item_has_health_without_an_error(tmp_path, sizes):
    layout = Layout(model_dir=tmp_path)
    write_run(layout, np.array([[0.1, 0.2, 0.3]], "f4"))
    figures = run_stage(layout, sizes=sizes)
    assert (figures["items"], figures["unique_sids"], figures["collision_rate"]) == (1, 1, 0.0)
    assert figures["reconstruction_error"] is None
    assert figures["agreement"]["relevant"] == [None] * len(sizes)  # no head query is judged


def test_the_relative_error_is_a_share_of_the_variance():
    vectors = np.array([[0.0], [4.0]], "f4")  # variance 4
    assert health.relative_error(np.array([1.0, 3.0]), vectors=vectors) == 0.5
    assert health.relative_error(np.array([1.0]), vectors=vectors[:1]) is None


@pytest.mark.parametrize("stay", [-0.1, float("nan"), None])
def test_a_stay_that_cannot_be_is_refused(tmp_path, stay):
    with pytest.raises(InputError, match=r"gin binding quantize.run.stay is .*; bind a number of"):
        run_stage(Layout(model_dir=tmp_path), sizes=(2,), stay=stay)


def carried(sids, vectors, errors=None, *, sizes=(32, 32), names=()):
    """Calls `check_carried` for a quantizer of these sizes; errors are the vectors' spread."""
    books = tuple(
        Codebook(
            codewords=np.zeros((size, 2), "f4"), count=np.ones(size), total=np.zeros((size, 2))
        )
        for size in sizes
    )
    fitted = FittedQuantizer(
        config=QuantizerConfig(codebook_sizes=sizes, kind=HierarchicalKmeans()),
        dim=vectors.shape[1],
        params={},
        codebooks=books,
        names=names,
    )
    sids = np.asarray(sids, np.int32)
    errors = np.full(len(sids), np.var(vectors, axis=0).sum()) if errors is None else errors
    health.check_carried(sids, errors.astype("f4"), vectors=vectors, fitted=fitted, where="v")


def test_sids_that_tell_nothing_are_refused():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(256, 2)).astype("f4")
    same, first = np.zeros((256, 2)), np.stack([np.arange(256) % 32, np.zeros(256)], axis=1)
    with pytest.raises(InputError, match="^v: 1 SIDs of 256 items carry 0.00 of the 8.0 bits that"):
        carried(same, vectors)
    carried(first, vectors)  # 5 of 8 bits
    # Pinned first codes are not what the quantizer has learnt.
    with pytest.raises(InputError, match="32 SIDs .* carry 0.00 of the 3.0 bits .* within a first"):
        carried(first, vectors, names=tuple("abcdefghijklmnopqrstuvwxyzäöüßéè"))
    # What SIDs stand for is near: the vectors differ by noise.
    carried(same, vectors, np.full(256, 1e-3))
    few = np.repeat(vectors[:5], 50, axis=0)
    carried(np.zeros((250, 2)), few)
    carried(np.zeros((256, 2)), vectors, sizes=(2, 2))  # two bits of room
    carried(np.zeros((1, 2)), vectors[:1])
