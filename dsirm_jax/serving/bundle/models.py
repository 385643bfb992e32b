"""The models of a bundle, ready to be applied: what is learnt, and nothing of how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from dsirm_jax.data import vocabulary, wordpieces
from dsirm_jax.encoder.bert import ABSENT, BertConfig, SentenceEncoder
from dsirm_jax.encoder.model import TextTower
from dsirm_jax.generator import fitted as generators
from dsirm_jax.generator.model import config_from_json
from dsirm_jax.io import arrays
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing, write_text
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.serving.bundle.manifest import Encoder, Manifest

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer

TOWERS, BERT, NONE = "two towers", "BERT", "none"
PARAMETERS, VOCABULARY, QUANTIZER = "parameters", "vocabulary.model", "quantizer.safetensors"
WEIGHTS = "parameters.safetensors"
"""The same as in `PARAMETERS`, mapped into memory, for who opens a bundle without Orbax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """All that is learnt.

    Attributes:
      encoder: the Flax module that makes vectors of texts; None: there is none.
      encoder_params: its parameters.
      generator: from query text to SIDs.
      heads: from features to probabilities, by `manifest.FULL` and, where the run has one,
        `manifest.DENSE_ONLY`.
      vocabulary: SentencePiece, of the generator, of word overlap and of `TextTower`.
      tokenizer: of a BERT; None without one.
    """

    encoder: nn.Module | None
    encoder_params: Any
    generator: generators.FittedGenerator
    heads: Mapping[str, heads.FittedHead]
    vocabulary: SentencePieceProcessor
    tokenizer: Tokenizer | None


def read_models(folder: Path, *, manifest: Manifest) -> Models:
    """Reads the models of a bundle.

    Args:
      folder: `model/` of the bundle.
      manifest: of the bundle.

    Raises:
      InputError: a file cannot be read.
    """
    settings = manifest.settings
    params = read_weights(folder / WEIGHTS)
    tokenizer = None
    if settings.encoder.kind == BERT:
        tokenizer = wordpieces.read_tokenizer(folder)
    return Models(
        encoder=encoder_module(settings.encoder),
        encoder_params=params.get("encoder"),
        generator=generators.FittedGenerator(
            config=config_from_json(settings.generator),
            params=params["generator"],
            max_pieces=settings.max_pieces,
            sid_version=manifest.sid_version,
        ),
        heads={name: heads.load(head_file(folder, name)) for name in settings.groups},
        vocabulary=vocabulary.processor(folder / VOCABULARY),
        tokenizer=tokenizer,
    )


def write_models(folder: Path, models: Models) -> None:
    """Writes what `read_models` reads, beside the manifest.

    Args:
      folder: `model/` of the bundle.
      models: that go into it.
    """
    params = {"generator": models.generator.params}
    if models.encoder is not None:
        params["encoder"] = models.encoder_params
    write_parameters(folder / PARAMETERS, params)
    write_weights(folder / WEIGHTS, params)
    for name, head in models.heads.items():
        heads.save(head_file(folder, name), head)
    with replacing(folder / VOCABULARY) as partial:
        partial.write_bytes(models.vocabulary.serialized_model_proto())
    if models.tokenizer is not None:
        write_text(folder / wordpieces.TOKENIZER, wordpieces.to_json(models.tokenizer))


def encoder_module(encoder: Encoder) -> nn.Module | None:
    """Returns the module of an encoder; None where there is none."""
    arguments = dict(encoder.module)
    if encoder.kind == TOWERS:
        return TextTower(**arguments)
    if encoder.kind == BERT:
        return SentenceEncoder(config=BertConfig(**arguments.pop("config")), **arguments)
    return None


def encoder_pieces(
    models: Models, *, encoder: Encoder, texts: Sequence[str], of_items: bool = False
) -> list[list[int]]:
    """Returns the pieces of texts as the encoder reads them, cut where it cuts them.

    Args:
      models: whose tokenizer, which threads may not share, or vocabulary.
      encoder: how texts become vectors.
      texts: of queries.
      of_items: they are of items.
    """
    most = encoder.max_item_pieces if of_items else encoder.max_query_pieces
    if encoder.kind == BERT:
        prefix = encoder.item_prefix if of_items else encoder.query_prefix
        return wordpieces.tokenize(models.tokenizer, texts, prefix=prefix, max_pieces=most)
    return [text[:most] for text in models.vocabulary.encode(list(texts), out_type=int)]


def beyond(encoder: Encoder) -> int:
    """Returns what an encoder expects after a text's last piece."""
    return ABSENT if encoder.kind == BERT else vocabulary.PAD


def head_file(folder: Path, name: str) -> Path:
    """Returns the file of a head in `model/`."""
    return folder / f"head-{name}.safetensors"


def write_weights(path: Path, params: Any) -> None:
    """Writes parameters as one `safetensors` file."""
    flat = traverse_util.flatten_dict(params, sep="/")
    arrays.save(path, flat, kind=path.stem, description=None)


def read_weights(path: Path) -> Any:
    """Maps what `write_weights` wrote into memory.

    Raises:
      InputError: there is no such file, or it is not whole.
    """
    otherwise = "not a whole file of a bundle; copy the bundle again, or export it anew"
    flat, _ = arrays.load(path, kind=path.stem, otherwise=otherwise, mapped=True)
    return traverse_util.unflatten_dict(flat, sep="/")


def write_parameters(folder: Path, params: Any) -> None:
    """Writes parameters with Orbax."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params)


def read_parameters(folder: Path) -> Any:
    """Reads what `write_parameters` wrote, as NumPy arrays.

    Raises:
      InputError: Orbax cannot read it.
    """
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(folder.absolute()).item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
            return checkpointer.restore(folder.absolute(), restore_args=as_numpy)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{folder}: the parameters cannot be read ({reason}); copy the bundle again, or export "
            f"it anew"
        ) from error
