"""Hugging Face's `tokenizer.json`: byte-level BPE (SmolLM2, Qwen) and BPE with byte fallback."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vocabularies.protocol import Marks
from dsirm_jax.data.vocabularies.sentence_piece import SPACE, byte_name
from dsirm_jax.io.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))
"""Bytes that byte-level BPE writes as the characters of the same numbers."""


def byte_characters() -> tuple[str, ...]:
    """Returns the character that byte-level BPE writes each byte as, from 0 to 255.

    Those that are not printable follow the last byte, in their order. Source: Radford et al. 2019,
    "Language Models are Unsupervised Multitask Learners" (GPT-2).
    """
    others = [value for value in range(256) if value not in PRINTABLE]
    numbers = {value: value for value in PRINTABLE}
    numbers |= {value: 256 + place for place, value in enumerate(others)}
    return tuple(chr(numbers[value]) for value in range(256))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TokenizerJson:
    """A tokenizer of Hugging Face with its ids as they are; see `protocol.Vocabulary`.

    Attributes:
      tokenizer: which neither pads nor cuts, and reads no special piece in a text.
      padding: see `protocol.Vocabulary`.
    """

    tokenizer: Tokenizer
    padding: int | None

    @classmethod
    def read(cls, folder: Path) -> TokenizerJson:
        """Reads the tokenizer of a model's folder, and what pads its rows.

        Raises:
          InputError: there is none, or it cannot be read.
        """
        tokenizer = wordpieces.read_tokenizer(folder)
        tokenizer.encode_special_tokens = True
        return cls(tokenizer=tokenizer, padding=_padding(tokenizer, folder))

    @functools.cached_property
    def size(self) -> int:
        ids = self.tokenizer.get_vocab(with_added_tokens=True).values()
        return max(ids) + 1  # some families leave numbers out

    @functools.cached_property
    def marks(self) -> Marks:
        return wordpieces.marks(self.tokenizer)

    @functools.cached_property
    def specials(self) -> frozenset[int]:
        added = self.tokenizer.get_added_tokens_decoder().items()
        marked = {id_ for id_, token in added if token.special}
        unknown = self.tokenizer.token_to_id(self._description["model"].get("unk_token") or "")
        around = (id_ for ids in self.marks for id_ in ids)
        others = (id_ for id_ in (unknown, self.padding) if id_ is not None)
        return frozenset({*marked, *around, *others})

    @functools.cached_property
    def byte_pieces(self) -> tuple[int, ...]:
        if self._is_byte_level:
            known = map(self.tokenizer.token_to_id, byte_characters())
            return tuple(-1 if id_ is None else id_ for id_ in known)  # SmolLM2 lacks some
        if not self._description["model"].get("byte_fallback"):
            return ()
        ids = map(self.tokenizer.token_to_id, map(byte_name, range(256)))
        present = tuple(id_ for id_ in ids if id_ is not None)
        return present if len(present) == 256 else ()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def spelling(self, piece: int) -> bytes:
        if piece in self._added:
            return self._added[piece].encode()
        name = self.tokenizer.id_to_token(piece) or ""  # a number that the family leaves out
        if self._is_byte_level:
            return bytes(self._byte_of[character] for character in name)
        if piece in self.byte_pieces:
            return bytes([self.byte_pieces.index(piece)])
        return name.replace(SPACE, " ").encode()

    @functools.cached_property
    def _description(self) -> Mapping[str, Any]:
        """What `tokenizer.json` says, but for the pieces."""
        description = json.loads(self.tokenizer.to_str())
        small = {"type", "byte_fallback", "unk_token"}
        model = {name: value for name, value in description["model"].items() if name in small}
        return {"model": model, "pre_tokenizer": description["pre_tokenizer"]}

    @functools.cached_property
    def _is_byte_level(self) -> bool:
        split = self._description["pre_tokenizer"] or {}
        parts = [split, *split.get("pretokenizers", ())]
        return any(part.get("type") == "ByteLevel" for part in parts)

    @functools.cached_property
    def _byte_of(self) -> Mapping[str, int]:
        return {character: value for value, character in enumerate(byte_characters())}

    @functools.cached_property
    def _added(self) -> Mapping[int, str]:
        """Pieces that stand for themselves, outside the model: texts, in no other alphabet."""
        added = self.tokenizer.get_added_tokens_decoder()
        return {id_: token.content for id_, token in added.items() if id_ not in self.byte_pieces}


def _padding(tokenizer: Tokenizer, folder: Path) -> int | None:
    """Returns the id of the `pad_token` in `tokenizer_config.json`, or of one of its usual names.

    Raises:
      InputError: the file is no JSON, or names a piece that the tokenizer has not.
    """
    settings = folder / wordpieces.SETTINGS
    token = None
    if settings.is_file():
        try:
            token = json.loads(settings.read_text("utf-8")).get("pad_token")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{settings}: no JSON object; copy the model's anew") from error
    if token is None:
        known = map(tokenizer.token_to_id, wordpieces.PAD_TOKENS)
        return next((id_ for id_ in known if id_ is not None), None)
    name = token["content"] if isinstance(token, dict) else token
    id_ = tokenizer.token_to_id(name)
    if id_ is None:
        raise InputError(
            f"{settings}: pad_token is {name!r}, which {wordpieces.tokenizer_file(folder)} has "
            f"not; copy both files of the model anew"
        )
    return id_
