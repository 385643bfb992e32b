"""The models of a bundle, ready to be applied: what is learnt, and nothing of how."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import traverse_util

from dsirm_jax.data import vocabulary
from dsirm_jax.generator import fitted as generators
from dsirm_jax.generator.architectures.description import architecture_from
from dsirm_jax.io import arrays
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing
from dsirm_jax.io.kinds import class_name, class_named
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.serving.bundle.manifest import EncoderSettings, Manifest

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

    from dsirm_jax.encoder.kinds.protocol import DenseEncoder, FittedEncoder

ENCODERS = "dsirm_jax.encoder.kinds"
NONE = "none"
"""Kind of an encoder that makes no vectors of new texts."""
FORMER_NAMES = {"TwoTowers": "two towers", "Pretrained": "BERT"}
"""What manifests have always called two kinds; every other goes by the name of its class."""
PARAMETERS, VOCABULARY, QUANTIZER = "parameters", "vocabulary.model", "quantizer.safetensors"
WEIGHTS = "parameters.safetensors"
"""The same as in `PARAMETERS`, mapped into memory, for who opens a bundle without Orbax."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """All that is learnt.

    Attributes:
      encoder: makes vectors of texts; None: nothing does.
      generator: from query text to SIDs.
      heads: from features to probabilities, by `manifest.FULL` and, where the run has one,
        `manifest.DENSE_ONLY`.
      vocabulary: SentencePiece, of the generator, of word overlap and of two towers.
    """

    encoder: FittedEncoder | None
    generator: generators.FittedGenerator
    heads: Mapping[str, heads.FittedHead]
    vocabulary: SentencePieceProcessor


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
    processor = vocabulary.processor(folder / VOCABULARY)
    return Models(
        encoder=restored_encoder(
            settings.encoder, params=params.get("encoder", {}), vocabulary=processor, folder=folder
        ),
        generator=generators.FittedGenerator(
            config=architecture_from(settings.generator),
            params=params["generator"],
            max_pieces=settings.max_pieces,
            sid_version=manifest.sid_version,
        ),
        heads={name: heads.load(head_file(folder, name)) for name in settings.groups},
        vocabulary=processor,
    )


def write_models(folder: Path, models: Models) -> None:
    """Writes what `read_models` reads, beside the manifest.

    Args:
      folder: `model/` of the bundle.
      models: that go into it.
    """
    params = {"generator": models.generator.params}
    if models.encoder is not None:
        params["encoder"] = models.encoder.params
    write_parameters(folder / PARAMETERS, params)
    write_weights(folder / WEIGHTS, params)
    for name, head in models.heads.items():
        heads.save(head_file(folder, name), head)
    with replacing(folder / VOCABULARY) as partial:
        partial.write_bytes(models.vocabulary.serialized_model_proto())
    if models.encoder is not None:
        models.encoder.save_tokenizer(folder)


def encoder_kind(encoder: DenseEncoder) -> str:
    """Returns what a manifest calls the kind of an encoder."""
    name = class_name(encoder, home=ENCODERS)
    return FORMER_NAMES.get(name, name)


def restored_encoder(
    settings: EncoderSettings, *, params: Any, vocabulary: SentencePieceProcessor, folder: Path
) -> FittedEncoder | None:
    """Returns the encoder that a manifest describes; None where it describes none.

    Args:
      settings: of the encoder.
      params: of its module.
      vocabulary: of the run.
      folder: `model/` of the bundle.

    Raises:
      InputError: its kind is not known here, or a file cannot be read.
    """
    if settings.kind == NONE:
        return None
    names = {former: name for name, former in FORMER_NAMES.items()}
    kind = class_named(names.get(settings.kind, settings.kind), home=ENCODERS)
    if not hasattr(kind, "restored"):
        raise InputError(f"the manifest's encoder {settings.kind} is no encoder; export it anew")
    return kind.restored(
        dataclasses.asdict(settings), params=params, vocabulary=vocabulary, folder=folder
    )


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
