import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer import fitted as quantizers
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.hierarchical_kmeans import BranchingCodebook, HierarchicalKmeans
from dsirm_jax.quantizer.kinds.residual_kmeans import ResidualKmeans
from dsirm_jax.quantizer.kinds.rq_vae import RqVae
from dsirm_jax.quantizer.model import Codebook

RQ_VAE = RqVae(latent_dim=4, hidden_dim=5)


def make(kind=RQ_VAE):
    config = QuantizerConfig(codebook_sizes=(9, 3), pin_depth=1, kind=kind, beams=2)
    rng = np.random.default_rng(0)
    words = rng.normal(size=(2, 4)).astype("f4")
    book = Codebook(codewords=words, count=np.ones(2, "f4"), total=2 * words)
    children = rng.normal(size=(4, 4)).astype("f4")
    if kind == HierarchicalKmeans():
        second = BranchingCodebook(codewords=children, first=np.array([0, 1, 4], "i4"), size=3)
        params = {}
    else:
        second = Codebook(codewords=children[:3], count=np.ones(3, "f4"), total=children[:3])
        params = kind.module(dim=6).init(jax.random.key(0), np.zeros((1, 6), "f4"))
    return quantizers.FittedQuantizer(
        config=config, dim=6, params=params, codebooks=(book, second), names=("shoes", "böots")
    )


@pytest.mark.parametrize("kind", [RQ_VAE, HierarchicalKmeans()], ids=["rq_vae", "tree"])
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
    tree = make(HierarchicalKmeans())
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


def rewritten(path, change):
    """Writes a quantizer's file again with a changed header."""
    with safetensors.safe_open(path, "np") as file:
        header = json.loads(file.metadata()["quantizer"])
    change(header)
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays, path, metadata={"quantizer": json.dumps(header)})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rq_vae", RQ_VAE),
        ("residual_kmeans", ResidualKmeans()),
        ("hierarchical_kmeans", HierarchicalKmeans()),
    ],
)
def test_a_file_of_an_earlier_version_holds_the_same_quantizer(tmp_path, name, kind):
    path, before = tmp_path / "q.safetensors", make(kind)
    if name == "residual_kmeans":
        before = dataclasses.replace(before, params={})
    quantizers.save(path, before)

    def as_it_was(header):
        header["config"] = {
            "codebook_sizes": [9, 3],
            "latent_dim": 4,
            "hidden_dim": 5,
            "pin_depth": 1,
            "title_language": None,
            "kind": name,
            "beams": 2,
            "bucket_cap": None,
        }

    rewritten(path, as_it_was)
    after = quantizers.load(path)
    assert (after.config, after.version) == (before.config, before.version)
    assert jax.tree.structure(after.codebooks) == jax.tree.structure(before.codebooks)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"class": "subprocess.Popen", "args": "true"},
            "subprocess.Popen in subprocess is no frozen dataclass",
        ),
        ({"class": "BatchStep"}, "BatchStep is no kind of quantizer"),
        ({"class": "Kmeans"}, "there is no Kmeans in dsirm_jax.quantizer.kinds"),
        ({"class": "RqVae", "latent_dim": 4}, "hidden_dim"),
        ({"class": "RqVae", "latent_dim": 0, "hidden_dim": 5}, "RqVae.latent_dim is 0"),
    ],
)
def test_a_file_makes_kinds_alone(tmp_path, settings, message):
    path = tmp_path / "q.safetensors"
    quantizers.save(path, make())
    rewritten(path, lambda header: header["config"].update(kind=settings))
    with pytest.raises(InputError, match=f"q.safetensors: .*{message}"):
        quantizers.load(path)
