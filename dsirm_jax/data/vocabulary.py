"""The SentencePiece vocabulary that all text models of a run share."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing

if TYPE_CHECKING:
    import sentencepiece

PAD, EOS, UNKNOWN = 0, 1, 2
"""Ids of T5's vocabularies, which SeqIO expects; there is no id for the beginning of a text."""


def train_vocabulary(
    *, texts: Iterator[str], size: int, path: str | os.PathLike[str], seed: int
) -> int:
    """Trains a unigram SentencePiece model; the same texts and seed give the same bytes.

    Text is normalised to NFKC and folded to lower case: queries are mostly typed so, titles are
    not. A character without a piece is spelt in bytes, so that no text is unknown.

    Source: Kudo 2018, arXiv 1804.10959; Kudo and Richardson 2018, arXiv 1808.06226.

    Args:
      texts: training texts.
      size: number of pieces; fewer come out when the text does not support as many.
      path: where the model is written.
      seed: seed of SentencePiece.

    Returns:
      The number of pieces.

    Raises:
      InputError: there is no text, or `size` has no room for the characters and the 256 bytes.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(seed)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="unigram",
            normalization_rule_name="nmt_nfkc_cf",
            byte_fallback=True,
            character_coverage=0.9995,
            pad_id=PAD,
            eos_id=EOS,
            unk_id=UNKNOWN,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"no vocabulary of vocabulary_size={size} pieces can be trained on these titles and "
            f"queries ({reason}); bind another vocabulary_size"
        ) from error
    with replacing(path) as partial:
        partial.write_bytes(model.getvalue())
    return processor(path).vocab_size()


def take_vocabulary(*, vocabulary: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Copies an existing vocabulary, after checks of its ids.

    Args:
      vocabulary: a SentencePiece model with T5's ids (pad 0, end 1, unknown 2).
      path: where the copy is written.

    Returns:
      The number of pieces.

    Raises:
      InputError: the file is missing, no SentencePiece model, or has other ids.
    """
    if not Path(vocabulary).is_file():
        raise InputError(f"{vocabulary}: no such file; bind vocabulary to a SentencePiece model")
    try:
        model = processor(vocabulary)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"{vocabulary}: no SentencePiece model; bind vocabulary to one or to None"
        ) from error
    ids = (model.pad_id(), model.eos_id(), model.unk_id())
    if ids != (PAD, EOS, UNKNOWN):
        raise InputError(
            f"{vocabulary}: pad, end and unknown have the ids {ids} and not "
            f"{(PAD, EOS, UNKNOWN)}; train it with pad_id=0, eos_id=1 and unk_id=2"
        )
    with replacing(path) as partial:
        shutil.copyfile(vocabulary, partial)
    return model.vocab_size()


def text_pieces(path: str | os.PathLike[str], texts: Sequence[str]) -> list[list[int]]:
    """Returns the pieces of each text, without an end mark, as SeqIO's tasks give them."""
    return processor(path).encode(list(texts), out_type=int)


def rectangle(
    pieces: Sequence[Sequence[int]], *, shape: tuple[int, int], beyond: int = PAD
) -> Int[np.ndarray, "row piece"]:
    """Returns texts of different lengths as one array, int32.

    Args:
      pieces: ids of each text.
      shape: rows, of which those after the last text have none, and pieces read of a text.
      beyond: what follows a text's last piece.
    """
    array = np.full(shape, beyond, np.int32)
    for row, text in zip(array, pieces, strict=False):
        row[: len(text)] = text[: len(row)]
    return array


def size(path: str | os.PathLike[str]) -> int:
    """Returns the number of pieces."""
    return processor(path).vocab_size()


def processor(path: str | os.PathLike[str]) -> sentencepiece.SentencePieceProcessor:
    """Returns the model itself."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=Path(path).read_bytes())
