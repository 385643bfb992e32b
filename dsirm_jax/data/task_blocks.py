"""The rows of a SeqIO task in blocks: how they are counted, read ahead, tokenised and padded."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from dsirm_jax.data.schema import HEAD, TEST, TRAIN, TRAIN_RELEVANT
from dsirm_jax.devices.stream import made_ahead
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.batches import concatenate
from dsirm_jax.training.memory import host_memory

if TYPE_CHECKING:
    import seqio
    import tensorflow as tf
    import tensorflow_datasets as tfds

DATASET_ROWS = 2**12
"""Rows that TensorFlow parses and tokenises at a time."""
KEPT_SHARE = 1 / 64
"""Of a machine's memory, what the blocks of a task may take: a process for each GPU has its own."""

QUERY, ITEM = "query_index", "item_index"
TRAINING_SPLITS = {"judgements": TRAIN_RELEVANT, "items": TRAIN}
"""The split of the TFDS dataset that tasks call `train`, by config."""
OTHER_SPLITS = {"judgements": (HEAD, TEST), "items": ()}
"""The other splits of the tasks, by config; their pairs are relevant or not."""

Row = dict[str, Any]
Selected = Bool[np.ndarray, " query"] | Int[np.ndarray, " query"]
"""Queries whose rows are read; or, of each query, the item of the one row that is, -1 for none."""
Narrow = dict[str, tuple[np.ndarray, np.dtype]]


def num_training_rows(task: seqio.Task) -> int:
    """Returns the rows of a task's training split.

    Raises:
      InputError: there is no such split.
    """
    splits, name = _training_split(task)
    if name not in splits:
        raise InputError(f"task {task.name}: no training rows; add judgements with relevant labels")
    return splits[name].num_examples


def block_edges(task: seqio.Task, *, host: int, hosts: int, block_rows: int) -> list[int]:
    """Returns where the blocks of a host's rows begin, and where the last ends.

    Args:
      task: whose rows; each host has a consecutive share of them.
      host: its number, from 0.
      hosts: number of hosts.
      block_rows: most rows of a block.

    Raises:
      InputError: a task with fewer rows than hosts.
    """
    rows = num_training_rows(task)
    first, last = rows * host // hosts, rows * (host + 1) // hosts
    if first == last:
        raise InputError(f"task {task.name}: {rows} training rows for {hosts} hosts; use fewer")
    blocks = math.ceil((last - first) / block_rows)
    return [first + (last - first) * block // blocks for block in range(blocks + 1)]


def block_sizes(task: seqio.Task, edges: Sequence[int], queries: Selected | None) -> list[int]:
    """Returns the rows of each block that are of the selected queries.

    Args:
      task: whose rows.
      edges: see `block_edges`.
      queries: those that are selected; all when not given, and of a task without queries.

    Raises:
      InputError: there are none.
    """
    sizes = np.diff(edges).tolist()
    if queries is None or QUERY not in task.source.tfds_dataset.builder.info.features:
        return sizes
    blocks = (_chunks(task, edges, block, queries) for block in range(len(sizes)))
    sizes = [sum(len(chunk[QUERY]) for chunk in block.as_numpy_iterator()) for block in blocks]
    if not sum(sizes):
        raise InputError(
            f"task {task.name}: no row is of the selected queries; bind Training.held_out "
            f"to another share, or to 0"
        )
    return sizes


def read_block(
    task: seqio.Task,
    edges: Sequence[int],
    lengths: Mapping[str, int],
    block: int,
    *,
    queries: Selected | None = None,
) -> Row:
    """Returns the rows of a block in the order of the files, tokenised, cut and padded.

    The rows are those that the task's source yields, but its preprocessors see chunks of them: one
    by one, the calls take many times as long as the work.

    Args:
      task: whose rows.
      edges: see `block_edges`.
      lengths: positions per feature.
      block: number of the block.
      queries: see `block_sizes`.
    """
    import tensorflow as tf

    # Its translation of Python's branches, which no step of a task has, would take seconds.
    tokenised = tf.autograph.experimental.do_not_convert(_tokenised)
    chunks = tokenised(task, edges, lengths, block, queries)
    return concatenate(list(chunks.as_numpy_iterator()))


def read_ahead(
    read: Callable[[int], Row],
    visits: Iterator[tuple[int, np.ndarray]],
    *,
    room: int | None = None,
) -> Iterator[Row]:
    """Yields the rows of blocks in the order of their visits, and reads the next meanwhile.

    Blocks are kept as they come, as long as they have room, and read once for all epochs then.

    Args:
      read: block to its rows.
      visits: numbers of blocks, each with the order of its rows.
      room: bytes that blocks may take, `KEPT_SHARE` of this machine's memory when not given; the
        last one is kept whatever it takes.
    """
    read = functools.lru_cache(maxsize=1)(read)
    kept: dict[int, Narrow] = {}
    left = KEPT_SHARE * host_memory() if room is None else room

    def piece(visit: tuple[int, np.ndarray]) -> Row:
        nonlocal left
        block, order = visit
        if block not in kept:
            rows = read(block)
            narrow = narrowed(rows)
            size = sum(values.nbytes for values, _ in narrow.values())
            if size > left:
                return {name: values[order] for name, values in rows.items()}
            kept[block], left = narrow, left - size
            read.cache_clear()
        return {name: values[order].astype(type_) for name, (values, type_) in kept[block].items()}

    return made_ahead(piece, visits, depth=1)


def narrowed(rows: Row) -> Narrow:
    """Returns rows whose whole numbers are as narrow as they can be, and the types they had."""

    def narrow(values: np.ndarray) -> np.ndarray:
        if not np.issubdtype(values.dtype, np.integer) or values.min(initial=0) < 0:
            return values
        return values.astype(np.min_scalar_type(values.max(initial=0)))

    return {name: (narrow(values), values.dtype) for name, values in rows.items()}


def mixture_rows(position: int, *, task: int, rates: Sequence[float]) -> int:
    """Returns how many of a mixture's first `position` rows are of one task."""

    def before(task: int) -> int:
        """Takes the tasks off from the last on, so that no count ever falls as rows are added."""
        rows = position
        for last in reversed(range(task, len(rates))):
            rows = math.floor(rows * (sum(rates[:last]) / sum(rates[: last + 1])))
        return rows

    return before(task + 1) - before(task)


def step_rows(
    task_rows: Callable[[int], int], *, batch_size: int, start_step: int
) -> Iterator[int]:
    """Yields how many rows every step takes."""
    for step in itertools.count(start_step):
        yield task_rows((step + 1) * batch_size) - task_rows(step * batch_size)


def _tokenised(
    task: seqio.Task,
    edges: Sequence[int],
    lengths: Mapping[str, int],
    block: int,
    queries: Selected | None,
) -> tf.data.Dataset:
    """Returns the rows of a block in chunks, tokenised, cut and padded."""
    import tensorflow as tf

    def padded(row: Mapping[str, Any]) -> Row:
        row = dict(row)
        for name, length in lengths.items():
            ragged = row[name]
            if not isinstance(ragged, tf.RaggedTensor):
                ragged = tf.RaggedTensor.from_tensor(ragged)
            row[name] = ragged[:, :length].to_tensor(shape=(None, length))
        return row

    chunks = _chunks(task, edges, block, queries)
    chunks = task.preprocess_postcache(chunks, sequence_length=lengths)
    return chunks.map(padded, num_parallel_calls=tf.data.AUTOTUNE)


def _chunks(
    task: seqio.Task,
    edges: Sequence[int],
    block: int,
    queries: Selected | None,
) -> tf.data.Dataset:
    """Returns the rows of a block that are of the selected queries, in the files' order."""
    import tensorflow as tf

    splits, name = _training_split(task)
    first, last = edges[block : block + 2]
    features = task.source.tfds_dataset.builder.info.features
    types = {name: feature.tf_dtype for name, feature in features.items()}
    spec = {
        name: tf.io.FixedLenFeature((), tf.int64 if type_ == tf.bool else type_)
        for name, type_ in types.items()
    }

    def matches(row: Mapping[str, Any]) -> Row:
        selected = tf.gather(chosen, row[QUERY])
        if chosen.dtype != tf.bool:
            selected = selected == row[ITEM]
        return {name: tf.boolean_mask(values, selected) for name, values in row.items()}

    files = [
        tf.data.TFRecordDataset(file.filename).skip(file.skip).take(file.take)
        for file in splits[f"{name}[{first}:{last}]"].file_instructions
    ]
    chunks = functools.reduce(tf.data.Dataset.concatenate, files).batch(DATASET_ROWS)
    chunks = chunks.map(
        lambda records: tf.io.parse_example(records, spec), num_parallel_calls=tf.data.AUTOTUNE
    )
    if queries is None or QUERY not in spec:
        return chunks
    chosen = tf.constant(queries)
    return chunks.map(matches)


def _training_split(task: seqio.Task) -> tuple[tfds.core.SplitDict, str]:
    """Returns the splits of a task's dataset, and the name of the one to train on."""
    builder = task.source.tfds_dataset.builder
    return builder.info.splits, TRAINING_SPLITS[builder.builder_config.name]
