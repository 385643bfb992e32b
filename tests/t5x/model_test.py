"""The adapter beside T5X's own model and this package's own trainer, on the same parameters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.architectures.t5_stacks import Transformer
from dsirm_jax.generator.losses import GeneratorObjective
from dsirm_jax.generator.score import encode_texts, score_prefixes
from dsirm_jax.generator.train import make_generator_loss
from dsirm_jax.sids import codes, trie

pytestmark = pytest.mark.usefixtures("t5x")
CONFIG = T5Config(
    emb_dim=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=32,
    num_encoder_layers=2,
    num_decoder_layers=2,
    dropout_rate=0.0,
    text_vocab_size=40,
    sid_sizes=(3, 4, 4),
)
CONFIGS = {
    "1.1": CONFIG,
    "1.0": dataclasses.replace(CONFIG, mlp_activations=("relu",), logits_via_embedding=True),
}


def batch_of(config, *, rows=8, seed=0):
    """Texts of unequal lengths, SIDs as tokens, weights of unequal rows."""
    rng = np.random.default_rng(seed)
    text = rng.integers(1, config.text_vocab_size, (rows, 6)).astype(np.int32)
    text[np.arange(6) >= rng.integers(2, 7, (rows, 1))] = 0
    sids = rng.integers(0, config.sid_sizes, (rows, len(config.sid_sizes))).astype(np.int32)
    tokens = codes.to_tokens(sids, sizes=config.sid_sizes, text_vocab_size=config.text_vocab_size)
    weights = rng.uniform(0.1, 2, (rows, 1)).astype(np.float32)
    return {
        "encoder_input_tokens": text,
        "decoder_input_tokens": np.pad(tokens[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": np.broadcast_to(weights, tokens.shape),
    }


def t5x_network(config):
    """T5X's example model of the same shape."""
    from t5x.examples.t5 import network

    shared = {"num_heads", "head_dim", "emb_dim", "mlp_dim", "dropout_rate", "mlp_activations"}
    shared |= {"num_encoder_layers", "num_decoder_layers", "logits_via_embedding"}
    return network.Transformer(
        network.T5Config(
            vocab_size=config.vocab_size, **{name: getattr(config, name) for name in shared}
        )
    )


def t5x_level_logits(config, params, batch):
    """The logits of T5X's model over the whole vocabulary, cut to the columns of each level."""
    logits = t5x_network(config).apply(
        {"params": params},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"],
        batch["decoder_target_tokens"],
        enable_dropout=False,
    )
    firsts = config.text_vocab_size + codes.level_offsets(config.sid_sizes)
    return [
        logits[:, level, first : first + size]
        for level, (first, size) in enumerate(zip(firsts, config.sid_sizes, strict=True))
    ]


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def config(request):
    return request.param


@pytest.fixture(scope="module")
def params(config):
    return init_params(config, seed=1)


def generator(config, shop, **options):
    """The adapter on the shop's vocabulary and SIDs."""
    from dsirm_jax.generator.t5x_model import SidGenerator, existing_sids

    return SidGenerator(
        config=config,
        vocabulary=shop / "vocabulary.model",
        sids=existing_sids(shop / "sids.parquet"),
        sizes=config.sid_sizes,
        optimizer_def=None,
        **({"objective": GeneratorObjective()} | options),
    )


def test_parameters_and_their_axes_are_t5xs(config, params):
    from flax.linen import partitioning

    text, sids = jnp.ones((2, 6), jnp.int32), jnp.ones((2, 3), jnp.int32)
    theirs = jax.eval_shape(
        functools.partial(t5x_network(config).init, enable_dropout=False),
        *(jax.random.key(0), text, sids, sids),
    )
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, dict(theirs["params"]))
    assert config.logical_axes() == partitioning.get_axis_names(theirs["params_axes"])


def test_logits_are_t5xs(config, params):
    batch = batch_of(config)
    ours = Transformer(config).apply(
        {"params": params},
        batch["encoder_input_tokens"],
        batch["decoder_input_tokens"][:, None],
    )
    for level, expected in zip(ours, t5x_level_logits(config, params, batch), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(level[:, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_loss_is_t5xs_on_both_trainers(config, params, shop, z_loss):
    from t5x.losses import compute_weighted_cross_entropy

    objective = GeneratorObjective(z_loss=z_loss)
    model = generator(config, shop, objective=objective)
    config, batch = model.config, batch_of(model.config)
    params = init_params(config, seed=1)
    weights = batch["decoder_loss_weights"]
    sids = codes.from_tokens(
        batch["decoder_target_tokens"],
        sizes=config.sid_sizes,
        text_vocab_size=config.text_vocab_size,
    )
    expected = 0.0
    for level, logits in enumerate(t5x_level_logits(config, params, batch)):
        total, *_ = compute_weighted_cross_entropy(
            logits, sids[:, level], weights[:, level], z_loss=z_loss
        )
        expected += total / weights[:, level].sum()
    own, _ = make_generator_loss(config, objective=objective, seed=0)(params, batch, 0)
    loss, measured = model.loss_fn(params, batch, jax.random.PRNGKey(0))
    np.testing.assert_allclose(own, expected, rtol=1e-5)
    np.testing.assert_array_equal(loss, own)
    np.testing.assert_array_equal(model.eval_fn(params, batch)[0], own)
    np.testing.assert_array_equal(measured["loss"].total, own)
    levels = [measured[f"loss_level_{level}"].total for level in (1, 2, 3)]
    np.testing.assert_allclose(sum(levels), own, rtol=1e-6)


def test_dropout_is_on_only_with_a_key(shop):
    model = generator(dataclasses.replace(CONFIG, dropout_rate=0.5), shop)
    params, batch = init_params(model.config, seed=1), batch_of(model.config)
    losses = [float(model.loss_fn(params, batch, jax.random.PRNGKey(n))[0]) for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert float(model.eval_fn(params, batch)[0]) not in losses


def test_scores_and_predictions_are_those_of_the_package(shop):
    from dsirm_jax.generator.score import Prefixes

    model = generator(CONFIG, shop, beams=5)
    config, batch = model.config, batch_of(model.config)
    params = init_params(config, seed=1)
    sids = codes.from_tokens(
        batch["decoder_target_tokens"],
        sizes=config.sid_sizes,
        text_vocab_size=config.text_vocab_size,
    )
    prefixes = [Prefixes(np.zeros((8, 1), np.int32), sids[:, [level]]) for level in range(3)]
    queries = encode_texts(params, batch["encoder_input_tokens"], config=config)
    expected = score_prefixes(params, queries, prefixes, config=config)[-1][:, 0]
    np.testing.assert_allclose(model.score_batch(params, batch), expected, rtol=1e-5)
    best = model.predict_batch(params, batch)
    tokens, aux = model.predict_batch_with_aux(params, batch, return_all_decodes=True)
    assert tokens.shape == (8, 5, 3)
    np.testing.assert_array_equal(tokens[:, -1], best)  # T5X has the best last
    assert (np.diff(aux["scores"]) >= 0).all()
    decoded = batch | {"decoder_target_tokens": best}
    np.testing.assert_allclose(model.score_batch(params, decoded), aux["scores"][:, -1], rtol=1e-5)


def test_no_more_beams_than_sids_all_of_them_existing(shop):
    from dsirm_jax.generator.t5x_model import existing_sids

    model = generator(CONFIG, shop, beams=100)
    params, batch = init_params(model.config, seed=1), batch_of(model.config)
    tokens, _ = model.predict_batch_with_aux(params, batch, return_all_decodes=True)
    table = existing_sids(shop / "sids.parquet")
    found = codes.from_tokens(
        np.asarray(tokens), sizes=CONFIG.sid_sizes, text_vocab_size=model.config.text_vocab_size
    )
    everything = trie.enumerate_sids(trie.build(table, sizes=CONFIG.sid_sizes))
    for row in found:
        np.testing.assert_array_equal(np.unique(row, axis=0), everything)


def test_scanned_layers_decode_too(shop):

    plain = generator(CONFIG, shop)
    scanned = generator(dataclasses.replace(CONFIG, scan_layers=True), shop)
    params, batch = init_params(plain.config, seed=1), batch_of(plain.config)
    of_scan = scanned.config.stacked(params)
    np.testing.assert_allclose(
        scanned.loss_fn(of_scan, batch, None)[0], plain.loss_fn(params, batch, None)[0], rtol=1e-5
    )
    np.testing.assert_array_equal(
        scanned.predict_batch(of_scan, batch), plain.predict_batch(params, batch)
    )


def test_wrong_number_of_levels_and_missing_files_are_named(shop):
    from dsirm_jax.generator.t5x_model import existing_sids, query_task
    from dsirm_jax.io.errors import InputError

    shapes = {"encoder_input_tokens": (8, 6), "decoder_input_tokens": (8, 4)}
    with pytest.raises(InputError, match=r"\['targets'\] is 4, but the SIDs have 3 levels"):
        generator(CONFIG, shop).get_initial_variables(jax.random.PRNGKey(0), shapes)
    with pytest.raises(InputError, match=r"none.parquet: no such table of SIDs"):
        existing_sids(shop / "none.parquet")
    with pytest.raises(InputError, match=r"none.txt: no such file"):
        query_task(path=shop / "none.txt", vocabulary=shop / "vocabulary.model", sizes=(3, 4, 4))
