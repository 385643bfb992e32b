from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.calibration import Curve, divided_by
from dsirm_jax.relevance.fitted import FittedHead
from dsirm_jax.relevance.heads.blend import Blend
from dsirm_jax.relevance.heads.lambda_mart import LambdaMart
from dsirm_jax.relevance.heads.linear import Linear
from dsirm_jax.relevance.heads.mlp import Mlp, MlpParams, initial_params
from dsirm_jax.relevance.heads.trees import BoostedTrees
from dsirm_jax.relevance.lists import list_names
from dsirm_jax.relevance.schema import FeatureTable
from dsirm_jax.relevance.score import grade_probabilities, score
from dsirm_jax.serving.formats import onnx_head
from tests.relevance.heads.labelled import FITTING, labelled

NAMES = ("a", "b", "c", "d")
BENT = Curve(
    np.array([-3, -2, -0.5, 0, 0.25, 1, 2], np.float32),
    np.array([-4, -1.5, -1, 0.125, 0.5, 2, 2.5], np.float32),
)
GROWN = {"trees": 20, "leaves": 7, "min_leaf": 10, "learning_rate": 0.2, "l2": 1.0, "columns": 0.7}


def values(rows, *, seed, columns=4):
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(rows, columns)).astype(np.float32)
    found[:, 1] = np.round(found[:, 1] * 2)  # ties
    found[:, 2] = np.exp(3 * found[:, 2])
    return found


@dataclasses.dataclass(frozen=True)
class RandomMlp(Mlp):
    """A network that has not been trained, and whose last layer is not zero."""

    def fit(self, pairs, fitting):
        params = initial_params(self, pairs.features, grades=len(pairs.relevant), seed=0)
        generator = np.random.default_rng(1)
        network = {
            layer: {
                name: generator.normal(size=part.shape, scale=0.5).astype(np.float32)
                for name, part in parts.items()
            }
            for layer, parts in params.network.items()
        }
        return MlpParams(network=network, mean=params.mean, scale=params.scale)


def fitted(head, *, curve=BENT, grades=4, in_lists=()):
    columns = len(NAMES) + 2 * len(in_lists)
    features = values(1200, seed=0, columns=columns)
    quality = features[:, 0] - 0.2 * features[:, 1] * features[:, 3]
    ends = np.quantile(quality, np.arange(1, grades) / grades)
    pairs = labelled(features, np.digitize(quality, ends), grades=grades)
    fitting = FITTING._replace(columns=NAMES + list_names(in_lists))
    return FittedHead(
        head=head,
        features=NAMES,
        gains=tuple(np.linspace(0, 1, grades).tolist()),
        relevant=pairs.relevant,
        params=head.fit(pairs, fitting),
        curve=curve,
        in_lists=in_lists,
    )


def table(rows):
    return FeatureTable(names=NAMES, groups=("",) * 4, values=rows)


def answers(head, features, *, lists=None):
    model = onnx_head.onnx_model(head)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    given = {"features": features} | ({} if lists is None else {"lists": lists})
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


HEADS = {
    "linear": Linear(l2=1.0),
    "monotone linear": Linear(l2=1.0, rising=("a",), falling=("b",)),
    "linear that ranks": Linear(l2=1.0, loss="ranking", pairwise=1.0),
    "graded linear": Linear(l2=1.0, loss="graded"),
    "linear of two knots": Linear(l2=1.0, knots=2),
    "trees": BoostedTrees(**GROWN),
    "graded trees": BoostedTrees(**GROWN, loss="graded"),
    "monotone trees": BoostedTrees(**GROWN, rising=("a",)),
    "stumps": BoostedTrees(**GROWN | {"leaves": 2}),
    "LambdaMART": LambdaMart(**GROWN),
    "LambdaMART from another": LambdaMart(**GROWN, start=Linear(l2=1.0)),
    "network": RandomMlp(hidden=(16, 8)),
    "graded network": RandomMlp(hidden=(16,), loss="graded"),
    "blend": Blend(heads=(BoostedTrees(**GROWN), Linear(l2=1.0), RandomMlp(hidden=(8,)))),
    "graded blend": Blend(
        heads=(BoostedTrees(**GROWN, loss="graded"), Linear(l2=1.0, loss="graded"))
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_onnx_runtime_gives_the_scorers_probabilities(name):
    head = fitted(HEADS[name])
    features = values(10_000, seed=3)
    features[:8] = [[1e30], [-1e30], [3e38], [-3e38], [0], [-0.0], [1e-35], [-1e-35]]
    thresholds = np.unique(np.concatenate([values(200, seed=0).ravel(), [0.5, -0.5]]))
    features[100:300] = np.resize(thresholds, (200, 4))  # values that were trained on
    expected = score(head, table(features))
    found = answers(head, features)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(found["probability"], expected, atol=1e-5)
    assert ("grades" in found) == name.startswith("graded")
    if "grades" in found:
        by_grade = grade_probabilities(head, table(features))
        np.testing.assert_allclose(found["grades"], by_grade, atol=1e-5)


@pytest.mark.parametrize("grades", [2, 3])
def test_grades_that_are_told_apart_add_up(grades):
    head = fitted(Linear(l2=1.0, loss="graded"), grades=grades)
    features = values(500, seed=3)
    found = answers(head, features)
    by_grade = grade_probabilities(head, table(features))
    np.testing.assert_allclose(found["grades"], by_grade, atol=1e-6)
    of_relevant = found["grades"][:, np.array(head.relevant)].sum(axis=1)
    np.testing.assert_allclose(of_relevant, found["probability"], atol=1e-6)


@pytest.mark.parametrize("of_list", [1, 7, 2500])
def test_a_head_compares_the_pairs_of_a_list(of_list):
    head = fitted(HEADS["trees"], in_lists=("a", "c"))
    features = values(10_000, seed=3)
    features[:50, 0] = features[50:100, 0] * np.float32(1 + 1e-7)  # alike but for rounding
    lists = np.random.default_rng(0).permutation(np.arange(10_000) // of_list)
    expected = score(head, table(features), lists=lists)
    found = answers(head, features, lists=lists)["probability"]
    apart = np.abs(found - expected) > 1e-5
    # A mean that is rounded otherwise may lie on the other side of a threshold.
    assert apart.mean() < 2e-3
    assert np.ptp(expected) > 0.3


def test_ranks_and_centred_values_worked_out_by_hand():
    head = fitted(Linear(l2=1.0), in_lists=("a",))
    features = np.zeros((5, 4), np.float32)
    features[:, 0] = [1, 4, 1, 7, 2]
    model = onnx_head.onnx_model(head)
    (joined,) = (
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Concat" and node.input[0] == "features"
    )
    info = onnx.helper.make_tensor_value_info(joined, onnx.TensorProto.FLOAT, ["pair", 6])
    model.graph.output.append(info)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    lists = np.array([3, 0, 3, 0, 3])
    (found,) = session.run([joined], {"features": features, "lists": lists})
    third = np.float32(1 / 3)
    np.testing.assert_allclose(found[:, 4], [-third, -1.5, -third, 1.5, 2 * third], atol=1e-6)
    np.testing.assert_allclose(found[:, 5], [1 / 3, 0.25, 1 / 3, 0.75, 5 / 6], atol=1e-6)


def test_the_metadata_says_what_the_columns_are():
    head = fitted(Linear(l2=1.0), in_lists=("c",))
    model = onnx_head.onnx_model(head)
    described = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert described == {
        "features": ["a", "b", "c", "d"],
        "in_lists": ["c"],
        "gains": list(head.gains),
        "relevant": [False, False, True, True],
        "version": head.version,
    }
    assert model.SerializeToString() == onnx_head.onnx_model(head).SerializeToString()


def test_trees_without_a_split_and_a_head_of_another_kind(tmp_path, caplog):
    nothing = labelled(np.zeros((40, 4)), np.arange(40) % 2, grades=2)
    trees = BoostedTrees(**GROWN)
    head = dataclasses.replace(
        fitted(trees, grades=2, curve=divided_by(2.0)), params=trees.fit(nothing, FITTING)
    )
    features = values(3, seed=0)
    found = answers(head, features)["probability"]
    np.testing.assert_allclose(found, score(head, table(features)), atol=1e-6)

    class Other:
        loss = "binary"

    other = dataclasses.replace(head, head=Other())
    with pytest.raises(InputError, match=r"Other has no ONNX form; give it the method OnnxHead"):
        onnx_head.onnx_model(other)
    onnx_head.write_heads(tmp_path, {"full": head, "own": other})
    assert [path.name for path in tmp_path.iterdir()] == ["head-full.onnx"]
    assert "the bundle has no head-own.onnx: Other has no ONNX form" in caplog.text
    read = onnx_head.read_head(tmp_path / "head-full.onnx")
    np.testing.assert_array_equal(read(features, np.arange(3)), found)
    (tmp_path / "head-full.onnx").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"head-full.onnx: ONNX Runtime cannot read it \("):
        onnx_head.read_head(tmp_path / "head-full.onnx")
