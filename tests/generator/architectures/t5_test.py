import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning

from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.t5 import T5Config, decoder_inputs
from dsirm_jax.generator.architectures.t5_layers import relative_buckets
from dsirm_jax.generator.architectures.t5_stacks import START, Transformer

CONFIG = T5Config(
    text_vocab_size=50,
    sid_sizes=(4, 5, 6),
    emb_dim=16,
    num_heads=2,
    head_dim=4,
    mlp_dim=12,
    num_encoder_layers=2,
    num_decoder_layers=1,
)


@functools.partial(jax.jit, static_argnames=("config", "method"))
def apply(params, *args, config=CONFIG, method=None):
    return Transformer(config).apply({"params": params}, *args, method=method)


NORM = ((16,), ("embed",))
INWARD = ((16, 8), ("embed", "joined_kv"))
OUTWARD = ((8, 16), ("joined_kv", "embed"))
ATTENTION = {"query": INWARD, "key": INWARD, "value": INWARD, "out": OUTWARD}
MLP = {
    "wi_0": ((16, 12), ("embed", "mlp")),
    "wi_1": ((16, 12), ("embed", "mlp")),
    "wo": ((12, 16), ("mlp", "embed")),
}


def kernels(prefix, shapes):
    return {f"{prefix}/{name}/kernel": shape for name, shape in shapes.items()}


def t5x_tree():
    """Parameters and axes of T5X's `t5x.examples.t5.network.Transformer`, written by hand."""
    relpos = ((2, 32), ("heads", "relpos_buckets"))
    tree = {
        "token_embedder/embedding": ((128, 16), ("vocab", "embed")),
        "encoder/relpos_bias/rel_embedding": relpos,
        "encoder/encoder_norm/scale": NORM,
        "decoder/relpos_bias/rel_embedding": relpos,
        "decoder/decoder_norm/scale": NORM,
        "decoder/logits_dense/kernel": ((16, 128), ("embed", "vocab")),
        "decoder/layers_0/pre_self_attention_layer_norm/scale": NORM,
        "decoder/layers_0/pre_cross_attention_layer_norm/scale": NORM,
        "decoder/layers_0/pre_mlp_layer_norm/scale": NORM,
    }
    tree |= kernels("decoder/layers_0/self_attention", ATTENTION)
    tree |= kernels("decoder/layers_0/encoder_decoder_attention", ATTENTION)
    tree |= kernels("decoder/layers_0/mlp", MLP)
    for layer in ("encoder/layers_0", "encoder/layers_1"):
        tree[f"{layer}/pre_attention_layer_norm/scale"] = NORM
        tree[f"{layer}/pre_mlp_layer_norm/scale"] = NORM
        tree |= kernels(f"{layer}/attention", ATTENTION)
        tree |= kernels(f"{layer}/mlp", MLP)
    return tree


def flat(tree):
    paths, _ = jax.tree.flatten_with_path(tree)
    return {"/".join(key.key for key in path): leaf for path, leaf in paths}


def test_parameters_and_axes_are_those_of_t5x():
    params = flat(init_params(CONFIG, seed=0))
    expected = t5x_tree()
    assert {name: leaf.shape for name, leaf in params.items()} == {
        name: shape for name, (shape, _) in expected.items()
    }
    assert all(leaf.dtype == jnp.float32 for leaf in params.values())
    text, sids = jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1, 3), jnp.int32)
    variables = jax.eval_shape(Transformer(CONFIG).init, jax.random.key(0), text, sids)
    names = partitioning.get_axis_names(variables["params_axes"])
    named = {name: tuple(leaf) for name, leaf in flat(names).items()}
    assert named == {name: axes for name, (_, axes) in expected.items()}


def test_initial_scales_are_those_of_t5x():
    wide = CONFIG.__class__(**{**vars(CONFIG), "emb_dim": 256, "head_dim": 64, "mlp_dim": 256})
    params = flat(init_params(wide, seed=1))
    for name, expected in {
        "token_embedder/embedding": 1.0,
        "encoder/layers_0/attention/query/kernel": (256 * 64) ** -0.5,
        "encoder/layers_0/attention/key/kernel": 256**-0.5,
        "encoder/layers_0/attention/out/kernel": 128**-0.5,
        "decoder/layers_0/mlp/wi_0/kernel": 256**-0.5,
        "decoder/logits_dense/kernel": 256**-0.5,
    }.items():
        assert params[name].std() == pytest.approx(expected, rel=0.03), name


def numpy_forward(params, text, inputs, *, config):
    """Another implementation: one query, one hypothesis, plain loops over heads and positions."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def mlp(x, w):
        wi_0, wi_1, wo = (w[name]["kernel"] for name in ("wi_0", "wi_1", "wo"))
        return (gelu(x @ wi_0) * (x @ wi_1)) @ wo

    def attention(x, y, w, bias, allowed):
        heads, dim = config.num_heads, config.head_dim
        out = np.zeros((len(x), heads * dim))
        for head in range(heads):
            part = slice(head * dim, (head + 1) * dim)
            q, k, v = (
                s @ w[name]["kernel"][:, part]
                for s, name in ((x, "query"), (y, "key"), (y, "value"))
            )
            for i in range(len(x)):
                logits = np.array([q[i] @ k[j] + bias[head, i, j] for j in range(len(y))])
                weights = np.where(allowed[i], np.exp(logits - logits.max()), 0)
                out[i, part] = weights @ v / weights.sum()
        return out @ w["out"]["kernel"]

    def bias(table, length, bidirectional):
        at = np.arange(length)
        return table[:, relative_buckets(at, at, bidirectional=bidirectional)]

    table = p["token_embedder"]["embedding"]
    real = np.broadcast_to(text != 0, (len(text), len(text)))
    x, enc = table[text], p["encoder"]
    position = bias(enc["relpos_bias"]["rel_embedding"], len(text), True)
    for index in range(config.num_encoder_layers):
        w = enc[f"layers_{index}"]
        y = norm(x, w["pre_attention_layer_norm"]["scale"])
        x = x + attention(y, y, w["attention"], position, real)
        x = x + mlp(norm(x, w["pre_mlp_layer_norm"]["scale"]), w["mlp"])
    encoded = norm(x, enc["encoder_norm"]["scale"])
    x, dec, length = table[inputs], p["decoder"], len(inputs)
    position = bias(dec["relpos_bias"]["rel_embedding"], length, False)
    no_bias = np.zeros((config.num_heads, length, len(text)))
    for index in range(config.num_decoder_layers):
        w = dec[f"layers_{index}"]
        y = norm(x, w["pre_self_attention_layer_norm"]["scale"])
        x = x + attention(y, y, w["self_attention"], position, np.tri(length, dtype=bool))
        y = norm(x, w["pre_cross_attention_layer_norm"]["scale"])
        x = x + attention(
            y, encoded, w["encoder_decoder_attention"], no_bias, real[:1].repeat(3, 0)
        )
        x = x + mlp(norm(x, w["pre_mlp_layer_norm"]["scale"]), w["mlp"])
    whole = norm(x, dec["decoder_norm"]["scale"]) @ dec["logits_dense"]["kernel"]
    return [whole[0, 50:54], whole[1, 54:59], whole[2, 59:65]]


def test_logits_against_a_plain_implementation():
    params = init_params(CONFIG, seed=2)
    text = np.array([7, 49, 3, 12, 0, 0])
    sid = np.array([3, 1, 5])
    inputs = np.asarray(decoder_inputs(sid, config=CONFIG))
    assert inputs.tolist() == [START, 53, 55]
    logits = apply(params, text[None], inputs[None, None])
    expected = numpy_forward(params, text, inputs, config=CONFIG)
    for ours, theirs in zip(logits, expected, strict=True):
        np.testing.assert_allclose(ours[0, 0], theirs, rtol=2e-4, atol=2e-5)


def test_relative_buckets_by_hand():
    at = np.array([0])
    far = np.array([0, 1, 7, 8, 15, 16, 31, 32, 127, 128, 1000])
    # Exact below 8; from there log(d / 8) / log(16) * 8 more, at most 15; later keys come 16 on.
    assert relative_buckets(far, at, bidirectional=True)[:, 0].tolist() == [
        *(0, 1, 7, 8, 9, 10, 11, 12, 15, 15, 15)
    ]
    assert relative_buckets(at, far, bidirectional=True)[0].tolist() == [
        *(0, 17, 23, 24, 25, 26, 27, 28, 31, 31, 31)
    ]
    # Causal: exact below 16, then log(d / 16) / log(8) * 16 more; later keys share bucket 0.
    assert relative_buckets(far, at, bidirectional=False)[:, 0].tolist() == [
        *(0, 1, 7, 8, 15, 16, 21, 21, 31, 31, 31)
    ]
    assert relative_buckets(at, far, bidirectional=False)[0].tolist() == [0] * 11


def test_cached_steps_equal_the_full_pass():
    params = init_params(CONFIG, seed=3)
    rng = np.random.default_rng(0)
    text = rng.integers(1, 50, (3, 7)) * (np.arange(7) < np.array([[7], [4], [1]]))
    sids = rng.integers(0, CONFIG.sid_sizes, (3, 4, 3))
    inputs = decoder_inputs(jnp.asarray(sids), config=CONFIG)
    full = apply(params, text, inputs)
    queries = apply(params, text, method=Transformer.encode)
    past = None
    for level in range(3):
        (logits,), past = apply(
            params, queries, inputs[..., level : level + 1], past, method=Transformer.decode
        )
        np.testing.assert_allclose(logits, full[level], rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing_and_hypotheses_are_independent():
    params = init_params(CONFIG, seed=4)
    text = np.array([[5, 6, 7]])
    sids = jnp.array([[[0, 1, 2], [3, 4, 5]]])
    inputs = decoder_inputs(sids, config=CONFIG)
    both = apply(params, text, inputs)
    padded = apply(params, np.pad(text, ((0, 2), (0, 13)))[:1], inputs)
    alone = apply(params, text, inputs[:, 1:])
    for level in range(3):
        np.testing.assert_allclose(both[level], padded[level], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(both[level][:, 1:], alone[level], rtol=1e-5, atol=1e-5)


def test_bfloat16_computes_float32_logits_near_those_of_float32():
    params = init_params(CONFIG, seed=5)
    half = T5Config(**{**vars(CONFIG), "dtype": "bfloat16"})
    text, sids = np.array([[5, 6, 7]]), jnp.array([[[0, 1, 2]]])
    inputs = decoder_inputs(sids, config=CONFIG)
    exact, rough = (apply(params, text, inputs, config=c) for c in (CONFIG, half))
    for one, other in zip(exact, rough, strict=True):
        assert other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=0.1)
        assert np.abs(one - other).max() > 0


def test_text_columns_get_no_gradient():
    params = init_params(CONFIG, seed=6)
    text, sids = np.array([[5, 6, 7]]), jnp.array([[[0, 1, 2]]])

    def total(params):
        logits = apply(params, text, decoder_inputs(sids, config=CONFIG))
        return sum(jnp.sum(level**2) for level in logits)

    kernel = np.asarray(jax.grad(total)(params)["decoder"]["logits_dense"]["kernel"])
    assert not kernel[:, :50].any() and not kernel[:, 65:].any() and kernel[:, 50:65].all()


FIRST_VERSION = dataclasses.replace(
    CONFIG, mlp_activations=("relu",), logits_via_embedding=True, num_decoder_layers=2
)


def test_version_1_0_has_one_hidden_layer_and_no_output_layer():
    params = flat(init_params(FIRST_VERSION, seed=0))
    assert params["encoder/layers_1/mlp/wi/kernel"].shape == (16, 12)
    assert not [name for name in params if "wi_" in name or "logits_dense" in name]


def test_tied_logits_are_scaled_products_with_the_embeddings():
    params = init_params(FIRST_VERSION, seed=1)
    tied = dataclasses.replace(FIRST_VERSION, logits_via_embedding=False)
    table = params["token_embedder"]["embedding"]
    untied = params | {
        "decoder": params["decoder"] | {"logits_dense": {"kernel": table.T / 4}}  # 4 = 16 ** 0.5
    }
    text, inputs = np.array([[5, 6, 7]]), decoder_inputs(jnp.array([[[0, 1, 2]]]), config=CONFIG)
    for ours, theirs in zip(
        apply(params, text, inputs, config=FIRST_VERSION),
        apply(untied, text, inputs, config=tied),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        (CONFIG, {"remat": True}),
        (CONFIG, {"remat": True, "scan_layers": True}),
        (FIRST_VERSION, {"scan_layers": True}),
        (CONFIG, {"scan_layers": "unrolled"}),
        (CONFIG, {"remat": "products"}),
        (CONFIG, {"remat": "products", "scan_layers": True}),
        (CONFIG, {"remat": "products", "scan_layers": "unrolled"}),
    ],
    ids=[
        *("remat", "both", "scanned, version 1.0", "unrolled"),
        *("products kept", "products kept, scanned", "products kept, unrolled"),
    ],
)
def test_remat_and_scan_change_neither_logits_nor_gradients(config, changed):
    variant = dataclasses.replace(config, **changed)
    params = init_params(config, seed=7)
    text = np.array([[5, 6, 7, 0], [9, 0, 0, 0]])
    inputs = decoder_inputs(jnp.array([[[0, 1, 2]], [[3, 3, 3]]]), config=config)

    def total(params, config):
        logits = Transformer(config).apply({"params": params}, text, inputs)
        return sum(jnp.sum(jnp.sin(level)) for level in logits)

    value, gradient = jax.jit(jax.value_and_grad(total), static_argnums=1)(params, config)
    if variant.scan_layers:
        params = variant.stacked(params)
        shapes = jax.tree.map(jnp.shape, init_params(variant, seed=0))
        assert jax.tree.map(jnp.shape, params) == shapes
    same, slope = jax.jit(jax.value_and_grad(total), static_argnums=1)(params, variant)
    slope, plain = variant.unstacked(slope), variant.unscanned()
    assert plain == dataclasses.replace(variant, scan_layers=False)
    np.testing.assert_allclose(same, value, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), slope, gradient
    )


def _gradient(config, *, key):
    """Returns the gradient of a sum of logits, as a function of the parameters."""
    text, sids = np.array([[5, 6, 7, 0], [9, 0, 0, 0]]), np.array([[[0, 1, 2]], [[3, 3, 3]]])

    def total(params):
        logits = config.teacher_forced(params, text, sids, key=key)
        return sum(jnp.sum(jnp.sin(level)) for level in logits)

    return jax.jit(jax.grad(total))


@pytest.mark.parametrize(
    "changed",
    [{"scan_layers": "unrolled"}, {"remat": "products"}, {"remat": True}],
    ids=["unrolled", "products kept", "remat"],
)
def test_neither_unrolling_nor_remat_changes_what_is_dropped(changed):
    config = dataclasses.replace(CONFIG, dropout_rate=0.4, scan_layers=True)
    params = init_params(config, seed=7)

    looped = _gradient(config, key=jax.random.key(3))(params)
    variant = _gradient(dataclasses.replace(config, **changed), key=jax.random.key(3))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), variant, looped
    )


@pytest.mark.parametrize("scan_layers", [True, "unrolled"], ids=["looped", "unrolled"])
def test_unrolled_layers_are_no_loop(scan_layers):
    config = dataclasses.replace(CONFIG, num_decoder_layers=3, scan_layers=scan_layers)
    params = jax.eval_shape(lambda: init_params(config, seed=0))
    program = _gradient(config, key=None).lower(params).as_text()
    assert ("stablehlo.while" in program) == (scan_layers is True)


def test_kept_products_are_not_computed_again():
    def products(remat):
        """Returns how many products a gradient has with parameters, and without."""
        config = dataclasses.replace(CONFIG, remat=remat)
        params = jax.eval_shape(lambda: init_params(config, seed=0))
        program = _gradient(config, key=None).lower(params).as_text()
        found = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
        attention = sum("batching_dims" in line for line in found)
        return len(found) - attention, attention

    plain, kept, again = map(products, (False, "products", True))

    attentions = CONFIG.num_encoder_layers + 2 * CONFIG.num_decoder_layers
    assert plain[1] == 6 * attentions  # two products, and two of the gradient of each
    assert kept == (plain[0], plain[1] + 2 * attentions)
    assert again[0] > plain[0]


def test_scanned_parameters_and_axes_are_those_of_t5x():
    scanned = dataclasses.replace(CONFIG, scan_layers=True)
    shapes = {name: leaf.shape for name, leaf in flat(init_params(scanned, seed=0)).items()}
    axes = {name: tuple(leaf) for name, leaf in flat(scanned.logical_axes()).items()}
    expected = {}
    for name, (shape, named) in t5x_tree().items():
        stack, _, rest = name.partition("/layers_")
        if rest:  # the two layers of the encoder, the only one of the decoder
            layers = 2 if stack == "encoder" else 1
            name = f"{stack}/{stack}/{rest.partition('/')[2]}"
            shape = (shape[0], layers, *shape[1:])
            named = (named[0], "layers", *named[1:])
        expected[name] = (shape, named)
    assert shapes == {name: shape for name, (shape, _) in expected.items()}
    assert axes == {name: named for name, (_, named) in expected.items()}


def test_scanned_layers_refuse_to_decode_step_by_step():
    scanned = dataclasses.replace(CONFIG, scan_layers=True)
    with pytest.raises(ValueError, match="unstacked"):
        apply(
            init_params(scanned, seed=0), np.array([[5]]), config=scanned, method=Transformer.encode
        )


def test_dropout_needs_a_key():
    config = dataclasses.replace(CONFIG, dropout_rate=0.5)
    params = init_params(config, seed=8)
    text, inputs = np.array([[5, 6, 7]]), decoder_inputs(jnp.array([[[0, 1, 2]]]), config=config)
    plain, again = (apply(params, text, inputs, config=config)[0] for _ in range(2))
    np.testing.assert_array_equal(plain, again)
    one, other = (
        Transformer(config).apply(
            {"params": params}, text, inputs, rngs={"dropout": jax.random.key(seed)}
        )[0]
        for seed in (0, 1)
    )
    assert np.abs(one - plain).max() > 1e-3 and np.abs(one - other).max() > 1e-3
