"""Vectors from two towers that are trained from scratch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float

from dsirm_jax.data import pairs, tasks, vocabulary
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.vectors import shard, write_vectors
from dsirm_jax.encoder.embed import embed, embed_table
from dsirm_jax.encoder.model import TwoTowers
from dsirm_jax.encoder.train import read_params, text_tower, train


def encode_tables(
    *,
    config: TwoTowers,
    items: Path,
    queries: Path,
    judgements: Path,
    tfds_dir: Path,
    pieces: Path,
    item_vectors: Path,
    query_vectors: Path,
    directory: Path,
    seed: int,
    start: Path | None = None,
) -> None:
    """Trains the towers and writes the vectors of all items and queries.

    Args:
      config: shape of the towers and how they are trained.
      items: `prepare/items.parquet`.
      queries: `prepare/queries.parquet`.
      judgements: `prepare/judgements.parquet`; of these the split `train` alone is read.
      tfds_dir: `data_dir` of `dataset.write_dataset`, where the training rows are.
      pieces: the SentencePiece model.
      item_vectors: pattern of the shards written.
      query_vectors: likewise.
      directory: of the stage; an interrupted run goes on from what is there.
      seed: of the parameters and of the order of the training rows.
      start: directory of another run of this stage, whose towers this one goes on from.

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: no rows to train on; there is no run of this shape at `start`.
    """
    relevant = pairs.relevant_pairs(judgements, split=TRAIN)
    num_queries = pq.read_metadata(queries).num_rows
    task = tasks.query_item(tfds_dir=tfds_dir, vocabulary=pieces)
    drawn = {
        "task": task,
        "lengths": {"query": config.max_query_pieces, "item": config.max_item_pieces},
        "batch_size": config.training.batch_size,
        "seed": seed,
    }
    learnt, held_out = None, []
    if share := config.training.held_out:
        apart = pairs.held_out_queries(num_queries, share=share, seed=seed)
        learnt, held_out = ~apart, tasks.first_epoch(**drawn, queries=apart)
    params = train(
        config=config,
        vocab_size=vocabulary.size(pieces),
        batches=lambda start: tasks.batches(**drawn, start_step=start, queries=learnt),
        num_rows=tasks.num_rows(task, queries=learnt),
        positives=pairs.positives_of(relevant, queries=num_queries),
        held_out=held_out,
        directory=directory,
        seed=seed,
        start=start,
    )
    shared = {"config": config, "params": params, "pieces": pieces}
    for table, id_column, text_column, max_pieces, pattern in (
        (items, "item_id", "text", config.max_item_pieces, item_vectors),
        (queries, "query", "query", config.max_query_pieces, query_vectors),
    ):
        embed_table(
            table=table,
            id_column=id_column,
            text_column=text_column,
            embed_texts=functools.partial(_embed, **shared, max_pieces=max_pieces),
            pattern=pattern,
        )


def encode_queries(
    *, config: TwoTowers, pieces: Path, directory: Path, queries: Path, pattern: Path
) -> None:
    """Writes the vectors of further queries.

    Args:
      config: as in `encode_tables`.
      pieces: as in `encode_tables`.
      directory: of the finished stage, whose towers are applied.
      queries: Parquet with a column `query`.
      pattern: of the shards written.
    """
    texts = pq.read_table(queries, columns=["query"])["query"].to_pylist()
    vectors = _embed(
        texts,
        "encode",
        config=config,
        params=read_params(config, vocab_size=vocabulary.size(pieces), directory=directory),
        pieces=pieces,
        max_pieces=config.max_query_pieces,
    )
    write_vectors(shard(pattern, number=0, total=1), texts, vectors, id_column="query")


def _embed(
    texts: Sequence[str],
    name: str,
    *,
    config: TwoTowers,
    params: Any,
    pieces: Path,
    max_pieces: int,
) -> Float[np.ndarray, "text dim"]:
    return embed(
        tower=text_tower(config, vocab_size=vocabulary.size(pieces)),
        params=params,
        pieces=vocabulary.text_pieces(pieces, texts),
        max_pieces=max_pieces,
        name=name,
    )
