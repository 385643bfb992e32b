import dataclasses
import hashlib

import jax
import numpy as np
import pyarrow as pa
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from dsirm_jax.generator import fitted as generators
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import codes, trie

CONFIG = T5Config(
    text_vocab_size=30,
    sid_sizes=(3, 4),
    emb_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    mlp_activations=("relu",),
)
FITTED = generators.FittedGenerator(
    config=CONFIG,
    params={"a": {"kernel": np.arange(6, dtype="f4").reshape(2, 3)}, "b": np.ones(2, "f4")},
    max_pieces=7,
    sid_version="abc",
)


def test_a_file_gives_the_generator_back(tmp_path):
    path = tmp_path / "generator.safetensors"
    generators.save(path, FITTED)
    after = generators.load(path)
    assert (after.config, after.max_pieces, after.sid_version) == (CONFIG, 7, "abc")
    assert after.version == FITTED.version
    jax.tree.map(np.testing.assert_array_equal, after.params, FITTED.params)


def test_a_prompt_is_in_the_file_and_decides_the_version(tmp_path):
    path = tmp_path / "generator.safetensors"
    prompted = dataclasses.replace(FITTED, prompt="Query: {query}\nProduct code:")
    generators.save(path, prompted)
    after = generators.load(path)
    assert after.prompt == prompted.prompt
    assert after.version == prompted.version != FITTED.version


def test_a_file_is_what_it_was_when_t5_was_the_only_architecture(tmp_path):
    described = (
        '{"emb_dim": 8, "num_heads": 2, "head_dim": 4, "mlp_dim": 8, "num_encoder_layers": 1, '
        '"num_decoder_layers": 1, "mlp_activations": ["relu"], "logits_via_embedding": false, '
        '"dropout_rate": 0.1, "dtype": "float32", "remat": false, "scan_layers": false, '
        '"text_vocab_size": 30, "sid_sizes": [3, 4]}'
    )
    kernel, b = np.arange(6, dtype="<f4"), np.ones(2, "<f4")
    hashed = f'[{described}, 7, "abc"]'.encode() + kernel.tobytes() + b.tobytes()
    version = hashlib.sha256(hashed).hexdigest()[:16]
    header = f'{{"config": {described}, "max_pieces": 7, "sid_version": "abc"'
    metadata = {"generator": f'{header}, "version": "{version}"}}'}
    path = tmp_path / "generator.safetensors"
    save_file({"a/kernel": kernel.reshape(2, 3), "b": b}, path, metadata=metadata)
    assert generators.load(path).config == CONFIG
    assert FITTED.version == version
    generators.save(tmp_path / "new.safetensors", FITTED)
    with safe_open(tmp_path / "new.safetensors", "np") as file:
        assert file.metadata() == metadata


def test_the_version_changes_with_all_that_decides_predictions():
    others = [
        {"params": FITTED.params | {"b": np.zeros(2, "f4")}},
        {"max_pieces": 8},
        {"sid_version": "abd"},
        {"config": dataclasses.replace(CONFIG, mlp_activations=("gelu",))},
    ]
    versions = {dataclasses.replace(FITTED, **change).version for change in others}
    assert len(versions | {FITTED.version}) == 5


def test_a_file_that_is_no_generator_or_not_what_it_was_is_named(tmp_path):
    path = tmp_path / "generator.safetensors"
    with pytest.raises(InputError, match="safetensors: not a generator's file"):
        generators.load(path)
    generators.save(path, FITTED)
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    with pytest.raises(InputError, match="not what was written"):
        generators.load(path)


def test_a_generator_is_read_with_the_sids_that_it_writes_and_with_no_others(tmp_path):
    path, sids = tmp_path / "generator.safetensors", tmp_path / "sids.parquet"
    generators.save(path, FITTED)
    given = np.array([[2, 0], [0, 3], [2, 1]], np.int32)
    for version in ("abc", "abd"):
        with codes.sid_writer(sids, version=version) as write:
            write(pa.array(["a", "b", "c"]), given, np.zeros((3, 2)), np.zeros(3))
        if version == "abc":
            _, existing, found = generators.load_with_sids(path, sids=sids)
            np.testing.assert_array_equal(found, given)
            items = trie.items_below(existing, trie.postings(given, sizes=(3, 4)), (2,))
            assert sorted(items) == [0, 2]
    with pytest.raises(InputError, match="SIDs of version abc, but those of .* are abd"):
        generators.load_with_sids(path, sids=sids)
