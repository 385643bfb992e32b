from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.relevance.calibration import divided_by
from dsirm_jax.relevance.heads.blend import Blend, BlendParams
from dsirm_jax.relevance.heads.linear import Linear, LinearParams
from dsirm_jax.relevance.heads.mlp import Mlp, MlpParams
from dsirm_jax.relevance.heads.tree_params import TreeParams
from dsirm_jax.relevance.heads.trees import BoostedTrees

HEADER = {
    "kind": "Blend",
    "heads": [
        {"kind": "Linear", "l2": 1.0, "knots": 2, "loss": "binary"},
        {
            "kind": "BoostedTrees",
            "trees": 1,
            "learning_rate": 0.5,
            "leaves": 2,
            "min_leaf": 1,
            "l2": 0.0,
            "columns": 1.0,
            "loss": "binary",
        },
        {"kind": "Mlp", "hidden": [2], "loss": "binary", "listwise": 0.0},
    ],
}


def blend():
    """A head of every kind with numbers by hand, whose file is that of dsirm-jax 0.2."""

    def numbers(*shape, start=0.0):
        return (start + np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)

    one = Linear(l2=1.0, knots=2)
    two = BoostedTrees(trees=1, learning_rate=0.5, leaves=2, min_leaf=1, l2=0.0, columns=1.0)
    parts = (
        LinearParams(
            knots=numbers(3, 2),
            scores=numbers(3, 2, start=-2),
            weight=numbers(1, 3, start=1),
            bias=numbers(1, start=0.5),
        ),
        TreeParams(
            feature=np.array([[[1]]], np.int32),
            threshold=np.array([[[8.0]]], np.float32),
            kept=np.array([[[0xFFFFFFFE]]], np.uint32),
            value=np.array([[[-1.0, 2.0]]], np.float32),
            baseline=np.zeros(1, np.float32),
        ),
        MlpParams(
            network={
                "Dense_0": {"kernel": numbers(3, 2), "bias": numbers(2)},
                "Dense_1": {"kernel": numbers(2, 1), "bias": numbers(1)},
            },
            mean=numbers(3),
            scale=numbers(3, start=1),
        ),
    )
    return heads.FittedHead(
        head=Blend(heads=(one, two, Mlp(hidden=(2,)))),
        features=("a", "b", "c"),
        gains=(0.0, 1.0),
        relevant=(False, True),
        params=BlendParams(parts=parts),
        curve=divided_by(2.0),
    )


def header(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata()


def rewritten(path, **changes):
    """Writes a head's file anew, with another description of the head."""
    metadata = header(path)
    [key] = [name for name, value in metadata.items() if '"head"' in value]
    description = json.loads(metadata[key])
    inner = description if "head" in description else description["description"]
    inner["head"] = {**inner["head"], **changes}
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays, path, metadata | {key: json.dumps(description)})


def test_files_and_versions_are_those_of_before(tmp_path):
    fitted = blend()
    assert fitted.version == "d8ad93bb0da3c5ae"
    assert json.loads(json.dumps(heads.settings_to_json(fitted.head))) == HEADER
    assert heads.settings_from_json(HEADER) == fitted.head
    heads.save(tmp_path / "head.safetensors", fitted)
    assert set(safetensors.numpy.load_file(tmp_path / "head.safetensors")) == {
        *(f"params/parts/0/{name}" for name in ("knots", "scores", "weight", "bias")),
        *(f"params/parts/1/{name}" for name in ("feature", "threshold", "kept", "value")),
        "params/parts/1/baseline",
        *(
            f"params/parts/2/network/Dense_{n}/{name}"
            for n in (0, 1)
            for name in ("kernel", "bias")
        ),
        *("params/parts/2/mean", "params/parts/2/scale", "curve/knots", "curve/values"),
    }
    loaded = heads.load(tmp_path / "head.safetensors")
    assert (loaded.version, loaded.head) == (fitted.version, fitted.head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"kind": "Forest"}, "there is no Forest in dsirm_jax.relevance.heads", id="unknown head"
        ),
        pytest.param(
            {"kind": "Network"}, "Network is no frozen dataclass", id="class that is no head"
        ),
        pytest.param(
            {"kind": "subprocess.Popen"},
            "subprocess.Popen is no frozen dataclass",
            id="class of another package",
        ),
        pytest.param(
            {"kind": "nowhere.Head"},
            "nothing has imported nowhere",
            id="class of an unknown module",
        ),
        pytest.param(
            {"depth": 3},
            "is not one that its class can hold by now .*depth.*run `dsirm relevance`",
            id="unknown setting",
        ),
        pytest.param(
            {"heads": [HEADER["heads"][0]] * 3},
            "is not one that its class can hold by now",
            id="heads of another kind",
        ),
        pytest.param({"heads": []}, "gin binding Blend.heads is", id="no heads"),
    ],
)
def test_a_file_that_names_something_else_is_refused(tmp_path, changes, message):
    path = tmp_path / "head.safetensors"
    heads.save(path, blend())
    rewritten(path, **changes)
    with pytest.raises(InputError, match=message):
        heads.load(path)


def test_another_setting_is_another_version(tmp_path):
    path = tmp_path / "head.safetensors"
    heads.save(path, blend())
    part = HEADER["heads"][0] | {"l2": 2.0}
    rewritten(path, heads=[part, *HEADER["heads"][1:]])
    with pytest.raises(InputError, match="its contents are not what was written"):
        heads.load(path)


def test_other_parameters_in_the_place_of_a_heads_own():
    fitted = blend()
    plain = heads.plain_params(fitted)
    plain["params"]["parts"]["0"]["bias"] = np.array([7], np.float32)
    other = heads.with_params(fitted, plain)
    assert other.params.parts[0].bias.tolist() == [7]
    assert fitted.params.parts[0].bias.tolist() == [0.5]
    again = heads.with_params(other, heads.plain_params(fitted))
    assert again.version == fitted.version != dataclasses.replace(fitted, gains=(0, 2)).version
