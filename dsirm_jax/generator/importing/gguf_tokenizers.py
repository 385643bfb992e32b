"""The tokenizer of a GGUF file as files that `data.vocabularies` reads.

GGUF has the pieces, and names how texts are split before: what it names is known here, or refused.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the expressions are those of the
families' own `tokenizer.json`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vocabularies.folder import SENTENCE_PIECE
from dsirm_jax.data.vocabularies.protocol import Marks
from dsirm_jax.data.vocabularies.sentence_piece import SPACE
from dsirm_jax.generator.importing.gguf_weights import GgufFile
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_json

UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5
"""Kinds of pieces, `tokenizer.ggml.token_type`; they are SentencePiece's."""
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": True,
}


def words(digits: str) -> Sequence[Mapping[str, Any]]:
    """Returns the parts of a splitting into words, and so many digits at a time."""
    pattern = {"Regex": WORDS.format(digits=digits)}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    return (split, BYTE_LEVEL | {"use_regex": False})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splitting:
    """How texts are split before their pieces are merged, `tokenizer.ggml.pre`.

    Attributes:
      parts: `pre_tokenizer` of `tokenizer.json`.
      normalizer: likewise.
      ignores_merges: a whole word that is a piece stays one.
      begins: whether a text begins with a mark, where no entry says so.
    """

    parts: Sequence[Mapping[str, Any]]
    normalizer: Mapping[str, Any] | None = None
    ignores_merges: bool = False
    begins: bool = False


SPLITTINGS = {
    "gpt-2": Splitting(parts=(BYTE_LEVEL,)),
    "smollm": Splitting(parts=({"type": "Digits", "individual_digits": True}, BYTE_LEVEL)),
    "qwen2": Splitting(parts=words(""), normalizer={"type": "NFC"}),
    "llama-bpe": Splitting(parts=words("{1,3}"), ignores_merges=True, begins=True),
}


def write_tokenizer(file: GgufFile, folder: Path) -> tuple[Path, Marks | None]:
    """Writes the tokenizer of a GGUF file.

    Args:
      file: the file.
      folder: where to.

    Returns:
      `tokenizer.json` or `tokenizer.model`, and the marks of the latter.

    Raises:
      InputError: it is of a kind that is not known here.
    """
    kind = file.entry("tokenizer.ggml.model")
    if kind == "gpt2":
        return _byte_level(file, folder), None
    if kind == "llama":
        return _sentence_piece(file, folder)
    raise _unknown(file, "tokenizer.ggml.model")


def _unknown(file: GgufFile, name: str) -> InputError:
    return InputError(
        f"{file.path}: {name} is {file.entry(name)!r}, of which no tokenizer is made here; give "
        f"the model's own tokenizer.json or tokenizer.model with --vocabulary=FILE"
    )


def _listed(file: GgufFile, name: str) -> list[Any]:
    values = file.entry(f"tokenizer.ggml.{name}")
    if not isinstance(values, list) or not values:
        raise InputError(
            f"{file.path}: no tokenizer.ggml.{name}; give the model's own tokenizer.json or "
            f"tokenizer.model with --vocabulary=FILE"
        )
    return values


def _mark(file: GgufFile, name: str, *, otherwise: bool) -> int | None:
    """Returns the id of the mark that a text begins or ends with, None where with none."""
    wanted = file.entry(f"tokenizer.ggml.add_{name}_token", otherwise)
    return file.entry(f"tokenizer.ggml.{name}_token_id") if wanted else None


def _byte_level(file: GgufFile, folder: Path) -> Path:
    named = file.entry("tokenizer.ggml.pre")
    if named not in SPLITTINGS:
        raise _unknown(file, "tokenizer.ggml.pre")
    splitting = SPLITTINGS[named]
    pieces, kinds = _listed(file, "tokens"), _listed(file, "token_type")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": number, "content": piece, **flags, "special": kind == CONTROL}
        for number, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    vocabulary = {
        piece: number
        for number, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))
        if kind != UNUSED
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": splitting.ignores_merges,
        "vocab": vocabulary,
        "merges": _listed(file, "merges"),
    }
    first = _mark(file, "bos", otherwise=splitting.begins)
    last = _mark(file, "eos", otherwise=False)
    path = folder / wordpieces.TOKENIZER
    write_json(
        path,
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": splitting.normalizer,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(splitting.parts)},
            "post_processor": _template(pieces, first=first, last=last),
            "decoder": BYTE_LEVEL,
            "model": model,
        },
    )
    padding = file.entry("tokenizer.ggml.padding_token_id")
    if padding is not None:
        write_json(folder / wordpieces.SETTINGS, {"pad_token": pieces[padding]})
    return path


def _template(
    pieces: Sequence[str], *, first: int | None, last: int | None
) -> Mapping[str, Any] | None:
    """Returns the `post_processor` that puts marks around a text."""
    if first is None and last is None:
        return None
    text = {"Sequence": {"id": "A", "type_id": 0}}
    before, behind = (
        [] if mark is None else [{"SpecialToken": {"id": pieces[mark], "type_id": 0}}]
        for mark in (first, last)
    )
    marks = {pieces[mark]: mark for mark in (first, last) if mark is not None}
    return {
        "type": "TemplateProcessing",
        "single": [*before, text, *behind],
        "pair": [*before, text, *behind, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [mark], "tokens": [name]} for name, mark in marks.items()
        },
    }


def _sentence_piece(file: GgufFile, folder: Path) -> tuple[Path, Marks]:
    """Writes a BPE of SentencePiece with byte fallback, which normalises nothing."""
    from sentencepiece import sentencepiece_model_pb2

    schema: Any = sentencepiece_model_pb2  # made as it is imported, which types do not show
    model = schema.ModelProto()
    columns = (_listed(file, name) for name in ("tokens", "scores", "token_type"))
    unknown = file.entry("tokenizer.ggml.unknown_token_id", 0)
    for number, (piece, score, kind) in enumerate(zip(*columns, strict=True)):
        if kind == USER_DEFINED:
            piece = piece.replace(" ", SPACE)  # GGUF has these as they are typed
        if kind == UNKNOWN or number == unknown:
            kind = UNKNOWN if number == unknown else CONTROL
        model.pieces.add(piece=piece, score=score, type=kind)
    trainer, names = model.trainer_spec, {"bos": "bos", "eos": "eos", "unk": "unknown"}
    trainer.model_type, trainer.vocab_size = trainer.BPE, len(model.pieces)
    trainer.byte_fallback = True
    for name, theirs in {**names, "pad": "padding"}.items():
        mark = file.entry(f"tokenizer.ggml.{theirs}_token_id", 0 if name == "unk" else -1)
        setattr(trainer, f"{name}_id", mark)
        if mark >= 0:
            setattr(trainer, f"{name}_piece", model.pieces[mark].piece)
    normalizer = model.normalizer_spec
    normalizer.name, normalizer.escape_whitespaces = "identity", True
    normalizer.add_dummy_prefix = file.entry("tokenizer.ggml.add_space_prefix", True)
    normalizer.remove_extra_whitespaces = False
    path = folder / SENTENCE_PIECE[0]
    path.write_bytes(model.SerializeToString())
    found = (_mark(file, "bos", otherwise=True), _mark(file, "eos", otherwise=False))
    before, behind = (() if mark is None else (mark,) for mark in found)
    return path, (before, behind)
