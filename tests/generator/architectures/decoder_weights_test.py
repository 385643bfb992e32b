import dataclasses
import functools
import json
import pathlib
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from dsirm_jax.data.vocabularies.trimming import Trimmed
from dsirm_jax.generator.architectures.architecture import param_shapes
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig, text_states
from dsirm_jax.generator.architectures.decoder_settings import read_settings
from dsirm_jax.generator.architectures.decoder_weights import read_text_model
from dsirm_jax.io.errors import InputError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")
# The last 36 tokens of the golden models stand for the codes of three levels.
TEXT, SIZES, START = 60, (8, 12, 16), 2
states = jax.jit(text_states, static_argnums=0)


@functools.cache
def golden(name):
    """Returns what transformers computed, the model without SIDs, and its output layer."""
    folder = GOLDEN / name
    config = DecoderConfig.of_folder(folder)
    text = read_text_model(folder, config=config, tokens=config.text_vocab_size)
    params = config.pretrained(folder, seed=0)
    return np.load(folder / "computed.npz"), config, params, text.output


def with_codes(name):
    """Returns a golden model whose last tokens are the codes of SIDs."""
    _, config, params, output = golden(name)
    config = dataclasses.replace(config, text_vocab_size=TEXT, sid_sizes=SIZES)
    table = params["text"]["embedding"][: TEXT + sum(SIZES)]
    sid, first = {"start": table[START]}, TEXT
    for level, size in enumerate(SIZES):
        sid[f"codes_{level}"] = table[first : first + size]
        sid[f"head_{level}"] = output[first : first + size].T
        first += size
    del sid["codes_2"]
    return config, params | {"sid": sid}


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_text_are_those_of_transformers(name):
    computed, config, params, output = golden(name)
    tokens = computed["tokens"]
    found = states(config, params, tokens) @ output.T
    for row, length in enumerate((9, 5)):
        np.testing.assert_allclose(
            found[row, :length], computed["logits"][row, :length], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_continuations_are_those_of_transformers(name):
    computed, config, params, output = golden(name)
    rows = [row[row > 0].tolist() for row in computed["tokens"]]
    continued = []
    for row in rows:
        text = list(row)
        for _ in range(8):
            tokens = np.pad(text, (0, 17 - len(text)))[None]  # one compiled length
            text.append(int(np.argmax(states(config, params, tokens)[0, len(text) - 1] @ output.T)))
        continued.append(text[len(row) :])
    assert continued == computed["continued"].tolist()


def behind(row):
    return row


def before(row):
    return np.roll(row, len(row) - np.count_nonzero(row))


@pytest.mark.parametrize("place", [behind, before], ids=["padding behind", "padding in front"])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_codes_are_those_of_transformers(name, place):
    computed = golden(name)[0]
    config, params = with_codes(name)
    tokens = np.stack([place(np.pad(row, (0, 4))) for row in computed["tokens"]])
    firsts = TEXT + np.cumsum([0, *SIZES[:-1]])
    sids = (computed["sids"] - firsts)[:, None]
    at_once, stepwise = both_ways(params, tokens, sids, config=config)
    for level, (first, size) in enumerate(zip(firsts, SIZES, strict=True)):
        expected = computed["of_codes"][:, level, first : first + size]
        for logits in (at_once[level], stepwise[level]):
            np.testing.assert_allclose(logits[:, 0], expected, rtol=1e-4, atol=1e-4)


@functools.partial(jax.jit, static_argnames="config")
def both_ways(params, tokens, sids, *, config):
    """Returns the logits of all levels, scanned and at once, and step by step."""
    at_once = config.teacher_forced(params, tokens, sids)
    config, params = config.unscanned(), config.unstacked(params)
    state, past, codes, stepwise = config.encode(params, tokens), None, sids[..., :0], []
    for level in range(len(SIZES)):
        (logits,), past = config.decode(params, state, codes, past)
        codes = sids[..., level : level + 1]
        stepwise.append(logits)
    return at_once, stepwise


def copied(tmp_path, name="qwen2"):
    return pathlib.Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def change_config(*left_out, **entries):
    def change(folder):
        path = folder / "config.json"
        changed = json.loads(path.read_text()) | entries
        path.write_text(json.dumps({k: v for k, v in changed.items() if k not in left_out}))

    return change


def change_tensors(function):
    def change(folder):
        path = folder / "model.safetensors"
        arrays = safetensors.numpy.load_file(path)
        function(arrays)
        safetensors.numpy.save_file(arrays, path)

    return change


def test_the_shape_of_a_model_is_read_from_its_config():
    assert DecoderConfig.of_folder(GOLDEN / "gemma3") == DecoderConfig(
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
        query_scale=10**-0.5,
        rope_theta=1000.0,
        rope_factor=3.0,
        local_layers=(0, 2),
        local_window=4,
        local_rope_theta=50.0,
        text_vocab_size=96,
    )
    llama = DecoderConfig.of_folder(GOLDEN / "llama")
    assert (llama.norm_epsilon, llama.rope_factor, llama.rope_bands) == (1e-5, 4.0, (1, 4, 40))
    assert DecoderConfig.of_folder(GOLDEN / "qwen2").qkv_bias


# As transformers wrote them before version 5.
EARLIER = {
    "llama": {
        "rope_theta": 500.0,
        "rope_scaling": {
            "type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 40,
        },
    },
    "qwen2": {"rope_theta": 10000.0, "use_sliding_window": False, "max_window_layers": 1},
    "gemma3": {
        "rope_theta": 1000.0,
        "rope_local_base_freq": 50.0,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
        "sliding_window_pattern": 2,
    },
}


@pytest.mark.parametrize("name", EARLIER)
def test_both_layouts_of_settings_say_the_same(name, tmp_path):
    folder = copied(tmp_path, name)
    change_config("rope_parameters", "layer_types", **EARLIER[name])(folder)
    assert read_settings(folder) == read_settings(GOLDEN / name)


def test_windows_of_qwen_begin_at_a_layer(tmp_path):
    folder = copied(tmp_path)
    windows = {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 7}
    change_config("layer_types", **windows)(folder)
    config = DecoderConfig.of_folder(folder)
    assert (config.local_layers, config.local_window) == ((1, 2), 7)
    assert config.local_rope_theta == config.rope_theta


def test_shards_half_precision_and_names_without_a_prefix_are_read(tmp_path):
    config = DecoderConfig.of_folder(GOLDEN / "qwen2")
    whole = read_text_model(GOLDEN / "qwen2", config=config, tokens=96)
    folder = copied(tmp_path)
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {}
    from safetensors.flax import save_file

    for number, names in enumerate((sorted(arrays)[:11], sorted(arrays)[11:])):
        file = f"model-{number}.safetensors"
        halves = {name: jnp.asarray(arrays[name], jnp.bfloat16) for name in names}
        halves = {name.removeprefix("model."): array for name, array in halves.items()}
        save_file(halves, folder / file)
        index |= dict.fromkeys(halves, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    read = read_text_model(folder, config=config, tokens=96)
    assert read.params.keys() == whole.params.keys()
    for name, array in read.params.items():
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, whole.params[name], rtol=2**-8)
    np.testing.assert_array_equal(read.output, read.params["text/embedding"])


QUERY = "model.layers.1.self_attn.q_proj.weight"


def two_files(folder):
    whole = folder / "model.safetensors"
    shutil.copy(whole, folder / "model-1.safetensors")
    only = {QUERY: safetensors.numpy.load_file(whole)[QUERY]}
    safetensors.numpy.save_file(only, folder / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", QUERY: "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


FAULTS = {
    "no config.json": (lambda folder: (folder / "config.json").unlink(), r"config.json: no such"),
    "no safetensors": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "safe_serialization=True",
    ),
    "damaged": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"0" * 64),
        "model.safetensors: cannot be read",
    ),
    "an index of nothing": (
        lambda folder: (folder / "model.safetensors.index.json").write_text("{}"),
        "index.json: no weight_map",
    ),
    "another family": (
        change_config(model_type="mamba"),
        "model_type is 'mamba'; give a model of one of gemma3_text, llama, qwen2, qwen3",
    ),
    "no family": (lambda folder: (folder / "config.json").write_text("[1]"), "model_type is None"),
    "another activation": (change_config(hidden_act="relu"), "hidden_act is 'relu'; .* silu"),
    "a missing entry": (change_config("rms_norm_eps"), "no entry rms_norm_eps"),
    "no size": (change_config(hidden_size="24"), "hidden_size is '24'; give a whole number"),
    "biases of everything": (change_config(attention_bias=True), "attention_bias is True"),
    "other positions": (
        change_config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}),
        "positions are stretched by 'yarn'",
    ),
    "positions without a factor": (
        change_config(rope_parameters={"rope_type": "linear", "rope_theta": 1e4}),
        "no entry 'factor' of positions",
    ),
    "another kind of layer": (
        change_config(layer_types=["full_attention"] * 2 + ["chunked_attention"]),
        "layer_types is .*chunked_attention",
    ),
    "another width": (
        change_config(intermediate_size=30),
        r"tensor model.layers.0.mlp.gate_proj.weight is \(28, 24\), but config.json says \(30, 24",
    ),
    "two copies of a tensor": (
        two_files,
        f"model-2.safetensors: tensor {QUERY} is in .*model-1.safetensors too",
    ),
    "a tensor too few": (
        change_tensors(lambda arrays: arrays.pop(QUERY)),
        f"no tensor {QUERY}",
    ),
    "no output layer": (
        change_config(tie_word_embeddings=False),
        "no tensor lm_head.weight",
    ),
    "a tensor too many": (
        change_tensors(lambda arrays: arrays.update(adapter=np.zeros(2, np.float32))),
        "a tensor adapter that no qwen2 has",
    ),
    "a number that is none": (
        change_tensors(lambda arrays: arrays[QUERY].fill(np.nan)),
        f"tensor {QUERY} has 576 numbers that are not finite",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_whole_model_is_refused(fault, tmp_path):
    damage, message = FAULTS[fault]
    folder = copied(tmp_path)
    damage(folder)
    with pytest.raises(InputError, match=message):
        config = DecoderConfig.of_folder(folder)
        read_text_model(folder, config=config, tokens=config.text_vocab_size)


@pytest.mark.parametrize("scan_layers", [True, False], ids=["stacked", "apart"])
def test_sids_get_arrays_of_their_own(scan_layers):
    read = DecoderConfig.of_folder(GOLDEN / "llama")
    text = read_text_model(GOLDEN / "llama", config=read, tokens=96)
    config = dataclasses.replace(read, scan_layers=scan_layers, text_vocab_size=90)
    config = dataclasses.replace(config, sid_sizes=(300, 200))
    started = config.pretrained(GOLDEN / "llama", seed=5)
    shapes = jax.tree.map(lambda like: like.shape, param_shapes(config))
    assert jax.tree.map(np.shape, started) == shapes
    flat = traverse_util.flatten_dict(started, sep="/")
    assert {array.dtype for array in flat.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(flat["text/embedding"][:90], text.params["text/embedding"][:90])
    for new, old in (
        (flat["sid/codes_0"], text.params["text/embedding"][:90]),
        (flat["sid/head_0"].T, text.output[:90]),
    ):
        assert len(np.unique(new, axis=0)) == 300
        np.testing.assert_allclose(new.mean(axis=0), old.mean(axis=0), atol=0.2)
        np.testing.assert_allclose(new.std(axis=0), old.std(axis=0), rtol=0.2)
    again = config.pretrained(GOLDEN / "llama", seed=5)
    jax.tree.map(np.testing.assert_array_equal, started, again)


def test_a_trimmed_vocabulary_takes_its_rows_of_whole_weights_or_has_them(tmp_path):
    kept = np.array([7, 0, 3, 7, 90])
    vocabulary = Trimmed(whole=SimpleNamespace(size=95, padding=7), kept=kept)
    read = DecoderConfig.of_folder(GOLDEN / "qwen2")
    config = dataclasses.replace(read, text_vocab_size=5, sid_sizes=(4, 4))
    started = config.pretrained(GOLDEN / "qwen2", seed=5, vocabulary=vocabulary)
    text = read_text_model(GOLDEN / "qwen2", config=read, tokens=96)
    table = started["text"]["embedding"]
    np.testing.assert_array_equal(table[:5], text.params["text/embedding"][kept])
    assert not table[5:].any()
    folder = copied(tmp_path)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | {"vocab_size": 5}))
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    for name, array in arrays.items():
        if array.shape[0] == 96 and name.endswith(("embed_tokens.weight", "lm_head.weight")):
            arrays[name] = array[kept]
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    cut = config.pretrained(folder, seed=5, vocabulary=vocabulary)
    jax.tree.map(np.testing.assert_array_equal, started, cut)
    other = Trimmed(whole=SimpleNamespace(size=97, padding=7), kept=kept)
    with pytest.raises(InputError, match="96 tokens, but the vocabulary has 5; bind"):
        config.pretrained(GOLDEN / "qwen2", seed=5, vocabulary=other)


def test_settings_and_vocabularies_of_another_model_are_refused():
    config = DecoderConfig.of_folder(GOLDEN / "llama")
    for changed, message in (
        ({"norm_epsilon": 1e-6}, "norm_epsilon is 1e-05, but gin binding DecoderConfig.norm_eps"),
        ({"qk_norm": True}, "qk_norm is False, but"),
        ({"text_vocab_size": 97}, "96 tokens, but the vocabulary has 97"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(config, **changed).pretrained(GOLDEN / "llama", seed=0)
