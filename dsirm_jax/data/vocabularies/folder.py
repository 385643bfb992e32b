"""A vocabulary as a folder: a tokenizer's own files, and what those do not say.

    tokenizer.json          of Hugging Face, with tokenizer_config.json where there is one, or
    tokenizer.model         a SentencePiece model; spiece.model is the same
    vocabulary.json         {"marks": [[2], []]}: ids before and behind a text, of a SentencePiece
                            model; {"kept": [0, 5, 7]}: see `trimming.trimmed`, of a trimmed one

Networks take id 0 as padding. A vocabulary that has anything else there is numbered from 1 on, as
if it were trimmed with all pieces kept; this is the one place that does so.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vocabularies.protocol import Marks, Vocabulary
from dsirm_jax.data.vocabularies.sentence_piece import SentencePiece
from dsirm_jax.data.vocabularies.tokenizer_json import TokenizerJson
from dsirm_jax.data.vocabularies.trimming import PADDING, Trimmed, all_kept
from dsirm_jax.io.checks import is_whole
from dsirm_jax.io.errors import InputError, naming
from dsirm_jax.io.files import replacing, write_text

DESCRIPTION = "vocabulary.json"
SENTENCE_PIECE = ("tokenizer.model", "spiece.model")
TOKENIZERS = (wordpieces.TOKENIZER, *SENTENCE_PIECE)
"""Where a folder has several, the first of these is read, as transformers does it."""
UNKNOWN = "\U0010fffd"
"""A character of private use, which no tokenizer has seen."""
NAMES = (*TOKENIZERS, wordpieces.SETTINGS, DESCRIPTION)


def tokenizer_file(folder: Path) -> Path:
    """Returns the file that a folder's vocabulary is read from.

    Raises:
      InputError: there is none.
    """
    for name in TOKENIZERS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: none of {', '.join(TOKENIZERS)}; copy the tokenizer's into it")


def files(folder: Path) -> tuple[Path, ...]:
    """Returns the files that make up a folder's vocabulary.

    Raises:
      InputError: see `tokenizer_file`.
    """
    tokenizer = tokenizer_file(folder)
    others = [wordpieces.SETTINGS] if tokenizer.name == wordpieces.TOKENIZER else []
    beside = (folder / name for name in (*others, DESCRIPTION))
    return (tokenizer, *(path for path in beside if path.is_file()))


def read(folder: Path) -> Vocabulary:
    """Reads a vocabulary, whose ids are those that networks take: 0 is padding, and no text's.

    Args:
      folder: see this module.

    Raises:
      InputError: there is no tokenizer, or one that cannot be read, or it is not what
        `vocabulary.json` describes.
    """
    tokenizer, path = tokenizer_file(folder), folder / DESCRIPTION
    described = _description(path)
    vocabulary: Vocabulary
    if tokenizer.name == wordpieces.TOKENIZER:
        if "marks" in described:
            raise InputError(
                f'{path}: it has "marks", but {tokenizer} says those itself; leave them out'
            )
        vocabulary = TokenizerJson.read(folder)
    else:
        marks = _marks(described, path=path, tokenizer=tokenizer)
        with naming(tokenizer, otherwise="no SentencePiece model; copy the model's anew"):
            vocabulary = SentencePiece.read(tokenizer, marks=marks)
    _check_ids(itertools.chain(*vocabulary.marks), vocabulary, path=path, name="marks")
    if "kept" in described:
        return Trimmed(whole=vocabulary, kept=_kept(described["kept"], vocabulary, path=path))
    if _pads_alone(vocabulary):
        return vocabulary
    return Trimmed(whole=vocabulary, kept=all_kept(vocabulary))


def of_generator(folder: Path, *, of_run: Path) -> Vocabulary:
    """Reads the vocabulary of a generator: its own, or that of its run.

    Args:
      folder: where it has its own.
      of_run: the SentencePiece model that it reads where there is no such folder.

    Raises:
      InputError: see `read`.
    """
    return read(folder) if folder.is_dir() else SentencePiece.read(of_run)


def write(
    folder: Path,
    *,
    tokenizer: Path,
    marks: Marks | None = None,
    kept: Int[np.ndarray, " kept"] | None = None,
) -> Vocabulary:
    """Writes a vocabulary: a tokenizer's files, byte for byte, and what they do not say.

    Args:
      folder: where to; what it has of another vocabulary is removed.
      tokenizer: `tokenizer.json`, with `tokenizer_config.json` beside it where there is one, or a
        SentencePiece model of any name; or a folder with either.
      marks: of a SentencePiece model; none when not given.
      kept: see `trimming.trimmed`; all pieces when not given.

    Returns:
      What `read` gives for it.

    Raises:
      InputError: see `read`.
    """
    source = tokenizer_file(tokenizer) if tokenizer.is_dir() else tokenizer
    is_json = source.name == wordpieces.TOKENIZER
    name = source.name if source.name in TOKENIZERS else SENTENCE_PIECE[0]
    copies = {name: source}
    settings = source.parent / wordpieces.SETTINGS
    if is_json and settings.is_file():
        copies[wordpieces.SETTINGS] = settings
    described: dict[str, Any] = {} if is_json and marks is None else {"marks": marks or ((), ())}
    if kept is not None:
        described["kept"] = np.asarray(kept).tolist()
    _copy(copies, folder, others=[DESCRIPTION] if described else [])
    if described:
        write_text(folder / DESCRIPTION, json.dumps(described) + "\n")
    return read(folder)


def copy(source: Path, folder: Path) -> None:
    """Copies a vocabulary byte for byte.

    Args:
      source: see this module.
      folder: where to; what it has of another vocabulary is removed.

    Raises:
      InputError: see `read`.
    """
    read(source)  # one that cannot be is not copied
    _copy({path.name: path for path in files(source)}, folder)


def _pads_alone(vocabulary: Vocabulary) -> bool:
    """Returns whether 0 is padding, and no text or mark has it: some pad with a piece of text."""
    if vocabulary.padding != PADDING:
        return False
    texts = [vocabulary.spelling(PADDING).decode(errors="replace"), UNKNOWN]
    return PADDING not in itertools.chain(*vocabulary.marks, *vocabulary.encode(texts))


def _copy(copies: dict[str, Path], folder: Path, *, others: Sequence[str] = ()) -> None:
    for name in NAMES:
        if name not in (*copies, *others):
            (folder / name).unlink(missing_ok=True)
    for name, source in copies.items():
        if not source.is_file():
            raise InputError(f"{source}: no such file; name a tokenizer")
        with replacing(folder / name) as partial:
            shutil.copyfile(source, partial)


def _description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); write the vocabulary anew") from error
    if not isinstance(described, dict) or not {*described} <= {"marks", "kept"}:
        raise InputError(f'{path}: no object with "marks" and "kept" alone; write it anew')
    return described


def _marks(described: dict[str, Any], *, path: Path, tokenizer: Path) -> Marks:
    if "marks" not in described:
        raise InputError(
            f"{path}: it does not say what stands around a text, nor does {tokenizer.name}; write "
            f'{{"marks": [[], []]}} into it, with the ids before and behind a text'
        )
    try:
        before, behind = map(tuple, described["marks"])
    except (TypeError, ValueError) as error:
        raise InputError(
            f'{path}: "marks" is {described["marks"]!r}; give two lists of ids'
        ) from error
    return before, behind


def _kept(ids: Any, vocabulary: Vocabulary, *, path: Path) -> Int[np.ndarray, " kept"]:
    """Returns the kept ids of a description, of which every text can be spelt."""
    if not isinstance(ids, list) or not ids:
        raise InputError(f'{path}: "kept" is no list of ids; write the vocabulary anew')
    _check_ids(ids, vocabulary, path=path, name="kept")
    used = {*ids[1:]}
    if len(used) < len(ids) - 1:
        raise InputError(f'{path}: "kept" has an id twice; write the vocabulary anew')
    needed = {*vocabulary.byte_pieces, *itertools.chain(*vocabulary.marks)} - {-1}
    if not vocabulary.byte_pieces:  # nothing else spells what is not kept
        needed |= {*range(vocabulary.size)}
    if missing := sorted(needed - used):
        raise InputError(
            f'{path}: "kept" lacks {len(missing)} pieces that bytes or marks are written in, '
            f"{missing[0]} among them; write the vocabulary anew"
        )
    return np.array(ids, np.int32)


def _check_ids(ids: Any, vocabulary: Vocabulary, *, path: Path, name: str) -> None:
    is_known = functools.partial(is_whole, least=0)
    for id_ in ids:
        if not is_known(id_) or id_ >= vocabulary.size:
            raise InputError(
                f'{path}: "{name}" has {id_!r}, but the tokenizer\'s ids are whole numbers below '
                f"{vocabulary.size}; take both from the same model"
            )
