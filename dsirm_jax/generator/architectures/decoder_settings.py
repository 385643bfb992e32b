"""Settings of pretrained decoder-only models, from the entries of Hugging Face's `config.json`.

They have the names of `decoder_only.DecoderConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsirm_jax.generator.architectures.families.decoder_family import DecoderFamily
from dsirm_jax.generator.architectures.families.family import known_families
from dsirm_jax.generator.architectures.tensors import CONFIG, read_json
from dsirm_jax.io.checks import is_whole
from dsirm_jax.io.errors import InputError

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


def decoder_families() -> dict[str, DecoderFamily]:
    """Returns the decoder-only families by their model types."""
    known = known_families().items()
    return {name: family for name, family in known if isinstance(family, DecoderFamily)}


def decoder_family(described: Any, *, path: Path) -> DecoderFamily:
    """Returns the family that settings name.

    Args:
      described: the settings.
      path: the file that has them, for messages.

    Raises:
      InputError: it is not known.
    """
    kind = described.get("model_type") if isinstance(described, dict) else None
    families = decoder_families()
    if kind not in families:
        raise InputError(
            f"{path}: model_type is {kind!r}; give a model of one of {', '.join(families)}"
        )
    return families[kind]


def read_settings(folder: Path) -> dict[str, Any]:
    """Returns the settings that the `config.json` of a folder decides; see `settings_of`."""
    path = Path(folder) / CONFIG
    return settings_of(read_json(path), path=path)


def settings_of(described: Any, *, path: Path) -> dict[str, Any]:
    """Returns the settings that the entries of a `config.json` decide.

    Args:
      described: the entries.
      path: the file that has them, for messages.

    Raises:
      InputError: the family is not known, an entry is missing, or is one that no family here has.
    """
    family = decoder_family(described, path=path)
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
    if described.get("query_pre_attn_scalar") is not None:
        settings["query_scale"] = _size(described, "query_pre_attn_scalar", path=path) ** -0.5
    local = _local_layers(described, layers=layers, path=path)
    if local:
        settings["local_window"] = _size(described, "sliding_window", path=path)
    settings["local_layers"] = local
    settings |= _rope(described, has_local=bool(local), path=path)
    return settings | dict(family.settings)


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
