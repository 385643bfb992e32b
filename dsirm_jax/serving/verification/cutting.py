"""Queries that SentencePiece and tensorflow-text cut into other pieces."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dsirm_jax.data import tf_text
from dsirm_jax.serving.bundle.models import Models

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

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
    most = max(
        models.generator.max_pieces, models.encoder.max_query_pieces if models.encoder else 0
    )
    # An encoder may read the run's vocabulary, without the generator's prompt.
    readers = [_Reader(models.vocabulary, ("", ""))]
    if (split := models.split_in_tensorflow) is not None:
        readers.append(_Reader(split, models.prompted.around))
    left = iter(queries)
    while texts := list(itertools.islice(left, TEXTS_AT_ONCE)):
        differing: dict[str, OtherPieces] = {}
        for reader in readers:
            for text, (here, there) in zip(texts, reader.pieces(texts), strict=True):
                if here[:most] != there[:most]:
                    names = (tuple(map(reader.split.id_to_piece, ids)) for ids in (here, there))
                    differing.setdefault(text, OtherPieces(text, *names))
        yield from differing.values()


class _Reader(NamedTuple):
    """What SentencePiece and tensorflow-text make of texts between two others."""

    split: SentencePieceProcessor
    around: tuple[str, str]

    def pieces(self, texts: Sequence[str]) -> Iterator[tuple[list[int], list[int]]]:
        """Yields the pieces of each text here and there."""
        import tensorflow as tf

        before, behind = self.around
        within = [f"{before}{text}{behind}" for text in texts]
        there = tf_text.prompted(tf_text.cleaned(tf.constant(texts)), around=self.around)
        split = tf_text.sentencepiece(self.split).tokenize(there).to_list()
        return zip(self.split.encode(within, out_type=int), split, strict=True)
