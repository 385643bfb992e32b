"""The models of a bundle, ready to be applied: what is learnt, and nothing of how."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import traverse_util

from dsirm_jax.data import vocabulary
from dsirm_jax.data.vocabularies import folder as vocabulary_folder
from dsirm_jax.data.vocabularies.prompt import Prompted
from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.generator import fitted as generators
from dsirm_jax.generator.architectures.architecture import init_params
from dsirm_jax.generator.architectures.description import architecture_from
from dsirm_jax.io import arrays
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.io.files import replacing
from dsirm_jax.io.kinds import class_name, class_named
from dsirm_jax.relevance import fitted as heads
from dsirm_jax.serving.bundle.manifest import REMEDY, EncoderSettings, Manifest

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

    from dsirm_jax.encoder.kinds.protocol import DenseEncoder, FittedEncoder

ENCODERS = "dsirm_jax.encoder.kinds"
NONE = "none"
"""Kind of an encoder that makes no vectors of new texts."""
FORMER_NAMES = {"TwoTowers": "two towers", "Pretrained": "BERT"}
"""What manifests have always called two kinds; every other goes by the name of its class."""
PARAMETERS, VOCABULARY, QUANTIZER = "parameters", "vocabulary.model", "quantizer.safetensors"
OWN_VOCABULARY = "vocabulary"
"""Folder of the generator's, where it does not read `VOCABULARY`."""
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
      vocabulary: SentencePiece, of word overlap and of two towers.
      generators_own: what the generator reads instead; None: it reads `vocabulary`.
    """

    encoder: FittedEncoder | None
    generator: generators.FittedGenerator
    heads: Mapping[str, heads.FittedHead]
    vocabulary: SentencePieceProcessor
    generators_own: Vocabulary | None = None

    @functools.cached_property
    def prompted(self) -> Prompted:
        """What makes the pieces that the generator reads."""
        return self.generator.reading(
            self.generators_own or SentencePiece(processor=self.vocabulary)
        )

    @property
    def split_in_tensorflow(self) -> SentencePieceProcessor | None:
        """What splits the generator's texts in TensorFlow too; None: it is given their pieces."""
        vocabulary = self.prompted.vocabulary
        if isinstance(vocabulary, SentencePiece) and vocabulary.is_plain:
            return vocabulary.processor
        return None


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
    with naming(folder / VOCABULARY, otherwise=f"no vocabulary; {REMEDY}"):
        processor = vocabulary.processor(folder / VOCABULARY)
        processor.encode("", out_type=int)  # one that holds no model says so only here
    own = None
    if settings.own_vocabulary:
        with naming(folder / OWN_VOCABULARY, otherwise=f"no vocabulary; {REMEDY}"):
            own = vocabulary_folder.read(folder / OWN_VOCABULARY)
            own.encode([""])
    with naming(folder / WEIGHTS, otherwise=f"its parameters are not the manifest's; {REMEDY}"):
        encoder = restored_encoder(
            settings.encoder, params=params.get("encoder", {}), vocabulary=processor, folder=folder
        )
        config = architecture_from(settings.generator)
        size = own.size if own else processor.vocab_size()
        if size > config.text_vocab_size:
            raise ValueError("the vocabulary has more pieces than the generator")
        check_params(params["generator"], like=functools.partial(init_params, config, seed=0))
        if encoder is not None:
            pieces = np.zeros((1, 1), np.int32)
            first = functools.partial(encoder.module.init, jax.random.key(0), pieces)
            check_params(encoder.params, like=first)
    return Models(
        encoder=encoder,
        generator=generators.FittedGenerator(
            config=config,
            params=params["generator"],
            max_pieces=settings.max_pieces,
            sid_version=manifest.sid_version,
            prompt=settings.prompt,
        ),
        heads={name: read_head(folder, name, manifest=manifest) for name in settings.groups},
        vocabulary=processor,
        generators_own=own,
    )


def read_head(folder: Path, name: str, *, manifest: Manifest) -> heads.FittedHead:
    """Reads a head of a bundle.

    Args:
      folder: `model/` of the bundle.
      name: of the head.
      manifest: of the bundle.

    Raises:
      InputError: the file holds no head, or one that reads other features.
    """
    file = head_file(folder, name)
    with naming(file, otherwise=f"no head; {REMEDY}"):
        head = heads.load(file)
        columns = tuple(column.name for column in manifest.features[name])
        if head.features != columns:
            raise ValueError("it reads other features than the manifest says")
    return head


def check_params(params: Any, *, like: Callable[[], Any]) -> None:
    """Raises ValueError where parameters are not of the shapes that a function returns."""
    if _shapes(params) != _shapes(jax.eval_shape(like)):
        raise ValueError("others are there")


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}


def write_models(folder: Path, models: Models, *, own_vocabulary: Path | None = None) -> None:
    """Writes what `read_models` reads, beside the manifest.

    Args:
      folder: `model/` of the bundle.
      models: that go into it.
      own_vocabulary: folder of the generator's, where it has its own.
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
    if own_vocabulary is not None:
        vocabulary_folder.copy(own_vocabulary, folder / OWN_VOCABULARY)
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
