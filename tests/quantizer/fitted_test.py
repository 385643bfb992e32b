import dataclasses

import jax
import numpy as np
import pytest

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.model import Branches, Codebook, QuantizerConfig, autoencoder


def make(kind="rq_vae"):
    config = QuantizerConfig(
        codebook_sizes=(9, 3), latent_dim=4, hidden_dim=5, pin_depth=1, kind=kind, beams=2
    )
    rng = np.random.default_rng(0)
    words = rng.normal(size=(2, 4)).astype("f4")
    book = Codebook(codewords=words, count=np.ones(2, "f4"), total=2 * words)
    children = rng.normal(size=(4, 4)).astype("f4")
    if kind == "hierarchical_kmeans":
        second = Branches(codewords=children, first=np.array([0, 1, 4], "i4"), size=3)
        params = {}
    else:
        second = Codebook(codewords=children[:3], count=np.ones(3, "f4"), total=children[:3])
        params = autoencoder(config, dim=6).init(jax.random.key(0), np.zeros((1, 6), "f4"))
    return quantizers.FittedQuantizer(
        config=config, dim=6, params=params, codebooks=(book, second), names=("shoes", "böots")
    )


@pytest.mark.parametrize("kind", ["rq_vae", "hierarchical_kmeans"])
def test_a_file_gives_the_quantizer_back(tmp_path, kind):
    before = make(kind)
    quantizers.save(tmp_path / "q.safetensors", before)
    after = quantizers.load(tmp_path / "q.safetensors")
    assert (after.config, after.dim, after.names) == (before.config, 6, ("shoes", "böots"))
    assert after.sizes == before.sizes == (2, 3)
    assert after.version == before.version
    assert jax.tree.structure(after.codebooks) == jax.tree.structure(before.codebooks)
    jax.tree.map(
        np.testing.assert_array_equal,
        (before.params, before.codebooks),
        (after.params, after.codebooks),
    )


def test_the_version_changes_with_all_that_decides_codes_and_nothing_else():
    before = make()
    first, second = before.codebooks
    config = before.config
    same = [
        {"codebooks": (first.replace(count=np.zeros(2), total=0 * first.total), second)},
        {"config": dataclasses.replace(config, bucket_cap=50)},
    ]
    others = [
        {"params": jax.tree.map(lambda array: array + 1, before.params)},
        {"codebooks": (first.replace(codewords=first.codewords + 1), second)},
        {"names": ("boots", "shoes")},
        {"config": dataclasses.replace(config, beams=1)},
    ]
    assert {dataclasses.replace(before, **change).version for change in same} == {before.version}
    versions = {dataclasses.replace(before, **change).version for change in others}
    assert len(versions | {before.version}) == 1 + len(others)
    tree = make("hierarchical_kmeans")
    moved = tree.codebooks[1].replace(first=np.array([0, 2, 4], "i4"))
    assert dataclasses.replace(tree, codebooks=(first, moved)).version != tree.version


def test_a_file_that_is_no_quantizer_is_named(tmp_path):
    path = tmp_path / "q.safetensors"
    with pytest.raises(InputError, match="q.safetensors: not a quantizer's file"):
        quantizers.load(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="not a quantizer's file"):
        quantizers.load(path)


def test_a_file_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "q.safetensors"
    quantizers.save(path, make())
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    with pytest.raises(InputError, match="not what was written"):
        quantizers.load(path)
