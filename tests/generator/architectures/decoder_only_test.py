import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsirm_jax import generator
from dsirm_jax.generator.architectures.architecture import Architecture, param_shapes
from dsirm_jax.generator.architectures.decoder_layers import frequencies
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.description import architecture_from, describe_architecture
from dsirm_jax.io.errors import InputError
from dsirm_jax.run import configuration
from dsirm_jax.serving.formats import stablehlo
from dsirm_jax.sids import trie as tries
from dsirm_jax.stages import generate
from dsirm_jax.training.settings import Training

SIZES = (3, 4, 5)
CONFIG = DecoderConfig(
    emb_dim=12,
    num_heads=4,
    num_kv_heads=2,
    head_dim=6,
    mlp_dim=10,
    num_layers=2,
    scan_layers=False,
    text_vocab_size=40,
    sid_sizes=SIZES,
)
EVERYTHING = dataclasses.replace(
    CONFIG,
    mlp_activation="gelu_tanh",
    qkv_bias=True,
    qk_norm=True,
    post_norm=True,
    scales_embedding=True,
    query_scale=0.3,
    rope_theta=500.0,
    rope_factor=2.0,
    rope_bands=(1.0, 4.0, 16.0),
    local_layers=(0,),
    local_window=3,
    local_rope_theta=50.0,
)
VARIANTS = {"plain": CONFIG, "every option": EVERYTHING}
TEXT = np.array([[7, 39, 3, 12, 8, 5, 0, 0], [9, 2, 0, 0, 0, 0, 0, 0]], np.int32)
SIDS = np.array([[[0, 1, 2], [2, 3, 4]], [[1, 1, 1], [0, 0, 0]]], np.int32)


def random_params(config):
    """Returns parameters of which none is as it was made: biases and scales too."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda like: (0.4 * rng.normal(size=like.shape)).astype(np.float32), param_shapes(config)
    )


@functools.partial(jax.jit, static_argnames="config")
def teacher_forced(params, tokens, sids, *, config):
    return config.teacher_forced(params, tokens, sids)


@functools.partial(jax.jit, static_argnames="config")
def stepwise(params, tokens, sids, *, config):
    """Returns the logits of the levels one after the other, from the cache."""
    state, past, codes, found = config.encode(params, tokens), None, sids[..., :0], []
    for level in range(len(config.sid_sizes)):
        (logits,), past = config.decode(params, state, codes, past)
        codes = sids[..., level : level + 1]
        found.append(logits)
    return tuple(found)


def assert_close(found, expected, *, atol=1e-5):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=atol)


def numpy_logits(params, text, sid, config):
    """Another implementation: one query, one SID, loops over heads and positions, float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_epsilon) * scale["scale"]

    def dense(w, x):
        return x @ w["kernel"] + w.get("bias", 0)

    def turned(x, position, theta):
        """Pairs of dimensions as complex numbers."""
        half = config.head_dim // 2
        angles = position * theta ** (-np.arange(half) / half)
        z = (x[:half] + 1j * x[half:]) * np.exp(1j * angles)
        return np.concatenate([z.real, z.imag])

    def act(x):
        if config.mlp_activation == "silu":
            return x / (1 + np.exp(-x))
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    of = p["sid"]
    x = np.stack([*p["text"]["embedding"][text], of["start"]])
    x = np.stack([*x, *(of[f"codes_{level}"][code] for level, code in enumerate(sid[:-1]))])
    x = x * (np.sqrt(config.emb_dim) if config.scales_embedding else 1)
    dim, group = config.head_dim, config.num_heads // config.num_kv_heads
    for number in range(config.num_layers):
        w, is_local = p["layers"][str(number)], number in config.local_layers
        window = config.local_window if is_local else len(x)
        theta = config.local_rope_theta if is_local else config.rope_theta
        y, a = norm(x, w["pre_attention_norm"]), w["attention"]
        read = np.zeros((len(x), config.num_heads * dim))
        for head in range(config.num_heads):
            mine, shared = (slice(h * dim, (h + 1) * dim) for h in (head, head // group))
            q, (k, v) = dense(a["query"], y), (dense(a[name], y) for name in ("key", "value"))
            q, k, v = q[:, mine], k[:, shared], v[:, shared]
            if config.qk_norm:
                q, k = norm(q, a["query_norm"]), norm(k, a["key_norm"])
            q, k = (np.stack([turned(r, i, theta) for i, r in enumerate(z)]) for z in (q, k))
            for i in range(len(x)):
                seen = range(max(0, i + 1 - window), i + 1)
                logits = np.array([q[i] @ k[j] * (config.query_scale or dim**-0.5) for j in seen])
                weights = np.exp(logits - logits.max())
                read[i, mine] = weights @ v[[*seen]] / weights.sum()
        y = dense(a["out"], read)
        x = x + (norm(y, w["post_attention_norm"]) if config.post_norm else y)
        y, m = norm(x, w["pre_mlp_norm"]), w["mlp"]
        y = dense(m["down"], act(dense(m["gate"], y)) * dense(m["up"], y))
        x = x + (norm(y, w["post_mlp_norm"]) if config.post_norm else y)
    x = norm(x, p["text"]["norm"])
    return [x[len(text) + level] @ of[f"head_{level}"] for level in range(len(sid))]


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_logits_against_a_plain_implementation(config):
    # What stretches positions is compared with transformers.
    config = dataclasses.replace(config, rope_factor=1.0, rope_bands=())
    params = random_params(config)
    found = teacher_forced(params, TEXT, SIDS, config=config)
    for row, hypothesis in itertools.product(range(2), range(2)):
        text = TEXT[row][TEXT[row] > 0]
        expected = numpy_logits(params, text, SIDS[row, hypothesis], config)
        assert_close([logits[row, hypothesis] for logits in found], expected, atol=1e-4)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_cached_steps_equal_the_full_pass_and_hypotheses_are_independent(config):
    params = random_params(config)
    full = teacher_forced(params, TEXT, SIDS, config=config)
    assert_close(stepwise(params, TEXT, SIDS, config=config), full)
    swapped = teacher_forced(params, TEXT, SIDS[:, ::-1], config=config)
    assert_close(swapped, [logits[:, ::-1] for logits in full])
    assert all(logits.dtype == jnp.float32 for logits in full)


PLACES = {
    "behind": [5, 6, 7, 8, 0, 0, 0],
    "in front": [0, 0, 0, 5, 6, 7, 8],
    "on both sides": [0, 5, 6, 7, 8, 0, 0],
    "between": [5, 0, 6, 0, 7, 0, 8],
}


@pytest.mark.parametrize("place", PLACES)
def test_padding_changes_nothing_wherever_it_is(place):
    params = random_params(EVERYTHING)
    plain = stepwise(params, np.array([[5, 6, 7, 8]]), SIDS[:1], config=EVERYTHING)
    padded = stepwise(params, np.array([PLACES[place]]), SIDS[:1], config=EVERYTHING)
    assert_close(padded, plain)


def test_a_query_without_text_has_finite_logits():
    found = stepwise(random_params(CONFIG), np.zeros((2, 3), np.int32), SIDS, config=CONFIG)
    assert all(np.isfinite(logits).all() for logits in found)


def test_the_prompt_is_kept_once_for_all_hypotheses_and_text_has_no_logits():
    config = dataclasses.replace(CONFIG, text_vocab_size=1000)
    params = param_shapes(config)
    text = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    state = jax.eval_shape(config.encode, params, text)
    kept = {leaf.shape for leaf in jax.tree.leaves(state)}
    assert kept == {(2, 1, 8, 2, 6), (2, 8)}
    sids = jax.ShapeDtypeStruct((2, 50, 3), jnp.int32)
    program = str(jax.make_jaxpr(functools.partial(stepwise, config=config))(params, text, sids))
    assert "2,50,1,2,6]" in program  # keys of a hypothesis
    assert "2,50,8" not in program  # the prompt's are not repeated
    wide = [line for line in program.splitlines() if "1024" in line and "dot_general" in line]
    assert config.text_rows == 1024 and not wide


@pytest.mark.parametrize(
    "changed",
    [
        {"remat": True},
        {"scan_layers": True, "remat": "products"},
        {"scan_layers": "unrolled"},
    ],
    ids=["remat", "scanned, products kept", "unrolled"],
)
def test_remat_and_scan_change_neither_logits_nor_gradients(changed):
    variant = dataclasses.replace(EVERYTHING, **changed)
    params = random_params(variant)

    def total(params, config):
        logits = config.teacher_forced(params, TEXT, SIDS)
        return sum(jnp.sum(jnp.sin(level)) for level in logits)

    same, slope = jax.jit(jax.value_and_grad(total), static_argnums=1)(params, variant)
    params, slope = variant.unstacked(params), variant.unstacked(slope)
    assert variant.unscanned() == dataclasses.replace(variant, scan_layers=False)
    value, gradient = jax.jit(jax.value_and_grad(total), static_argnums=1)(params, EVERYTHING)
    np.testing.assert_allclose(same, value, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), slope, gradient
    )


@pytest.mark.parametrize("scan_layers", [True, False], ids=["stacked", "apart"])
def test_every_parameter_has_names_for_its_axes(scan_layers):
    config = dataclasses.replace(EVERYTHING, scan_layers=scan_layers)
    shapes, axes = param_shapes(config), config.logical_axes()
    assert jax.tree.map(len, axes) == jax.tree.map(lambda like: len(like.shape), shapes)
    assert tuple(axes["text"]["embedding"]) == ("vocab", "embed")
    layer = axes["layers"] if scan_layers else axes["layers"]["1"]
    stacked = ("layers",) if scan_layers else ()
    assert tuple(layer["attention"]["key"]["kernel"]) == (*stacked, "embed", "joined_kv")


def test_bfloat16_computes_float32_logits_near_those_of_float32():
    params = random_params(CONFIG)
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    exact, rough = (teacher_forced(params, TEXT, SIDS, config=c) for c in (CONFIG, half))
    for one, other in zip(exact, rough, strict=True):
        assert other.dtype == jnp.float32
        np.testing.assert_allclose(one, other, atol=0.15)
        assert np.abs(one - other).max() > 0


def test_bands_stretch_low_frequencies_alone():
    plain, stretched = (
        frequencies(dataclasses.replace(CONFIG, head_dim=64, rope_theta=1e6, **changed))[0]
        for changed in ({}, {"rope_factor": 8.0, "rope_bands": (1.0, 4.0, 8192.0)})
    )
    waves = 2 * np.pi / plain  # positions in a turn
    np.testing.assert_allclose(stretched[waves < 2048], plain[waves < 2048], rtol=1e-6)
    np.testing.assert_allclose(stretched[waves > 8192], plain[waves > 8192] / 8, rtol=1e-6)
    assert (np.diff(stretched) < 0).all()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    rng = np.random.default_rng(0)
    config = dataclasses.replace(EVERYTHING, emb_dim=16, scan_layers=True, remat="products")
    pieces = [rng.integers(1, 40, length).tolist() for length in rng.integers(1, 9, 16)]
    sids = rng.integers(0, SIZES, (16, 3)).astype(np.int32)
    fitted = generator.fit_generator(
        config=config,
        training=Training(epochs=60, batch_size=8, learning_rate=0.02, log_every=1000),
        pieces=pieces,
        sids=sids,
        max_pieces=8,
        directory=tmp_path_factory.mktemp("run"),
        sid_version="v1",
        devices=jax.devices()[:1],
    )
    return fitted, pieces, sids


def test_it_learns_is_kept_in_a_file_and_exported(fitted, tmp_path):
    fitted, pieces, sids = fitted
    trie = tries.build(sids, sizes=SIZES)
    beams = generator.predict_sids(fitted=fitted, trie=trie, pieces=pieces, beams=4, batch_size=8)
    assert (beams.sids[:, 0] == sids).all(axis=1).mean() > 0.9
    log_probs = generator.score_pairs(
        fitted=fitted, pieces=pieces, query_index=np.arange(16), sids=beams.sids[:, 0]
    )
    np.testing.assert_allclose(log_probs[:, -1], beams.log_probs[:, 0], rtol=1e-4, atol=1e-5)
    path = tmp_path / "generator.safetensors"
    generator.save(path, fitted)
    again = generator.load(path)
    assert (again.config, again.version) == (fitted.config, fitted.version)
    program = stablehlo.search_program(again, beams=4, forms=tries.forms(trie))
    tokens = np.stack([np.pad(text, (0, 8 - len(text))) for text in pieces[:3]]).astype(np.int32)
    exported, scores = jax.jit(program.call)(again.params, stablehlo.plain(trie), tokens)
    np.testing.assert_array_equal(exported, beams.sids[:3])
    np.testing.assert_allclose(scores, beams.log_probs[:3], atol=1e-5)


def test_its_description_gives_it_back():
    description = describe_architecture(EVERYTHING)
    assert description["class"] == "DecoderConfig" and isinstance(EVERYTHING, Architecture)
    assert architecture_from({**description, "local_layers": [0]}) == EVERYTHING


FAULTS = {
    "emb_dim": (0, 2.0, True, float("nan"), "64"),
    "num_heads": (0, 3),
    "num_kv_heads": (0, 3),
    "head_dim": (0, 5),
    "mlp_dim": (-4,),
    "num_layers": (0,),
    "mlp_activation": ("relu", None),
    "norm_epsilon": (0.0, float("nan")),
    "local_window": (-1, 1.5),
    "qkv_bias": (0, None),
    "qk_norm": (1,),
    "post_norm": ("no",),
    "scales_embedding": (None,),
    "query_scale": (0.0, -1.0, float("nan"), "1"),
    "rope_theta": (0.0, float("inf")),
    "rope_factor": (0.0, None),
    "rope_bands": ((1.0,), (4.0, 1.0, 16.0), (1.0, float("nan"), 16.0), [1.0, 4.0, 16.0], None),
    "local_layers": ((2,), (0, 0), [0], (0.5,), (-1,), None),
    "local_rope_theta": (-1.0,),
    "dtype": ("float16", None),
    "remat": ("no", 1, "unrolled"),
    "scan_layers": (None, "products"),
    "text_vocab_size": (-1, 2.5),
    "sid_sizes": ((0, 4), [4, 4]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_settings_that_cannot_be_are_named(name):
    named = "num_heads" if name == "num_kv_heads" else name
    valid = dataclasses.replace(CONFIG, local_window=1)
    for value in FAULTS[name]:
        binding = f"gin binding DecoderConfig.({name}|{named}) is .*; (bind|leave)"
        with pytest.raises(InputError, match=binding):
            dataclasses.replace(valid, **{name: value})
    with pytest.raises(InputError, match="DecoderConfig.local_window is 0; bind"):
        dataclasses.replace(CONFIG, local_layers=(1,))


# Parameters of the published models, with their embeddings.
PUBLISHED = {
    "smollm2_135m": (49_152, 134_515_008),
    "gemma3_270m": (262_144, 268_098_176),
    "qwen3_0.6b": (151_936, 596_049_920),
    "qwen3_4b": (151_936, 4_022_468_096),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_gin_files_have_as_many_parameters_as_the_published_models(name):
    files = ["gin/runs/demo.gin", f"gin/models/{name}.gin"]
    configuration.parse(files=files, bindings=["MODEL_DIR = 'out'"], search_paths=[])
    tokens, parameters = PUBLISHED[name]
    config = configuration.bound(generate.run)["config"]
    config = config.fitted_to(text_vocab_size=tokens, sid_sizes=())
    shapes = param_shapes(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == parameters + config.emb_dim
