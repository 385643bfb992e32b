"""`dsirm import-model`: weights and a tokenizer of elsewhere as one folder to start from."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vocabularies import folder as vocabularies
from dsirm_jax.data.vocabularies.prompt import QUERY, check_prompt
from dsirm_jax.data.vocabularies.protocol import Marks
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.trimming import trimmed, whole_of
from dsirm_jax.data.vocabulary import take_vocabulary
from dsirm_jax.generator.architectures.families.family import Family, Model, family_named
from dsirm_jax.generator.architectures.tensors import CONFIG, Weights, hugging_face_weights
from dsirm_jax.generator.importing.gguf_tokenizers import write_tokenizer
from dsirm_jax.generator.importing.gguf_weights import SUFFIX, GgufFile, read_gguf
from dsirm_jax.generator.importing.licences import CARD, found_licences, licence_files
from dsirm_jax.generator.importing.texts import prompted, read_texts
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.io.files import replacing, write_text

GIN, VOCABULARY, SHARED_VOCABULARY = "model.gin", "vocabulary", "vocabulary.model"
MB = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A model that has been looked at.

    Attributes:
      family: which it is one of.
      model: its settings and tensors.
      gguf: the file, where it is one of GGUF.
    """

    family: Family
    model: Model
    gguf: GgufFile | None = None

    @property
    def folder(self) -> Path:
        """Of its files."""
        path = self.model.weights.path
        return path.parent if self.gguf else path


def open_model(path: Path) -> Opened:
    """Opens a model: no tensor is read that does not decide its shape.

    Args:
      path: a Hugging Face folder, a GGUF file or a checkpoint of T5X.

    Raises:
      InputError: it is none of these; its family is unknown; an entry or a tensor is missing,
        unknown, or of another shape.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; name a model's")
    if path.suffix == SUFFIX:
        file = read_gguf(path)
        return dataclasses.replace(_of_settings(file.weights), gguf=file)
    if (path / CONFIG).is_file():
        return _of_settings(hugging_face_weights(path))
    from dsirm_jax.generator.architectures.t5_weights import t5x_checkpoint

    return Opened(family=family_named("t5", file=path), model=t5x_checkpoint(path))


def _of_settings(weights: Weights) -> Opened:
    family = family_named(weights.model_type, file=weights.config_file)
    return Opened(family=family, model=family.model(weights))


def import_model(
    source: Path,
    out: Path,
    *,
    texts: Sequence[str] = (),
    prompt: str = QUERY,
    vocabulary: Path | None = None,
) -> list[str]:
    """Makes a pretrained model ready to start from: weights, vocabulary, licences and gin.

    A T5's whole SentencePiece model becomes the vocabulary of the run; any other vocabulary is the
    generator's own.

    Args:
      source: see `open_model`.
      out: the folder to make; it must not exist. `GIN` in it binds all the rest.
      texts: files whose texts keep their pieces, see `texts.read_texts`; the rest of the vocabulary
        is left out, and new texts spell it in bytes. None: nothing is left out.
      prompt: see `data.vocabularies.prompt.check_prompt`.
      vocabulary: the tokenizer, where it is not beside the weights.

    Returns:
      Lines that say what was found, and what was left out.

    Raises:
      InputError: `out` exists, there is no tokenizer, or it is not of these weights; and see
        `open_model`, `Model.write` and `trimming.trimmed`.
    """
    source, out = Path(source), Path(out)
    if out.exists():
        raise InputError(f"{out} exists; name a folder that does not")
    check_prompt("--prompt", prompt)
    opened = open_model(source)
    with replacing(out) as partial:
        partial.mkdir(parents=True)
        try:
            return _import(opened, out, partial, texts=texts, prompt=prompt, given=vocabulary)
        except BaseException:
            shutil.rmtree(partial)
            raise


def _import(
    opened: Opened,
    out: Path,
    partial: Path,
    *,
    texts: Sequence[str],
    prompt: str,
    given: Path | None,
) -> list[str]:
    model = opened.model
    with _tokenizer(opened, given) as (tokenizer, marks):
        if not texts and marks is not None and opened.family.shares_vocabulary:
            whole = take_vocabulary(vocabulary=tokenizer, path=partial / SHARED_VOCABULARY)
            kept = np.arange(whole)
            bound = {"prepare.run.vocabulary": str(out.absolute() / SHARED_VOCABULARY)}
        else:
            kept, whole = _write_vocabulary(
                partial / VOCABULARY,
                tokenizer=tokenizer,
                marks=marks,
                texts=texts,
                prompt=prompt,
                rows=_rows(model),
            )
            bound = {"generate.run.vocabulary": str(out.absolute() / VOCABULARY)}
        if kept.max() >= _rows(model):
            raise InputError(
                f"{tokenizer}: {whole} pieces, but the embedding of {model.weights.path} has "
                f"{_rows(model)} rows; they are not of one model"
            )
    start = model.write(partial, kept=kept)
    stating = [opened.folder / CARD] if (opened.folder / CARD).is_file() else []
    for path in (*licence_files(opened.folder), *stating):
        shutil.copyfile(path, partial / path.name)
    bound["generate.run.start"] = str(out.absolute() / start)
    if prompt != QUERY:
        bound["generate.run.prompt"] = prompt
    write_text(partial / GIN, _gin(model, title=opened.family.title, bound=bound))
    return [*_said(opened), *_left_out(model, kept=len(kept), whole=whole, texts=texts)]


@contextlib.contextmanager
def _tokenizer(opened: Opened, given: Path | None) -> Iterator[tuple[Path, Marks | None]]:
    """Yields the file of a tokenizer, and the marks of a SentencePiece model."""
    if given is None and opened.gguf:
        with tempfile.TemporaryDirectory() as folder:
            yield write_tokenizer(opened.gguf, Path(folder))
        return
    if given is not None and not given.is_file():
        raise InputError(f"{given}: no such file; name a tokenizer.json or a SentencePiece model")
    if given is not None and given.suffix == ".json" and given.name != wordpieces.TOKENIZER:
        raise InputError(f"{given}: call the file {wordpieces.TOKENIZER}")
    try:
        path = given or vocabularies.tokenizer_file(opened.folder)
    except InputError as error:
        raise InputError(f"{error}, or name it with --vocabulary=FILE") from error
    is_json = path.name == wordpieces.TOKENIZER
    yield path, None if is_json else _marks(path, marked=opened.family.marked)


def _marks(tokenizer: Path, *, marked: tuple[bool, bool]) -> Marks:
    """Returns what a family wants around a text that a SentencePiece model splits."""
    settings, said = tokenizer.parent / wordpieces.SETTINGS, {}
    if settings.is_file():
        with naming(settings, otherwise="no JSON object; copy the model's anew"):
            said = dict(json.loads(settings.read_text("utf-8")))
    with naming(tokenizer, otherwise="no SentencePiece model; copy the model's anew"):
        processor = SentencePiece.read(tokenizer).processor
    ids = (processor.bos_id(), processor.eos_id())
    before, behind = (
        (id_,) if id_ >= 0 and said.get(f"add_{name}_token", is_marked) else ()
        for name, id_, is_marked in zip(("bos", "eos"), ids, marked, strict=True)
    )
    return before, behind


def _write_vocabulary(
    folder: Path,
    *,
    tokenizer: Path,
    marks: Marks | None,
    texts: Sequence[str],
    prompt: str,
    rows: int,
) -> tuple[Int[np.ndarray, " kept"], int]:
    """Writes the vocabulary of a generator alone, trimmed where there are texts.

    Returns:
      The rows of the embedding that it needs, in the order of `trimming.text_rows`, and the size of
      the whole vocabulary.
    """
    whole = whole_of(vocabularies.write(folder, tokenizer=tokenizer, marks=marks))
    kept = np.arange(whole.size, dtype=np.int32)
    if texts:
        all_texts = itertools.chain.from_iterable(map(read_texts, texts))
        with _naming_texts(tokenizer):
            kept = trimmed(whole, prompted(all_texts, prompt=prompt))
    # Some tokenizers have marks that their model has no row for, and that no text has.
    needless = np.isin(kept, [*whole.specials]) & (kept >= rows)
    kept = kept[~needless]
    if texts or needless.any():
        vocabularies.write(folder, tokenizer=tokenizer, marks=marks, kept=kept)
    return kept, whole.size


@contextlib.contextmanager
def _naming_texts(tokenizer: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{tokenizer}: {error}, or leave --texts out") from error


def _rows(model: Model) -> int:
    return model.config.text_vocab_size


def _gin(model: Model, *, title: str, bound: dict[str, Any]) -> str:
    kind = type(model.config)
    module = kind.__module__.rpartition(".")[2]
    package = kind.__module__.rpartition(".")[0]
    named = f"{module}.{kind.__name__}"
    settings = "".join(f"  {name} = {getattr(model.config, name)!r}\n" for name in model.decisive)
    stages = sorted({binding.partition(".")[0] for binding in (*bound, "generate.run")})
    imports = "".join(f"from dsirm_jax.stages import {stage}\n" for stage in stages)
    bindings = "".join(f"{name} = {value!r}\n" for name, value in bound.items())
    return (
        f"# {title}, pretrained, to start from: read this file after a run's own.\n"
        f"from __gin__ import dynamic_registration\n\n"
        f"from {package} import {module}\n{imports}\n"
        f"generate.run.config = @{named}()\n{named}:\n{settings}{bindings}"
    )


def _said(opened: Opened) -> list[str]:
    """Returns what was found, a line each."""
    weights = opened.model.weights
    tensors = weights.tensors.values()
    counts = [int(np.prod(tensor.shape)) for tensor in tensors]
    kinds = ", ".join(sorted({tensor.dtype for tensor in tensors}))
    size = sum(path.stat().st_size for path in _regular({tensor.file for tensor in tensors}))
    stated = {}
    if opened.gguf:
        names = ("general.license", "general.license.name", "general.license.link")
        words = (opened.gguf.entry(name, "") for name in names)
        stated[opened.gguf.path.name] = ", ".join(filter(None, words))
    return [
        f"family: {opened.family.title} ({weights.model_type or weights.path.name})",
        f"parameters: {sum(counts):,} in {len(counts)} tensors, {kinds}, {size / MB:,.0f} MB",
        f"licence: {found_licences(opened.folder, stated=stated)}",
    ]


def _regular(paths: set[Path]) -> Iterator[Path]:
    for path in paths:
        yield from (path.rglob("*") if path.is_dir() else [path])


def _left_out(model: Model, *, kept: int, whole: int, texts: Sequence[str]) -> list[str]:
    """Returns what is left out of a vocabulary."""
    if not texts:
        return [f"vocabulary: all {whole:,} pieces; --texts=FILE keeps those of your texts alone"]
    size = (_rows(model) - kept) * model.bytes_per_token
    return [
        f"vocabulary: {kept:,} of {whole:,} pieces kept, {size / MB:,.0f} MB of the embedding and "
        f"the output layer left out"
    ]
