"""SeqIO tasks over the TFDS dataset, and their rows as padded batches in a repeatable order.

Tasks and mixtures are objects, not registered names, so that runs and rungs live side by side in
one process; SeqIO and T5X take them wherever they take a name. Texts are SentencePiece ids without
an end mark, and 0 pads them. Every row has a float32 `weight` beside its features.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from dsirm_jax.data import task_texts
from dsirm_jax.data.pairs import held_out_queries
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.task_blocks import (
    OTHER_SPLITS,
    TRAINING_SPLITS,
    Row,
    block_edges,
    block_sizes,
    mixture_rows,
    num_training_rows,
    read_ahead,
    read_block,
    step_rows,
)
from dsirm_jax.data.task_texts import (
    imported_seqio,
    map_rows,
    text_sid_features,
    vocabulary_of,
)
from dsirm_jax.data.vocabularies.prompt import Prompted
from dsirm_jax.io.checks import check_number
from dsirm_jax.sids import codes
from dsirm_jax.training.batches import concatenate, cut_batches, in_stages, visits

if TYPE_CHECKING:
    import seqio
    import tensorflow as tf

    from dsirm_jax.training.settings import Training

BLOCK_ROWS = 2**17
"""Most rows of a block, by default."""

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curriculum:
    """What the generator learns from, and when.

    Attributes:
      title_rate: share of the rows that are `title_sid`, the others being `query_sid`; below 1.
      title_first: share of the steps, from the first on, in which all rows are `title_sid`.
    """

    title_rate: float = 0.5
    title_first: float = 0.0

    def __post_init__(self) -> None:
        for name in ("title_rate", "title_first"):
            check_number(f"Curriculum.{name}", getattr(self, name), least=0, below=1)


def query_item(*, tfds_dir: PathLike, vocabulary: PathLike) -> seqio.Task:
    """Returns the task that pairs a training query with an item relevant to it.

    Args:
      tfds_dir: `data_dir` of `dataset.write_dataset`.
      vocabulary: the SentencePiece model.

    Returns:
      A task with the features `query` and `item`, pieces; its rows have `query_index` and
      `item_index` too. Source: this project.
    """
    seqio = imported_seqio()
    pieces = seqio.Feature(vocabulary_of(vocabulary), add_eos=False)
    columns = ("query", "query_index", "item_index", "weight")
    return _task(
        "query_item",
        tfds_dir=tfds_dir,
        config="judgements",
        preprocessors=[
            map_rows(lambda row: {name: row[name] for name in columns} | {"item": row["text"]}),
        ],
        output_features={"query": pieces, "item": pieces},
    )


def query_sid(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike | None,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
    prompted: Prompted | None = None,
) -> seqio.Task:
    """Returns the task: training query -> SID of an item relevant to it, weighed by gain.

    Args:
      tfds_dir: `data_dir` of `dataset.write_dataset`.
      vocabulary: the SentencePiece model, or None: `prompted` says what splits texts. The SID
        tokens follow its pieces, see `sids.codes`.
      sids: codes of all items, in the order of `items.parquet`.
      sizes: codes per level.
      prompted: the prompt that texts stand in, and how many pieces are read, for rows in chunks as
        `batches` reads them; no prompt when not given.

    Returns:
      A task with the features `inputs`, pieces, and `targets`, one SID token per level. Source:
      TIGER (arXiv 2305.05065) for the targets; the weights are this project's.
    """
    features = text_sid_features(vocabulary, sizes, prompted=prompted)
    sid_tokens = _sid_tokens(sids, sizes=sizes, features=features)
    return _task(
        "query_sid",
        tfds_dir=tfds_dir,
        config="judgements",
        preprocessors=[
            map_rows(
                lambda row: {
                    "inputs": row["query"],
                    "targets": sid_tokens(row["item_index"]),
                    "weight": row["gain"] * row["weight"],
                }
            ),
        ],
        output_features=features,
        prompted=prompted,
        in_tensorflow=vocabulary is not None,
    )


def title_sid(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike | None,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
    prompted: Prompted | None = None,
) -> seqio.Task:
    """Returns the task: text of an item -> its SID; arguments and features as in `query_sid`."""
    import tensorflow as tf

    features = text_sid_features(vocabulary, sizes, prompted=prompted)
    sid_tokens = _sid_tokens(sids, sizes=sizes, features=features)
    return _task(
        "title_sid",
        tfds_dir=tfds_dir,
        config="items",
        preprocessors=[
            map_rows(
                lambda row: {
                    "inputs": row["text"],
                    "targets": sid_tokens(row["item_index"]),
                    "weight": tf.ones_like(row["item_index"], tf.float32),
                }
            ),
        ],
        output_features=features,
        prompted=prompted,
        in_tensorflow=vocabulary is not None,
    )


def text_sid(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike | None,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
    title_rate: float,
    prompted: Prompted | None = None,
) -> seqio.Task | seqio.Mixture:
    """Returns the mixture of `query_sid` and `title_sid`, or the one task that has rows in it.

    Args:
      tfds_dir: see `query_sid`.
      vocabulary: see `query_sid`.
      sids: see `query_sid`.
      sizes: see `query_sid`.
      title_rate: share of the rows that come from `title_sid`, from 0 to 1.
      prompted: see `query_sid`.
    """
    paths = {"tfds_dir": tfds_dir, "vocabulary": vocabulary}
    rates = [
        (task(**paths, sids=sids, sizes=sizes, prompted=prompted), rate)
        for task, rate in ((query_sid, 1 - title_rate), (title_sid, title_rate))
        if rate
    ]
    return imported_seqio().Mixture("text_sid", rates) if len(rates) > 1 else rates[0][0]


def num_rows(
    task: seqio.Task | seqio.Mixture, *, queries: Bool[np.ndarray, " query"] | None = None
) -> int:
    """Returns the rows of an epoch: those of a task, or of a mixture's tasks together.

    Args:
      task: whose.
      queries: see `batches`.

    Raises:
      InputError: a task without rows.
    """
    whole = [(one, [0, num_training_rows(one)]) for one in imported_seqio().get_subtasks(task)]
    return sum(sum(block_sizes(one, edges, queries)) for one, edges in whole)


def batches(
    *,
    task: seqio.Task | seqio.Mixture,
    lengths: Mapping[str, int],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    host: int = 0,
    hosts: int = 1,
    block_rows: int = BLOCK_ROWS,
    queries: Bool[np.ndarray, " query"] | None = None,
    read: Callable[..., Row] = read_block,
    room: int | None = None,
) -> Iterator[Row]:
    """Returns batches of tokenised, cut and padded rows without end, from step `start_step` on.

    Each host has a consecutive share of a task's rows, which TFDS has put in random order on disk,
    and reads it in blocks. An epoch visits the blocks, and the rows of each, in an order that
    follows from seed, epoch, task and host; where in that stream a batch lies follows from its
    step. So a run that goes on at any step sees the batches that an uninterrupted one sees, and
    getting there costs the reading of one block a task, never of an epoch. The next block is read
    while one is used, and what has been read is kept for later epochs, as far as there is room.

    Of a mixture, each task gives its rate of the rows up to any step, rounded, and has epochs of
    its own.

    Args:
      task: what to read.
      lengths: positions per feature, e.g. `{"inputs": 16, "targets": 3}`.
      batch_size: rows of this host in a batch.
      seed: of the order.
      start_step: first step to yield.
      host: number of this host, from 0.
      hosts: number of hosts.
      block_rows: most rows of a block.
      queries: those whose rows are read, all when not given; rows of no query always are. How
        many there are in each block is counted first, which takes a pass over all rows.
      read: reads one block, as `task_blocks.read_block` does.
      room: see `task_blocks.read_ahead`.

    Returns:
      Batches of an array per feature, `[row, ...]`, a mixture's task by task. Source: this project.

    Raises:
      InputError: a task with fewer rows than hosts.
    """
    seqio = imported_seqio()
    tasks = seqio.get_subtasks(task)
    rates = [task.get_rate(one) if isinstance(task, seqio.Mixture) else 1.0 for one in tasks]
    streams = []
    for number, one in enumerate(tasks):
        edges = block_edges(one, host=host, hosts=hosts, block_rows=block_rows)
        task_rows = functools.partial(mixture_rows, task=number, rates=rates)
        block_visits = visits(
            sizes=block_sizes(one, edges, queries),
            seed=seed,
            start=task_rows(start_step * batch_size),
            stream=(number, host),
        )
        pieces = read_ahead(
            functools.partial(read, one, edges, lengths, queries=queries), block_visits, room=room
        )
        sizes = step_rows(task_rows, batch_size=batch_size, start_step=start_step)
        streams.append(cut_batches(pieces, sizes))
    return map(concatenate, zip(*streams, strict=True))


def first_epoch(
    *,
    task: seqio.Task | seqio.Mixture,
    batch_size: int,
    queries: Bool[np.ndarray, " query"],
    **arguments: Any,
) -> list[Row]:
    """Returns the batches of the first epoch; rows that do not fill the last are left out.

    Arguments as in `batches`. With too few rows for one batch, it has some of them twice.
    """
    rows = num_rows(task, queries=queries)
    endless = batches(task=task, batch_size=batch_size, queries=queries, **arguments)
    return list(itertools.islice(endless, max(rows // batch_size, 1)))


def text_sid_batches(
    *,
    tfds_dir: PathLike,
    vocabulary: PathLike | None,
    sids: Int[np.ndarray, "item level"],
    sizes: Sequence[int],
    prompted: Prompted,
    curriculum: Curriculum,
    training: Training,
    queries: PathLike,
    seed: int,
) -> tuple[Callable[[int], Iterator[Row]], int, list[Row]]:
    """Returns what the generator learns from: its batches from any step on, and rows in an epoch.

    And the batches of the queries that are held out, as `training` wants it.

    Args:
      tfds_dir: see `query_sid`.
      vocabulary: see `query_sid`.
      sids: see `query_sid`.
      sizes: see `query_sid`.
      prompted: see `query_sid`.
      curriculum: what it learns from, and when.
      training: how long, and in batches of what size.
      queries: `prepare/queries.parquet`.
      seed: of the order, and of the queries held out.
    """
    tasks = functools.partial(text_sid, tfds_dir=tfds_dir, vocabulary=vocabulary, sids=sids)
    tasks = functools.partial(tasks, sizes=sizes, prompted=prompted)
    titles, mixed, pairs = (tasks(title_rate=rate) for rate in (1, curriculum.title_rate, 0))
    lengths = {"inputs": prompted.most, "targets": len(sizes)}
    trained, held_out_batches = None, []
    if training.held_out:
        held_out = held_out_queries(Path(queries), share=training.held_out, seed=seed)
        trained = ~held_out
        held_out_batches = [
            generator_features(batch)
            for batch in first_epoch(
                task=pairs,
                lengths=lengths,
                batch_size=training.batch_size,
                seed=seed,
                queries=held_out,
            )
        ]

    def task_batches(task: seqio.Task | seqio.Mixture, start: int) -> Iterator[Row]:
        endless = batches(
            task=task,
            lengths=lengths,
            batch_size=training.batch_size,
            seed=seed,
            start_step=start,
            queries=trained,
        )
        return map(generator_features, endless)

    rows = num_rows(mixed, queries=trained)
    first, second = (functools.partial(task_batches, task) for task in (titles, mixed))
    title_steps = int(curriculum.title_first * training.num_steps(rows))
    return in_stages(first, second, steps=title_steps), rows, held_out_batches


def generator_features(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a batch of text -> SID rows to the features of T5X's encoder-decoder models."""
    targets = batch["targets"]
    return {
        "encoder_input_tokens": batch["inputs"],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.broadcast_to(batch["weight"][:, None], targets.shape),
    }


def _task(
    name: str,
    *,
    tfds_dir: PathLike,
    config: str,
    preprocessors: Sequence[Callable[..., tf.data.Dataset]],
    output_features: Mapping[str, seqio.Feature],
    prompted: Prompted | None = None,
    in_tensorflow: bool = True,
) -> seqio.Task:
    seqio = imported_seqio()
    tokenize = functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False)
    return seqio.Task(
        name,
        source=seqio.TfdsDataSource(
            f"shop_search/{config}:2.0.0",
            os.fspath(tfds_dir),
            splits={TRAIN: TRAINING_SPLITS[config]} | {name: name for name in OTHER_SPLITS[config]},
            read_only=True,
        ),
        preprocessors=[
            *preprocessors,
            *task_texts.steps(tokenize, prompted, in_tensorflow=in_tensorflow),
        ],
        output_features=output_features,
    )


def _sid_tokens(
    sids: Int[np.ndarray, "item level"],
    *,
    sizes: Sequence[int],
    features: Mapping[str, seqio.Feature],
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the look-up of the SID tokens of items, int32 `[..., level]`."""
    import tensorflow as tf

    vocab_size = features["inputs"].vocabulary.vocab_size

    # An eager tensor is an input of the functions that use it, no constant in their graphs, which
    # could not hold a large catalogue.
    tokens = tf.constant(
        codes.to_tokens(np.asarray(sids, np.int32), sizes=sizes, text_vocab_size=vocab_size)
    )
    return lambda item_index: tf.gather(tokens, item_index)
