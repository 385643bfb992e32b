"""Pretrained decoder-only language models, read from Hugging Face folders.

Settings have the names of `decoder_only.DecoderConfig`, parameters its paths; layers are stacked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.generator.architectures.decoder_layers import DecoderShape, layer_parameters
from dsirm_jax.generator.architectures.tensors import CONFIG, read_json, read_tensors
from dsirm_jax.io.checks import is_whole
from dsirm_jax.io.errors import InputError

EMBEDDING, NORM, LAYERS = "text/embedding", "text/norm/scale", "layers"
Flat = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What a `model_type` says beside the entries of its `config.json`.

    Attributes:
      settings: of the architecture.
      activation: the entry that names the activation.
      scale_offset: added to the stored scales of norms.
      is_tied: whether the embedding is the output layer where no entry says so.
    """

    settings: Mapping[str, Any]
    activation: str = "hidden_act"
    scale_offset: float = 0.0
    is_tied: bool = False


FAMILIES = {
    "llama": Family(settings={}),
    "qwen2": Family(settings={"qkv_bias": True}),
    "qwen3": Family(settings={"qk_norm": True}),
    "gemma3_text": Family(
        settings={"qk_norm": True, "post_norm": True, "scales_embedding": True},
        activation="hidden_activation",
        scale_offset=1.0,
        is_tied=True,
    ),
}
SIZES = {
    "emb_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "mlp_dim": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "text_vocab_size": "vocab_size",
}
ACTIVATION_NAMES = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
UNUSUAL = (
    *("attention_bias", "mlp_bias", "attn_logit_softcapping", "final_logit_softcapping"),
    *("use_bidirectional_attention", "quantization_config"),
)
"""Entries that are false, or nothing, in all models that are read here."""
GLOBAL_LAYER, LOCAL_LAYER = "full_attention", "sliding_attention"


class TextModel(NamedTuple):
    """A language model without anything for SIDs.

    Attributes:
      params: its parameters by their paths.
      output: rows of its output layer, a token each; of its embedding where that is both.
    """

    params: Flat
    output: Float[np.ndarray, "token emb"]


def read_settings(folder: Path) -> dict[str, Any]:
    """Returns the settings that the `config.json` of a folder decides.

    Raises:
      InputError: the family is not known, an entry is missing, or is one that no family here has.
    """
    path = Path(folder) / CONFIG
    family, described = _described(path)
    settings: dict[str, Any] = {
        ours: _size(described, theirs, path=path) for ours, theirs in SIZES.items()
    }
    heads, layers = settings["num_heads"], settings["num_layers"]
    optional = {
        "num_kv_heads": ("num_key_value_heads", heads),
        "head_dim": ("head_dim", settings["emb_dim"] // heads),
    }
    for ours, (theirs, otherwise) in optional.items():
        given = described.get(theirs) is not None
        settings[ours] = _size(described, theirs, path=path) if given else otherwise
    for name in UNUSUAL:
        if described.get(name):
            raise InputError(f"{path}: {name} is {described[name]!r}; give a model without it")
    activation = _entry(described, family.activation, path=path)
    if activation not in ACTIVATION_NAMES:
        raise InputError(
            f"{path}: {family.activation} is {activation!r}; give a model with one of "
            f"{', '.join(ACTIVATION_NAMES)}"
        )
    settings["mlp_activation"] = ACTIVATION_NAMES[activation]
    settings["norm_epsilon"] = _entry(described, "rms_norm_eps", path=path)
    if "query_pre_attn_scalar" in described:
        settings["query_scale"] = described["query_pre_attn_scalar"] ** -0.5
    local = _local_layers(described, layers=layers, path=path)
    if local:
        settings["local_window"] = _size(described, "sliding_window", path=path)
    settings["local_layers"] = local
    settings |= _rope(described, has_local=bool(local), path=path)
    return settings | dict(family.settings)


def read_text_model(folder: Path, *, config: DecoderShape, tokens: int) -> TextModel:
    """Reads the weights of a folder.

    Args:
      folder: with `model.safetensors`, or its shards and their index.
      config: of the model, as `read_settings` says.
      tokens: rows of its embedding.

    Raises:
      InputError: a tensor is missing, or unknown, of another shape or not finite; it is named.
    """
    folder = Path(folder)
    family, described = _described(folder / CONFIG)
    arrays = read_tensors(folder)
    # Models without an output layer are kept without this prefix.
    prefix = "model." if any(name.startswith("model.") for name in arrays) else ""

    def taken(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in arrays:
            raise InputError(f"{folder}: the weights have no tensor {name}; give a whole model")
        if arrays[name].shape != shape:
            raise InputError(
                f"{folder}: tensor {name} is {arrays[name].shape}, but {CONFIG} says {shape}; give "
                f"weights and {CONFIG} of one model"
            )
        return arrays.pop(name)

    emb = config.emb_dim
    params = {
        EMBEDDING: taken(f"{prefix}embed_tokens.weight", (tokens, emb)),
        NORM: taken(f"{prefix}norm.weight", (emb,)) + np.float32(family.scale_offset),
    }
    names = layer_names(config)
    for path, (shape, _) in layer_parameters(config).items():
        is_kernel, is_scale = path.endswith("/kernel"), path.endswith("/scale")
        stack = [
            taken(f"{prefix}layers.{number}.{names[path]}", shape[::-1] if is_kernel else shape)
            for number in range(config.num_layers)
        ]
        if is_kernel:
            stack = [array.T for array in stack]
        offset = np.float32(family.scale_offset if is_scale else 0.0)
        params[f"{LAYERS}/{path}"] = np.stack(stack) + offset
    output = params[EMBEDDING]
    is_tied = described.get("tie_word_embeddings", family.is_tied)
    if "lm_head.weight" in arrays or (prefix and not is_tied):
        output = taken("lm_head.weight", (tokens, emb))
    # Wavelengths of positions, which old files have and settings decide.
    left = sorted(name for name in arrays if not name.endswith(".rotary_emb.inv_freq"))
    if left:
        raise InputError(
            f"{folder}: the weights have a tensor {left[0]} that no {described['model_type']} has "
            f"with this {CONFIG}; give weights and {CONFIG} of one model"
        )
    return TextModel(params, output)


def layer_names(config: DecoderShape) -> dict[str, str]:
    """Returns Hugging Face's name, behind that of the layer, of every parameter of one, by ours.

    Its matrices are the transposes of our kernels.
    """
    modules = {
        **{f"attention/{name}": f"self_attn.{name[0]}_proj" for name in ("query", "key", "value")},
        "attention/out": "self_attn.o_proj",
        "attention/query_norm": "self_attn.q_norm",
        "attention/key_norm": "self_attn.k_norm",
        **{f"mlp/{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")},
        "pre_attention_norm": "input_layernorm",
        "pre_mlp_norm": "post_attention_layernorm",
    }
    if config.post_norm:
        modules |= {
            "post_attention_norm": "post_attention_layernorm",
            "pre_mlp_norm": "pre_feedforward_layernorm",
            "post_mlp_norm": "post_feedforward_layernorm",
        }
    names = {}
    for path in layer_parameters(config):
        module, _, kind = path.rpartition("/")
        names[path] = f"{modules[module]}.{'bias' if kind == 'bias' else 'weight'}"
    return names


def with_sid_arrays(
    text: TextModel,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    rows: Int[np.ndarray, " token"] | slice,
    seed: int,
) -> Flat:
    """Returns parameters to start training from: a pretrained model, and new arrays for SIDs.

    What codes are read by is drawn about the mean of the embedding's rows, with their standard
    deviation in every dimension; what they are written by, about that of the output layer's.

    Args:
      text: the model.
      shapes: of all parameters, by their paths.
      rows: of the embedding that the vocabulary has, in its order; others are left out.
      seed: of the new arrays.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    embedding = text.params[EMBEDDING][rows]
    read, written = (
        (table.mean(axis=0, dtype=np.float64), table.std(axis=0, dtype=np.float64))
        for table in (embedding, text.output[rows])
    )
    missing = shapes[EMBEDDING][0] - len(embedding)
    flat = text.params | {EMBEDDING: np.pad(embedding, ((0, missing), (0, 0)))}
    for path, shape in shapes.items():
        if path not in flat:
            is_head = path.rpartition("/")[2].startswith("head_")
            mean, spread = written if is_head else read
            drawn = mean + spread * generator.normal(size=shape[::-1] if is_head else shape)
            flat[path] = np.ascontiguousarray(drawn.T if is_head else drawn, np.float32)
    return flat


def _described(path: Path) -> tuple[Family, Mapping[str, Any]]:
    """Returns the family and the entries of a `config.json`."""
    described = read_json(path)
    kind = described.get("model_type") if isinstance(described, dict) else None
    if kind not in FAMILIES:
        raise InputError(
            f"{path}: model_type is {kind!r}; give a model of one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind], described


def _entry(described: Mapping[str, Any], name: str, *, path: Path) -> Any:
    if name not in described:
        raise InputError(f"{path}: no entry {name}; give the model's own {CONFIG}")
    return described[name]


def _size(described: Mapping[str, Any], name: str, *, path: Path) -> int:
    value = _entry(described, name, path=path)
    if not is_whole(value, least=1):
        raise InputError(f"{path}: {name} is {value!r}; give a whole number of at least 1")
    return value


def _local_layers(described: Mapping[str, Any], *, layers: int, path: Path) -> tuple[int, ...]:
    """Returns the numbers of the layers that see a window alone."""
    kinds = described.get("layer_types")
    if kinds is None:
        pattern = described.get("sliding_window_pattern")
        if described["model_type"] == "gemma3_text":
            every = 6 if pattern is None else pattern
            return tuple(number for number in range(layers) if (number + 1) % every)
        first = (
            described.get("max_window_layers", 0) if described.get("use_sliding_window") else layers
        )
        return tuple(range(first, layers))
    if len(kinds) != layers or not {*kinds} <= {GLOBAL_LAYER, LOCAL_LAYER}:
        raise InputError(
            f"{path}: layer_types is {kinds!r}; give {GLOBAL_LAYER} or {LOCAL_LAYER} for each of "
            f"{layers} layers"
        )
    return tuple(number for number, kind in enumerate(kinds) if kind == LOCAL_LAYER)


def _rope(described: Mapping[str, Any], *, has_local: bool, path: Path) -> dict[str, Any]:
    """Returns the settings of positions, of either layout of their entries."""
    # Since version 5 transformers writes `rope_parameters`, of each kind of layer if they differ.
    both = described.get("rope_parameters") or {}
    scaled = both.get(GLOBAL_LAYER, both) or described.get("rope_scaling") or {}
    # Llama 1 and 2 do not say it.
    base = scaled.get("rope_theta", described.get("rope_theta", 10_000.0))
    kind = scaled.get("rope_type", scaled.get("type", "default"))
    settings: dict[str, Any] = {"rope_theta": float(base), "rope_factor": 1.0, "rope_bands": ()}
    try:
        if kind in ("linear", "llama3"):
            settings["rope_factor"] = float(scaled["factor"])
        if kind == "llama3":
            names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
            settings["rope_bands"] = tuple(float(scaled[name]) for name in names)
    except KeyError as error:
        raise InputError(f"{path}: no entry {error} of positions; give the model's own") from error
    if kind not in ("default", "linear", "llama3"):
        raise InputError(
            f"{path}: positions are stretched by {kind!r}; give a model with default, linear or "
            f"llama3"
        )
    if has_local:
        local = both.get(LOCAL_LAYER, {})
        is_default = local.get("rope_type", "default") == "default"
        theta = local.get("rope_theta", described.get("rope_local_base_freq"))
        if theta is None:  # one base for all layers, as in Qwen
            theta, is_default = base, kind == "default"
        if not is_default:
            raise InputError(
                f"{path}: positions of layers with a window are stretched; give a model whose "
                f"global layers' alone are"
            )
        settings["local_rope_theta"] = float(theta)
    return settings
