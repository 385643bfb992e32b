from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import CLS, MEAN, NO_PIECE, Bert, Projection

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def golden():
    return safetensors.numpy.load_file(GOLDEN / "bert.safetensors")


@pytest.fixture(scope="module")
def encoder():
    return hugging_face.read_folder(GOLDEN / "bert")


def test_states_are_those_of_transformers(golden, encoder):
    bert = Bert(encoder.module.config)
    states = bert.apply({"params": encoder.params["params"]["bert"]}, golden["pieces"])
    present = golden["pieces"] != NO_PIECE
    np.testing.assert_allclose(states[present], golden["states"][present], atol=1e-5)


@pytest.mark.parametrize("pooling", [MEAN, CLS])
def test_vectors_are_those_of_transformers(golden, encoder, pooling):
    module = encoder.module.clone(pooling=pooling)
    vectors = module.apply(encoder.params, golden["pieces"])
    np.testing.assert_allclose(vectors, golden[pooling], atol=1e-5)


def test_padding_changes_nothing(golden, encoder):
    longer = np.pad(golden["pieces"], ((0, 0), (0, 5)), constant_values=NO_PIECE)
    short, long = (encoder.module.apply(encoder.params, of) for of in (golden["pieces"], longer))
    np.testing.assert_allclose(short, long, atol=1e-6)


def test_bfloat16_is_near_and_gives_float32(golden, encoder):
    vectors = encoder.module.clone(dtype="bfloat16").apply(encoder.params, golden["pieces"])
    assert vectors.dtype == jnp.float32
    assert np.all(np.sum(vectors * golden["mean"], axis=-1) > 0.99)


def test_a_projection_starts_as_the_first_coordinates():
    vectors = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    projection = Projection(2)
    found = projection.apply(projection.init(jax.random.key(0), vectors), vectors)
    expected = vectors[:, :2] / np.linalg.norm(vectors[:, :2], axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
