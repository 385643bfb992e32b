"""BERT in Flax, and the sentence encoder on top: texts in, one vector of length 1 a text out.

Source: Devlin et al. 2019, arXiv 1810.04805; Reimers & Gurevych 2019, arXiv 1908.10084 (pooling).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.encoder.losses import normalised

NO_PIECE = -1
"""Stands beyond a text's end: whatever a vocabulary has at 0 stays a piece."""

MEAN, CLS = "mean", "cls"
BERT_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_new": nn.gelu,
    "relu": nn.relu,
}
MASKED_LOGIT = -1e9


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape of a BERT; the names are those of Hugging Face's config.json.

    Attributes:
      vocab_size: pieces.
      hidden_size: width of the residual stream.
      num_hidden_layers: layers.
      num_attention_heads: heads of a layer, which share the width.
      intermediate_size: width of the feed-forward block.
      max_position_embeddings: most pieces of a text.
      type_vocab_size: segments; texts are of the first.
      layer_norm_eps: added to the variance.
      hidden_act: of the feed-forward block, one of `BERT_ACTIVATIONS`.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"


class BertLayer(nn.Module):
    """Self-attention and feed-forward block, each followed by the norm of the residual sum."""

    config: BertConfig
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "row piece emb"], present: Bool[Array, "row piece"]
    ) -> Float[Array, "row piece emb"]:
        cfg = self.config
        dense = functools.partial(nn.Dense, dtype=self.dtype)
        norm = functools.partial(nn.LayerNorm, epsilon=cfg.layer_norm_eps, dtype=self.dtype)
        heads = (*x.shape[:-1], cfg.num_attention_heads, -1)
        query, key, value = (
            dense(cfg.hidden_size, name=name)(x).reshape(heads)  # [row, piece, head, dim]
            for name in ("query", "key", "value")
        )
        logits = jnp.einsum("rqhd,rkhd->rhqk", query * query.shape[-1] ** -0.5, key)
        logits = jnp.where(present[:, None, None, :], logits.astype(jnp.float32), MASKED_LOGIT)
        weights = jax.nn.softmax(logits).astype(self.dtype)
        read = jnp.einsum("rhqk,rkhd->rqhd", weights, value).reshape(x.shape)
        attended = dense(cfg.hidden_size, name="attention_out")(read)
        x = norm(name="attention_norm")(x + attended)
        hidden = BERT_ACTIVATIONS[cfg.hidden_act](dense(cfg.intermediate_size, name="hidden")(x))
        out = dense(cfg.hidden_size, name="out")(hidden)
        return norm(name="norm")(x + out)


class Bert(nn.Module):
    """The states of the last layer, without BERT's pooler, which sentence encoders do not use."""

    config: BertConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pieces: Int[Array, "row piece"]) -> Float[Array, "row piece emb"]:
        """Returns the states; those at `NO_PIECE` mean nothing.

        Args:
          pieces: ids of the vocabulary, `NO_PIECE` beyond the text.
        """
        cfg = self.config
        present = pieces != NO_PIECE
        tables = {
            "pieces": (cfg.vocab_size, jnp.maximum(pieces, 0)),
            "positions": (cfg.max_position_embeddings, jnp.arange(pieces.shape[1])),
            "segments": (cfg.type_vocab_size, jnp.zeros((1,), jnp.int32)),
        }
        embedded = sum(
            nn.Embed(size, cfg.hidden_size, name=name)(rows)
            for name, (size, rows) in tables.items()
        )
        x = nn.LayerNorm(epsilon=cfg.layer_norm_eps, dtype=self.dtype, name="norm")(embedded)
        for number in range(cfg.num_hidden_layers):
            x = BertLayer(cfg, self.dtype, name=f"layer_{number}")(x, present)
        return x


def pool(
    states: Float[Array, "row piece emb"], present: Bool[Array, "row piece"], *, pooling: str
) -> Float[Array, "row emb"]:
    """Returns float32 `[row, emb]`: the mean of a text's states, or the state of its first piece.

    Args:
      states: of the last layer.
      present: where there is text; at least once in a row for the mean.
      pooling: `MEAN` or `CLS`.
    """
    states = states.astype(jnp.float32)
    if pooling == CLS:
        return states[:, 0]
    weights = present / jnp.maximum(jnp.sum(present, axis=1, keepdims=True), 1)
    return jnp.einsum("rp,rpe->re", weights, states)


class Projection(nn.Module):
    """A linear map without bias, then length 1; it starts as the first `dim` coordinates."""

    dim: int

    @nn.compact
    def __call__(self, vectors: Float[Array, "row emb"]) -> Float[Array, "row dim"]:
        shape = (vectors.shape[-1], self.dim)
        kernel = self.param("kernel", lambda _: jnp.eye(*shape, dtype=jnp.float32))
        return normalised(vectors @ kernel)


class SentenceEncoder(nn.Module):
    """BERT, pooled and brought to length 1.

    Attributes:
      config: shape of the BERT.
      pooling: `MEAN` or `CLS`.
      dim: width of the projection on top; None: there is none.
      dtype: of the computation, "float32" or "bfloat16"; parameters, norms, softmaxes and what
        follows the last layer are float32.
    """

    config: BertConfig
    pooling: str = MEAN
    dim: int | None = None
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pieces: Int[Array, "row piece"]) -> Float[Array, "row dim"]:
        """Returns float32 `[row, dim]`.

        Args:
          pieces: ids of the vocabulary, `NO_PIECE` beyond the text.
        """
        states = Bert(self.config, self.dtype, name="bert")(pieces)
        vectors = normalised(pool(states, pieces != NO_PIECE, pooling=self.pooling))
        if self.dim is None:
            return vectors
        return Projection(self.dim, name="projection")(vectors)
