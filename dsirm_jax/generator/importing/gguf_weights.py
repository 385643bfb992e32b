"""GGUF files as Hugging Face would have their settings and tensors.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, and llama.cpp's
`convert_hf_to_gguf.py`, which this undoes.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsirm_jax.generator.architectures.decoder_layers import frequencies
from dsirm_jax.generator.architectures.decoder_only import DecoderConfig
from dsirm_jax.generator.architectures.decoder_settings import decoder_families, settings_of
from dsirm_jax.generator.architectures.families.decoder_family import DecoderFamily
from dsirm_jax.generator.architectures.tensors import Tensor, Weights
from dsirm_jax.io.errors import InputError

SUFFIX = ".gguf"
ENTRIES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
}
"""Entries of `config.json` by those of GGUF behind the family's name."""
NEEDED = ("embedding_length", "block_count", "attention.head_count")
OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
OF_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
STRETCH = "rope_freqs.weight"
"""Llama 3.1's stretching of positions, a factor for each frequency."""
LOW, HIGH, LENGTH = 1.0, 4.0, 8192.0
"""Frequency factors of all published models that are so stretched, and their original length."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A GGUF file.

    Attributes:
      path: the file.
      header: its entries; those that are long are read when they are asked for.
      weights: as Hugging Face would have them.
    """

    path: Path
    header: Mapping[str, Callable[[], Any]]
    weights: Weights

    def entry(self, name: str, otherwise: Any = None) -> Any:
        """Returns an entry of the header."""
        return self.header[name]() if name in self.header else otherwise


def read_gguf(path: Path) -> GgufFile:
    """Opens a GGUF file.

    Args:
      path: of a decoder-only family.

    Raises:
      InputError: the package gguf is missing, or the file is damaged, one part of several, or of an
        unknown family.
    """
    try:
        import gguf
    except ImportError as error:
        raise InputError(
            f"{path}: the package gguf, which reads such files, is not here: pip install "
            f"'.[gguf]' in a checkout"
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a GGUF file or a model's folder")
    try:
        reader = gguf.GGUFReader(path)
        header = {name: field.contents for name, field in reader.fields.items()}
        kind = header.get("general.architecture", str)()
    except Exception as error:  # a damaged header raises whatever comes
        raise InputError(f"{path}: no readable GGUF file ({error}); fetch it again") from error
    parts = header.get("split.count", int)()
    if parts > 1:
        raise InputError(
            f"{path}: one of {parts} parts; join them with `llama-gguf-split --merge` before"
        )
    named = {family.gguf_name: family for family in decoder_families().values()}
    if kind not in named:
        raise InputError(
            f"{path}: general.architecture is {kind!r}; give a model of one of {', '.join(named)}"
        )
    family = named[kind]
    found = {tensor.name: tensor for tensor in reader.tensors}
    stretch = found.pop(STRETCH, None)
    config = _config(header, family=family, tensors=found, path=path)
    if stretch is not None:
        config["rope_scaling"] = _stretch(np.asarray(stretch.data), config=config, path=path)
    tensors = {}
    for name, tensor in found.items():
        load = functools.partial(_loaded, path, tensor, family=family, config=config)
        shape = tuple(map(int, reversed(tensor.shape)))
        tensors[_name(name, family)] = Tensor(path, shape, tensor.tensor_type.name, load)
    weights = Weights(path=path, config_file=path, config=config, tensors=tensors)
    return GgufFile(path=path, header=header, weights=weights)


def _config(
    header: Mapping[str, Callable[[], Any]],
    *,
    family: DecoderFamily,
    tensors: Mapping[str, Any],
    path: Path,
) -> dict[str, Any]:
    """Returns the entries of `config.json` that a header stands for."""

    def said(name: str) -> Any:
        value = header.get(f"{family.gguf_name}.{name}", lambda: None)()
        # As it was written before it became a float32.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    for name in NEEDED:
        if not isinstance(said(name), int):
            raise InputError(
                f"{path}: {family.gguf_name}.{name} is {said(name)!r}; give a file with a whole "
                f"number"
            )
    if "token_embd.weight" not in tensors:
        raise InputError(f"{path}: the weights have no tensor token_embd.weight; fetch it again")
    config = {theirs: said(ours) for ours, theirs in ENTRIES.items() if said(ours) is not None}
    heads, width = config["num_attention_heads"], config["hidden_size"]
    config = {"num_key_value_heads": heads, "head_dim": width // heads} | config
    turned = said("rope.dimension_count")
    if turned not in (None, config["head_dim"]):
        raise InputError(
            f"{path}: positions turn {turned} of {config['head_dim']} dimensions; give a model "
            f"that turns all"
        )
    kind = said("rope.scaling.type")
    if kind not in (None, "none"):
        config["rope_scaling"] = {"rope_type": kind, "factor": said("rope.scaling.factor") or 1.0}
    return {
        "model_type": family.model_types[0],
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        **config,
        **family.gguf_entries(config),
    }


def _stretch(factors: np.ndarray, *, config: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Returns the entry that stands for the factors of Llama 3.1's frequencies."""
    whole = DecoderConfig(**settings_of(config, path=path))
    (turns,), factor = frequencies(whole)[:1], float(str(np.max(factors)))
    kept = (1 / factors - 1 / factor) / (1 - 1 / factor)
    between = (kept > 1e-3) & (kept < 1 - 1e-3)
    length = LENGTH
    if factors.shape == turns.shape and between.any():  # undoes `frequencies`
        lengths = (LOW + kept * (HIGH - LOW)) * 2 * math.pi / turns
        length = float(np.round(np.median(lengths[between])))
    stretched = dataclasses.replace(whole, rope_factor=factor, rope_bands=(LOW, HIGH, length))
    expected = turns / frequencies(stretched)[0]
    if expected.shape == factors.shape and np.allclose(factors, expected, rtol=1e-4):
        names = ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        bands = dict(zip(names, (LOW, HIGH, length), strict=True))
        return {"rope_type": "llama3", "factor": factor} | bands
    raise InputError(
        f"{path}: tensor {STRETCH} stretches positions as no published Llama does; give its "
        f"Hugging Face folder"
    )


def _name(name: str, family: DecoderFamily) -> str:
    """Returns Hugging Face's name of a tensor; an unknown one stays."""
    first, *rest = name.split(".")
    if first == "blk" and len(rest) == 3 and rest[1] in OF_LAYER:
        number, part, kind = rest
        theirs = OF_LAYER[part]
        if part == "ffn_norm" and family.settings.get("post_norm"):
            theirs = "pre_feedforward_layernorm"
        return f"model.layers.{number}.{theirs}.{kind}"
    return f"{OUTER[first]}.{rest[0]}" if first in OUTER and len(rest) == 1 else name


def _loaded(
    path: Path, tensor: Any, *, family: DecoderFamily, config: Mapping[str, Any]
) -> np.ndarray:
    """Returns a tensor; what is quantised becomes float32."""
    import gguf
    import ml_dtypes

    kinds = gguf.GGMLQuantizationType
    try:
        array = gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise InputError(
            f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}, which the package gguf "
            f"cannot read; give a file of another quantisation"
        ) from error
    part = tensor.name.split(".")[-2]
    if part.endswith("_norm"):
        return array - np.float32(family.scale_offset)
    if family.gguf_turns and part in ("attn_q", "attn_k"):
        is_query = part == "attn_q"
        heads = config["num_attention_heads" if is_query else "num_key_value_heads"]
        array = _halved(array, heads=heads)
    halves = {kinds.F16: np.float16, kinds.BF16: ml_dtypes.bfloat16}
    return array.astype(halves.get(tensor.tensor_type, np.float32))


def _halved(rows: np.ndarray, *, heads: int) -> np.ndarray:
    """Returns the rows of heads in halves that are in pairs."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)
