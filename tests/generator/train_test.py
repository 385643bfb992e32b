import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.decoding import beam_search
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.train import batch_spec, make_generator_loss, train
from dsirm_jax.sids import trie
from dsirm_jax.sids.codes import to_tokens
from dsirm_jax.training.meshes import data_mesh, param_shardings, sharded
from dsirm_jax.training.settings import Training

CONFIG = T5Config(
    text_vocab_size=20,
    sid_sizes=(3, 4, 5),
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=16,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout_rate=0.0,
)
TRAINING = Training(epochs=1, batch_size=8, learning_rate=1e-2, log_every=20)


def rows(config, *, number, seed=0):
    """Texts of three tokens, each with the SID that it is to be answered with."""
    rng = np.random.default_rng(seed)
    text = rng.integers(1, config.text_vocab_size, (number, 3)).astype(np.int32)
    sids = rng.integers(0, config.sid_sizes, (number, 3)).astype(np.int32)
    return text, sids


def as_batch(text, sids, *, weights=1.0):
    tokens = to_tokens(sids, sizes=CONFIG.sid_sizes, text_vocab_size=CONFIG.text_vocab_size)
    return {
        "encoder_input_tokens": text,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": np.broadcast_to(np.float32(weights), sids.shape),
    }


def random_batches(start):
    step = start
    while True:
        text, sids = rows(CONFIG, number=8, seed=step)
        weights = np.random.default_rng(step).uniform(0.1, 2, (8, 1)).astype(np.float32)
        yield as_batch(text, sids, weights=weights)
        step += 1


def test_overfits_a_few_rows(tmp_path):
    text, sids = rows(CONFIG, number=8)
    training = dataclasses.replace(TRAINING, epochs=200)
    params = train(
        config=CONFIG,
        objective=GeneratorObjective(),
        training=training,
        batches=lambda start: iter(lambda: as_batch(text, sids), None),
        num_rows=8,
        directory=tmp_path,
        seed=0,
        devices=jax.devices()[:1],
    )
    everything = trie.build(np.argwhere(np.ones(CONFIG.sid_sizes, bool)), sizes=CONFIG.sid_sizes)
    found = beam_search(params, everything, text, config=CONFIG, beams=1)
    np.testing.assert_array_equal(found.sids[:, 0], sids)
    assert np.exp(found.log_probs[:, 0]).min() > 0.9


MESHES = {"data 8": 1, "data 4 x model 2": 2, "data 2 x model 4": 4}
"""Model-parallel devices of eight."""
# Heads, widths and the vocabulary divide by four.
WIDE = dataclasses.replace(CONFIG, num_heads=4, dropout_rate=0.3)
DECODER = DecoderConfig(
    text_vocab_size=20,
    sid_sizes=(3, 4, 5),
    emb_dim=16,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=16,
    num_layers=2,
    qkv_bias=True,
    local_layers=(0,),
    local_window=2,
    remat=True,
)
ARCHITECTURES = {"t5": (WIDE, "token_embedder"), "decoder": (DECODER, "text")}
"""Networks, and where the table of their texts is."""
SMOOTHED = GeneratorObjective(label_smoothing=0.1, z_loss=1e-4)


def run(directory, *, number=8, model_parallel=1, batches=random_batches):
    """Trains six steps on random rows."""
    return train(
        config=WIDE,
        objective=SMOOTHED,
        training=dataclasses.replace(TRAINING, epochs=6, checkpoint_every=3),
        batches=batches,
        num_rows=8,
        directory=directory,
        seed=0,
        devices=jax.devices()[:number],
        model_parallel=model_parallel,
    )


def assert_near(tree, other):
    """To 1e-4 of the largest entry of each array."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@functools.cache
def one_device_step(config):
    params, batch = init_params(config, seed=0), next(random_batches(0))
    return jax.jit(
        jax.value_and_grad(make_generator_loss(config, objective=SMOOTHED, seed=0), has_aux=True)
    )(params, batch, 1)


@pytest.mark.parametrize(("config", "table"), ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("model_parallel", MESHES.values(), ids=MESHES)
def test_loss_and_gradients_on_a_mesh_are_those_of_one_device(model_parallel, config, table):
    mesh = data_mesh(model_parallel=model_parallel)
    params = init_params(config, seed=0)
    places = param_shardings(mesh, axes=config.logical_axes(), shapes=params)
    params = jax.device_put(params, places)
    batch = sharded(mesh).put_batch(next(random_batches(0)))
    rows = params[table]["embedding"]
    assert rows.addressable_data(0).shape == (128 // model_parallel, 16)
    (loss, per_level), gradient = jax.jit(
        jax.value_and_grad(make_generator_loss(config, objective=SMOOTHED, seed=0), has_aux=True)
    )(params, batch, 1)
    (expected, of_levels), slope = one_device_step(config)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(per_level, of_levels, rtol=1e-5)
    assert_near(gradient, slope)


@pytest.mark.slow
def test_meshes_train_alike_and_go_on_from_each_others_checkpoints(tmp_path):
    expected = run(tmp_path / "one", number=1)
    start = init_params(WIDE, seed=0)
    moved = jax.tree.map(lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), expected, start)
    assert max(jax.tree.leaves(moved)) > 0.01
    assert_near(run(tmp_path / "2x4", model_parallel=4), expected)
    shutil.copytree(tmp_path / "2x4/checkpoints/3", tmp_path / "4x2/checkpoints/3")
    steps = []

    def told(start):
        steps.append(start)
        return random_batches(start)

    assert_near(run(tmp_path / "4x2", model_parallel=2, batches=told), expected)
    assert steps == [3]


def test_batches_are_what_the_step_describes():
    (spec, batch) = batch_spec(CONFIG, rows=8, length=3), next(random_batches(0))
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        name: (array.shape, array.dtype) for name, array in spec.items()
    }


def test_gradients_against_finite_differences():
    params = init_params(CONFIG, seed=1)
    batch = next(random_batches(3))
    loss = jax.jit(
        lambda params: make_generator_loss(CONFIG, objective=GeneratorObjective(), seed=0)(
            params, batch, 0
        )[0]
    )
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    direction = [rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves]
    slope = sum(
        float((np.asarray(g) * d).sum())
        for g, d in zip(jax.tree.leaves(jax.grad(loss)(params)), direction, strict=True)
    )
    width = 1e-3

    def moved(sign):
        return jax.tree.unflatten(
            tree, [a + sign * width * d for a, d in zip(leaves, direction, strict=True)]
        )

    measured = float(loss(moved(1)) - loss(moved(-1))) / (2 * width)
    assert slope == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("config", [CONFIG, DECODER], ids=["t5", "decoder"])
def test_rows_without_weight_do_not_count(config):
    params = init_params(config, seed=2)
    text, sids = rows(config, number=4)
    loss = jax.jit(
        lambda batch: make_generator_loss(config, objective=GeneratorObjective(), seed=0)(
            params, batch, 0
        )[0]
    )
    half = np.array([[1.0], [1.0], [0.0], [0.0]], np.float32)
    weighted = loss(as_batch(text, sids, weights=half))
    np.testing.assert_allclose(weighted, loss(as_batch(text[:2], sids[:2])), rtol=1e-5)
    graded = np.array([[1.0], [0.5], [0.25], [0.0]], np.float32)
    each = [loss(as_batch(text[row : row + 1], sids[row : row + 1])) for row in range(4)]
    expected = np.average(each, weights=graded[:, 0])
    np.testing.assert_allclose(loss(as_batch(text, sids, weights=graded)), expected, rtol=1e-5)
    # Fresh logits have about unit variance: near the uniform log(3 * 4 * 5) = 4.1 nats.
    assert 3 < float(weighted) < 7


@pytest.mark.slow
@pytest.mark.parametrize("config", [CONFIG, DECODER], ids=["t5", "decoder"])
def test_resumes_where_it_stopped(tmp_path, config):
    def run(directory, epochs, batches=random_batches):
        settings = dataclasses.replace(TRAINING, epochs=epochs, checkpoint_every=2)
        return train(
            config=config,
            objective=GeneratorObjective(),
            training=settings,
            batches=batches,
            num_rows=8,
            directory=directory,
            seed=0,
            devices=jax.devices()[:1],
        )

    class Stop(Exception):
        pass

    def stopping(start):
        for step, batch in enumerate(random_batches(start), start):
            if step == 5:
                raise Stop
            yield batch

    whole = run(tmp_path / "whole", 8)
    with pytest.raises(Stop):
        run(tmp_path / "parts", 8, stopping)
    resumed = run(tmp_path / "parts", 8)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_updates_too_small_for_bfloat16_add_up(tmp_path):
    config = dataclasses.replace(DECODER, dtype="bfloat16", remat=False)
    text, sids = rows(config, number=8)
    params = train(
        config=config,
        objective=GeneratorObjective(),
        training=dataclasses.replace(TRAINING, epochs=12, learning_rate=2e-4, warmup_share=0.0),
        batches=lambda start: iter(lambda: as_batch(text, sids), None),
        num_rows=8,
        directory=tmp_path,
        seed=0,
        devices=jax.devices()[:1],
    )
    scale = params["layers"]["pre_mlp_norm"]["scale"]  # 1 at first; bfloat16 has steps of 2^-8
    assert scale.dtype == np.float32
    assert 5e-4 < np.abs(scale - 1).max() < 2**-8


def test_the_best_step_on_queries_held_out_is_kept(tmp_path):
    """Rows that contradict those held out are learnt from step 6 on."""
    config = dataclasses.replace(DECODER, remat=False)
    text, sids = rows(config, number=8)
    held_out = as_batch(text, sids)
    other = as_batch(text, ((sids + 1) % config.sid_sizes).astype(np.int32))

    def batches(start):
        while True:
            yield held_out if start < 6 else other
            start += 1

    params = train(
        config=config,
        objective=GeneratorObjective(),
        training=dataclasses.replace(TRAINING, epochs=18, checkpoint_every=6, warmup_share=0.0),
        batches=batches,
        num_rows=8,
        directory=tmp_path,
        seed=0,
        devices=jax.devices()[:1],
        held_out=[held_out],
    )
    loss = jax.jit(make_generator_loss(config, objective=GeneratorObjective(), seed=0))
    assert loss(params, held_out, 0)[0] < loss(params, other, 0)[0] - 0.5


def test_several_sids_of_a_row_are_learnt_by_the_loss_that_is_bound():
    params, (text, sids) = init_params(DECODER, seed=0), rows(DECODER, number=6)
    weights = np.array([[3.0, 1.0], [0.5, 0.5], [1.0, 0.0]], np.float32)
    tokens = to_tokens(sids, sizes=(3, 4, 5), text_vocab_size=20).reshape(3, 2, 3)
    several = {
        "encoder_input_tokens": text[:3],
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": np.repeat(weights[..., None], 3, axis=2),
    }
    sums, each = {}, []
    for name in ("mean", "marginal"):
        objective = GeneratorObjective(of_several=name)
        loss = make_generator_loss(DECODER, objective=objective, seed=0)
        sums[name] = float(jax.jit(loss)(params, several, 0)[0])
    loss = jax.jit(make_generator_loss(DECODER, objective=GeneratorObjective(), seed=0))
    for row in range(6):
        batch = as_batch(text[row // 2][None], sids[row : row + 1])
        each.append(float(loss(params, batch, 0)[0]))
    each = np.array(each).reshape(3, 2)
    assert sums["mean"] == pytest.approx(np.average(each, weights=weights), rel=1e-5)
    total = weights.sum(axis=1)
    marginal = -np.log((weights * np.exp(-each)).sum(axis=1) / total)
    assert sums["marginal"] == pytest.approx(np.average(marginal, weights=total), rel=1e-5)


def test_a_batch_with_several_sids_is_what_the_step_describes():
    spec = batch_spec(CONFIG, rows=8, length=3, sids=2)
    assert spec["encoder_input_tokens"].shape == (8, 3)
    assert spec["decoder_target_tokens"].shape == spec["decoder_loss_weights"].shape == (8, 2, 3)
