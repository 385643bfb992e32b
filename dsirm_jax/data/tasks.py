"""SeqIO tasks over the TFDS dataset, and their rows as padded batches in a repeatable order.

Tasks and mixtures are objects, not registered names, so that runs and rungs live side by side in
one process; SeqIO and T5X take them wherever they take a name. Texts are SentencePiece ids without
an end mark, and 0 pads them. Every row has a float32 `weight` beside its features.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from dsirm_jax.data.schema import TRAIN
from dsirm_jax.errors import InputError
from dsirm_jax.sids import codes

if TYPE_CHECKING:
    import seqio
    import tensorflow as tf

IN_MEMORY_ROWS = 2**18

PathLike = str | os.PathLike[str]
Row = dict[str, Any]


def query_item(*, tfds_dir: PathLike, vocabulary: PathLike) -> seqio.Task:
    """Returns the task that pairs a training query with an item relevant to it.

    Args:
      tfds_dir: `data_dir` of `dataset.build`.
      vocabulary: the SentencePiece model.

    Returns:
      A task with the features `query` and `item`, pieces; its rows have `query_index` and
      `item_index` too. Source: this project.
    """
    seqio = _seqio()
    pieces = seqio.Feature(_pieces(vocabulary), add_eos=False)
    kept = ("query", "query_index", "item_index", "weight")
    return _task(
        "query_item",
        tfds_dir=tfds_dir,
        config="judgements",
        preprocessors=[
            _relevant,
            _mapped(lambda row: {name: row[name] for name in kept} | {"item": row["text"]}),
        ],
        output_features={"query": pieces, "item": pieces},
    )


def query_sid(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
) -> seqio.Task:
    """Returns the task: training query -> SID of an item relevant to it, weighed by gain.

    Args:
      tfds_dir: `data_dir` of `dataset.build`.
      vocabulary: the SentencePiece model; the SID tokens follow its pieces, see `sids.codes`.
      sids: codes of all items, in the order of `items.parquet`.
      sizes: codes per level.

    Returns:
      A task with the features `inputs`, pieces, and `targets`, one SID token per level. Source:
      TIGER (arXiv 2305.05065) for the targets; the weights are this project's.
    """
    answer = _sid_tokens(sids, sizes=sizes, vocabulary=vocabulary)
    return _task(
        "query_sid",
        tfds_dir=tfds_dir,
        config="judgements",
        preprocessors=[
            _relevant,
            _mapped(
                lambda row: {
                    "inputs": row["query"],
                    "targets": answer(row["item_index"]),
                    "weight": row["gain"] * row["weight"],
                }
            ),
        ],
        output_features=_text_to_sid(vocabulary, sizes),
    )


def title_sid(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
) -> seqio.Task:
    """Returns the task: text of an item -> its SID; arguments and features as in `query_sid`."""
    answer = _sid_tokens(sids, sizes=sizes, vocabulary=vocabulary)
    return _task(
        "title_sid",
        tfds_dir=tfds_dir,
        config="items",
        preprocessors=[
            _mapped(
                lambda row: {
                    "inputs": row["text"],
                    "targets": answer(row["item_index"]),
                    "weight": np.float32(1),
                }
            ),
        ],
        output_features=_text_to_sid(vocabulary, sizes),
    )


def text_sid(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
    title_rate: float,
) -> seqio.Mixture:
    """Returns the mixture of `query_sid` and `title_sid`.

    Args:
      tfds_dir: see `query_sid`.
      vocabulary: see `query_sid`.
      sids: see `query_sid`.
      sizes: see `query_sid`.
      title_rate: share of the rows that come from `title_sid`, above 0 and below 1.

    Raises:
      InputError: no such share.
    """
    if not 0 < title_rate < 1:
        raise InputError(f"title_rate = {title_rate}: give a share above 0 and below 1")
    shared = {"tfds_dir": tfds_dir, "vocabulary": vocabulary, "sids": sids, "sizes": sizes}
    rates = [(query_sid(**shared), 1 - title_rate), (title_sid(**shared), title_rate)]
    return _seqio().Mixture("text_sid", rates)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The tokenised, padded rows of one epoch, before any order.

    Attributes:
      parts: one dataset per task.
      counts: rows of each.
      rates: share of each in a mixture.
    """

    parts: tuple[tf.data.Dataset, ...]
    counts: tuple[int, ...]
    rates: tuple[float, ...]

    @property
    def num_rows(self) -> int:
        """Rows of an epoch: as many as all tasks have, although a mixture draws them by rate."""
        return sum(self.counts)


def tokenised(*, task: seqio.Task | seqio.Mixture, lengths: Mapping[str, int]) -> Rows:
    """Reads, tokenises, cuts and pads the training rows of a task, or of a mixture's tasks.

    Counting them takes one pass. The rows of a task with at most `IN_MEMORY_ROWS` examples stay in
    memory; those of a larger one are tokenised again in every epoch.

    Args:
      task: what to read.
      lengths: positions per feature, e.g. `{"inputs": 16, "targets": 3}`.

    Returns:
      The rows, in the order of the files.

    Raises:
      InputError: a task without rows.
    """
    seqio = _seqio()
    tasks = seqio.get_subtasks(task)
    parts, counts = [], []
    for one in tasks:
        part = one.get_dataset(lengths, TRAIN, shuffle=False, try_in_mem_cache=False)
        part = seqio.trim_and_pad_dataset(part, lengths)
        if one.num_input_examples(TRAIN) <= IN_MEMORY_ROWS:
            part = part.cache()
        parts.append(part)
        counts.append(int(part.reduce(np.int64(0), lambda count, _: count + 1)))
        if not counts[-1]:
            raise InputError(
                f"task {one.name}: no training rows; give judgements with relevant labels"
            )
    rates = [task.get_rate(one) if isinstance(task, seqio.Mixture) else 1.0 for one in tasks]
    return Rows(parts=tuple(parts), counts=tuple(counts), rates=tuple(rates))


def batches(
    *, rows: Rows, batch_size: int, seed: int, start_step: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches without end, from step `start_step` on.

    Step `s` holds positions `[s * batch_size, (s + 1) * batch_size)` of the concatenated epochs.
    The order of an epoch is a function of the seed and the epoch's number, so a resumed run
    continues the stream that an uninterrupted one sees; getting there costs a skip within one
    epoch. Up to `IN_MEMORY_ROWS` rows are shuffled as one; more rows, which TFDS has put in random
    order on disk, go through a buffer of that size.

    Args:
      rows: what to draw from.
      batch_size: rows per batch.
      seed: of the order.
      start_step: first step to yield.

    Yields:
      One array per feature, its first axis the rows. Source: this project.
    """
    import tensorflow as tf

    first_epoch, skipped = divmod(start_step * batch_size, rows.num_rows)

    def epoch_rows(epoch: tf.Tensor) -> tf.data.Dataset:
        keys = tf.random.stateless_uniform(
            [1 + len(rows.parts)], [seed, epoch], None, None, tf.int64
        )
        shuffled = [
            part.shuffle(min(count, IN_MEMORY_ROWS), keys[1 + i], reshuffle_each_iteration=False)
            for i, (part, count) in enumerate(zip(rows.parts, rows.counts, strict=True))
        ]
        if len(shuffled) == 1:
            return shuffled[0]
        drawn = tf.data.Dataset.sample_from_datasets(
            [part.repeat() for part in shuffled], rows.rates, seed=keys[0]
        )
        return drawn.take(rows.num_rows)

    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    stream = epochs.flat_map(epoch_rows).skip(skipped)
    stream = stream.batch(batch_size, drop_remainder=True).prefetch(2)
    return stream.as_numpy_iterator()


def generator_features(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a batch of text -> SID rows to the features of T5X's encoder-decoder models."""
    targets = batch["targets"]
    return {
        "encoder_input_tokens": batch["inputs"],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.broadcast_to(batch["weight"][:, None], targets.shape),
    }


def _seqio() -> ModuleType:
    """Imports SeqIO, which takes seconds, and leaves the accelerators to JAX."""
    import seqio
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    return seqio


def _task(
    name: str,
    *,
    tfds_dir: PathLike,
    config: str,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]],
    output_features: Mapping[str, seqio.Feature],
) -> seqio.Task:
    seqio = _seqio()
    return seqio.Task(
        name,
        source=seqio.TfdsDataSource(
            f"shop_search/{config}:1.0.0", os.fspath(tfds_dir), splits=[TRAIN], read_only=True
        ),
        preprocessors=[
            *preprocessors,
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
        ],
        output_features=output_features,
    )


def _relevant(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset.filter(lambda row: row["relevant"])


def _mapped(function: Callable[[Row], Row]) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    return lambda dataset: dataset.map(function)


def _pieces(vocabulary: PathLike) -> seqio.SentencePieceVocabulary:
    return _seqio().SentencePieceVocabulary(os.fspath(vocabulary))


def _text_to_sid(vocabulary: PathLike, sizes: Sequence[int]) -> dict[str, seqio.Feature]:
    seqio, pieces = _seqio(), _pieces(vocabulary)
    tokens = seqio.PassThroughVocabulary(pieces.vocab_size + sum(sizes))
    return {
        "inputs": seqio.Feature(pieces, add_eos=False),
        "targets": seqio.Feature(tokens, add_eos=False),
    }


def _sid_tokens(
    sids: Int[np.ndarray, "item level"], *, sizes: Sequence[int], vocabulary: PathLike
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the look-up of the SID tokens of an item, int32 `[level]`."""
    vocab_size = _pieces(vocabulary).vocab_size
    import tensorflow as tf

    # An eager tensor is an input of the functions that use it, no constant in their graphs, which
    # could not hold a large catalogue.
    tokens = tf.constant(
        codes.to_tokens(np.asarray(sids, np.int32), sizes=sizes, text_vocab_size=vocab_size)
    )
    return lambda item_index: tf.gather(tokens, item_index)
