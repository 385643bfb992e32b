"""A head of a user's own: one module, one line of gin; saved, scored, exported, run as a stage."""

from __future__ import annotations

import sys

import gin
import jax
import numpy as np
import pytest
from scipy.special import expit

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance.heads.head import Head
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import score
from dsirm_jax.relevance.train import train
from dsirm_jax.run import configuration
from dsirm_jax.serving.formats import stablehlo
from dsirm_jax.stages import relevance
from tests.stages.prepared import QUERY, SPLITS, prepare, truth

MODULE = '''
import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestMean:
    """How much nearer a pair is to the mean of relevant ones than to that of the others."""

    sharpness: float
    loss: str = "binary"

    def params_like(self, *, features, grades):
        return {"means": jax.ShapeDtypeStruct((2, features), np.float32)}

    def fit(self, pairs, fitting):
        sides = (pairs.features[pairs.labels == side] for side in (False, True))
        return {"means": np.stack([side.mean(axis=0) for side in sides])}

    def outputs(self, params, features, *, grades):
        far = ((features[:, None] - params["means"]) ** 2).sum(axis=-1)
        return self.sharpness * (far[:, :1] - far[:, 1:])

    def step_programs(self, training, **shapes):
        return ()
'''
GIN = """
from __gin__ import dynamic_registration

import shop_head
from dsirm_jax.relevance import calibration
from dsirm_jax.relevance.heads import blend
from dsirm_jax.relevance.heads import linear
from dsirm_jax.stages import relevance
from dsirm_jax.training import settings

relevance.run:
  rungs = {'no_sid': ('dense',), 'full': ('dense', 'prefix')}
  training = @settings.Training()
  calibration = @calibration.Calibration()
settings.Training:
  epochs = 1
  batch_size = 64
  learning_rate = 0.01
calibration.Calibration.share = 0.0
shop_head.NearestMean.sharpness = 0.5
"""
IN_A_BLEND = """
relevance.run.head = @blend.Blend()
blend.Blend.heads = (@linear.Linear(), @shop_head.NearestMean())
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """A module on the path that only a gin file imports."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "shop_head.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    del sys.modules["shop_head"]
    gin.clear_config(clear_constants=True)


def bound(folder, binding):
    """Returns what gin binds to the stage."""
    (folder / "run.gin").write_text(GIN + binding)
    configuration.parse(files=[str(folder / "run.gin")], bindings=[])
    return configuration.bound(relevance.run)


def log_odds(features, relevant, *, taught):
    """Returns what `NearestMean` of sharpness .5 makes of features, in float64."""
    values = features.astype(float)
    means = [values[taught & (relevant == side)].mean(axis=0) for side in (False, True)]
    far = [((values - mean) ** 2).sum(axis=1) for mean in means]
    return 0.5 * (far[0] - far[1])


def table(features):
    return FeatureTable(
        names=("cosine", "one", "two"), groups=("dense", "prefix", "prefix"), values=features
    )


def test_a_head_of_ones_own_is_fitted_by_the_stage_saved_and_exported(tmp_path, module):
    arguments = bound(tmp_path, "relevance.run.head = @shop_head.NearestMean()\n")
    assert isinstance(arguments["head"], Head)
    features, relevant = truth()
    layout = prepare(tmp_path / "run", relevant=relevant, features=features)
    relevance.run(layout, seed=0, sid_rungs=(), halves=(layout,), **arguments)
    fitted = heads.load(layout.head("full"))
    assert heads.settings_to_json(fitted.head) == {
        "kind": "shop_head.NearestMean",
        "sharpness": 0.5,
        "loss": "binary",
    }
    expected = expit(log_odds(features, relevant, taught=SPLITS[QUERY] == "head"))
    probabilities = score(fitted, table(features))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    program = stablehlo.head_program(fitted)
    called = jax.export.deserialize(bytearray(program.serialize())).call
    exported = called(heads.plain_params(fitted), features[:7])
    np.testing.assert_allclose(exported, probabilities[:7], atol=1e-6)
    own = sys.modules.pop("shop_head")  # as in a process that has read no gin file
    with pytest.raises(InputError, match=r"import it in a gin file \(`import shop_head`\)"):
        heads.load(layout.head("full"))
    sys.modules["shop_head"] = own


def test_a_blend_holds_a_head_of_ones_own(tmp_path, module):
    arguments = bound(tmp_path, IN_A_BLEND)
    features, relevant = truth()
    fitted = train(
        name="relevance",
        features=table(features),
        labels=relevant,
        gains=relevant * 1.0,
        weights=np.ones(len(relevant)),
        queries=QUERY.astype(str),
        directory=tmp_path,
        seed=0,
        **{name: arguments[name] for name in ("head", "training", "calibration")},
    )
    heads.save(tmp_path / "head.safetensors", fitted)
    loaded = heads.load(tmp_path / "head.safetensors")
    linear, own = loaded.head.heads
    assert (type(linear).__name__, type(own).__name__) == ("Linear", "NearestMean")
    one = np.asarray(linear.outputs(loaded.params.parts[0], features, grades=2))[:, 0]
    other = log_odds(features, relevant, taught=np.ones(len(relevant), bool))
    found = score(loaded, table(features))
    np.testing.assert_allclose(found, expit((one + other) / 2), atol=1e-5)
