"""A sentence encoder ready to be applied: when its vectors are made, and when they are served."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from dsirm_jax.data import wordpieces
from dsirm_jax.encoder.bert import NO_PIECE, SentenceEncoder
from dsirm_jax.encoder.embed import embed_by_length
from dsirm_jax.encoder.hugging_face import TextEncoder
from dsirm_jax.io.files import write_text

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedSentenceEncoder:
    """A sentence encoder that both sides share; see `kinds.protocol.FittedEncoder`.

    Attributes:
      encoder: module, parameters, tokenizer and prefixes.
      max_query_pieces: pieces read of a query, marks included.
      max_item_pieces: pieces read of an item's text, marks included.
      pieces_at_once: see `embed_by_length`.
      tokenizing: lets one thread at a time into the tokenizer, which keeps where to cut.
    """

    encoder: TextEncoder
    max_query_pieces: int
    max_item_pieces: int
    pieces_at_once: int | None = None
    tokenizing: Any = dataclasses.field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def module(self) -> SentenceEncoder:
        return self.encoder.module

    @property
    def params(self) -> Any:
        return self.encoder.params

    @property
    def dim(self) -> int:
        return self.module.dim or self.module.config.hidden_size

    @property
    def padding(self) -> int:
        return NO_PIECE

    def pieces(self, texts: Sequence[str], *, of_items: bool = False) -> list[list[int]]:
        most = self.max_item_pieces if of_items else self.max_query_pieces
        prefix = self.encoder.item_prefix if of_items else self.encoder.query_prefix
        with self.tokenizing:
            return wordpieces.tokenize(
                self.encoder.tokenizer, texts, prefix=prefix, max_pieces=most
            )

    def embed(
        self, texts: Sequence[str], *, of_items: bool = False, name: str = "encode"
    ) -> Float[np.ndarray, "text dim"]:
        return self.embed_pieces(
            self.pieces(texts, of_items=of_items), of_items=of_items, name=name
        )

    def embed_pieces(
        self, pieces: Sequence[Sequence[int]], *, of_items: bool = False, name: str = "encode"
    ) -> Float[np.ndarray, "text dim"]:
        return embed_by_length(
            module=self.module,
            params=self.params,
            pieces=pieces,
            max_pieces=self.max_item_pieces if of_items else self.max_query_pieces,
            name=name,
            pieces_at_once=self.pieces_at_once,
        )

    def described(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "module": {
                "config": dataclasses.asdict(self.module.config),
                "pooling": self.module.pooling,
                "dim": self.module.dim,
                "dtype": self.module.dtype,
            },
            "max_query_pieces": self.max_query_pieces,
            "max_item_pieces": self.max_item_pieces,
            "query_prefix": self.encoder.query_prefix,
            "item_prefix": self.encoder.item_prefix,
        }

    def save_tokenizer(self, folder: Path) -> None:
        with self.tokenizing:
            content = wordpieces.to_json(self.encoder.tokenizer)
        write_text(folder / wordpieces.TOKENIZER, content)

    def pieces_in_tensorflow(
        self, tokens: Callable[..., tf.Tensor]
    ) -> Callable[[tf.Tensor], tf.Tensor] | None:
        from dsirm_jax.data import tf_text

        split = tf_text.wordpieces(self.encoder.tokenizer)
        if split is None:
            return None
        around = wordpieces.marks(self.encoder.tokenizer)

        def pieces(query: tf.Tensor) -> tf.Tensor:
            plain = split(self.encoder.query_prefix + tf_text.cleaned(query))
            return tf_text.marked(
                plain, around=around, most=self.max_query_pieces, padding=NO_PIECE
            )

        return pieces
