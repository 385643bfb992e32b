"""Pretrained T5 weights, read from Hugging Face and T5X and kept as one file.

Whatever they come from, text parameters are in T5X's tree (see `t5.py`), layers one by one,
without rows for SIDs: their vocabulary is that of their SentencePiece model.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from dsirm_jax.generator.architectures.architecture import param_shapes
from dsirm_jax.generator.architectures.t5 import T5Config
from dsirm_jax.generator.architectures.t5_text import (
    EMBEDDING,
    GIN,
    OUTPUT,
    SHAPE,
    WEIGHTS,
    save_text_params,
)
from dsirm_jax.generator.architectures.tensors import CONFIG, read_json, read_tensors
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing, write_text

VOCABULARY = "vocabulary.model"
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


def read_hugging_face(folder: Path) -> tuple[T5Config, dict]:
    """Reads a T5, T5.1.1, FLAN-T5 or mT5 as Hugging Face keeps it.

    Args:
      folder: with `config.json` and `model.safetensors`, or its shards and their index.

    Returns:
      The configuration, `text_vocab_size` being the rows of the embedding, and the parameters,
      float32.

    Raises:
      InputError: a file or a parameter is missing, or of another shape, or unknown, or not finite;
        or the architecture is none of these. The message names it.
    """
    folder = Path(folder)
    described = read_json(folder / CONFIG)
    arrays = read_tensors(folder)
    config = _hugging_face_config(described, path=folder / CONFIG)
    names = hugging_face_names(config)
    flat = {}
    for ours, theirs in names.items():
        if theirs not in arrays:
            raise InputError(f"{folder}: the weights have no tensor {theirs}; give a whole model")
        array = arrays.pop(theirs)
        flat[ours] = array if ours == EMBEDDING or array.ndim == 1 else array.T
    # Whether there is an output layer of its own, and not a copy of the embedding, the tensors say;
    # config.json does so in some versions of transformers only.
    output = arrays.pop("lm_head.weight", flat[EMBEDDING])
    if not (config.logits_via_embedding and np.array_equal(output, flat[EMBEDDING])):
        scale = 1 / math.sqrt(config.emb_dim) if config.logits_via_embedding else 1.0
        flat[OUTPUT] = output.T * np.float32(scale)
        config = dataclasses.replace(config, logits_via_embedding=False)
    left = sorted(set(arrays) - {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"})
    if left:
        raise InputError(f"{folder}: the weights have a tensor {left[0]} that no T5 has")
    config = dataclasses.replace(config, text_vocab_size=len(flat[EMBEDDING]))
    _check_shapes(flat, config=config, path=folder)
    return config, traverse_util.unflatten_dict(flat, sep="/")


def read_t5x(folder: Path) -> tuple[T5Config, dict]:
    """Reads a T5X checkpoint of `t5x.examples.t5` or `scalable_t5`.

    Args:
      folder: `checkpoint_N`, as T5X's own checkpointer wrote it (a file `checkpoint` beside a
        folder for every array) or Orbax.

    Returns:
      See `read_hugging_face`; the shape of the model is that of the arrays, and two hidden layers
      are taken to be T5.1.1's.

    Raises:
      InputError: it is no such checkpoint.
    """
    folder = Path(folder)
    flat = {name: np.asarray(array, np.float32) for name, array in _t5x_arrays(folder)}
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
    _check_shapes(flat, config=config, path=folder)
    return config, traverse_util.unflatten_dict(flat, sep="/")


def import_t5(source: Path, out: Path, *, vocabulary: Path | None = None) -> None:
    """Makes a pretrained T5 ready to start from: one folder of its weights, vocabulary and gin.

    Args:
      source: what `read_hugging_face` or `read_t5x` reads.
      out: the folder to make; it must not exist. `WEIGHTS`, `VOCABULARY` and `GIN`, which binds
        both, are written there.
      vocabulary: the SentencePiece model; `spiece.model` in `source` when not given.

    Raises:
      InputError: `out` exists, there is no vocabulary, or it is larger than the embedding; and see
        `read_hugging_face` and `read_t5x`.
    """
    from dsirm_jax.data.vocabulary import take_vocabulary

    source, out = Path(source), Path(out)
    vocabulary = Path(vocabulary or source / "spiece.model")
    if out.exists():
        raise InputError(f"{out} exists; name a folder that does not")
    if not vocabulary.is_file():
        raise InputError(
            f"{vocabulary}: no such file; name the SentencePiece model of these weights with "
            f"--vocabulary"
        )
    read = read_hugging_face if (source / "config.json").is_file() else read_t5x
    config, params = read(source)
    with replacing(out) as partial:
        partial.mkdir(parents=True)
        try:
            pieces = take_vocabulary(vocabulary=vocabulary, path=partial / VOCABULARY)
            if pieces > config.text_vocab_size:
                raise InputError(
                    f"{vocabulary}: {pieces} pieces, but the embedding of {source} has "
                    f"{config.text_vocab_size} rows; they are not of one model"
                )
            # Rows beyond the pieces are padding, or tokens that no text has.
            config = dataclasses.replace(config, text_vocab_size=pieces)
            save_text_params(partial / WEIGHTS, params=_with_rows(params, pieces), config=config)
            write_text(partial / GIN, _gin(config, folder=out))
        except BaseException:
            shutil.rmtree(partial)
            raise


def _with_rows(params: dict, rows: int) -> dict:
    """Returns parameters with the first rows of the vocabulary alone."""
    flat = traverse_util.flatten_dict(params, sep="/")
    flat[EMBEDDING] = flat[EMBEDDING][:rows]
    if OUTPUT in flat:
        flat[OUTPUT] = flat[OUTPUT][:, :rows]
    return traverse_util.unflatten_dict(flat, sep="/")


def _gin(config: T5Config, *, folder: Path) -> str:
    folder = folder.absolute()
    bound = {name: getattr(config, name) for name in (*SHAPE, "dropout_rate")}
    lines = "\n".join(f"  {name} = {value!r}" for name, value in bound.items())
    return f"""# A pretrained T5 to start from: read this file after a run's own.
from __gin__ import dynamic_registration

from dsirm_jax.generator.architectures import t5
from dsirm_jax.stages import generate
from dsirm_jax.stages import prepare

t5.T5Config:
{lines}
prepare.run.vocabulary = {str(folder / VOCABULARY)!r}
generate.run.start = {str(folder / WEIGHTS)!r}
"""


def _hugging_face_config(described: Mapping[str, Any], *, path: Path) -> T5Config:
    if described.get("model_type") not in ("t5", "mt5", "umt5"):
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


def _count_layers(flat: Flat, stack: str) -> int:
    return len({m[0] for name in flat if (m := re.match(rf"{stack}/layers_\d+", name))})


def _check_shapes(flat: Flat, *, config: T5Config, path: Path) -> None:
    """Raises InputError where a parameter is missing, too many, or has another shape."""
    expected = traverse_util.flatten_dict(
        param_shapes(dataclasses.replace(config, sid_sizes=(1,))), sep="/"
    )
    shapes = {name: array.shape for name, array in expected.items()}
    shapes[EMBEDDING] = (config.text_vocab_size, config.emb_dim)
    if OUTPUT in shapes:
        shapes[OUTPUT] = (config.emb_dim, config.text_vocab_size)
    for name in sorted(shapes.keys() | flat.keys()):
        shape = flat[name].shape if name in flat else "missing"
        if shape != shapes.get(name):
            expected = shapes.get(name, "no such parameter")
            raise InputError(f"{path}: parameter {name} is {shape}, expected {expected}")
