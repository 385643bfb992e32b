"""The text parameters of a pretrained T5 as one file, and what a generator starts from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flax import traverse_util

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.data.vocabularies.trimming import text_rows
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.architectures.description import architecture_from, describe_architecture
from dsirm_jax.generator.architectures.t5_layers import T5Shape
from dsirm_jax.io import arrays as files
from dsirm_jax.io.errors import InputError

TEXT_PARAMS = "t5"
WEIGHTS = "t5.safetensors"
EMBEDDING, OUTPUT = "token_embedder/embedding", "decoder/logits_dense/kernel"
SHAPE = (
    *("emb_dim", "num_heads", "head_dim", "mlp_dim", "num_encoder_layers", "num_decoder_layers"),
    *("mlp_activations", "logits_via_embedding"),
)
"""Fields of a T5 that its weights decide."""


def save_text_params(path: Path, *, params: dict, config: Architecture) -> None:
    """Writes text parameters as one `safetensors` file, their configuration in its header."""
    arrays = traverse_util.flatten_dict(params, sep="/")
    files.save(path, arrays, kind=TEXT_PARAMS, description=describe_architecture(config))


def load_text_params(path: Path) -> tuple[Architecture, dict]:
    """Reads what `save_text_params` wrote.

    Raises:
      InputError: there is no such file, or it holds no text parameters.
    """
    otherwise = f"no T5 of `dsirm import-model`; name its {WEIGHTS}"
    flat, description = files.load(path, kind=TEXT_PARAMS, otherwise=otherwise)
    return architecture_from(description), traverse_util.unflatten_dict(flat, sep="/")


def with_sid_rows(
    path: Path, *, config: T5Shape, seed: int, vocabulary: Vocabulary | None = None
) -> dict:
    """Returns parameters to start training from: a pretrained text model, and new rows for SIDs.

    The new rows are drawn about the mean of the text's, with its standard deviation in every
    dimension.

    Args:
      path: of `WEIGHTS`.
      config: of the generator, with its text tokens and its SIDs.
      seed: of the new rows.
      vocabulary: see `Architecture.pretrained`.

    Returns:
      A tree like that of the parameters of `config`, its layers not stacked.

    Raises:
      InputError: the weights are of another shape than `config`.
    """
    text_config, params = load_text_params(path)
    tokens, size = text_config.text_vocab_size, config.text_vocab_size
    rows = text_rows(vocabulary, size=size, rows=tokens)
    compared = {name: (getattr(text_config, name), getattr(config, name)) for name in SHAPE}
    differing = {name: both for name, both in compared.items() if both[0] != both[1]}
    if differing or rows is None:
        (name, (value, needed)), *_ = [*differing.items(), ("text_vocab_size", (tokens, size))]
        raise InputError(
            f"{path}: its T5Config.{name} is {value} and not {needed}; read model.gin beside "
            f"it after the other gin files: it binds its settings and its vocabulary"
        )
    generator = np.random.Generator(np.random.Philox(key=seed))
    flat = traverse_util.flatten_dict(params, sep="/")
    flat[EMBEDDING] = _with_new_rows(flat[EMBEDDING][rows], config.vocab_size, generator)
    if OUTPUT in flat:
        flat[OUTPUT] = _with_new_rows(flat[OUTPUT].T[rows], config.vocab_size, generator).T
    return traverse_util.unflatten_dict(flat, sep="/")


def _with_new_rows(table: np.ndarray, rows: int, generator: np.random.Generator) -> np.ndarray:
    new = generator.normal(size=(rows - len(table), table.shape[1]))
    new = table.mean(axis=0) + table.std(axis=0) * new
    return np.concatenate([table, new.astype(np.float32)])
