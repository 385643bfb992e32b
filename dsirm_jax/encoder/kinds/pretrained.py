"""A pretrained sentence encoder: as it is, under a learnt projection, or fine-tuned.

Whichever it is, the encoder that made the vectors is written beside them, see `hugging_face`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dsirm_jax.data import wordpieces
from dsirm_jax.data.vocabulary import rectangle
from dsirm_jax.devices.precision import exact
from dsirm_jax.encoder import hugging_face
from dsirm_jax.encoder.bert import NO_PIECE, BertConfig, Projection, SentenceEncoder
from dsirm_jax.encoder.embed import embed_tables, embedding
from dsirm_jax.encoder.hugging_face import TextEncoder
from dsirm_jax.encoder.sentences import FittedSentenceEncoder
from dsirm_jax.io import arrays
from dsirm_jax.io.checks import check_choice, check_number, check_text, check_whole
from dsirm_jax.io.errors import InputError
from dsirm_jax.training.settings import Training

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

    from dsirm_jax.encoder.kinds.protocol import RunTables

FOLDER = "encoder"
"""Below the stage's directory: the encoder that made the vectors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A BERT-architecture sentence encoder, such as MiniLM, E5 or BGE, shared by both sides.

    Attributes:
      folder: its Hugging Face folder, see `hugging_face`; `MODEL_DIR/encode/encoder` of an earlier
        run is one.
      max_query_pieces: pieces read of a query, marks included.
      max_item_pieces: pieces read of an item's text, marks included.
      training: of what is learnt; with no epochs the vectors are those of the folder.
      temperature: τ of the softmax over cosines.
      frozen: the weights stay as they are: all texts are embedded once, and only the projection
        is trained, on those vectors.
      dim: width of a learnt projection on top; None: the folder's, which may have none.
      hard_negatives: judged-irrelevant items of its query that every row of a batch brings along.
      query_prefix: precedes every query, such as E5's "query: "; None: what the folder says.
      item_prefix: precedes every item's text, such as E5's "passage: "; likewise.
      dtype: of the computation, "float32" or "bfloat16".
    """

    folder: str
    max_query_pieces: int
    max_item_pieces: int
    training: Training
    temperature: float = 0.05
    frozen: bool = True
    dim: int | None = None
    hard_negatives: int = 0
    query_prefix: str | None = None
    item_prefix: str | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_text("Pretrained.folder", self.folder)
        check_whole("Pretrained.max_query_pieces", self.max_query_pieces, least=1)
        check_whole("Pretrained.max_item_pieces", self.max_item_pieces, least=1)
        check_whole("Pretrained.hard_negatives", self.hard_negatives, least=0)
        if self.dim is not None:
            check_whole("Pretrained.dim", self.dim, least=1)
        check_number("Pretrained.temperature", self.temperature, above=0, below=math.inf)
        check_choice("Pretrained.dtype", self.dtype, ("float32", "bfloat16"))

    @property
    def made_once(self) -> bool:
        return not self.training.epochs

    def files(self) -> list[str]:
        """Returns the files read.

        Raises:
          InputError: one that has to be there is not.
        """
        if not Path(self.folder).is_dir():
            raise InputError(
                f"gin binding Pretrained.folder is {self.folder!r}, which is no folder; bind that "
                f"of a BERT-architecture model"
            )
        return hugging_face.files(Path(self.folder))

    def fit(
        self,
        tables: RunTables,
        *,
        directory: Path,
        seed: int,
        start: Path | None = None,
        devices: Sequence[jax.Device] | None = None,
        pieces_at_once: int | None = None,
    ) -> None:
        """Writes all vectors, and the encoder that made them; see `DenseEncoder.fit`.

        Args:
          tables: see `DenseEncoder.fit`.
          directory: of the stage; the encoder goes to `encoder/` in it.
          seed: of the order of the training rows, and of their negatives.
          start: see `DenseEncoder.fit`.
          devices: that training is split over; all of them when not given.
          pieces_at_once: see `embed_by_length`.
        """
        from dsirm_jax.training import processes

        directory.mkdir(parents=True, exist_ok=True)
        encoder = load_encoder(self, folder=start / FOLDER if start else Path(self.folder))
        learning = functools.partial(
            _fit, config=self, tables=tables, directory=directory, seed=seed, devices=devices
        )
        fitted = self._with(encoder, pieces_at_once=pieces_at_once)
        if self.training.epochs and self.frozen:
            encoder = _project(fitted, tables, directory=directory, learning=learning)
        else:
            if self.training.epochs:
                fitted = _fine_tune(fitted, tables, directory=directory, learning=learning)
                encoder = fitted.encoder
            embed_tables(fitted, tables)
        processes.first(functools.partial(hugging_face.write_folder, directory / FOLDER, encoder))

    def query_vectors(
        self, texts: Sequence[str], *, directory: Path, vocabulary: Path
    ) -> Float[np.ndarray, "text dim"]:
        """Applies the encoder of a finished stage; see `DenseEncoder.query_vectors`."""
        return self.fitted(directory=directory, vocabulary=vocabulary).embed(texts)

    def fitted(self, *, directory: Path, vocabulary: Path) -> FittedSentenceEncoder:
        """Returns the encoder of a finished stage; see `DenseEncoder.fitted`."""
        return self._with(load_encoder(self, folder=directory / FOLDER))

    @classmethod
    def restored(
        cls,
        described: Mapping[str, Any],
        *,
        params: Any,
        vocabulary: SentencePieceProcessor,
        folder: Path,
    ) -> FittedSentenceEncoder:
        """Returns the encoder of a bundle; see `DenseEncoder.restored`."""
        arguments = dict(described["module"])
        config = BertConfig(**arguments.pop("config"))
        return FittedSentenceEncoder(
            encoder=TextEncoder(
                module=SentenceEncoder(config=config, **arguments),
                params=params,
                tokenizer=wordpieces.read_tokenizer(folder),
                query_prefix=described.get("query_prefix", ""),
                item_prefix=described.get("item_prefix", ""),
            ),
            max_query_pieces=described["max_query_pieces"],
            max_item_pieces=described["max_item_pieces"],
        )

    def training_step(
        self, *, devices: Sequence[jax.Device], vocab_size: int, rows: int
    ) -> tuple[Any, tuple[Any, Any]] | None:
        """Returns what training runs; see `DenseEncoder.training_step`."""
        from dsirm_jax.encoder.train import step_for

        if not self.training.epochs:
            return None
        encoder = load_encoder(self, folder=Path(self.folder))
        embed, params = _learnt(self, encoder)
        return step_for(
            embed=embed,
            params=params,
            temperature=self.temperature,
            training=self.training,
            batch=self.batch_spec(encoder),
            devices=devices,
            rows=rows,
        )

    def batch_spec(self, encoder: TextEncoder) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shapes and types of a batch: pieces, or vectors that frozen weights gave."""
        from dsirm_jax.encoder.train import batch_spec

        width = encoder.module.config.hidden_size
        lengths = {"query": self.max_query_pieces, "item": self.max_item_pieces}
        features = {
            side: jax.ShapeDtypeStruct((width,), jnp.float32)
            if self.frozen
            else jax.ShapeDtypeStruct((length,), jnp.int32)
            for side, length in lengths.items()
        }
        return batch_spec(
            rows=self.training.batch_size, features=features, hard_negatives=self.hard_negatives
        )

    def _with(
        self, encoder: TextEncoder, *, pieces_at_once: int | None = None
    ) -> FittedSentenceEncoder:
        return FittedSentenceEncoder(
            encoder=encoder,
            max_query_pieces=self.max_query_pieces,
            max_item_pieces=self.max_item_pieces,
            pieces_at_once=pieces_at_once,
        )


def load_encoder(config: Pretrained, *, folder: Path) -> TextEncoder:
    """Returns the encoder of a folder, as `config` wants it before any training.

    Raises:
      InputError: the folder cannot be read, or its encoder does not suit `config`.
    """
    encoder = hugging_face.read_folder(folder, dtype=config.dtype)
    module, params = encoder.module, encoder.params
    shape, marks = module.config, len(encoder.tokenizer.encode("").ids)
    for name in ("max_query_pieces", "max_item_pieces"):
        if getattr(config, name) > shape.max_position_embeddings:
            raise InputError(
                f"Pretrained.{name} = {getattr(config, name)}: the encoder in {folder} reads at "
                f"most {shape.max_position_embeddings}; bind it to that or less"
            )
        if getattr(config, name) <= marks:
            raise InputError(
                f"Pretrained.{name} = {getattr(config, name)}: the tokenizer in {folder} puts "
                f"{marks} marks around every text; bind it to more than that"
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
    query_prefix, item_prefix = config.query_prefix, config.item_prefix
    return dataclasses.replace(
        encoder,
        module=module,
        params=params,
        query_prefix=encoder.query_prefix if query_prefix is None else query_prefix,
        item_prefix=encoder.item_prefix if item_prefix is None else item_prefix,
    )


def _learnt(
    config: Pretrained, encoder: TextEncoder
) -> tuple[Callable[[Any, Array], Float[Array, "row dim"]], Any]:
    """Returns the part of an encoder that is trained: its function, and its first parameters."""
    if not config.frozen:
        return embedding(encoder.module), encoder.params
    params = {"params": encoder.params["params"]["projection"]}
    return embedding(_projection(encoder)), params


def _projection(encoder: TextEncoder) -> Projection:
    assert encoder.module.dim is not None  # `load_encoder` lets none be frozen and trained without
    return Projection(encoder.module.dim)


def _fit(
    encoder: TextEncoder,
    features: Mapping[str, np.ndarray],
    *,
    config: Pretrained,
    tables: RunTables,
    directory: Path,
    seed: int,
    devices: Sequence[jax.Device] | None,
) -> Any:
    """Returns the parameters of `_learnt` after training.

    Args:
      encoder: before training.
      features: what the learnt part reads, of all items and of all queries.
      config: how it is trained.
      tables: see `Pretrained.fit`.
      directory: see `Pretrained.fit`.
      seed: see `Pretrained.fit`.
      devices: see `Pretrained.fit`.
    """
    from dsirm_jax.encoder.train import pair_batches, train

    embed, params = _learnt(config, encoder)
    drawn = pair_batches(
        features,
        judgements=tables.judgements,
        queries=tables.queries,
        training=config.training,
        spec=config.batch_spec(encoder),
        seed=seed,
    )
    return train(
        embed=embed,
        params=params,
        temperature=config.temperature,
        training=config.training,
        batches=drawn.batches,
        num_rows=drawn.num_rows,
        held_out=drawn.held_out,
        directory=directory,
        devices=devices,
    )


def _project(
    fitted: FittedSentenceEncoder,
    tables: RunTables,
    *,
    directory: Path,
    learning: Callable[[TextEncoder, Mapping[str, np.ndarray]], Any],
) -> TextEncoder:
    """Trains the projection on vectors of the frozen encoder, and writes those that it gives."""
    import pyarrow.parquet as pq

    from dsirm_jax.data.vectors import read_vectors, shards, vector_blocks, write_vectors
    from dsirm_jax.training import processes

    encoder = fitted.encoder
    params = encoder.params["params"]
    plain = dataclasses.replace(
        encoder,
        module=encoder.module.clone(dim=None),
        params={"params": {"bert": params["bert"]}},
    )
    cached = tables._replace(
        item_vectors=directory / "frozen" / tables.item_vectors.name,
        query_vectors=directory / "frozen" / tables.query_vectors.name,
    )
    embed_tables(dataclasses.replace(fitted, encoder=plain), cached)
    features = {}
    for side, table, id_column, pattern in (
        ("item", tables.items, "item_id", cached.item_vectors),
        ("query", tables.queries, "query", cached.query_vectors),
    ):
        ids = pq.read_table(table, columns=[id_column])[id_column]
        features[side] = read_vectors(pattern, ids=ids, id_column=id_column, scratch=directory)
    projected = learning(encoder, features)
    apply = jax.jit(exact(embedding(_projection(encoder))))
    for id_column, before, after in (
        ("item_id", cached.item_vectors, tables.item_vectors),
        ("query", cached.query_vectors, tables.query_vectors),
    ):
        for file in shards(before)[jax.process_index() :: jax.process_count()]:
            ids, vectors = [], []
            for _, names, block in vector_blocks(file, id_column=id_column):
                ids += names.to_pylist()
                vectors.append(np.asarray(apply(projected, block)))
            path = after.with_name(Path(file).name)
            write_vectors(path, ids, np.concatenate(vectors), id_column=id_column)
    processes.wait()
    params = params | {"projection": projected["params"]}
    return dataclasses.replace(encoder, params={"params": params})


def _fine_tune(
    fitted: FittedSentenceEncoder,
    tables: RunTables,
    *,
    directory: Path,
    learning: Callable[[TextEncoder, Mapping[str, np.ndarray]], Any],
) -> FittedSentenceEncoder:
    """Trains all weights."""
    features = {
        "item": _tokenised(fitted, tables.items, column="text", of_items=True, scratch=directory),
        "query": _tokenised(
            fitted, tables.queries, column="query", of_items=False, scratch=directory
        ),
    }
    params = learning(fitted.encoder, features)
    return dataclasses.replace(fitted, encoder=dataclasses.replace(fitted.encoder, params=params))


def _tokenised(
    fitted: FittedSentenceEncoder, table: Path, *, column: str, of_items: bool, scratch: Path
) -> Int[np.ndarray, "row piece"]:
    """Returns the pieces of a table's texts, in a file that goes when the array does."""
    import pyarrow.parquet as pq

    most = fitted.max_item_pieces if of_items else fitted.max_query_pieces
    with pq.ParquetFile(table) as file:
        tokens = arrays.scratch((file.metadata.num_rows, most), np.int32, folder=scratch)
        row = 0
        for batch in file.iter_batches(columns=[column]):
            pieces = fitted.pieces(batch.column(column).to_pylist(), of_items=of_items)
            block = tokens[row : row + len(pieces)]
            block[:] = rectangle(pieces, shape=block.shape, beyond=NO_PIECE)
            row += len(pieces)
        return tokens
