"""What every encoder does: texts to dense vectors, when fitting, when scoring and when serving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    import flax.linen as nn
    import jax
    import tensorflow as tf
    from sentencepiece import SentencePieceProcessor


class RunTables(NamedTuple):
    """Where an encoder finds the texts of a run, and where their vectors go.

    Attributes:
      items: `prepare/items.parquet`; columns `item_id` and `text`.
      queries: `prepare/queries.parquet`; column `query`.
      item_vectors: pattern of the shards of the items' vectors, with one `*`.
      query_vectors: likewise.
      judgements: `prepare/judgements.parquet`; of these the split `train` alone may be learnt from.
      tfds_dir: `data_dir` of `dataset.write_dataset`, where the training rows are.
      vocabulary: the SentencePiece model of the run.
    """

    items: Path
    queries: Path
    item_vectors: Path
    query_vectors: Path
    judgements: Path
    tfds_dir: Path
    vocabulary: Path


@runtime_checkable
class FittedEncoder(Protocol):
    """An encoder with its parameters: texts to pieces, pieces to vectors.

    Attributes:
      module: a Flax module; `module.apply(params, pieces)` makes float32 vectors `[row, dim]` of
        pieces, int32 `[row, piece]`, traced by JAX.
      params: its parameters, a tree of arrays.
      dim: width of the vectors.
      max_query_pieces: pieces read of a query.
      max_item_pieces: pieces read of an item's text.
      padding: what the module expects after a text's last piece.
    """

    @property
    def module(self) -> nn.Module: ...

    @property
    def params(self) -> Any: ...

    @property
    def dim(self) -> int: ...

    @property
    def max_query_pieces(self) -> int: ...

    @property
    def max_item_pieces(self) -> int: ...

    @property
    def padding(self) -> int: ...

    def pieces(self, texts: Sequence[str], *, of_items: bool = False) -> list[list[int]]:
        """Returns the pieces of queries, or of items, as many as are read; threads share it."""
        ...

    def embed(
        self, texts: Sequence[str], *, of_items: bool = False, name: str = "encode"
    ) -> Float[np.ndarray, "text dim"]:
        """Returns the vectors of queries, or of items, in order; `name` is for the progress."""
        ...

    def embed_pieces(
        self, pieces: Sequence[Sequence[int]], *, of_items: bool = False, name: str = "encode"
    ) -> Float[np.ndarray, "text dim"]:
        """Returns the vectors of what `pieces` gave, as `embed` does; threads share it."""
        ...

    def described(self) -> dict[str, Any]:
        """Returns what a bundle's manifest holds beside `kind`: fields of `EncoderSettings`.

        JSON values; `module` is a dictionary of the kind's own.
        """
        ...

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the files of a tokenizer of its own, if it has one, into `model/` of a bundle."""
        ...

    def pieces_in_tensorflow(
        self, tokens: Callable[..., tf.Tensor]
    ) -> Callable[[tf.Tensor], tf.Tensor] | None:
        """Returns what makes padded pieces of raw queries in a TensorFlow graph; None: nothing can.

        Args:
          tokens: `tokens(query, length=n)` gives those of the run's vocabulary, int32 `[query, n]`,
            0 beyond the text.
        """
        ...


@runtime_checkable
class DenseEncoder(Protocol):
    """A kind of encoder: a frozen dataclass of settings, chosen by `encode.run.encoder`."""

    @property
    def dim(self) -> int | None:
        """Width of the vectors; None where the settings do not say."""
        ...

    @property
    def made_once(self) -> bool:
        """Whether the vectors follow from the texts alone and take time to make.

        An ablation then makes them once, for all its folds and seeds.
        """
        ...

    def files(self) -> list[str]:
        """Returns the user's files that are read; a run notices when one of them changes.

        Raises:
          InputError: one of them is missing.
        """
        ...

    def fit(
        self, tables: RunTables, *, directory: Path, seed: int, start: Path | None = None
    ) -> None:
        """Writes the vectors of all items and queries; learns what there is to learn before.

        Args:
          tables: where the texts are, and where their vectors go.
          directory: of the stage; an interrupted run goes on from what is there.
          seed: of all that is random.
          start: directory of another run of this stage that this one goes on from.

        Raises:
          FloatingPointError: the loss was not finite.
          InputError: there is nothing to train on, or what is read is not what it should be.
        """
        ...

    def query_vectors(
        self, texts: Sequence[str], *, directory: Path, vocabulary: Path
    ) -> Float[np.ndarray, "text dim"]:
        """Returns the vectors of further queries, float32 `[text, dim]`.

        Args:
          texts: the queries, each once.
          directory: of the finished stage, whose encoder is applied.
          vocabulary: the SentencePiece model of the run.

        Raises:
          InputError: a query has no vector, or the encoder cannot be read.
        """
        ...

    def fitted(self, *, directory: Path, vocabulary: Path) -> FittedEncoder | None:
        """Returns what serving applies to texts; None: a text that is not cached has no vector.

        Args:
          directory: of the finished stage.
          vocabulary: the SentencePiece model of the run.

        Raises:
          InputError: the encoder cannot be read, or cannot be served.
        """
        ...

    @classmethod
    def restored(
        cls,
        described: Mapping[str, Any],
        *,
        params: Any,
        vocabulary: SentencePieceProcessor,
        folder: Path,
    ) -> FittedEncoder | None:
        """Returns the encoder of a bundle; see `FittedEncoder.described`.

        Args:
          described: fields of the manifest's `EncoderSettings`.
          params: of the module.
          vocabulary: of the run.
          folder: `model/` of the bundle, where `save_tokenizer` wrote.

        Raises:
          InputError: a file cannot be read.
        """
        ...

    def training_step(
        self, *, devices: Sequence[jax.Device], vocab_size: int, rows: int
    ) -> tuple[Any, tuple[Any, Any]] | None:
        """Returns the compiled step and the shapes of its arguments; None: nothing is trained.

        Args:
          devices: that the rows of a batch are split over; they need not be here.
          vocab_size: pieces in the run's vocabulary.
          rows: of an epoch.
        """
        ...
