"""The models that benchmarks measure are those that runs have."""

import dataclasses
from pathlib import Path

import pytest

from dsirm_jax.run import configuration
from dsirm_jax.stages import generate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import shapes

    return shapes


def bound(*more):
    configuration.parse(files=["gin/runs/demo.gin", *more], bindings=["MODEL_DIR = 'out'"])
    return configuration.bound(generate.run)["config"]


@pytest.mark.parametrize("size", ["small", "base"])
def test_generators_have_the_shape_and_settings_of_their_gin_files(size, shapes):
    measured, of_file = getattr(shapes, f"T5_{size.upper()}"), bound(f"gin/models/t5_{size}.gin")
    assert measured == dataclasses.replace(of_file, dropout_rate=measured.dropout_rate)


def test_the_smallest_and_the_language_model_have_those_of_theirs(shapes):
    assert bound() == shapes.T5_TINY
    assert bound("gin/models/smollm2_135m.gin") == shapes.SMOLLM2_135M
