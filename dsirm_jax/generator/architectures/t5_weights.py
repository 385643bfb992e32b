"""Pretrained T5 weights, read from Hugging Face and T5X.

Whatever they come from, text parameters are in T5X's tree (see `t5.py`), layers one by one,
without rows for SIDs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jaxtyping import Int

from dsirm_jax.data.vocabularies.trimming import kept_rows
from dsirm_jax.generator.architectures.architecture import param_shapes
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.architectures.t5_text import (
    EMBEDDING,
    OUTPUT,
    SHAPE,
    WEIGHTS,
    save_text_params,
)
from dsirm_jax.generator.architectures.tensors import Tensor, Weights, hugging_face_weights
from dsirm_jax.io.errors import InputError

LM_HEAD = "lm_head.weight"
Flat = dict[str, np.ndarray]

ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
SUBLAYERS = {
    "encoder": (
        ("SelfAttention", "attention", "pre_attention_layer_norm"),
        ("DenseReluDense", "mlp", "pre_mlp_layer_norm"),
    ),
    "decoder": (
        ("SelfAttention", "self_attention", "pre_self_attention_layer_norm"),
        ("EncDecAttention", "encoder_decoder_attention", "pre_cross_attention_layer_norm"),
        ("DenseReluDense", "mlp", "pre_mlp_layer_norm"),
    ),
}
"""Hugging Face's sublayers in their order, our names for them and for the norm before."""


def hugging_face_names(config: T5Config) -> dict[str, str]:
    """Returns Hugging Face's name of every parameter, by ours; its matrices are our transposes.

    Embeddings are the exception, their rows being tokens on both sides. The output layer is not
    among them: transformers keeps one or none.

    Args:
      config: shape of the model.
    """
    hidden = ("wi_0", "wi_1") if len(config.mlp_activations) > 1 else ("wi",)
    names = {EMBEDDING: "shared.weight"}
    for stack, layers in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        bias = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        names[f"{stack}/relpos_bias/rel_embedding"] = f"{stack}.{bias}"
        names[f"{stack}/{stack}_norm/scale"] = f"{stack}.final_layer_norm.weight"
        for layer in range(layers):
            for number, (theirs, ours, norm) in enumerate(SUBLAYERS[stack]):
                inner = {name: name for name in (*hidden, "wo")} if ours == "mlp" else ATTENTION
                from_, to = f"{stack}.block.{layer}.layer.{number}", f"{stack}/layers_{layer}"
                names[f"{to}/{norm}/scale"] = f"{from_}.layer_norm.weight"
                for their_name, our_name in inner.items():
                    names[f"{to}/{ours}/{our_name}/kernel"] = (
                        f"{from_}.{theirs}.{their_name}.weight"
                    )
    return names


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Model:
    """See `families.family.Model`.

    Attributes:
      weights: its files; a checkpoint of T5X has no settings, and tensors by our names.
      config: its settings.
      names: of its tensors by ours.
      logit_scale: what its output layer is multiplied by.
    """

    weights: Weights
    config: T5Config
    names: Mapping[str, str]
    logit_scale: float = 1.0

    @classmethod
    def of(cls, weights: Weights) -> T5Model:
        """Looks at a T5, T5.1.1, FLAN-T5 or mT5; see `families.family.Family.model`."""
        config = _hugging_face_config(weights.config, path=weights.config_file)
        names, scale = hugging_face_names(config), 1.0
        rows = _rows_of(weights, names[EMBEDDING])
        if LM_HEAD in weights.tensors:
            # Whether there is an output layer of its own, and not a copy of the embedding, the
            # tensors say; config.json does so in some versions of transformers only.
            is_copy = config.logits_via_embedding and np.array_equal(
                weights.read(LM_HEAD), weights.read(names[EMBEDDING])
            )
            if not is_copy:
                names[OUTPUT] = LM_HEAD
        elif not config.logits_via_embedding:
            names[OUTPUT] = names[EMBEDDING]
        if OUTPUT in names and config.logits_via_embedding:
            scale = 1 / math.sqrt(config.emb_dim)
            config = dataclasses.replace(config, logits_via_embedding=False)
        config = dataclasses.replace(config, text_vocab_size=rows)
        shapes = text_shapes(config)
        expected = {
            theirs: shapes[EMBEDDING] if ours in (EMBEDDING, OUTPUT) else shapes[ours][::-1]
            for ours, theirs in names.items()
        }
        copies = {LM_HEAD, "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
        weights.check_tensors(expected, ignored=copies)
        return cls(weights=weights, config=config, names=names, logit_scale=scale)

    @property
    def decisive(self) -> tuple[str, ...]:
        return (*SHAPE, "dropout_rate")

    @property
    def bytes_per_token(self) -> int:
        return 4 * self.config.emb_dim * (2 if OUTPUT in self.names else 1)

    def params(self, kept: Int[np.ndarray, " kept"] | None = None) -> dict:
        """Returns the parameters, float32.

        Args:
          kept: tokens that have a row, in their order; all when not given.

        Raises:
          InputError: a tensor cannot be read, or has a number that is not finite.
        """
        is_ours = self.weights.model_type is None
        flat = {}
        for ours, theirs in self.names.items():
            array = self.weights.read_float32(theirs)
            if not is_ours and ours != EMBEDDING and array.ndim > 1:
                array = array.T
            flat[ours] = array
        if OUTPUT in flat:
            flat[OUTPUT] = flat[OUTPUT] * np.float32(self.logit_scale)
        if kept is not None:
            flat[EMBEDDING] = kept_rows(flat[EMBEDDING], kept)
            if OUTPUT in flat:
                flat[OUTPUT] = np.ascontiguousarray(kept_rows(flat[OUTPUT].T, kept).T)
        return traverse_util.unflatten_dict(flat, sep="/")

    def write(self, folder: Path, *, kept: Int[np.ndarray, " kept"]) -> str:
        config = dataclasses.replace(self.config, text_vocab_size=len(kept))
        save_text_params(folder / WEIGHTS, params=self.params(kept), config=config)
        return WEIGHTS


def read_hugging_face(folder: Path) -> tuple[T5Config, dict]:
    """Reads a T5, T5.1.1, FLAN-T5 or mT5 as Hugging Face keeps it.

    Args:
      folder: with `config.json` and `model.safetensors`, or its shards and their index.

    Returns:
      The configuration, `text_vocab_size` being the rows of the embedding, and the parameters,
      float32.

    Raises:
      InputError: a file or a tensor is missing, or of another shape, or unknown, or not finite;
        or the architecture is none of these. The message names it.
    """
    model = T5Model.of(hugging_face_weights(folder))
    return model.config, model.params()


def read_t5x(folder: Path) -> tuple[T5Config, dict]:
    """Reads a T5X checkpoint; see `t5x_checkpoint`; what it returns: see `read_hugging_face`."""
    model = t5x_checkpoint(folder)
    return model.config, model.params()


def t5x_checkpoint(folder: Path) -> T5Model:
    """Opens a T5X checkpoint of `t5x.examples.t5` or `scalable_t5`.

    Args:
      folder: `checkpoint_N`, as T5X's own checkpointer wrote it (a file `checkpoint` beside a
        folder for every array) or Orbax.

    Returns:
      The model, whose shape is that of the arrays; two hidden layers are taken to be T5.1.1's.

    Raises:
      InputError: it is no such checkpoint.
    """
    folder = Path(folder)
    flat = {name: np.asarray(array) for name, array in _t5x_arrays(folder)}
    tree = traverse_util.unflatten_dict(flat, sep="/")
    flat = traverse_util.flatten_dict(
        {name: _unscanned(part, name) for name, part in tree.items()}, sep="/"
    )
    bias, query, out = (
        "encoder/relpos_bias/rel_embedding",
        "encoder/layers_0/attention/query/kernel",
        "encoder/layers_0/mlp/wo/kernel",
    )
    for name in (EMBEDDING, bias, query, out):
        if name not in flat:
            raise InputError(f"{folder}: no parameter {name}; give a T5X checkpoint of a T5")
    heads, (emb_dim, joined) = len(flat[bias]), flat[query].shape
    gated = "encoder/layers_0/mlp/wi_0/kernel" in flat
    config = T5Config(
        emb_dim=emb_dim,
        num_heads=heads,
        head_dim=joined // heads,
        mlp_dim=len(flat[out]),
        num_encoder_layers=_count_layers(flat, "encoder"),
        num_decoder_layers=_count_layers(flat, "decoder"),
        mlp_activations=("gelu", "linear") if gated else ("relu",),
        logits_via_embedding=OUTPUT not in flat,
        text_vocab_size=len(flat[EMBEDDING]),
    )
    tensors = {
        name: Tensor(folder, array.shape, str(array.dtype), functools.partial(np.asarray, array))
        for name, array in flat.items()
    }
    weights = Weights(path=folder, config_file=folder, config={}, tensors=tensors)
    expected = text_shapes(config)
    weights.check_tensors(expected)
    return T5Model(weights=weights, config=config, names={name: name for name in expected})


def text_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all parameters of a T5 without rows for SIDs, by their paths."""
    like = param_shapes(dataclasses.replace(config, sid_sizes=(1,)))
    found = {name: of.shape for name, of in traverse_util.flatten_dict(like, sep="/").items()}
    found[EMBEDDING] = (config.text_vocab_size, config.emb_dim)
    if OUTPUT in found:
        found[OUTPUT] = found[EMBEDDING][::-1]
    return found


def _hugging_face_config(described: Mapping[str, Any], *, path: Path) -> T5Config:
    if described.get("model_type") not in ("t5", "mt5"):
        raise InputError(
            f"{path}: model_type is {described.get('model_type')!r}; give a T5, FLAN-T5 or mT5"
        )
    feed_forward = described.get("feed_forward_proj", "relu")
    activations = {"relu": ("relu",), "gated-gelu": ("gelu", "linear")}
    if feed_forward not in activations:
        raise InputError(
            f"{path}: feed_forward_proj is {feed_forward!r}; give one of {', '.join(activations)}"
        )
    for name, ours in (
        ("relative_attention_num_buckets", 32),
        ("relative_attention_max_distance", 128),
    ):
        if described.get(name, ours) != ours:
            raise InputError(f"{path}: {name} is {described[name]}; give a model with {ours}")
    # Version 1.0 multiplies the decoder's states so that they suit the embedding.
    scaled = described["model_type"] == "t5" and described.get("tie_word_embeddings", True)
    try:
        return T5Config(
            emb_dim=described["d_model"],
            num_heads=described["num_heads"],
            head_dim=described["d_kv"],
            mlp_dim=described["d_ff"],
            num_encoder_layers=described["num_layers"],
            num_decoder_layers=described.get("num_decoder_layers") or described["num_layers"],
            mlp_activations=activations[feed_forward],
            logits_via_embedding=described.get("scale_decoder_outputs", scaled),
            dropout_rate=described.get("dropout_rate", 0.1),
        )
    except KeyError as error:
        raise InputError(f"{path}: no entry {error}; give the model's own config.json") from error


def _t5x_arrays(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the parameters of a T5X checkpoint, with their paths below `target`."""
    import tensorstore

    if (folder / "checkpoint").is_file():
        from flax import serialization

        state = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
        target = traverse_util.flatten_dict(
            state["optimizer"]["target"], is_leaf=lambda _, value: "kvstore" in value, sep="/"
        )
        for name, value in target.items():
            # Small arrays stand in the file, of the others only where they are.
            if isinstance(value, dict):
                at = folder / Path(value["kvstore"]["path"]).name
                if not at.is_dir():
                    raise InputError(f"{at}: no such folder; copy the whole checkpoint")
                spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(at)}}
                value = tensorstore.open(spec, open=True).result().read().result()
            yield name, value
        return
    import orbax.checkpoint as ocp

    try:
        state = ocp.PyTreeCheckpointer().restore(
            folder / "state" if (folder / "state").is_dir() else folder
        )
        params = state["target"] if "target" in state else state["params"]
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{folder}: neither Hugging Face's folder (no config.json) nor a checkpoint of T5X"
        ) from error
    yield from traverse_util.flatten_dict(params, sep="/").items()


def _unscanned(part: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns a stack with its layers one by one."""
    if name not in part:
        return part
    rest = dict(part)
    layers = rest.pop(name)
    count = jax.tree.leaves(layers)[0].shape[1]
    return rest | {
        f"layers_{index}": jax.tree.map(lambda array, index=index: array[:, index], layers)
        for index in range(count)
    }


def _rows_of(weights: Weights, name: str) -> int:
    """Returns the rows of a tensor, 0 of one that is not there, or is no table."""
    return (*(weights.tensors[name].shape if name in weights.tensors else ()), 0)[0]


def _count_layers(flat: Flat, stack: str) -> int:
    return len({m[0] for name in flat if (m := re.match(rf"{stack}/layers_\d+", name))})
