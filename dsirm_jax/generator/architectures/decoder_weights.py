"""Pretrained decoder-only language models as arrays, by the paths of `decoder_only`'s parameters.

Layers are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.generator.architectures.decoder_layers import DecoderShape, layer_parameters
from dsirm_jax.generator.architectures.decoder_settings import decoder_family
from dsirm_jax.generator.architectures.tensors import Weights, hugging_face_weights

EMBEDDING, NORM, LAYERS = "text/embedding", "text/norm/scale", "layers"
OUTPUT = "lm_head.weight"
Flat = dict[str, np.ndarray]


class TextModel(NamedTuple):
    """A language model without anything for SIDs.

    Attributes:
      params: its parameters by their paths.
      output: rows of its output layer, a token each; of its embedding where that is both.
    """

    params: Flat
    output: Float[np.ndarray, "token emb"]


class Names(NamedTuple):
    """Hugging Face's names of a model's tensors.

    Attributes:
      embedding: of the embedding.
      norm: of the last norm.
      output: of the output layer; that of the embedding where it is both.
      layers: of each parameter, its path in a layer to a name for each layer.
    """

    embedding: str
    norm: str
    output: str
    layers: Mapping[str, tuple[str, ...]]


def checked_names(weights: Weights, *, config: DecoderShape, tokens: int) -> Names:
    """Returns what the tensors of a model are called; none is read.

    Args:
      weights: its files.
      config: its settings.
      tokens: rows of its embedding.

    Raises:
      InputError: a tensor is missing, or unknown, or of another shape; it is named.
    """
    family = decoder_family(weights.config, path=weights.config_file)
    # Models without an output layer are kept without this prefix.
    prefix = "model." if any(name.startswith("model.") for name in weights.tensors) else ""
    embedding = f"{prefix}embed_tokens.weight"
    is_tied = weights.config.get("tie_word_embeddings", family.is_tied)
    has_output = OUTPUT in weights.tensors or (prefix and not is_tied)
    names = Names(
        embedding=embedding,
        norm=f"{prefix}norm.weight",
        output=OUTPUT if has_output else embedding,
        layers={
            path: tuple(f"{prefix}layers.{n}.{name}" for n in range(config.num_layers))
            for path, name in layer_names(config).items()
        },
    )
    table = (tokens, config.emb_dim)
    expected: dict[str, tuple[int, ...]] = {
        names.embedding: table,
        names.output: table,
        names.norm: (config.emb_dim,),
    }
    for path, (shape, _) in layer_parameters(config).items():
        theirs = shape[::-1] if path.endswith("/kernel") else shape
        expected |= dict.fromkeys(names.layers[path], theirs)
    # Wavelengths of positions, which old files have and settings decide.
    old = [name for name in weights.tensors if name.endswith(".rotary_emb.inv_freq")]
    weights.check_tensors(expected, ignored=old)
    return names


def read_text_model(folder: Path, *, config: DecoderShape, tokens: int) -> TextModel:
    """Reads the weights of a folder.

    Args:
      folder: with `config.json` and `model.safetensors`, or its shards and their index.
      config: of the model, as `read_settings` says.
      tokens: rows of its embedding.

    Raises:
      InputError: a tensor is missing, or unknown, of another shape or not finite; it is named.
    """
    weights = hugging_face_weights(folder)
    names = checked_names(weights, config=config, tokens=tokens)
    offset = decoder_family(weights.config, path=weights.config_file).scale_offset
    params = {
        EMBEDDING: weights.read_float32(names.embedding),
        NORM: weights.read_float32(names.norm) + np.float32(offset),
    }
    for path, of_layers in names.layers.items():
        stack = np.stack([weights.read_float32(name) for name in of_layers])
        if path.endswith("/kernel"):
            stack = stack.swapaxes(1, 2)
        shift = np.float32(offset if path.endswith("/scale") else 0.0)
        params[f"{LAYERS}/{path}"] = np.ascontiguousarray(stack) + shift
    is_tied = names.output == names.embedding
    output = params[EMBEDDING] if is_tied else weights.read_float32(names.output)
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
