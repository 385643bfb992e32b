"""Texts to the pieces of a Hugging Face tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dsirm_jax.io.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER, VOCABULARY, SETTINGS = "tokenizer.json", "vocab.txt", "tokenizer_config.json"
PAD_TOKENS = ("[PAD]", "<pad>")


def tokenizer_file(folder: Path) -> Path:
    """Returns the file that a folder's tokenizer is read from.

    Raises:
      InputError: there is none.
    """
    for name in (TOKENIZER, VOCABULARY):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: neither {TOKENIZER} nor {VOCABULARY}; copy the model's into it")


def read_tokenizer(folder: Path) -> Tokenizer:
    """Reads `tokenizer.json` or, where there is none, BERT's `vocab.txt`.

    A `vocab.txt` is cased where `tokenizer_config.json` has `"do_lower_case": false`.

    Args:
      folder: of a Hugging Face model.

    Raises:
      InputError: neither is there, or it cannot be read.
    """
    from tokenizers import BertWordPieceTokenizer, Tokenizer

    path = tokenizer_file(folder)
    try:
        if path.name == TOKENIZER:
            tokenizer = Tokenizer.from_file(str(path))
        else:
            settings = folder / SETTINGS
            lowercase = True
            if settings.is_file():
                lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case", True)
            wrapped = BertWordPieceTokenizer(str(path), lowercase=lowercase)
            tokenizer = Tokenizer.from_str(wrapped.to_str())
    except Exception as error:  # the library raises nothing more specific
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a readable tokenizer ({reason}); copy the model's into {folder}"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], *, prefix: str, max_pieces: int
) -> list[list[int]]:
    """Returns the pieces of each text, with the marks that the tokenizer puts around it.

    Args:
      tokenizer: see `read_tokenizer`.
      texts: the texts.
      prefix: put before every text, such as E5's "query: ".
      max_pieces: pieces kept of a text, marks included.
    """
    tokenizer.enable_truncation(max_pieces)
    encodings = tokenizer.encode_batch_fast([prefix + text for text in texts])
    return [encoding.ids for encoding in encodings]


def marks(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the ids that a tokenizer puts before and behind every text."""
    encoding = tokenizer.encode("a")
    of_text = [place for place, is_mark in enumerate(encoding.special_tokens_mask) if not is_mark]
    return tuple(encoding.ids[: of_text[0]]), tuple(encoding.ids[of_text[-1] + 1 :])


def to_json(tokenizer: Tokenizer) -> str:
    """Returns what `tokenizer.json` holds; how far texts were cut last is no part of it."""
    tokenizer.no_truncation()
    return tokenizer.to_str()


def padding(tokenizer: Tokenizer) -> dict[str, str]:
    """Returns the `pad_token` of `tokenizer_config.json`, without which transformers pads nothing.

    Here padding has no piece of its own; a tokenizer that knows neither name gives nothing.
    """
    known = [token for token in PAD_TOKENS if tokenizer.token_to_id(token) is not None]
    return {"pad_token": known[0]} if known else {}
