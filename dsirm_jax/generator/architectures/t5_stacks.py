"""T5's two stacks and the model of both, as T5X's `t5x.examples.t5.network` has them.

What differs is what a fixed-length output of codes allows: level `l`'s logits are computed over the
columns of its own codes alone, never over the text vocabulary, and the decoder takes several
hypotheses (SIDs) for one encoded query, whose cross-attention keys and values are computed once.

Dropout is on where `apply` is given a key named `dropout`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.data.vocabulary import PAD
from dsirm_jax.generator.architectures.layers import (
    NOT_ATTENDED,
    UNROLLED,
    KeysValues,
    rematerialisation,
)
from dsirm_jax.generator.architectures.t5_layers import (
    Attention,
    Dense,
    Dropout,
    Embedding,
    FeedForward,
    RelativeBias,
    RMSNorm,
    T5Shape,
)
from dsirm_jax.sids import codes

START = PAD  # T5 starts its decoder with the padding token.
LAYER_AXIS = 1  # of the parameters of scanned layers, as in T5X


class EncodedQueries(NamedTuple):
    """What the decoder needs of the queries.

    Attributes:
      layers: cross-attention keys and values of each decoder layer, `[batch, 1, length, ...]`;
        the axis of size 1 stands for all hypotheses of a query.
      mask: bool `[batch, length]`, true at tokens and false at padding.
    """

    layers: tuple[KeysValues, ...]
    mask: Bool[Array, "batch length"]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each behind a norm and beside a residual path."""

    config: T5Shape

    def setup(self) -> None:
        cfg = self.config
        self.pre_attention_layer_norm = RMSNorm(cfg.dtype)
        self.attention = Attention(cfg)
        self.pre_mlp_layer_norm = RMSNorm(cfg.dtype)
        self.mlp = FeedForward(cfg)
        self.dropout = Dropout(cfg.dropout_rate)

    def __call__(
        self, x: Float[Array, "batch length emb"], bias: Float[Array, "batch head length length"]
    ) -> tuple[Float[Array, "batch length emb"], None]:
        """Returns the new states and, as the body of a scan has to, a second output."""
        y = self.pre_attention_layer_norm(x)
        x = x + self.dropout(self.attention(y, self.attention.keys_values(y), bias))
        y = self.mlp(self.pre_mlp_layer_norm(x))
        return x + self.dropout(y), None


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the query, feed-forward block."""

    config: T5Shape

    def setup(self) -> None:
        cfg = self.config
        self.pre_self_attention_layer_norm = RMSNorm(cfg.dtype)
        self.self_attention = Attention(cfg)
        self.pre_cross_attention_layer_norm = RMSNorm(cfg.dtype)
        self.encoder_decoder_attention = Attention(cfg)
        self.pre_mlp_layer_norm = RMSNorm(cfg.dtype)
        self.mlp = FeedForward(cfg)
        self.dropout = Dropout(cfg.dropout_rate)

    def read(self, encoded: Float[Array, "batch 1 length emb"]) -> KeysValues:
        """Projects the encoder's states for the attention to the query."""
        return self.encoder_decoder_attention.keys_values(encoded)

    def step(
        self,
        x: Float[Array, "batch hypothesis new emb"],
        past: KeysValues | None,
        query: KeysValues,
        bias: Float[Array, "head new position"],
        query_bias: Float[Array, "batch 1 1 1 length"],
    ) -> tuple[Float[Array, "batch hypothesis new emb"], KeysValues]:
        """Returns the new positions' states, and the keys and values of all positions."""
        y = self.pre_self_attention_layer_norm(x)
        attended = self.self_attention.keys_values(y)
        if past is not None:
            attended = jax.tree.map(
                lambda old, new: jnp.concatenate([old, new], axis=-3), past, attended
            )
        x = x + self.dropout(self.self_attention(y, attended, bias))
        y = self.pre_cross_attention_layer_norm(x)
        x = x + self.dropout(self.encoder_decoder_attention(y, query, query_bias))
        y = self.mlp(self.pre_mlp_layer_norm(x))
        return x + self.dropout(y), attended

    def __call__(
        self,
        x: Float[Array, "batch hypothesis level emb"],
        encoded: Float[Array, "batch 1 length emb"],
        bias: Float[Array, "head level level"],
        query_bias: Float[Array, "batch 1 1 1 length"],
    ) -> tuple[Float[Array, "batch hypothesis level emb"], None]:
        """Returns the states of all positions and, as the body of a scan, a second output."""
        return self.step(x, None, self.read(encoded), bias, query_bias)[0], None


def _stack(layer: type[nn.Module], config: T5Shape, *, length: int, inputs: int) -> Any:
    """Returns the layers of a stack: a list of them, or one that scans over their parameters.

    Args:
      layer: called as `layer(x, *inputs)`, it returns the new `x` and None.
      config: of every layer.
      length: number of layers.
      inputs: number of the arguments beside `x`, the same for all layers.
    """
    if config.remat:
        settings = rematerialisation(remat=config.remat, scan_layers=config.scan_layers)
        layer = nn.remat(layer, **settings)
    if not config.scan_layers:
        return [layer(config) for _ in range(length)]
    scanned = partitioning.scan_with_axes(
        layer,
        variable_axes={"params": LAYER_AXIS},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast,) * inputs,
        length=length,
        unroll=length if config.scan_layers == UNROLLED else 1,
        axis_name="layers",
    )
    return scanned(config)


class EncoderStack(nn.Module):
    """The stack that reads the query."""

    config: T5Shape

    def setup(self) -> None:
        cfg = self.config
        self.relpos_bias = RelativeBias(cfg, bidirectional=True)
        layers = _stack(EncoderLayer, cfg, length=cfg.num_encoder_layers, inputs=1)
        # The names are T5X's.
        if cfg.scan_layers:
            self.encoder = layers
        else:
            self.layers = layers
        self.encoder_norm = RMSNorm(cfg.dtype)
        self.dropout = Dropout(cfg.dropout_rate)

    def __call__(
        self, embedded: Float[Array, "batch length emb"], mask: Bool[Array, "batch length"]
    ) -> Float[Array, "batch length emb"]:
        positions = np.arange(embedded.shape[1])
        bias = self.relpos_bias(positions, positions)
        bias = jnp.where(mask[:, None, None, :], bias, NOT_ATTENDED)  # [batch, head, query, key]
        x = self.dropout(embedded)
        for layer in [self.encoder] if self.config.scan_layers else self.layers:
            x, _ = layer(x, bias)
        return self.dropout(self.encoder_norm(x))


class DecoderStack(nn.Module):
    """The stack that writes the SID: all levels at once, or one after the other."""

    config: T5Shape
    embedding: Embedding

    def setup(self) -> None:
        cfg = self.config
        self.relpos_bias = RelativeBias(cfg, bidirectional=False)
        layers = _stack(DecoderLayer, cfg, length=cfg.num_decoder_layers, inputs=3)
        if cfg.scan_layers:
            self.decoder = layers
        else:
            self.layers = layers
        self.decoder_norm = RMSNorm(cfg.dtype)
        if not cfg.logits_via_embedding:
            self.logits_dense = Dense(cfg.vocab_size, ("embed", "vocab"), "float32")
        self.dropout = Dropout(cfg.dropout_rate)

    def __call__(
        self,
        tokens: Int[Array, "batch hypothesis level"],
        encoded: Float[Array, "batch length emb"],
        mask: Bool[Array, "batch length"],
    ) -> tuple[Float[Array, "batch hypothesis _code"], ...]:
        x, bias = self._inputs(tokens, start=0)
        query_bias = _query_bias(mask)
        for layer in [self.decoder] if self.config.scan_layers else self.layers:
            x, _ = layer(x, encoded[:, None], bias, query_bias)
        return self._logits(x, start=0)

    def read(
        self, encoded: Float[Array, "batch length emb"], mask: Bool[Array, "batch length"]
    ) -> EncodedQueries:
        """Projects the encoder's states for every layer's cross-attention."""
        if self.config.scan_layers:
            raise ValueError("scanned layers cannot decode step by step; see `T5Config.unstacked`")
        layers = tuple(layer.read(encoded[:, None]) for layer in self.layers)
        return EncodedQueries(layers, mask)

    def step(
        self,
        tokens: Int[Array, "batch hypothesis new"],
        queries: EncodedQueries,
        past: tuple[KeysValues, ...] | None,
    ) -> tuple[tuple[Float[Array, "batch hypothesis _code"], ...], tuple[KeysValues, ...]]:
        start = past[0].keys.shape[-3] if past else 0
        x, bias = self._inputs(tokens, start=start)
        query_bias = _query_bias(queries.mask)
        cache = []
        for index, (layer, query) in enumerate(zip(self.layers, queries.layers, strict=True)):
            x, attended = layer.step(x, past[index] if past else None, query, bias, query_bias)
            cache.append(attended)
        return self._logits(x, start=start), tuple(cache)

    def _inputs(
        self, tokens: Int[Array, "batch hypothesis new"], *, start: int
    ) -> tuple[Float[Array, "batch hypothesis new emb"], Float[Array, "head new position"]]:
        """Returns the embedded tokens and the attention bias of the positions from `start` on."""
        positions = np.arange(start + tokens.shape[-1])
        bias = self.relpos_bias(positions[start:], positions)
        causal = positions[start:, None] >= positions[None, :]
        return self.dropout(self.embedding(tokens)), jnp.where(causal, bias, NOT_ATTENDED)

    def _logits(
        self, x: Float[Array, "batch hypothesis new emb"], *, start: int
    ) -> tuple[Float[Array, "batch hypothesis _code"], ...]:
        """Returns the logits of the new positions, each over the codes of its own level."""
        cfg, x = self.config, self.dropout(self.decoder_norm(x))
        firsts = cfg.text_vocab_size + codes.level_offsets(cfg.sid_sizes)
        logits = []
        for new in range(x.shape[-2]):
            level = start + new
            columns = slice(firsts[level], firsts[level] + cfg.sid_sizes[level])
            if cfg.logits_via_embedding:
                scaled = x[..., new, :] / math.sqrt(cfg.emb_dim)
                logits.append(self.embedding.attend(scaled, columns))
            else:
                logits.append(self.logits_dense(x[..., new, :], columns))
        return tuple(logits)


def _query_bias(mask: Bool[Array, "batch length"]) -> Float[Array, "batch 1 1 1 length"]:
    return jnp.where(mask[:, None, None, None, :], 0.0, NOT_ATTENDED)


class Transformer(nn.Module):
    """The encoder-decoder.

    `encode` once per query, then `decode` any number of hypotheses, all positions at once
    (training, scoring) or one after the other with the cache of the positions before (search).
    """

    config: T5Shape

    def setup(self) -> None:
        self.token_embedder = Embedding(self.config)
        self.encoder = EncoderStack(self.config)
        self.decoder = DecoderStack(self.config, self.token_embedder)

    def encode(self, tokens: Int[Array, "batch length"]) -> EncodedQueries:
        """Encodes queries.

        Args:
          tokens: text tokens, `PAD` at the end.

        Returns:
          See `EncodedQueries`.
        """
        return self.decoder.read(self.states(tokens), tokens != PAD)

    def states(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length emb"]:
        """Returns the encoder's states of the queries' tokens."""
        return self.encoder(self.token_embedder(tokens), tokens != PAD)

    def decode(
        self,
        queries: EncodedQueries,
        tokens: Int[Array, "batch hypothesis new"],
        past: tuple[KeysValues, ...] | None = None,
    ) -> tuple[tuple[Float[Array, "batch hypothesis _code"], ...], tuple[KeysValues, ...]]:
        """Decodes the next positions of every hypothesis.

        Args:
          queries: from `encode`.
          tokens: decoder inputs of the new positions; the one of position 0 is `START`, that of
            position `l` the SID token of level `l - 1`.
          past: keys and values that the call for the positions before returned; None when the new
            positions are the first ones.

        Returns:
          `(logits, past)`: float32 `[batch, hypothesis, sid_sizes[level]]` for the level of each
          new position, and the keys and values of all positions so far, each
          `[batch, hypothesis, position, head, dim]`.
        """
        return self.decoder.step(tokens, queries, past)

    def __call__(
        self,
        encoder_input_tokens: Int[Array, "batch length"],
        decoder_input_tokens: Int[Array, "batch hypothesis level"],
    ) -> tuple[Float[Array, "batch hypothesis _code"], ...]:
        """Returns the logits of every level, teacher-forced."""
        encoded = self.states(encoder_input_tokens)
        return self.decoder(decoder_input_tokens, encoded, encoder_input_tokens != PAD)
