import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.assign import assign_vectors
from dsirm_jax.quantizer.codebooks import Upkeep
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.fitting import train
from dsirm_jax.quantizer.health import relative_error
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import HierarchicalKmeans
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.scaling import Scaling, scaling_of
from dsirm_jax.quantizer.training_items import TrainingItems
from dsirm_jax.training.settings import Training

KINDS = [
    pytest.param(RqVae(latent_dim=4, hidden_dim=8), id="rq_vae"),
    pytest.param(ResidualKmeans(), id="residual_kmeans"),
    pytest.param(HierarchicalKmeans(), id="hierarchical_kmeans"),
]


def clusters(*, rows=300, dim=8, seed=0):
    """Returns vectors in multiples of 1/64, so that float32 holds them 4,000 away as well."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(12, dim))[rng.integers(0, 12, rows)]
    vectors += 0.3 * rng.normal(size=(rows, dim))
    return np.round(vectors * 64).astype(np.float32) / 64


def fit(vectors, kind, **more):
    pairs = np.stack([np.arange(20)] * 2, axis=1)
    return train(
        config=QuantizerConfig(codebook_sizes=(6, 6), kind=kind),
        items=TrainingItems(items=vectors, queries=vectors[:20], pairs=pairs),
        upkeep=Upkeep(init_rows=300, init_iterations=5),
        training=Training(epochs=2, batch_size=64, learning_rate=1e-3),
        devices=jax.devices()[:1],
        **more,
    )


def scaling(vectors, seed=0):
    return scaling_of(TrainingItems(items=vectors), seed=seed)


@pytest.mark.parametrize("kind", KINDS)
def test_sids_do_not_depend_on_the_unit_of_the_vectors_nor_on_their_origin(kind):
    vectors = clusters()
    changes = {
        "small": lambda x: x * np.float32(2.0**-14),
        "far": lambda x: x + np.float32(4000),
    }
    plain = fit(vectors, kind)
    assert plain.scaling is None
    lost = relative_error(assign_vectors(fitted=plain, vectors=vectors).errors, vectors=vectors)
    codes = {}
    for name, change in changes.items():
        fitted = fit(change(vectors), kind)
        found = assign_vectors(fitted=fitted, vectors=change(vectors))
        codes[name] = found.codes
        share = relative_error(found.errors, vectors=change(vectors))
        assert share == pytest.approx(lost, rel=0.2), name
        # Queries go the same way.
        few = assign_vectors(fitted=fitted, vectors=change(vectors)[:5]).codes
        np.testing.assert_array_equal(few, found.codes[:5])
    np.testing.assert_array_equal(codes["far"], codes["small"])


def test_vectors_of_length_one_and_of_common_encoders_stay_as_they_are():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(500, 64)).astype("f4")
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    leaning = unit + 2 * unit[:1]  # cosines of some .8, as E5 has
    leaning /= np.linalg.norm(leaning, axis=1, keepdims=True)
    assert np.mean(leaning @ leaning.T) > 0.75
    for vectors in (unit, leaning, 10 * unit, rng.normal(size=(500, 768)).astype("f4")):
        assert scaling(vectors) is None
    for vectors in (unit / 1000, unit * 1000, unit + 10, leaning * 1e-8):
        assert scaling(vectors) is not None


def test_few_huge_vectors_and_one_that_many_share_do_not_decide():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1000, 8)).astype("f4")
    vectors[:3] *= 1e6
    assert scaling(vectors) is None
    beyond = 1e-4 * vectors
    beyond[4] = 1e30  # it has no part in the scaling, and is refused
    assert scaling(beyond).spread == pytest.approx(1e-4 * np.sqrt(8), rel=0.1)
    with pytest.raises(FloatingPointError, match="item_index 4 are not finite"):
        fit(beyond, HierarchicalKmeans())
    many = np.concatenate([np.zeros((3000, 8), "f4"), 1e-4 * vectors])
    found = scaling(many)
    assert found.spread == pytest.approx(1e-4 * np.sqrt(8), rel=0.1)
    assert scaling(np.full((50, 8), 1e4, "f4")) is None  # one vector alone
    assert scaling(np.full((2, 8), np.nan, "f4")) is None  # refused when it is learnt


@settings(deadline=None, max_examples=30)
@given(
    offset=st.sampled_from([0.0, 1e3, 1e8]),
    power=st.integers(-20, 20),
    seed=st.integers(0, 100),
)
def test_scaled_vectors_lie_around_the_origin_at_distance_one(offset, power, seed):
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(200, 5)) + offset) * 2.0**power  # float64
    found = scaling(vectors)
    if found is None:
        return
    scaled = found.apply(vectors)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(np.median(scaled, axis=0), 0, atol=1e-5)
    squares = np.sort(np.sum(scaled.astype(float) ** 2, axis=1))[:190]
    assert squares.mean() == pytest.approx(1, rel=1e-3)


def test_a_file_keeps_the_scaling_and_the_version_depends_on_it(tmp_path):
    fitted = fit(clusters() + np.float32(1000), HierarchicalKmeans())
    path = tmp_path / "q.safetensors"
    quantizers.save(path, fitted)
    read = quantizers.load(path)
    assert read.version == fitted.version
    np.testing.assert_array_equal(read.scaling.centre, fitted.scaling.centre)
    assert read.scaling.spread == fitted.scaling.spread
    without = dataclasses.replace(fitted, scaling=None)
    moved = Scaling(centre=fitted.scaling.centre + 1, spread=fitted.scaling.spread)
    versions = {
        each.version for each in (fitted, without, dataclasses.replace(fitted, scaling=moved))
    }
    assert len(versions) == 3


def test_a_quantizer_without_scaling_is_hashed_and_written_as_ever(tmp_path):
    fitted = fit(clusters(), HierarchicalKmeans())
    arrays = [book.codewords for book in fitted.codebooks]
    parts = [arrays[0], arrays[1], fitted.codebooks[1].first]
    expected = quantizers.version_of("1", parts)
    assert (fitted.scaling, fitted.version) == (None, expected)
    quantizers.save(tmp_path / "q.safetensors", fitted)
    assert b"scaling" not in (tmp_path / "q.safetensors").read_bytes()


def test_what_goes_on_from_a_quantizer_keeps_its_scaling():
    far = clusters() + np.float32(1000)
    before = fit(far, ResidualKmeans())
    after = fit(clusters(seed=1) + np.float32(2000), ResidualKmeans(), start=before)
    assert after.scaling is before.scaling
