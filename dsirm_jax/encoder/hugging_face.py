"""Sentence encoders as Hugging Face folders: weights, tokenizer, pooling, projection, prefixes.

| file | read for |
| --- | --- |
| `config.json` | shape of the BERT |
| `model.safetensors` | its weights, in any float type |
| `tokenizer.json` or `vocab.txt` | the tokenizer |
| `1_Pooling/config.json` | mean or CLS; the mean where it is missing |
| `2_Dense/` | the learnt projection, where there is one |
| `config_sentence_transformers.json` | `prompts`: what precedes queries and items |

What is written reads again in sentence-transformers, transformers, and here, without TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.flax
from flax import traverse_util

from dsirm_jax.data import wordpieces
from dsirm_jax.encoder.bert import BERT_ACTIVATIONS, CLS, MEAN, BertConfig, SentenceEncoder
from dsirm_jax.io.arrays import finite
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing, write_json, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
POOLING = "1_Pooling/config.json"
DENSE, DENSE_WEIGHTS = "2_Dense/config.json", "2_Dense/model.safetensors"
PROMPTS, MODULES = "config_sentence_transformers.json", "modules.json"
QUERY_PROMPTS, ITEM_PROMPTS = ("query",), ("document", "passage")
"""Names of the prompts; the first is the one written."""

_OF_EMBEDDINGS = {
    "pieces": "word_embeddings",
    "positions": "position_embeddings",
    "segments": "token_type_embeddings",
    "norm": "LayerNorm",
}
_OF_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "hidden": "intermediate.dense",
    "out": "output.dense",
    "norm": "output.LayerNorm",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """All that makes vectors of texts.

    Attributes:
      module: the Flax module.
      params: its parameters, float32.
      tokenizer: texts to pieces.
      query_prefix: precedes every query.
      item_prefix: precedes the text of every item.
    """

    module: SentenceEncoder
    params: Any
    tokenizer: Tokenizer
    query_prefix: str = ""
    item_prefix: str = ""


def files(folder: Path) -> list[str]:
    """Returns the files of a folder that are read.

    Raises:
      InputError: one that has to be there is not.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: no such file; give the folder of a BERT-architecture model "
                f"with {CONFIG}, {WEIGHTS} and its tokenizer"
            )
    names = (wordpieces.SETTINGS, POOLING, DENSE, DENSE_WEIGHTS, PROMPTS)
    optional = [folder / name for name in names if (folder / name).is_file()]
    needed = [folder / CONFIG, folder / WEIGHTS, wordpieces.tokenizer_file(folder)]
    return [str(path) for path in (*needed, *optional)]


def read_folder(folder: str | os.PathLike[str], *, dtype: str = "float32") -> TextEncoder:
    """Reads a sentence encoder.

    Args:
      folder: see the table above.
      dtype: of the computation, see `SentenceEncoder`.

    Raises:
      InputError: a file is missing or damaged, or of something that this is not made for.
    """
    folder = Path(folder)
    files(folder)
    config = _read_config(folder / CONFIG)
    module = SentenceEncoder(config=config, pooling=_read_pooling(folder / POOLING), dtype=dtype)
    arrays = _read_arrays(folder / WEIGHTS)
    if (folder / DENSE).is_file():
        kernel = _read_projection(folder)
        arrays["projection"] = kernel
        module = module.clone(dim=kernel.shape[0])
    prompts = _read_json(folder / PROMPTS).get("prompts") or {}
    return TextEncoder(
        module=module,
        params=_params(module, arrays, file=folder / WEIGHTS),
        tokenizer=wordpieces.read_tokenizer(folder),
        query_prefix=_prompt(prompts, QUERY_PROMPTS),
        item_prefix=_prompt(prompts, ITEM_PROMPTS),
    )


def write_folder(folder: str | os.PathLike[str], encoder: TextEncoder) -> None:
    """Writes a sentence encoder, as sentence-transformers lays it out."""
    folder, module = Path(folder), encoder.module
    width, dim = module.config.hidden_size, module.dim
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if dim is not None:
        parts.append(("2_Dense", "Dense"))
        dense = {"in_features": width, "out_features": dim, "bias": False}
        write_json(folder / DENSE, dense | {"activation_function": _IDENTITY})
        kernel = np.asarray(encoder.params["params"]["projection"]["kernel"])
        _write_arrays(folder / DENSE_WEIGHTS, {_LINEAR: kernel.T})
    parts.append((f"{len(parts)}_Normalize", "Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{_MODULES}.{kind}"}
        for number, (path, kind) in enumerate(parts)
    ]
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": module.pooling == CLS,
        "pooling_mode_mean_tokens": module.pooling == MEAN,
    }
    prompts = {
        QUERY_PROMPTS[0]: encoder.query_prefix,
        ITEM_PROMPTS[0]: encoder.item_prefix,
    }
    of_bert = {"architectures": ["BertModel"], "model_type": "bert"}
    write_json(folder / CONFIG, of_bert | dataclasses.asdict(module.config))
    write_json(folder / POOLING, pooling)
    write_json(folder / PROMPTS, {"prompts": prompts})
    write_json(folder / MODULES, modules)
    write_json(
        folder / wordpieces.SETTINGS,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": module.config.max_position_embeddings,
            **wordpieces.padding(encoder.tokenizer),
        },
    )
    write_text(folder / wordpieces.TOKENIZER, wordpieces.to_json(encoder.tokenizer))
    flat = traverse_util.flatten_dict(encoder.params["params"]["bert"])
    arrays = {}
    for path, array in flat.items():
        array = np.asarray(array)
        arrays[_name(path)] = array.T if path[-1] == "kernel" else array
    _write_arrays(folder / WEIGHTS, arrays)


_IDENTITY = "torch.nn.modules.linear.Identity"
_LINEAR = "linear.weight"
_MODULES = "sentence_transformers.models"


def _name(path: tuple[str, ...]) -> str:
    """Returns Hugging Face's name of a parameter of `Bert`."""
    *modules, kind = path
    suffix = "bias" if kind == "bias" else "weight"
    if len(modules) == 1:
        return f"embeddings.{_OF_EMBEDDINGS[modules[0]]}.{suffix}"
    number = modules[0].removeprefix("layer_")
    return f"encoder.layer.{number}.{_OF_LAYER[modules[1]]}.{suffix}"


def _params(module: SentenceEncoder, arrays: Mapping[str, Any], *, file: Path) -> Any:
    """Returns the parameters of a module from the arrays of a file, by its names."""
    # Heads of language models keep the encoder under this name.
    prefix = "bert." if any(name.startswith("bert.") for name in arrays) else ""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    flat = {}
    for path, like in traverse_util.flatten_dict(shapes["params"]).items():
        name = "projection" if path[0] == "projection" else prefix + _name(path[1:])
        if name not in arrays:
            raise InputError(f"{file}: tensor {name} is missing; give the weights of a BERT")
        read = np.asarray(arrays[name])
        array = jnp.asarray(finite(read, name=f"tensor {name}", file=file), jnp.float32)
        array = array.T if path[-1] == "kernel" else array
        if array.shape != like.shape:
            raise InputError(
                f"{file}: tensor {name} has shape {arrays[name].shape}, which does not suit "
                f"{CONFIG}; give weights and {CONFIG} of one model"
            )
        flat[path] = array
    return {"params": traverse_util.unflatten_dict(flat)}


def _read_config(path: Path) -> BertConfig:
    content = _read_json(path)
    made_for = {"model_type": ("bert",), "position_embedding_type": ("absolute",)}
    for key, values in (made_for | {"hidden_act": tuple(BERT_ACTIVATIONS)}).items():
        if content.get(key, values[0]) not in values:
            raise InputError(
                f"{path}: {key} is {content[key]!r}, which is not supported; give a model with "
                f"{' or '.join(map(repr, values))}"
            )
    fields = {field.name for field in dataclasses.fields(BertConfig)}
    try:
        return BertConfig(**{key: value for key, value in content.items() if key in fields})
    except TypeError as error:
        raise InputError(f"{path}: not the configuration of a BERT ({error})") from error


def _read_pooling(path: Path) -> str:
    content = _read_json(path) or {"pooling_mode_mean_tokens": True}
    chosen = {key for key, value in content.items() if key.startswith("pooling_mode_") and value}
    names = {"pooling_mode_mean_tokens": MEAN, "pooling_mode_cls_token": CLS}
    for key, name in names.items():
        if chosen == {key}:
            return name
    raise InputError(
        f"{path}: {', '.join(sorted(chosen)) or 'no pooling'}; only one of {', '.join(names)} is "
        f"supported"
    )


def _read_projection(folder: Path) -> Any:
    """Returns the kernel as it is in the file, `[dim, emb]`."""
    content = _read_json(folder / DENSE)
    if content.get("bias", True) or content.get("activation_function") != _IDENTITY:
        raise InputError(
            f"{folder / DENSE}: only a layer without bias and with activation_function "
            f"{_IDENTITY} is supported; remove {folder / DENSE}'s folder to go without it"
        )
    arrays = _read_arrays(folder / DENSE_WEIGHTS)
    if _LINEAR not in arrays:
        raise InputError(f"{folder / DENSE_WEIGHTS}: tensor {_LINEAR} is missing")
    return finite(
        np.asarray(arrays[_LINEAR]), name=f"tensor {_LINEAR}", file=folder / DENSE_WEIGHTS
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a file, empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no JSON ({error}); copy the model's into its place") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: no JSON object; copy the model's into its place")
    return content


def _read_arrays(path: Path) -> dict[str, jax.Array]:
    with _readable(path):
        return safetensors.flax.load_file(path)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); copy the model's into its place"
        ) from error


def _prompt(prompts: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((prompts[name] for name in names if prompts.get(name)), "")


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    contiguous = {name: jnp.asarray(np.ascontiguousarray(array)) for name, array in arrays.items()}
    with replacing(path) as partial:
        safetensors.flax.save_file(contiguous, partial, metadata={"format": "pt"})
