"""Two towers with shared weights, trained from scratch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data import vocabulary as vocabularies
from dsirm_jax.encoder.embed import embed, embed_tables, embedding
from dsirm_jax.encoder.model import TextTower
from dsirm_jax.io.checks import check_number, check_whole
from dsirm_jax.training.settings import Training

if TYPE_CHECKING:
    import tensorflow as tf
    from sentencepiece import SentencePieceProcessor

    from dsirm_jax.encoder.kinds.protocol import RunTables
    from dsirm_jax.training.loop import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTowers:
    """Two from-scratch towers with shared weights.

    Attributes:
      dim: width of the vectors.
      hidden_dim: width of the hidden layer.
      max_query_pieces: SentencePiece pieces read of a query.
      max_item_pieces: SentencePiece pieces read of an item's text.
      temperature: τ of the softmax over cosines.
      training: length, batch size and learning rate.
    """

    dim: int
    hidden_dim: int
    max_query_pieces: int
    max_item_pieces: int
    temperature: float
    training: Training

    def __post_init__(self) -> None:
        names = ("dim", "hidden_dim", "max_query_pieces", "max_item_pieces")
        for name in names:
            check_whole(f"TwoTowers.{name}", getattr(self, name), least=1)
        check_number("TwoTowers.temperature", self.temperature, above=0, below=math.inf)

    @property
    def made_once(self) -> bool:
        return False  # what is learnt follows from the training rows

    def files(self) -> list[str]:
        """Returns none: the vocabulary is the run's."""
        return []

    def fit(
        self, tables: RunTables, *, directory: Path, seed: int, start: Path | None = None
    ) -> None:
        """Trains the towers and writes the vectors of all texts; see `DenseEncoder.fit`."""
        import pyarrow.parquet as pq

        from dsirm_jax.data import pairs, tasks
        from dsirm_jax.data.schema import TRAIN

        relevant = pairs.relevant_pairs(tables.judgements, split=TRAIN)
        num_queries = pq.read_metadata(tables.queries).num_rows
        task = tasks.query_item(tfds_dir=tables.tfds_dir, vocabulary=tables.vocabulary)
        drawn = {
            "task": task,
            "lengths": {"query": self.max_query_pieces, "item": self.max_item_pieces},
            "batch_size": self.training.batch_size,
            "seed": seed,
        }
        learnt, held_out = None, []
        if share := self.training.held_out:
            apart = pairs.held_out_queries(tables.queries, share=share, seed=seed)
            learnt, held_out = ~apart, tasks.first_epoch(**drawn, queries=apart)
        processor = vocabularies.processor(tables.vocabulary)
        params = fit_towers(
            config=self,
            vocab_size=processor.vocab_size(),
            batches=lambda step: tasks.batches(**drawn, start_step=step, queries=learnt),
            num_rows=tasks.num_rows(task, queries=learnt),
            positives=pairs.positives_of(relevant, queries=num_queries),
            held_out=held_out,
            directory=directory,
            seed=seed,
            start=start,
        )
        embed_tables(self._with(params, vocabulary=processor), tables)

    def query_vectors(
        self, texts: Sequence[str], *, directory: Path, vocabulary: Path
    ) -> Float[np.ndarray, "text dim"]:
        """Applies the towers of a finished stage; see `DenseEncoder.query_vectors`."""
        return self.fitted(directory=directory, vocabulary=vocabulary).embed(texts)

    def fitted(self, *, directory: Path, vocabulary: Path) -> _FittedTowers:
        """Returns the towers of a finished stage; see `DenseEncoder.fitted`."""
        processor = vocabularies.processor(vocabulary)
        params = read_params(self, vocab_size=processor.vocab_size(), directory=directory)
        return self._with(params, vocabulary=processor)

    @classmethod
    def restored(
        cls,
        described: Mapping[str, Any],
        *,
        params: Any,
        vocabulary: SentencePieceProcessor,
        folder: Path,
    ) -> _FittedTowers:
        """Returns the towers of a bundle; see `DenseEncoder.restored`."""
        return _FittedTowers(
            module=TextTower(**described["module"]),
            params=params,
            vocabulary=vocabulary,
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
        tower = text_tower(self, vocab_size=vocab_size)
        return step_for(
            embed=embedding(tower),
            params=jax.eval_shape(lambda: first_params(tower, seed=0)),
            temperature=self.temperature,
            training=self.training,
            batch=self.batch_spec(),
            devices=devices,
            rows=rows,
        )

    def batch_spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns shapes and types of a batch; see `train.batch_spec`."""
        from dsirm_jax.encoder.train import batch_spec

        lengths = {"query": self.max_query_pieces, "item": self.max_item_pieces}
        features = {
            side: jax.ShapeDtypeStruct((length,), jnp.int32) for side, length in lengths.items()
        }
        return batch_spec(rows=self.training.batch_size, features=features)

    def _with(self, params: Any, *, vocabulary: SentencePieceProcessor) -> _FittedTowers:
        return _FittedTowers(
            module=text_tower(self, vocab_size=vocabulary.vocab_size()),
            params=params,
            vocabulary=vocabulary,
            max_query_pieces=self.max_query_pieces,
            max_item_pieces=self.max_item_pieces,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FittedTowers:
    """The tower that both sides share; see `protocol.FittedEncoder`."""

    module: TextTower
    params: Any
    vocabulary: SentencePieceProcessor
    max_query_pieces: int
    max_item_pieces: int

    @property
    def dim(self) -> int:
        return self.module.dim

    @property
    def padding(self) -> int:
        return vocabularies.PAD

    def pieces(self, texts: Sequence[str], *, of_items: bool = False) -> list[list[int]]:
        most = self.max_item_pieces if of_items else self.max_query_pieces
        return [text[:most] for text in self.vocabulary.encode(list(texts), out_type=int)]

    def embed(
        self, texts: Sequence[str], *, of_items: bool = False, name: str = "encode"
    ) -> Float[np.ndarray, "text dim"]:
        return self.embed_pieces(
            self.pieces(texts, of_items=of_items), of_items=of_items, name=name
        )

    def embed_pieces(
        self, pieces: Sequence[Sequence[int]], *, of_items: bool = False, name: str = "encode"
    ) -> Float[np.ndarray, "text dim"]:
        return embed(
            tower=self.module,
            params=self.params,
            pieces=pieces,
            max_pieces=self.max_item_pieces if of_items else self.max_query_pieces,
            name=name,
        )

    def described(self) -> dict[str, Any]:
        names = ("vocab_size", "dim", "hidden_dim")
        return {
            "dim": self.dim,
            "module": {name: getattr(self.module, name) for name in names},
            "max_query_pieces": self.max_query_pieces,
            "max_item_pieces": self.max_item_pieces,
        }

    def save_tokenizer(self, folder: Path) -> None:
        """Writes nothing: the vocabulary is the run's."""

    def pieces_in_tensorflow(
        self, tokens: Callable[..., tf.Tensor]
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda query: tokens(query, length=self.max_query_pieces)


def text_tower(config: TwoTowers, *, vocab_size: int) -> TextTower:
    """Returns the Flax module for a vocabulary."""
    return TextTower(vocab_size=vocab_size, dim=config.dim, hidden_dim=config.hidden_dim)


def first_params(tower: TextTower, *, seed: int) -> Any:
    """Returns the first parameters of a tower."""
    return tower.init(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))


def fit_towers(
    *,
    config: TwoTowers,
    vocab_size: int,
    batches: Callable[[int], Iterator[Batch]],
    num_rows: int,
    positives: Int[np.ndarray, "query positive"],
    directory: Path,
    seed: int,
    start: Path | None = None,
    held_out: Sequence[Batch] = (),
    devices: Sequence[jax.Device] | None = None,
) -> Any:
    """Fits the shared tower with in-batch softmax in both directions.

    Args:
      config: shape of the tower and how it is trained.
      vocab_size: pieces in the vocabulary.
      batches: `batches(step)` yields, from that step on, rows of `tasks.query_item`: pieces
        `query` and `item`, int32 `[row, length]`, `query_index` and `item_index`, int64 `[row]`.
      num_rows: training rows in an epoch.
      positives: items relevant to each query, see `pairs.positives_of`.
      directory: where checkpoints and logs go; an interrupted run goes on from there.
      seed: of the parameters.
      start: directory of another run, whose parameters this one goes on from; with no epochs of
        training they stay as they are.
      held_out: such batches, whose loss says which checkpoint is the best, which training then ends
        with.
      devices: that the rows of a batch are split over; all of them when not given.

    Returns:
      The parameters. Source: two-tower training with in-batch negatives (Yi et al. 2019).

    Raises:
      FloatingPointError: the loss was not finite.
      InputError: there is no run of this shape at `start`.
    """
    from dsirm_jax.encoder.train import as_specified, train

    tower, spec = text_tower(config, vocab_size=vocab_size), config.batch_spec()

    def with_positives(batch: Batch) -> Batch:
        return as_specified(batch | {"positives": positives[batch["query_index"]]}, spec)

    return train(
        embed=embedding(tower),
        params=first_params(tower, seed=seed),
        temperature=config.temperature,
        training=config.training,
        batches=lambda step: map(with_positives, batches(step)),
        num_rows=num_rows,
        directory=directory,
        start=start,
        held_out=list(map(with_positives, held_out)),
        devices=devices,
    )


def read_params(config: TwoTowers, *, vocab_size: int, directory: Path) -> Any:
    """Returns the parameters that `fit_towers` arrived at in the directory of a finished stage.

    Raises:
      InputError: there is no good checkpoint of this shape.
    """
    from dsirm_jax.encoder.train import starting_state
    from dsirm_jax.training import checkpoints
    from dsirm_jax.training.settings import make_optimizer

    params = first_params(text_tower(config, vocab_size=vocab_size), seed=0)
    state = starting_state(params, optimizer=make_optimizer(config.training, num_steps=1))
    return checkpoints.read_result(directory / "checkpoints", like=jax.device_get(state)).params
