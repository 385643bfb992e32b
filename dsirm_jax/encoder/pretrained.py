"""Vectors from a pretrained sentence encoder: as it is, under a learnt projection, or fine-tuned.

Whichever it is, the encoder that made the vectors is written beside them, see `hugging_face`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Array, Float, Int

from dsirm_jax.data import pairs, wordpieces
from dsirm_jax.data.schema import TRAIN
from dsirm_jax.data.vectors import read_vectors, shards, vector_blocks, write_vectors
from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import ABSENT, Projection
from dsirm_jax.encoder.embed import embed_by_length, embed_table
from dsirm_jax.encoder.hugging_face import TextEncoder
from dsirm_jax.encoder.model import Pretrained
from dsirm_jax.encoder.train import fit_pairs
from dsirm_jax.io.errors import InputError
from dsirm_jax.training import processes
from dsirm_jax.training.batches import index_batches
from dsirm_jax.training.loop import Batch

FOLDER = "encoder"
ITEM, QUERY = "item", "query"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """Queries or items: where their texts are, how they are read, where their vectors go.

    Attributes:
      table: a Parquet file of `prepare`.
      id_column: its column that names the rows.
      text_column: its column of texts.
      prefix: precedes every text.
      max_pieces: pieces read of a text, marks included.
      pattern: of the shards of vectors, with one `*`.
    """

    table: Path
    id_column: str
    text_column: str
    prefix: str
    max_pieces: int
    pattern: Path


def encode_tables(
    *,
    config: Pretrained,
    items: Path,
    queries: Path,
    judgements: Path,
    item_vectors: Path,
    query_vectors: Path,
    directory: Path,
    seed: int,
    start: Path | None = None,
) -> None:
    """Writes the vectors of all items and queries, and the encoder that made them.

    Args:
      config: which encoder, and what is learnt.
      items: `prepare/items.parquet`.
      queries: `prepare/queries.parquet`.
      judgements: `prepare/judgements.parquet`; of these the split `train` alone is read.
      item_vectors: pattern of the shards written.
      query_vectors: likewise.
      directory: of the stage: the encoder goes to `encoder/` in it, and an interrupted run goes on
        from what else is there.
      seed: of the order of the training rows, and of their negatives.
      start: directory of another run of this stage, whose encoder this one goes on from.

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: the encoder cannot be read or does not suit `config`; no rows to train on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    encoder = load(config, folder=start / FOLDER if start else Path(config.folder))
    sides = {
        ITEM: Side(
            table=items,
            id_column="item_id",
            text_column="text",
            prefix=encoder.item_prefix,
            max_pieces=config.max_item_pieces,
            pattern=item_vectors,
        ),
        QUERY: _query_side(encoder, config, table=queries, pattern=query_vectors),
    }
    shared = {"config": config, "judgements": judgements, "directory": directory, "seed": seed}
    if config.training.epochs and config.frozen:
        encoder = _project(encoder, sides, **shared)
    else:
        if config.training.epochs:
            encoder = _fine_tune(encoder, sides, **shared)
        for side in sides.values():
            _embed(encoder, side)
    processes.first(functools.partial(hugging_face.write, directory / FOLDER, encoder))


def encode_queries(*, config: Pretrained, directory: Path, queries: Path, pattern: Path) -> None:
    """Writes the vectors of further queries.

    Args:
      config: as in `encode_tables`.
      directory: of the finished stage, whose encoder is applied.
      queries: Parquet with a column `query`.
      pattern: of the shards written.
    """
    encoder = load(config, folder=directory / FOLDER)
    _embed(encoder, _query_side(encoder, config, table=queries, pattern=pattern))


def _query_side(encoder: TextEncoder, config: Pretrained, *, table: Path, pattern: Path) -> Side:
    return Side(
        table=table,
        id_column="query",
        text_column="query",
        prefix=encoder.query_prefix,
        max_pieces=config.max_query_pieces,
        pattern=pattern,
    )


def load(config: Pretrained, *, folder: Path) -> TextEncoder:
    """Returns the encoder of a folder, as `config` wants it before any training.

    Raises:
      InputError: the folder cannot be read, or its encoder does not suit `config`.
    """
    encoder = hugging_face.read(folder, dtype=config.dtype)
    module, params = encoder.module, encoder.params
    shape = module.config
    for name in ("max_query_pieces", "max_item_pieces"):
        if getattr(config, name) > shape.max_position_embeddings:
            raise InputError(
                f"Pretrained.{name} = {getattr(config, name)}: the encoder in {folder} reads at "
                f"most {shape.max_position_embeddings}; bind it to that or less"
            )
    if config.dim not in (None, module.dim):
        if module.dim is not None or config.dim > shape.hidden_size:
            raise InputError(
                f"Pretrained.dim = {config.dim}: the encoder in {folder} gives "
                f"{module.dim or shape.hidden_size}; bind it to that or to None"
            )
        module = module.clone(dim=config.dim)
        projection = Projection(config.dim).init(
            jax.random.key(0), jnp.zeros((1, shape.hidden_size))
        )
        params = {"params": params["params"] | {"projection": projection["params"]}}
    if module.dim is None and config.frozen and config.training.epochs:
        raise InputError(
            "Pretrained.frozen without a projection leaves nothing to train: bind Pretrained.dim, "
            "or its Training.epochs to 0"
        )
    given = {"query_prefix": config.query_prefix, "item_prefix": config.item_prefix}
    prefixes = {name: prefix for name, prefix in given.items() if prefix is not None}
    return dataclasses.replace(encoder, module=module, params=params, **prefixes)


def _project(
    encoder: TextEncoder, sides: Mapping[str, Side], *, directory: Path, **shared: Any
) -> TextEncoder:
    """Trains the projection on vectors of the frozen encoder, and writes those that it gives."""
    params = encoder.params["params"]
    frozen = dataclasses.replace(
        encoder,
        module=encoder.module.clone(dim=None),
        params={"params": {"bert": params["bert"]}},
    )
    features, cached = {}, {}
    for name, side in sides.items():
        pattern = directory / "frozen" / side.pattern.name
        cached[name] = dataclasses.replace(side, pattern=pattern)
        _embed(frozen, cached[name])
        ids = pq.read_table(side.table, columns=[side.id_column])[side.id_column]
        features[name] = read_vectors(pattern, ids=ids, id_column=side.id_column, scratch=directory)
    projection = Projection(encoder.module.dim)
    fitted = _fit(
        embed=projection.apply,
        params={"params": params["projection"]},
        features=features,
        directory=directory,
        **shared,
    )
    apply = jax.jit(projection.apply)
    for name, side in sides.items():
        files = shards(cached[name].pattern)
        for file in files[jax.process_index() :: jax.process_count()]:
            ids, vectors = [], []
            for _, names, block in vector_blocks(file, id_column=side.id_column):
                ids += names.to_pylist()
                vectors.append(np.asarray(apply(fitted, block)))
            path = side.pattern.with_name(Path(file).name)
            write_vectors(path, ids, np.concatenate(vectors), id_column=side.id_column)
    processes.wait()
    params = params | {"projection": fitted["params"]}
    return dataclasses.replace(encoder, params={"params": params})


def _fine_tune(
    encoder: TextEncoder, sides: Mapping[str, Side], *, directory: Path, **shared: Any
) -> TextEncoder:
    features = {name: _tokenised(side, encoder, scratch=directory) for name, side in sides.items()}
    fitted = _fit(
        embed=encoder.module.apply,
        params=encoder.params,
        features=features,
        directory=directory,
        **shared,
    )
    return dataclasses.replace(encoder, params=fitted)


def _embed(encoder: TextEncoder, side: Side) -> None:
    """Writes the vectors of one side."""

    def embed_texts(texts: Sequence[str], name: str) -> Float[np.ndarray, "text dim"]:
        pieces = wordpieces.tokenize(
            encoder.tokenizer, texts, prefix=side.prefix, max_pieces=side.max_pieces
        )
        return embed_by_length(
            module=encoder.module,
            params=encoder.params,
            pieces=pieces,
            max_pieces=side.max_pieces,
            name=name,
        )

    embed_table(
        table=side.table,
        id_column=side.id_column,
        text_column=side.text_column,
        embed_texts=embed_texts,
        pattern=side.pattern,
    )


def _tokenised(side: Side, encoder: TextEncoder, *, scratch: Path) -> Int[np.ndarray, "row piece"]:
    """Returns the pieces of a table's texts, in a file that goes when the array does."""
    with pq.ParquetFile(side.table) as file, tempfile.TemporaryFile(dir=scratch) as backing:
        shape = (file.metadata.num_rows, side.max_pieces)
        tokens = np.memmap(backing, np.int32, "w+", shape=shape)
        row = 0
        for batch in file.iter_batches(columns=[side.text_column]):
            pieces = wordpieces.tokenize(
                encoder.tokenizer,
                batch.column(side.text_column).to_pylist(),
                prefix=side.prefix,
                max_pieces=side.max_pieces,
            )
            block = tokens[row : row + len(pieces)]
            block[:] = rectangle(pieces, shape=block.shape, beyond=ABSENT)
            row += len(pieces)
        return tokens


def _fit(
    *,
    embed: Callable[[Any, Array], Float[Array, "row dim"]],
    params: Any,
    features: Mapping[str, np.ndarray],
    config: Pretrained,
    judgements: Path,
    directory: Path,
    seed: int,
) -> Any:
    """Fits parameters to the relevant pairs of the training queries.

    Args:
      embed: see `fit_pairs`.
      params: see `fit_pairs`.
      features: what `embed` reads, of all items and of all queries.
      config: how it is trained.
      judgements: see `encode_tables`.
      directory: see `encode_tables`.
      seed: see `encode_tables`.
    """
    num_items, num_queries = len(features[ITEM]), len(features[QUERY])
    relevant = pairs.relevant_pairs(judgements, split=TRAIN)
    if not len(relevant):
        raise InputError(f"{judgements}: no training rows; give judgements with relevant labels")
    positives = pairs.positives_of(relevant, queries=num_queries)
    irrelevant = read_irrelevant(judgements, queries=num_queries)

    size, apart = config.training.batch_size, np.zeros(len(relevant), bool)
    if share := config.training.held_out:
        apart = pairs.held_out_queries(num_queries, share=share, seed=seed)[relevant[:, 0]]
        if apart.all() or not apart.any():
            raise InputError(
                f"Training.held_out = {share} holds {apart.sum()} of {len(apart)} training rows "
                f"out; bind another share, or 0"
            )

    def batches(rows: Int[np.ndarray, "row 2"], start: int) -> Iterator[Batch]:
        order = index_batches(rows=len(rows), batch_size=size, seed=seed, start=start)
        for step, chosen in enumerate(order, start):
            query, item = rows[chosen].T
            batch = {
                "query": np.asarray(features[QUERY][query]),
                "item": np.asarray(features[ITEM][item]),
                "query_index": query.astype(np.int32),
                "item_index": item.astype(np.int32),
                "positives": positives[query],
            }
            if config.hard_negatives:
                negative = irrelevant.draw(
                    query,
                    each=config.hard_negatives,
                    num_items=num_items,
                    random=np.random.default_rng([seed, step]),
                )
                batch["negative"] = np.asarray(features[ITEM][negative])
                batch["negative_index"] = negative.astype(np.int32)
            yield batch

    whole = max(int(apart.sum()) // size, int(apart.any()))  # batches
    return fit_pairs(
        embed=embed,
        params=params,
        temperature=config.temperature,
        training=config.training,
        batches=functools.partial(batches, relevant[~apart]),
        num_rows=int((~apart).sum()),
        directory=directory,
        held_out=list(itertools.islice(batches(relevant[apart], 0), whole)),
    )


class Irrelevant(NamedTuple):
    """The items judged irrelevant to each training query.

    Attributes:
      items: of all queries, one query after the other.
      edges: where those of each query begin, and where the last end. `[query + 1]`
    """

    items: Int[np.ndarray, " pair"]
    edges: Int[np.ndarray, " edge"]

    def draw(
        self,
        queries: Int[np.ndarray, " row"],
        *,
        each: int,
        num_items: int,
        random: np.random.Generator,
    ) -> Int[np.ndarray, "row each"]:
        """Returns items judged irrelevant to each query, with replacement.

        A query without any gets items of the whole catalogue, which is to say easy ones.
        """
        first, last = self.edges[queries], self.edges[queries + 1]
        chance = random.random((len(queries), each))
        judged = first[:, None] + (chance * (last - first)[:, None]).astype(np.int64)
        anything = (chance * num_items).astype(np.int64)
        known = np.append(self.items, 0)[np.minimum(judged, len(self.items))]
        return np.where((last > first)[:, None], known, anything)


def read_irrelevant(judgements: Path, *, queries: int) -> Irrelevant:
    """Reads the judged-irrelevant items of the training queries.

    Args:
      judgements: `prepare/judgements.parquet`.
      queries: number of queries.
    """
    columns = ["query_index", "item_index", "relevant", "split"]
    table = pq.read_table(judgements, columns=columns)
    table = table.filter(pc.and_(pc.invert(table["relevant"]), pc.equal(table["split"], TRAIN)))
    query, item = (table[name].to_numpy() for name in columns[:2])
    order = np.argsort(query, kind="stable")
    return Irrelevant(
        items=item[order], edges=np.searchsorted(query[order], np.arange(queries + 1))
    )
