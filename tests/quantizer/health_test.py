import json

import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import health
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.losses import QuantizerObjective
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
