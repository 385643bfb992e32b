"""Queries that SentencePiece and tensorflow-text cut into other pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dsirm_jax.data import tf_text
from dsirm_jax.serving.bundle.models import Models

TEXTS_AT_ONCE = 4096


class OtherPieces(NamedTuple):
    """A query that is cut otherwise in the SavedModel.

    Attributes:
      query: its text.
      here: pieces that the scorer and the stages read.
      there: pieces that the SavedModel reads.
    """

    query: str
    here: tuple[str, ...]
    there: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"query {self.query!r}: SentencePiece cuts it into {' '.join(self.here)}, and "
            f"tensorflow-text into {' '.join(self.there)}, which is as probable: the SavedModel "
            f"may answer it otherwise than the scorer"
        )


def cut_otherwise(models: Models, queries: Iterable[str]) -> Iterator[OtherPieces]:
    """Yields the queries of which the models would read other pieces in the SavedModel.

    Args:
      models: of the bundle.
      queries: cleaned.
    """
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # accelerators are JAX's
    vocabulary = models.vocabulary
    most = max(
        models.generator.max_pieces, models.encoder.max_query_pieces if models.encoder else 0
    )
    there, reading = tf_text.sentencepiece(vocabulary), models.prompted
    left = iter(queries)
    while texts := list(itertools.islice(left, TEXTS_AT_ONCE)):
        cleaned = tf_text.cleaned(tf.constant(texts))
        # An encoder may read the same vocabulary, without the generator's prompt.
        read = [
            *zip(vocabulary.encode(texts, out_type=int), there.tokenize(cleaned).to_list()),
            *zip(
                reading.whole(texts),
                there.tokenize(tf_text.prompted(cleaned, around=reading.around)).to_list(),
            ),
        ]
        differing: dict[str, OtherPieces] = {}
        for text, (ours, theirs) in zip([*texts, *texts], read, strict=True):
            if ours[:most] != theirs[:most]:
                names = (tuple(map(vocabulary.id_to_piece, ids)) for ids in (ours, theirs))
                differing.setdefault(text, OtherPieces(text, *names))
        yield from differing.values()
