import json
import os
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from dsirm_jax.data import wordpieces
from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import CLS, MEAN
from dsirm_jax.encoder.embed import embed_by_length
from dsirm_jax.io.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
TEXTS = ("Red shoes for kids", "mug", "blue shoemaker, size 10 red zzz mug for kids")
MINILM_TEXTS = ("red shoes", "usb c cable 2m", "Apple iPhone 13 case, clear — cover", "ça va")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(GOLDEN / "bert", tmp_path / "bert")


def edit_json(path, **changes):
    path.parent.mkdir(exist_ok=True)
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


def read_weights(path):
    return safetensors.numpy.load_file(path).items()


def test_texts_become_the_pieces_and_vectors_of_transformers():
    golden = safetensors.numpy.load_file(GOLDEN / "bert.safetensors")
    encoder = hugging_face.read_folder(GOLDEN / "bert")
    pieces = wordpieces.tokenize(encoder.tokenizer, TEXTS, prefix="", max_pieces=20)
    assert pieces == [[piece for piece in row if piece >= 0] for row in golden["pieces"].tolist()]
    np.testing.assert_allclose(vectors(encoder, TEXTS), golden["mean"], atol=1e-5)


def vectors(encoder, texts, max_pieces=20):
    pieces = wordpieces.tokenize(encoder.tokenizer, texts, prefix="", max_pieces=max_pieces)
    given = {"module": encoder.module, "params": encoder.params, "pieces": pieces}
    return embed_by_length(**given, max_pieces=max_pieces, name="test")


def test_what_is_written_reads_again(folder, tmp_path):
    random = np.random.default_rng(0)
    before = hugging_face.read_folder(folder)
    kernel = random.standard_normal((16, 6)).astype(np.float32)
    written = hugging_face.TextEncoder(
        module=before.module.clone(dim=6, pooling=CLS),
        params={"params": before.params["params"] | {"projection": {"kernel": kernel}}},
        tokenizer=before.tokenizer,
        query_prefix="query: ",
        item_prefix="passage: ",
    )
    wordpieces.tokenize(before.tokenizer, TEXTS, prefix="", max_pieces=4)
    hugging_face.write_folder(tmp_path / "new", written)
    assert json.loads((tmp_path / "new/tokenizer.json").read_text())["truncation"] is None
    settings = json.loads((tmp_path / "new/tokenizer_config.json").read_text())
    assert (settings["pad_token"], settings["model_max_length"]) == ("[PAD]", 20)
    after = hugging_face.read_folder(tmp_path / "new")
    assert after.module == written.module
    assert (after.query_prefix, after.item_prefix) == ("query: ", "passage: ")
    assert after.tokenizer.to_str() == before.tokenizer.to_str()
    jax.tree.map(np.testing.assert_array_equal, after.params, written.params)


def test_weights_below_bert_and_of_half_precision_are_read(folder):
    before = hugging_face.read_folder(folder)
    weights = folder / "model.safetensors"
    arrays = {f"bert.{name}": array.astype(np.float16) for name, array in read_weights(weights)}
    safetensors.numpy.save_file(arrays, weights)
    after = hugging_face.read_folder(folder)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), after.params, before.params
    )
    assert {array.dtype.name for array in jax.tree.leaves(after.params)} == {"float32"}


def test_pooling_and_prompts_are_those_of_the_folder(folder):
    assert hugging_face.read_folder(folder).module.pooling == MEAN
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    edit_json(folder / "1_Pooling/config.json", **modes)
    prompts = {"query": "query: ", "passage": "passage: "}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts)
    found = hugging_face.read_folder(folder)
    assert found.module.pooling == CLS
    assert (found.query_prefix, found.item_prefix) == ("query: ", "passage: ")


def shorter(folder):
    path = folder / "model.safetensors"
    arrays = dict(read_weights(path))
    arrays["embeddings.LayerNorm.bias"] = np.zeros(3, np.float32)
    safetensors.numpy.save_file(arrays, path)


def without_a_tensor(folder):
    path = folder / "model.safetensors"
    arrays = dict(read_weights(path))
    del arrays["encoder.layer.1.output.dense.bias"]
    safetensors.numpy.save_file(arrays, path)


def with_a_number_that_is_none(folder):
    path = folder / "model.safetensors"
    arrays = dict(read_weights(path))
    arrays["embeddings.LayerNorm.bias"] = np.full_like(arrays["embeddings.LayerNorm.bias"], np.nan)
    safetensors.numpy.save_file(arrays, path)


BIAS = {"in_features": 16, "out_features": 16, "bias": True}
FAULTS = {
    "config.json: no such file": lambda f: (f / "config.json").unlink(),
    "model.safetensors: no such file": lambda f: (f / "model.safetensors").unlink(),
    "neither tokenizer.json nor vocab.txt": lambda f: (f / "vocab.txt").unlink(),
    "tokenizer.json: not a readable": lambda f: (f / "tokenizer.json").write_text("{"),
    "config.json: no JSON": lambda f: (f / "config.json").write_text("{"),
    "model_type is 'mpnet'": lambda f: edit_json(f / "config.json", model_type="mpnet"),
    "hidden_act is 'silu'": lambda f: edit_json(f / "config.json", hidden_act="silu"),
    "not a readable safetensors": lambda f: (f / "model.safetensors").write_bytes(b"12345678{"),
    "tensor embeddings.LayerNorm.bias has shape (3,)": shorter,
    "tensor encoder.layer.1.output.dense.bias is missing": without_a_tensor,
    "tensor embeddings.LayerNorm.bias has 16 numbers that are not": with_a_number_that_is_none,
    "pooling_mode_max_tokens; only": lambda f: edit_json(
        f / "1_Pooling/config.json", pooling_mode_max_tokens=True
    ),
    "only a layer without bias": lambda f: edit_json(f / "2_Dense/config.json", **BIAS),
}


@pytest.mark.parametrize("message", FAULTS)
def test_what_is_wrong_is_said_in_a_line(folder, message):
    FAULTS[message](folder)
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        hugging_face.read_folder(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif("DSIRM_MINILM" not in os.environ, reason="DSIRM_MINILM names no MiniLM folder")
def test_minilm_gives_the_vectors_of_transformers(tmp_path):
    golden = safetensors.numpy.load_file(GOLDEN / "minilm.safetensors")
    encoder = hugging_face.read_folder(os.environ["DSIRM_MINILM"])
    np.testing.assert_allclose(vectors(encoder, MINILM_TEXTS), golden["vectors"], atol=1e-4)
    hugging_face.write_folder(tmp_path, encoder)
    again = hugging_face.read_folder(tmp_path)
    np.testing.assert_array_equal(vectors(again, MINILM_TEXTS), vectors(encoder, MINILM_TEXTS))
