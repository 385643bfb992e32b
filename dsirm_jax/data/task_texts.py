"""The texts of SeqIO tasks as pieces: a generator's stand in its prompt."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from dsirm_jax.data import tf_text
from dsirm_jax.data.vocabularies.prompt import QUERY, Prompted
from dsirm_jax.data.vocabulary import rectangle

if TYPE_CHECKING:
    import seqio
    import tensorflow as tf

PathLike = str | os.PathLike[str]
Row = dict[str, Any]
Step = Callable[["tf.data.Dataset"], "tf.data.Dataset"]


def imported_seqio() -> ModuleType:
    """Imports SeqIO, which takes seconds, and leaves the accelerators to JAX."""
    import seqio
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return seqio


def vocabulary_of(
    vocabulary: PathLike | None, prompted: Prompted | None = None
) -> seqio.Vocabulary:
    """Returns the vocabulary of texts as SeqIO knows it; see `tasks.query_sid`."""
    if vocabulary is not None:
        return imported_seqio().SentencePieceVocabulary(os.fspath(vocabulary))
    if prompted is None:
        raise ValueError("no vocabulary: give a SentencePiece model, or what splits texts")
    return imported_seqio().PassThroughVocabulary(prompted.vocabulary.size)


def text_sid_features(
    vocabulary: PathLike | None, sizes: Sequence[int], *, prompted: Prompted | None = None
) -> dict[str, seqio.Feature]:
    """Returns what the rows of text -> SID tasks are made of: `inputs`, `targets` and `weight`.

    Args:
      vocabulary: of the inputs, see `query_sid`.
      sizes: codes per level of the targets.
      prompted: see `query_sid`.
    """
    import tensorflow as tf

    seqio, pieces = imported_seqio(), vocabulary_of(vocabulary, prompted)
    tokens = seqio.PassThroughVocabulary(pieces.vocab_size + sum(sizes))
    number = seqio.PassThroughVocabulary(0)
    return {
        "inputs": seqio.Feature(pieces, add_eos=False),
        "targets": seqio.Feature(tokens, add_eos=False),
        # A mixture keeps nothing but its features.
        "weight": seqio.Feature(number, add_eos=False, dtype=tf.float32, rank=0),
    }


def map_rows(function: Callable[[Row], Row]) -> Step:
    """Returns what applies a function to every row of a dataset."""
    return lambda dataset: dataset.map(function)


def steps(tokenize: Step, prompted: Prompted | None, *, in_tensorflow: bool) -> list[Step]:
    """Returns what makes pieces of the feature `inputs`; see `tasks.query_sid`.

    Args:
      tokenize: splits texts by the vocabulary of their feature, and leaves ids as they are.
      prompted: how a generator reads texts, of rows in chunks; None: as they are, row by row.
      in_tensorflow: whether `tokenize` splits them; otherwise `prompted` does so, in Python.
    """
    if prompted is None or (in_tensorflow and prompted.prompt == QUERY):
        return [tokenize]
    if not in_tensorflow:
        read = functools.partial(_in_python, prompted=prompted)
        return [map_rows(lambda row: row | {"inputs": read(row["inputs"])}), tokenize]
    within = functools.partial(tf_text.prompted, around=prompted.around)
    cut = functools.partial(tf_text.cut, ending=prompted.ending, most=prompted.most)
    return [
        map_rows(lambda row: row | {"inputs": within(row["inputs"])}),
        tokenize,
        map_rows(lambda row: row | {"inputs": cut(row["inputs"])}),
    ]


def _in_python(texts: tf.Tensor, *, prompted: Prompted) -> tf.Tensor:
    """Returns the padded pieces of a chunk of texts, `[text, piece]`."""
    import tensorflow as tf

    def pieces(texts: np.ndarray) -> Int[np.ndarray, "text piece"]:
        read = prompted.pieces([text.decode() for text in texts])
        return rectangle(read, shape=(len(texts), prompted.most))

    ids = tf.numpy_function(pieces, [texts], tf.int32, stateful=False)
    ids.set_shape([None, prompted.most])
    return ids
