import dataclasses
import json
import math
import pathlib
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy
import tensorstore
from flax import serialization, traverse_util

from dsirm_jax.data.vocabularies.trimming import Trimmed
from dsirm_jax.data.vocabulary import train_vocabulary
from dsirm_jax.generator import losses
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.architectures.t5_stacks import Transformer
from dsirm_jax.generator.architectures.t5_text import WEIGHTS, load_text_params
from dsirm_jax.generator.architectures.t5_weights import read_hugging_face, read_t5x, text_shapes
from dsirm_jax.generator.importing.models import GIN, SHARED_VOCABULARY, import_model
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.stages import generate

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
MODELS = ("t5", "t5_1_1", "mt5")
# The last 36 tokens of the golden models stand for the codes of three levels.
TEXT, SIZES = 60, (8, 12, 16)


def padded(params, rows):
    """Adds rows of zeros to the vocabulary, which nothing looks at."""
    flat = traverse_util.flatten_dict(params, sep="/")
    for name, axis in (("token_embedder/embedding", 0), ("decoder/logits_dense/kernel", 1)):
        if name in flat:
            missing = rows - flat[name].shape[axis]
            flat[name] = np.pad(
                flat[name], [(0, missing if axis == other else 0) for other in (0, 1)]
            )
    return traverse_util.unflatten_dict(flat, sep="/")


@pytest.mark.parametrize("name", MODELS)
def test_states_logits_and_loss_are_those_of_transformers(name):
    read, params = read_hugging_face(GOLDEN / name)
    assert read.text_vocab_size == TEXT + sum(SIZES)
    config = dataclasses.replace(read, text_vocab_size=TEXT, sid_sizes=SIZES)
    params = padded(params, config.vocab_size)
    golden = np.load(GOLDEN / name / "computed.npz")
    model = Transformer(config)
    states = model.apply({"params": params}, golden["tokens"], method=Transformer.states)
    real = golden["tokens"] != 0
    np.testing.assert_allclose(np.asarray(states)[real], golden["states"][real], atol=1e-4)
    logits = model.apply({"params": params}, golden["tokens"], golden["inputs"][:, None])
    labels, first, expected = golden["labels"], TEXT, []
    for level, size in enumerate(SIZES):
        theirs = golden["logits"][:, level, first : first + size].astype(np.float64)
        np.testing.assert_allclose(logits[level][:, 0], theirs, rtol=1e-4, atol=1e-4)
        log_probs = theirs - np.log(np.exp(theirs).sum(axis=1, keepdims=True))
        expected.append(-log_probs[[0, 1], labels[:, level] - first])
        first += size
    sids = labels - TEXT - np.cumsum([0, *SIZES[:-1]])
    total = losses.cross_entropy(
        logits,
        jnp.asarray(sids)[:, None],
        jnp.ones((2, 1, 3)),
        objective=losses.GeneratorObjective(),
    )
    np.testing.assert_allclose(losses.mean_per_level(total), np.mean(expected, axis=1), rtol=1e-4)


def test_the_shape_of_a_model_is_read_from_its_config():
    config, _ = read_hugging_face(GOLDEN / "t5")
    assert config == T5Config(
        emb_dim=16,
        num_heads=2,
        head_dim=6,
        mlp_dim=20,
        num_encoder_layers=2,
        num_decoder_layers=3,
        mlp_activations=("relu",),
        logits_via_embedding=True,
        text_vocab_size=96,
    )
    config, _ = read_hugging_face(GOLDEN / "mt5")
    assert config.mlp_activations == ("gelu", "linear") and not config.logits_via_embedding


def test_what_says_whether_logits_come_from_the_embedding(tmp_path):
    scaled = copied(tmp_path)
    change_config(scale_decoder_outputs=True)(scaled)
    plain, of_scaled = (read_hugging_face(f) for f in (GOLDEN / "t5_1_1", scaled))
    assert plain[0] == of_scaled[0] and not plain[0].logits_via_embedding
    kernels = [of["decoder"]["logits_dense"]["kernel"] for of in (plain[1], of_scaled[1])]
    np.testing.assert_allclose(kernels[0] / 4, kernels[1], rtol=1e-6)  # 4 = 16 ** 0.5

    unscaled = copied(tmp_path, "t5")
    change_config(scale_decoder_outputs=False)(unscaled)
    config, params = read_hugging_face(unscaled)
    assert not config.logits_via_embedding
    table = params["token_embedder"]["embedding"]
    np.testing.assert_array_equal(params["decoder"]["logits_dense"]["kernel"], table.T)


def copied(tmp_path, name="t5_1_1"):
    return pathlib.Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def test_shards_and_half_precision_are_read(tmp_path):
    whole = read_hugging_face(GOLDEN / "t5_1_1")[1]
    folder = copied(tmp_path)
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    halves = {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
    (folder / "model.safetensors").unlink()
    index = {}
    from safetensors.flax import save_file

    for number, names in enumerate((sorted(arrays)[:20], sorted(arrays)[20:])):
        file = f"model-{number}.safetensors"
        save_file({name: jnp.asarray(halves[name]) for name in names}, folder / file)
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    read = read_hugging_face(folder)[1]
    for ours, theirs in zip(jax.tree.leaves(read), jax.tree.leaves(whole), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=2**-8)


def change_config(**entries):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return change


def change_tensors(function):
    def change(folder):
        path = folder / "model.safetensors"
        arrays = safetensors.numpy.load_file(path)
        function(arrays)
        safetensors.numpy.save_file(arrays, path)

    return change


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
    "another model": (change_config(model_type="bert"), "model_type is 'bert'"),
    "another hidden layer": (change_config(feed_forward_proj="gated-silu"), "'gated-silu'"),
    "other buckets": (change_config(relative_attention_num_buckets=64), "num_buckets is 64"),
    "another width": (
        change_config(d_ff=24),
        r"model.safetensors: tensor encoder.block.0.layer.1.DenseReluDense.wi_0.weight is "
        r"\(20, 16\), but config.json says \(24, 16\)",
    ),
    "a tensor too few": (
        change_tensors(lambda arrays: arrays.pop("decoder.final_layer_norm.weight")),
        "no tensor decoder.final_layer_norm.weight",
    ),
    "a tensor too many": (
        change_tensors(lambda arrays: arrays.update(adapter=np.zeros(2, np.float32))),
        "model.safetensors: the weights have a tensor adapter that no t5 has",
    ),
    "a number that is none": (
        change_tensors(lambda arrays: arrays["shared.weight"][3].fill(np.nan)),
        "model.safetensors: tensor shared.weight has 16 numbers that are not finite",
    ),
    "biases of positions in every layer": (
        change_config(model_type="umt5"),
        "model_type is 'umt5'; give a T5, FLAN-T5 or mT5",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_whole_t5_is_refused(fault, tmp_path):
    damage, message = FAULTS[fault]
    folder = copied(tmp_path)
    damage(folder)
    with pytest.raises(InputError, match=message):
        read_hugging_face(folder)


SMALL = T5Config(
    text_vocab_size=96,
    sid_sizes=(1,),
    emb_dim=16,
    num_heads=2,
    head_dim=6,
    mlp_dim=20,
    num_encoder_layers=2,
    num_decoder_layers=3,
)


def text_params(*, scanned=False):
    """What a T5X model of 96 tokens has; with scanned layers as `scalable_t5` keeps them."""
    params = jax.device_get(init_params(SMALL, seed=3))
    params["token_embedder"]["embedding"] = params["token_embedder"]["embedding"][:96]
    params["decoder"]["logits_dense"]["kernel"] = params["decoder"]["logits_dense"]["kernel"][
        :, :96
    ]
    return SMALL.stacked(params) if scanned else params


def write_t5x(folder, params):
    """T5X's own layout: msgpack with small arrays, and where the others are, each a zarr folder."""
    folder.mkdir()
    state = {}
    for path, array in traverse_util.flatten_dict(params).items():
        if array.ndim == 1:
            state[path] = array
            continue
        kvstore = {"driver": "file", "path": f"target.{'.'.join(path)}"}
        spec = {"driver": "zarr", "kvstore": kvstore | {"path": str(folder / kvstore["path"])}}
        opened = tensorstore.open(
            spec, create=True, dtype=tensorstore.float32, shape=array.shape
        ).result()
        opened.write(array).result()
        state[path] = {"driver": "zarr", "kvstore": kvstore, "dtype": "float32"}
    state = {"version": 3, "optimizer": {"target": traverse_util.unflatten_dict(state)}}
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(state))


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("layout", ["t5x", "orbax"])
def test_checkpoints_of_t5x_are_read_in_both_layouts(layout, scanned, tmp_path):
    params = text_params(scanned=scanned)
    folder = tmp_path / "checkpoint_20"
    if layout == "t5x":
        write_t5x(folder, params)
    else:
        state = {"target": params, "state": {"step": np.int32(20)}}
        ocp.PyTreeCheckpointer().save(folder / "state", state)
    config, read = read_t5x(folder)
    assert config == dataclasses.replace(SMALL, sid_sizes=())
    jax.tree.map(np.testing.assert_array_equal, read, text_params())


def test_numbers_of_a_checkpoint_that_are_not_finite_are_refused(tmp_path):
    params = text_params()
    params["decoder"]["decoder_norm"]["scale"] = np.array([*[1.0] * 15, np.inf], np.float32)
    write_t5x(tmp_path / "checkpoint_20", params)
    with pytest.raises(InputError, match="tensor decoder/decoder_norm/scale has 1 numbers that"):
        read_t5x(tmp_path / "checkpoint_20")


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither Hugging Face's folder"):
        read_t5x(tmp_path)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A golden model of 96 rows with a vocabulary of fewer pieces, imported."""
    folder = tmp_path_factory.mktemp("weights")
    source = shutil.copytree(GOLDEN / "t5_1_1", folder / "source")
    small = safetensors.numpy.load_file(source / "model.safetensors")
    rows = 400  # for the 256 bytes
    generator = np.random.default_rng(0)
    for name in ("shared.weight", "lm_head.weight"):
        small[name] = generator.normal(3.0, 2.0, (rows, 16)).astype(np.float32)
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"):
        small.pop(name, None)
    safetensors.numpy.save_file(small, source / "model.safetensors")
    texts = [f"red shoe {number} for running" for number in range(50)]
    train_vocabulary(texts=iter(texts), size=290, path=source / "spiece.model", seed=0)
    import_model(source, folder / "out")
    return folder


def test_an_imported_model_has_the_rows_of_its_vocabulary(imported):
    out = imported / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted([WEIGHTS, SHARED_VOCABULARY, GIN])
    config, params = load_text_params(out / WEIGHTS)
    whole, of_source = read_hugging_face(imported / "source")
    assert config == dataclasses.replace(whole, text_vocab_size=config.text_vocab_size)
    assert 256 < config.text_vocab_size < 300
    np.testing.assert_array_equal(
        params["decoder"]["logits_dense"]["kernel"],
        of_source["decoder"]["logits_dense"]["kernel"][:, : config.text_vocab_size],
    )
    text = (out / GIN).read_text()
    assert f"generate.run.start = '{out / WEIGHTS}'" in text
    assert "mlp_activations = ('gelu', 'linear')" in text


@pytest.mark.parametrize("scan_layers", [False, True])
def test_sids_get_rows_of_their_own(imported, scan_layers):
    path = imported / "out" / WEIGHTS
    of_text, params = load_text_params(path)
    config = dataclasses.replace(of_text, sid_sizes=(300, 300), scan_layers=scan_layers)
    started = config.pretrained(path, seed=5)
    assert jax.tree.map(np.shape, started) == jax.tree.map(
        np.shape, jax.eval_shape(lambda: init_params(config, seed=0))
    )
    text = of_text.text_vocab_size
    for ours, theirs in (
        (started["token_embedder"]["embedding"], params["token_embedder"]["embedding"]),
        (
            started["decoder"]["logits_dense"]["kernel"].T,
            params["decoder"]["logits_dense"]["kernel"].T,
        ),
    ):
        np.testing.assert_array_equal(ours[:text], theirs)
        new = ours[text : text + 600]
        assert len(np.unique(new, axis=0)) == 600
        np.testing.assert_allclose(new.mean(axis=0), theirs.mean(axis=0), atol=0.5)
        np.testing.assert_allclose(new.std(axis=0), theirs.std(axis=0), rtol=0.15)


def test_a_trimmed_vocabulary_takes_its_rows(imported):
    path = imported / "out" / WEIGHTS
    of_text, params = load_text_params(path)
    kept = np.array([0, 1, 2, 40, 200])
    whole = SimpleNamespace(size=of_text.text_vocab_size, padding=0)
    config = of_text.fitted_to(text_vocab_size=5, sid_sizes=(4, 4))
    vocabulary = Trimmed(whole=whole, kept=kept)
    started = config.pretrained(path, seed=5, vocabulary=vocabulary)
    table = params["token_embedder"]["embedding"]
    np.testing.assert_array_equal(started["token_embedder"]["embedding"][:5], table[kept])
    kernel = params["decoder"]["logits_dense"]["kernel"]
    ours = started["decoder"]["logits_dense"]["kernel"]
    np.testing.assert_array_equal(ours[:, :5], kernel[:, kept])


def test_its_gin_file_has_as_many_parameters_as_the_published_flan_t5():
    files = ["gin/runs/demo.gin", "gin/models/flan_t5_small.gin"]
    configuration.parse(files=files, bindings=["MODEL_DIR = 'out'"], search_paths=[])
    config = dataclasses.replace(configuration.bound(generate.run)["config"], text_vocab_size=32128)
    assert sum(math.prod(shape) for shape in text_shapes(config).values()) == 76_961_152


def test_weights_of_another_shape_are_refused(imported):
    path = imported / "out" / WEIGHTS
    config = dataclasses.replace(load_text_params(path)[0], sid_sizes=(4,), mlp_dim=21)
    with pytest.raises(InputError, match="T5Config.mlp_dim is 20 and not 21"):
        config.pretrained(path, seed=0)
    text_config, _ = load_text_params(path)
    with pytest.raises(InputError, match=r"text_vocab_size is \d+ and not 777; .*its vocabulary"):
        text_config.fitted_to(text_vocab_size=777, sid_sizes=(4,)).pretrained(path, seed=0)


def test_import_overwrites_nothing_and_leaves_nothing_half(imported, tmp_path):
    with pytest.raises(InputError, match="exists"):
        import_model(imported / "source", imported / "out")
    with pytest.raises(InputError, match="golden/t5: none of tokenizer.json, .*--vocabulary=FILE"):
        import_model(GOLDEN / "t5", tmp_path / "new")
    with pytest.raises(InputError, match="nowhere: no such file or folder"):
        import_model(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(InputError, match="the embedding of .* has 96 rows"):
        import_model(GOLDEN / "t5", tmp_path / "new", vocabulary=imported / "source/spiece.model")
    assert not list(tmp_path.iterdir())
