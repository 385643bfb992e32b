import sys

import numpy as np
import pytest
import safetensors.numpy

from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.importing.models import import_model
from dsirm_jax.io.errors import InputError
from tests.generator.importing import tiny

gguf = pytest.importorskip("gguf", reason="needs the package gguf")


def imported(tmp_path, name, **changes):
    path = tiny.write_gguf(tmp_path / "model.gguf", name, **changes)
    lines = import_model(path, tmp_path / "out")
    return lines, safetensors.numpy.load_file(tmp_path / "out/model.safetensors")


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_tensors_are_those_of_the_hugging_face_folder(name, tmp_path):
    _, found = imported(tmp_path, name)
    golden = safetensors.numpy.load_file(tiny.GOLDEN / name / "model.safetensors")
    assert found.keys() == golden.keys()
    for tensor, array in golden.items():
        np.testing.assert_allclose(found[tensor], array, atol=1e-6, err_msg=tensor)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_settings_are_those_of_the_hugging_face_folder(name, tmp_path):
    imported(tmp_path, name)
    assert DecoderConfig.of_folder(tmp_path / "out") == DecoderConfig.of_folder(tiny.GOLDEN / name)


def test_settings_of_gemma_that_gguf_lacks(tmp_path):
    imported(tmp_path, "gemma3")
    assert DecoderConfig.of_folder(tmp_path / "out") == DecoderConfig(
        emb_dim=24,
        num_heads=6,
        num_kv_heads=2,
        head_dim=6,
        mlp_dim=28,
        num_layers=3,
        mlp_activation="gelu_tanh",
        qk_norm=True,
        post_norm=True,
        scales_embedding=True,
        query_scale=6**-0.5,
        rope_theta=1000.0,
        rope_factor=3.0,
        local_layers=(0, 1, 2),
        local_window=4,
        local_rope_theta=10_000.0,
        text_vocab_size=96,
    )


def test_its_tokenizer_is_that_of_the_folder(tmp_path):
    imported(tmp_path, "qwen2")
    ours = vocabularies.read(tmp_path / "out/vocabulary")
    theirs = vocabularies.read(tiny.hugging_face(tmp_path / "source"))
    texts = [*tiny.TEXTS, "<pad> blue", "red  shoes!"]
    assert ours.encode(texts) == theirs.encode(texts)
    assert (ours.size, ours.padding, ours.marks) == (theirs.size, theirs.padding, theirs.marks)


def test_a_file_says_its_licence(tmp_path):
    lines, _ = imported(tmp_path, "qwen2", general__license="apache-2.0")
    assert "licence: model.gguf says apache-2.0" in lines
    assert lines[0] == "family: Qwen 2 (qwen2)"


def widened(arrays):
    """Makes matrices of 32 columns, which blocks of quantised numbers have."""
    generator = np.random.default_rng(0)
    for name, array in arrays.items():
        shape = tuple({24: 32, 28: 64, 6: 8}.get(size, size) for size in array.shape)
        arrays[name] = generator.normal(size=shape).astype(np.float32)


def test_quantised_numbers_are_read_as_they_are(tmp_path):
    whole = {}

    def change(arrays):
        widened(arrays)
        whole.update(arrays)

    sizes = {"embedding_length": 32, "feed_forward_length": 64}
    lines, found = imported(tmp_path, "qwen2", quantised="Q8_0", change=change, **sizes)
    assert "F32, Q8_0" in lines[1]
    table = whole["token_embd.weight"]
    blocks = np.abs(table).reshape(96, -1, 32).max(axis=2).repeat(32, axis=1) / 127
    # Of each block of 32 the scale is rounded to 11 bits, the numbers to wholes of it.
    error = np.abs(found["model.embed_tokens.weight"] - table)
    assert np.all(error <= blocks * (0.5 + 127 * 2**-10)) and error.max() > 0
    np.testing.assert_array_equal(
        found["model.layers.0.self_attn.q_proj.bias"], whole["blk.0.attn_q.bias"]
    )


def drop(name):
    return lambda arrays: arrays.pop(name)


FAULTS = {
    "another family": ({"general.architecture": "mamba"}, "general.architecture is 'mamba'; give"),
    "one part of several": ({"split.count": 3}, "one of 3 parts; join them"),
    "no size": ({"block_count": None}, "qwen2.block_count is None; give a file with a whole"),
    "positions that turn some": ({"rope.dimension_count": 2}, "positions turn 2 of 6 dimensions"),
    "other positions": ({"rope.scaling.type": "yarn"}, "positions are stretched by 'yarn'"),
    "a tensor too few": (
        {"change": drop("blk.1.ffn_up.weight")},
        "model.gguf: the weights have no tensor model.layers.1.mlp.up_proj.weight",
    ),
    "a tensor too many": (
        {"change": lambda arrays: arrays.update({"blk.0.adapter.weight": np.ones(3, "f4")})},
        "model.gguf: the weights have a tensor blk.0.adapter.weight that no qwen2 has",
    ),
    "another shape": (
        {"change": lambda arrays: arrays.update({"output_norm.weight": np.ones(3, "f4")})},
        r"model.gguf: tensor model.norm.weight is \(3,\), but model.gguf says \(24,\)",
    ),
    "a number that is none": (
        {"change": lambda arrays: arrays["token_embd.weight"].fill(np.inf)},
        "model.gguf: tensor model.embed_tokens.weight has 2304 numbers that are not finite",
    ),
    "another tokenizer": (
        {"tokenizer.ggml.model": "rwkv"},
        "tokenizer.ggml.model is 'rwkv', of which no tokenizer is made here; .*--vocabulary=FILE",
    ),
    "another splitting": (
        {"tokenizer.ggml.pre": "deepseek-llm"},
        "tokenizer.ggml.pre is 'deepseek-llm', of which no tokenizer",
    ),
    "no pieces": ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges; give the model's"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_whole_model_is_refused(fault, tmp_path):
    changes, message = FAULTS[fault]
    with pytest.raises(InputError, match=message):
        imported(tmp_path, "qwen2", **changes)
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_refused(tmp_path):
    path = tiny.write_gguf(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="model.gguf: no readable GGUF file"):
        import_model(path, tmp_path / "out")
    path.write_bytes(b"no such thing, no such thing")
    with pytest.raises(InputError, match="model.gguf: no readable GGUF file"):
        import_model(path, tmp_path / "out")


def test_positions_that_no_llama_has_are_refused(tmp_path):
    def change(arrays):
        arrays["rope_freqs.weight"] = np.array([1, 3, 2, 4], np.float32)

    with pytest.raises(InputError, match="rope_freqs.weight stretches positions as no published"):
        imported(tmp_path, "llama", change=change)


def test_the_package_is_named_where_it_is_missing(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"model.gguf: the package gguf.*pip install '.\[gguf\]'"):
        import_model(tmp_path / "model.gguf", tmp_path / "out")
