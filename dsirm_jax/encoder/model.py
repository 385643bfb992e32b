"""The from-scratch text tower: pieces, weighed and pooled, through one residual layer."""

from __future__ import annotations

import dataclasses
import glob
from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dsirm_jax.training.settings import Training

PAD = 0


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precomputed:
    """Vectors of the shop's own two-tower model (the paper's setting).

    Attributes:
      items: Parquet file or glob with columns item_id and vector (list of float).
      queries: Parquet file or glob with columns query and vector.
    """

    items: str
    queries: str

    def files(self) -> list[str]:
        """Returns the files read."""
        return sorted([*glob.glob(self.items), *glob.glob(self.queries)])


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

    def files(self) -> list[str]:
        """Returns the files read."""
        from dsirm_jax.encoder import hugging_face

        return hugging_face.files(Path(self.folder))


class TextTower(nn.Module):
    """Embeds pieces, pools them by learnt importance and refines the sum; length 1 comes out.

    A bag of pieces rather than a transformer: on catalogues small enough to start from scratch it
    ranks as well and costs a hundredth.
    """

    vocab_size: int
    dim: int
    hidden_dim: int

    @nn.compact
    def __call__(self, pieces: Int[Array, "row piece"]) -> Float[Array, "row dim"]:
        """Returns float32 `[row, dim]`.

        Args:
          pieces: SentencePiece ids, 0 beyond the text.
        """
        present = (pieces != PAD)[..., None]  # [row, piece, 1]
        embedded = nn.Embed(self.vocab_size, self.dim, name="embedding")(pieces)
        importance = nn.Embed(
            self.vocab_size, 1, embedding_init=nn.initializers.zeros, name="importance"
        )(pieces)
        weights = nn.softmax(jnp.where(present, importance, -1e9), axis=1)
        pooled = jnp.sum(weights * embedded, axis=1)  # [row, dim]
        hidden = nn.gelu(nn.Dense(self.hidden_dim, name="hidden")(pooled))
        refined = pooled + nn.Dense(self.dim, kernel_init=nn.initializers.zeros, name="out")(hidden)
        return refined / jnp.maximum(jnp.linalg.norm(refined, axis=-1, keepdims=True), 1e-6)
