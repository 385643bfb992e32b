"""The models that benchmarks measure are those that runs have."""

import dataclasses
from pathlib import Path

import pytest

from dsirm_jax.run import configuration
from dsirm_jax.stages import generate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("size", ["small", "base"])
def test_generators_have_the_shape_and_settings_of_their_gin_files(size, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import shapes

    files = ["gin/runs/demo.gin", f"gin/models/t5_{size}.gin"]
    configuration.parse(files=files, bindings=["MODEL_DIR = 'out'"])
    bound = configuration.bound(generate.run)["config"]
    measured = getattr(shapes, f"T5_{size.upper()}")
    assert measured == dataclasses.replace(bound, dropout_rate=measured.dropout_rate)
