import dataclasses
import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax import generator
from dsirm_jax.generator.architectures.architecture import init_params, learnt, param_shapes
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.lora import Lora
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.train import (
    generator_state_shapes,
    generator_state_shardings,
    make_generator_loss,
    make_step,
    train,
)
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.sids.codes import to_tokens
from dsirm_jax.stages import generate
from dsirm_jax.training.loop import TrainState
from dsirm_jax.training.meshes import data_mesh, param_shardings, sharded
from dsirm_jax.training.settings import Training, make_optimizer

SIZES = (3, 4, 5)
DECODER = DecoderConfig(
    emb_dim=12,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=12,
    num_layers=2,
    qkv_bias=True,
    text_vocab_size=40,
    sid_sizes=SIZES,
)
T5 = T5Config(
    emb_dim=12,
    num_heads=4,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout_rate=0.0,
    text_vocab_size=40,
    sid_sizes=SIZES,
)
NETWORKS = {
    "decoder, stacked": DECODER,
    "decoder, apart": dataclasses.replace(DECODER, scan_layers=False),
    "t5": T5,
    "t5, stacked": dataclasses.replace(T5, scan_layers=True, remat=True),
    "t5 1.0": dataclasses.replace(T5, logits_via_embedding=True, mlp_activations=("relu",)),
}
TEXT = np.array([[7, 39, 3, 12, 8, 5, 0, 0], [9, 2, 0, 0, 0, 0, 0, 0]], np.int32)
SIDS = np.array([[[0, 1, 2], [2, 3, 4]], [[1, 1, 1], [0, 0, 0]]], np.int32)


@functools.partial(jax.jit, static_argnames="config")
def teacher_forced(params, *, config):
    return config.teacher_forced(params, TEXT, SIDS)


def random_params(config, *, spread=0.4):
    """Returns parameters of which none is as it was made."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda like: (spread * rng.normal(size=like.shape)).astype(np.float32), param_shapes(config)
    )


def batch(seed=0, *, rows=8, weights=1.0):
    rng = np.random.default_rng(seed)
    sids = rng.integers(0, SIZES, (rows, 3)).astype(np.int32)
    return {
        "encoder_input_tokens": rng.integers(1, 40, (rows, 4)).astype(np.int32),
        "decoder_target_tokens": to_tokens(sids, sizes=SIZES, text_vocab_size=40),
        "decoder_loss_weights": np.full(sids.shape, weights, np.float32),
    }


def assert_close(found, expected, *, atol=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("network", [DECODER, T5], ids=["decoder", "t5"])
def test_it_starts_as_the_network_itself(network):
    config = Lora(config=network, rank=2)
    plain = init_params(network, seed=3)
    whole = init_params(config, seed=3)
    for one, other in zip(
        teacher_forced(whole, config=config), teacher_forced(plain, config=network), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    merged, drawn = config.unstacked(whole), network.unstacked(plain)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6), merged, drawn
    )


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_what_is_merged_computes_what_was_trained(network):
    config = Lora(config=network, rank=2, alpha=3.0)
    params = random_params(config)
    found = teacher_forced(config.unstacked(params), config=config.unscanned())
    assert config.unscanned() == network.unscanned()
    assert_close(found, teacher_forced(params, config=config), atol=1e-4)


def test_every_layer_has_its_own_product_merged_into_it():
    config = Lora(config=DECODER, rank=3, alpha=6.0, targets=("query", "down"))
    params = random_params(config)
    merged, kernels = config.unstacked(params), set()
    for layer, (module, name) in itertools.product(
        range(2), [("attention", "query"), ("attention", "out"), ("mlp", "down"), ("mlp", "up")]
    ):
        expected = np.array(params["text"]["layers"][module][name]["kernel"][layer], np.float64)
        if factors := params["adapters"]["layers"][module].get(name):
            kernels.add(name)
            for i, j, k in itertools.product(*map(range, (*expected.shape, 3))):
                down, up = factors["lora_a"][layer, i, k], factors["lora_b"][layer, k, j]
                expected[i, j] += 2.0 * float(down) * float(up)
        np.testing.assert_allclose(
            merged["layers"][str(layer)][module][name]["kernel"], expected, rtol=1e-5, atol=1e-6
        )
    assert kernels == {"query", "down"}
    untouched = {"text": params["text"]["text"], "sid": params["codes"]}
    jax.tree.map(np.testing.assert_array_equal, {k: merged[k] for k in untouched}, untouched)


def test_codes_of_a_t5_lie_behind_its_text():
    config = Lora(config=T5, rank=2)
    params = random_params(config)
    merged = config.unstacked(params)
    table, kernel = merged["token_embedder"]["embedding"], merged["decoder"]["logits_dense"]
    np.testing.assert_array_equal(table[:40], params["text"]["token_embedder"]["embedding"][:40])
    for level, first in enumerate((40, 43, 47)):
        span = slice(first, first + SIZES[level])
        np.testing.assert_array_equal(table[span], params["codes"][f"codes_{level}"])
        np.testing.assert_array_equal(kernel["kernel"][:, span], params["codes"][f"head_{level}"])


def test_steps_from_the_cache_are_those_of_teacher_forcing():
    config = Lora(config=DECODER, rank=2)
    params = random_params(config)

    @jax.jit
    def stepwise(params):
        state, past, codes, found = config.encode(params, TEXT), None, SIDS[..., :0], []
        for level in range(3):
            (logits,), past = config.decode(params, state, codes, past)
            codes = SIDS[..., level : level + 1]
            found.append(logits)
        return tuple(found)

    assert_close(stepwise(params), teacher_forced(params, config=config))


def a_step(config, params, *, training=None):
    """Returns the state after a step, its optimizer's among it."""
    training = training or Training(epochs=1, batch_size=8, learning_rate=0.1, weight_decay=0.1)
    optimizer = make_optimizer(training, num_steps=1)
    mesh = data_mesh(jax.devices()[:1])
    shardings = generator_state_shardings(config, optimizer=optimizer, mesh=mesh)
    objective = GeneratorObjective()
    step = make_step(config, objective=objective, optimizer=optimizer, seed=0, shardings=shardings)
    params = jax.tree.map(jnp.array, params)
    moments = optimizer.init(learnt(config, params))
    state = TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=moments)
    return step(state, batch())[0]


@pytest.mark.parametrize("network", [DECODER, T5], ids=["decoder", "t5"])
def test_what_is_frozen_stays_and_the_rest_moves(network):
    config = Lora(config=network, rank=2)
    params = random_params(config)
    loss = make_generator_loss(config, objective=GeneratorObjective(), seed=0)
    gradient = jax.jit(jax.grad(loss, has_aux=True))(params, batch(), 0)[0]
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient["text"]))
    after = a_step(config, params).params
    jax.tree.map(np.testing.assert_array_equal, after["text"], params["text"])
    moved = jax.tree.map(
        lambda a, b: bool(np.any(a != b)),
        (after["adapters"], after["codes"]),
        (params["adapters"], params["codes"]),
    )
    assert all(jax.tree.leaves(moved))


def test_the_optimizer_has_moments_of_what_is_learnt_alone():
    config = Lora(config=DECODER, rank=2)
    params = param_shapes(config)
    numbers = {part: sum(leaf.size for leaf in jax.tree.leaves(params[part])) for part in params}
    width, mlp, kv = 12, 12, 12
    per_layer = 2 * (2 * (width + kv) + 2 * (width + 24) + 3 * (width + mlp))
    assert numbers["adapters"] == 2 * per_layer
    assert numbers["codes"] == width * (1 + 3 + 4 + 3 + 4 + 5)
    optimizer = make_optimizer(Training(epochs=1, batch_size=8, learning_rate=0.1), num_steps=1)
    state = generator_state_shapes(config, optimizer=optimizer).opt_state
    kept = sum(leaf.size for leaf in jax.tree.leaves(state))
    counters = 2
    assert kept == 2 * (numbers["adapters"] + numbers["codes"]) + counters


def test_no_gradient_of_a_frozen_kernel_is_computed():
    """A product with a kernel is half of what its two gradients take, of which one is left out."""
    wide = dataclasses.replace(DECODER, emb_dim=96, mlp_dim=256, scan_layers="unrolled")

    def operations(config):
        step = jax.jit(a_step, static_argnums=0).lower(config, param_shapes(config)).compile()
        return step.cost_analysis()["flops"]

    assert operations(Lora(config=wide, rank=1)) < 0.8 * operations(wide)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_parameter_has_names_for_its_axes(network):
    config = Lora(config=network, rank=2)
    axes, shapes = config.logical_axes(), param_shapes(config)
    assert jax.tree.map(len, axes) == jax.tree.map(lambda like: len(like.shape), shapes)


MESHES = {"data 8": 1, "data 4 x model 2": 2, "data 2 x model 4": 4}
"""Model-parallel devices of eight."""


@functools.cache
def one_device_step(config):
    loss = make_generator_loss(config, objective=GeneratorObjective(), seed=0)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return step(random_params(config, spread=0.2), batch(), 1)


@pytest.mark.parametrize("network", ["decoder, stacked", "t5, stacked"])
@pytest.mark.parametrize("model_parallel", MESHES.values(), ids=MESHES)
def test_loss_and_gradients_on_a_mesh_are_those_of_one_device(model_parallel, network):
    config = Lora(config=NETWORKS[network], rank=2)
    mesh = data_mesh(model_parallel=model_parallel)
    params = random_params(config, spread=0.2)
    places = param_shardings(mesh, axes=config.logical_axes(), shapes=params)
    params = jax.device_put(params, places)
    loss = make_generator_loss(config, objective=GeneratorObjective(), seed=0)
    found = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        params, sharded(mesh).put_batch(batch()), 1
    )
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(one_device_step(config)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


def test_a_mesh_splits_factors_as_the_kernels():
    config = Lora(config=DECODER, rank=2)
    mesh = data_mesh(model_parallel=2)
    places = param_shardings(mesh, axes=config.logical_axes(), shapes=param_shapes(config))
    params = jax.device_put(random_params(config), places)
    attention = params["adapters"]["layers"]["attention"]
    shapes = {
        (name, factor): attention[name][factor].addressable_data(0).shape
        for name in ("query", "out")
        for factor in ("lora_a", "lora_b")
    }
    assert shapes == {
        ("query", "lora_a"): (2, 12, 2),
        ("query", "lora_b"): (2, 2, 12),
        ("out", "lora_a"): (2, 12, 2),
        ("out", "lora_b"): (2, 2, 12),
    }


def run(directory, *, stop=None, number=1, model_parallel=1):
    class Stop(Exception):
        pass

    def batches(start):
        for step in itertools.count(start):
            if step == stop:
                raise Stop
            yield batch(step)

    try:
        return train(
            config=Lora(config=DECODER, rank=2),
            objective=GeneratorObjective(),
            training=Training(epochs=6, batch_size=8, learning_rate=0.05, checkpoint_every=2),
            batches=batches,
            num_rows=8,
            directory=directory,
            seed=0,
            devices=jax.devices()[:number],
            model_parallel=model_parallel,
        )
    except Stop:
        return None


@pytest.mark.slow
def test_it_goes_on_where_it_stopped_on_any_mesh(tmp_path):
    whole = run(tmp_path / "whole")
    assert run(tmp_path / "parts", stop=5) is None
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path / "parts"), whole)
    assert_close(run(tmp_path / "mesh", number=4, model_parallel=2), whole, atol=1e-3)


def test_what_it_gives_is_a_plain_generator(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [rng.integers(1, 40, length).tolist() for length in rng.integers(2, 9, 16)]
    sids = rng.integers(0, SIZES, (16, 3)).astype(np.int32)
    fitted = generator.fit_generator(
        config=Lora(config=dataclasses.replace(DECODER, emb_dim=16), rank=4),
        training=Training(epochs=60, batch_size=8, learning_rate=0.05, log_every=1000),
        pieces=pieces,
        sids=sids,
        max_pieces=8,
        directory=tmp_path,
        devices=jax.devices()[:1],
    )
    assert isinstance(fitted.config, DecoderConfig) and not fitted.config.scan_layers
    log_probs = generator.score_pairs(
        fitted=fitted, pieces=pieces, query_index=np.arange(16), sids=sids
    )
    assert np.exp(log_probs[:, -1]).mean() > 0.6
    generator.save(tmp_path / "generator.safetensors", fitted)
    again = generator.load(tmp_path / "generator.safetensors")
    assert (again.config, again.version) == (fitted.config, fitted.version)


def test_it_starts_from_the_weights_of_the_network():
    folder = pathlib.Path(__file__).parents[1] / "golden" / "qwen3"
    network = dataclasses.replace(DecoderConfig.of_folder(folder), sid_sizes=SIZES)
    config = Lora(config=network, rank=2)
    params, expected = config.pretrained(folder, seed=1), network.pretrained(folder, seed=1)
    assert params.keys() == {"text", "codes", "adapters"}
    jax.tree.map(
        np.testing.assert_array_equal, config.unstacked(params), network.unstacked(expected)
    )


def test_a_gin_file_puts_it_around_a_models_own():
    files = ["gin/runs/demo.gin", "gin/models/smollm2_135m.gin", "gin/models/lora.gin"]
    configuration.parse(files=files, bindings=["MODEL_DIR = 'out'"], search_paths=[])
    config = configuration.bound(generate.run)["config"]
    assert isinstance(config, Lora) and isinstance(config.config, DecoderConfig)
    config = config.fitted_to(text_vocab_size=49_152, sid_sizes=(8, 8))
    adapters = param_shapes(config)["adapters"]
    numbers = sum(leaf.size for leaf in jax.tree.leaves(adapters))
    emb, kv, mlp = 576, 192, 1536
    assert numbers == 30 * 8 * (2 * (emb + emb) + 2 * (emb + kv) + 3 * (emb + mlp))


FAULTS = {
    "config": (None, "DecoderConfig", Lora(config=DECODER)),
    "rank": (0, 2.0, True),
    "alpha": (0.0, -1.0, float("nan"), "16"),
    "targets": ((), ["query"], "query", (1,)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_settings_that_cannot_be_are_named(name):
    valid = Lora(config=DECODER)
    for value in FAULTS[name]:
        with pytest.raises(InputError, match=f"gin binding Lora.{name} is .*; bind"):
            dataclasses.replace(valid, **{name: value})


def test_a_target_that_no_kernel_has_is_named_with_those_there_are():
    config = Lora(config=DECODER, targets=("query", "querry"))
    message = "Lora.targets has 'querry', but kernels of DecoderConfig are in attention, down, "
    with pytest.raises(InputError, match=message):
        init_params(config, seed=0)
