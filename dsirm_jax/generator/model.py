"""The generator: T5, in its versions 1.0 and 1.1 (query text in, one code per SID level out).

Parameter tree and logical axis names are those of T5X's `t5x.examples.t5.network` (with
`scan_layers` of its `scalable_t5`), so that its checkpoints and partitioning rules apply. What
differs is what a fixed-length output of codes allows: level `l`'s logits are computed over the
columns of its own codes alone, never over the text vocabulary, and the decoder takes several
hypotheses (SIDs) for one encoded query, whose cross-attention keys and values are computed once.

Dropout is on where `apply` is given a key named `dropout`.

Sources: Raffel et al. 2020, arXiv 1910.10683; Shazeer 2020, arXiv 2002.05202 (gated GELU); Zhang &
Sennrich 2019, arXiv 1910.07467 (RMS norm).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.core import unfreeze
from flax.linen import partitioning
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.sids import codes

PAD = 0
START = PAD  # T5 starts its decoder with the padding token.
VOCAB_MULTIPLE = 128
MASKED = -1e10
NUM_BUCKETS = 32
MAX_DISTANCE = 128
LAYER_AXIS = 1  # of the parameters of scanned layers, as in T5X
ACTIVATIONS = {"gelu": nn.gelu, "relu": nn.relu, "linear": lambda x: x}


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
    """Shape of the generator.

    Attributes:
      emb_dim: width of the residual stream.
      num_heads: attention heads.
      head_dim: width of one head.
      mlp_dim: width of the gated hidden layer.
      num_encoder_layers: layers of the encoder.
      num_decoder_layers: layers of the decoder.
      mlp_activations: of each hidden layer of the feed-forward block, whose product is taken:
        ("gelu", "linear") is T5.1.1's, ("relu",) version 1.0's.
      logits_via_embedding: logits are products with the token embeddings, as in version 1.0, and
        there is no output layer.
      dropout_rate: share of activations dropped in training.
      dtype: of the computation, "float32" or "bfloat16"; parameters, softmaxes and logits are
        float32.
      remat: activations of a layer are computed again in the backward pass and not kept.
      scan_layers: training loops over layers whose parameters are stacked, and compiles one of
        them; what decodes step by step wants them `unstacked`.
      text_vocab_size: text tokens; the SID tokens follow them. Known once there is a vocabulary.
      sid_sizes: codes per SID level. Known once there are SIDs.
    """

    emb_dim: int
    num_heads: int
    head_dim: int
    mlp_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    logits_via_embedding: bool = False
    dropout_rate: float = 0.1
    dtype: str = "float32"
    remat: bool = False
    scan_layers: bool = False
    text_vocab_size: int = 0
    sid_sizes: tuple[int, ...] = ()

    @property
    def num_levels(self) -> int:
        """Levels of a SID, which is the number of tokens decoded."""
        return len(self.sid_sizes)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: text and SID tokens, padded so that a mesh can split them."""
        tokens = self.text_vocab_size + sum(self.sid_sizes)
        return math.ceil(tokens / VOCAB_MULTIPLE) * VOCAB_MULTIPLE


def config_from_json(described: Mapping[str, Any]) -> T5Config:
    """Returns the configuration whose fields, by name, were written as JSON."""
    return T5Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in described.items()})


class KeysValues(NamedTuple):
    """Projected keys and values of one attention layer."""

    keys: Float[Array, "... position head dim"]
    values: Float[Array, "... position head dim"]


class EncodedQueries(NamedTuple):
    """What the decoder needs of the queries.

    Attributes:
      layers: cross-attention keys and values of each decoder layer, `[batch, 1, length, ...]`;
        the axis of size 1 stands for all hypotheses of a query.
      mask: bool `[batch, length]`, true at tokens and false at padding.
    """

    layers: tuple[KeysValues, ...]
    mask: Bool[Array, "batch length"]


@jax.custom_vjp
def linear(x: Float[Array, "... in"], kernel: Float[Array, "in out"]) -> Float[Array, "... out"]:
    """Returns `x @ kernel`, with the kernel's gradient as one product of untransposed operands.

    JAX's own rule asks for its transpose, for which XLA's CPU backend copies the activations
    column by column, on one core: half of a training step.
    """
    return x @ kernel


def _linear_forward(x, kernel):
    return x @ kernel, (x, kernel)


def _linear_backward(saved, gradient):
    x, kernel = saved
    return gradient @ kernel.T, jnp.einsum("...i,...o->io", x, gradient)


linear.defvjp(_linear_forward, _linear_backward)


class Dense(nn.Module):
    """A bias-free linear map of the last axis, its kernel stored two-dimensional as in T5X."""

    features: int
    axes: tuple[str, str]
    dtype: str
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal"
    )

    @nn.compact
    def __call__(self, x: Float[Array, "... in"], columns: slice = slice(None)) -> Array:
        kernel = partitioning.param_with_axes(
            "kernel",
            self.kernel_init,
            (x.shape[-1], self.features),
            jnp.float32,
            axes=self.axes,
        )
        return linear(x.astype(self.dtype), kernel[:, columns].astype(self.dtype))


class Dropout(nn.Dropout):
    """Dropout, the same at all positions as in T5, wherever there is a key for it."""

    broadcast_dims: tuple[int, ...] = (-2,)

    def __call__(self, x: Float[Array, "... position feature"]) -> Array:
        return super().__call__(x, deterministic=not self.has_rng("dropout"))


class RMSNorm(nn.Module):
    """Division by the root mean square and a learnt scale (T5X's `LayerNorm`)."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "... emb"]) -> Float[Array, "... emb"]:
        scale = partitioning.param_with_axes(
            "scale", nn.initializers.ones, (x.shape[-1],), jnp.float32, axes=("embed",)
        )
        x = x.astype(jnp.float32)
        normed = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
        return normed.astype(self.dtype) * scale.astype(self.dtype)


class Embedding(nn.Module):
    """Token embeddings, shared by encoder and decoder."""

    config: T5Config

    def setup(self):
        self.embedding = partitioning.param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=1.0),
            (self.config.vocab_size, self.config.emb_dim),
            jnp.float32,
            axes=("vocab", "embed"),
        )

    def __call__(self, tokens: Int[Array, "..."]) -> Float[Array, "... emb"]:
        return self.embedding[tokens].astype(self.config.dtype)

    def attend(self, x: Float[Array, "... emb"], rows: slice) -> Float[Array, "... row"]:
        """Returns float32 products with some rows of the table."""
        return linear(x.astype(jnp.float32), self.embedding[rows].T)


def relative_buckets(
    queries: Int[np.ndarray, " query"], keys: Int[np.ndarray, " key"], *, bidirectional: bool
) -> Int[np.ndarray, "query key"]:
    """Returns T5's bucket of every distance: exact when near, logarithmic when far.

    Args:
      queries: positions that attend.
      keys: positions attended to.
      bidirectional: half of the buckets for later keys; otherwise these share bucket 0.

    Returns:
      int `[query, key]` below `NUM_BUCKETS`. Source: Raffel et al. 2020, section 2.1.
    """
    back = queries[:, None] - keys[None, :]  # positive for an earlier key
    buckets = NUM_BUCKETS // 2 if bidirectional else NUM_BUCKETS
    start = np.where(back < 0, buckets, 0) if bidirectional else 0
    distance = np.abs(back) if bidirectional else np.maximum(back, 0)
    exact = buckets // 2
    # float32 and the epsilon are T5's: they decide distances on the border of two buckets.
    ratio = distance.astype(np.float32) / exact + np.finfo(np.float32).eps
    scale = (buckets - exact) / np.log(MAX_DISTANCE / exact)
    far = np.minimum(exact + (np.log(ratio) * scale).astype(np.int32), buckets - 1)
    return start + np.where(distance < exact, distance, far)


class RelativeBias(nn.Module):
    """A learnt attention bias per head and relative distance, shared by a stack's layers."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(
        self, queries: Int[np.ndarray, " query"], keys: Int[np.ndarray, " key"]
    ) -> Float[Array, "head query key"]:
        table = partitioning.param_with_axes(
            "rel_embedding",
            nn.initializers.variance_scaling(1.0, "fan_avg", "uniform"),
            (self.config.num_heads, NUM_BUCKETS),
            jnp.float32,
            axes=("heads", "relpos_buckets"),
        )
        return table[:, relative_buckets(queries, keys, bidirectional=self.bidirectional)]


class Attention(nn.Module):
    """Multi-head attention without biases and, as in T5, without scaling by the head's width."""

    config: T5Config

    def setup(self):
        cfg, init = self.config, nn.initializers.variance_scaling(1.0, "fan_in", "normal")

        def scaled_init(*args):  # stands in for the scaling of the logits
            return init(*args) / math.sqrt(cfg.head_dim)

        width, axes = cfg.num_heads * cfg.head_dim, ("embed", "joined_kv")
        self.query = Dense(width, axes, cfg.dtype, scaled_init)
        self.key = Dense(width, axes, cfg.dtype, init)
        self.value = Dense(width, axes, cfg.dtype, init)
        self.out = Dense(cfg.emb_dim, ("joined_kv", "embed"), cfg.dtype, init)
        self.dropout = Dropout(cfg.dropout_rate)

    def _split(self, x: Float[Array, "... joined"]) -> Float[Array, "... head dim"]:
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.head_dim)

    def keys_values(self, x: Float[Array, "... key emb"]) -> KeysValues:
        """Projects what is attended to."""
        return KeysValues(self._split(self.key(x)), self._split(self.value(x)))

    def __call__(
        self,
        x: Float[Array, "... query emb"],
        attended: KeysValues,
        bias: Float[Array, "... #head #query key"],
    ) -> Float[Array, "... query emb"]:
        """Attends from `x` to keys and values; `bias` is added to the logits."""
        query = self._split(self.query(x))
        logits = jnp.einsum("...qhd,...khd->...hqk", query, attended.keys)
        weights = jax.nn.softmax(logits.astype(jnp.float32) + bias).astype(self.config.dtype)
        weights = self.dropout(weights)
        read = jnp.einsum("...hqk,...khd->...qhd", weights, attended.values)
        return self.out(read.reshape(*x.shape[:-1], -1))


class Mlp(nn.Module):
    """The feed-forward block: `wo(gelu(wi_0 x) * wi_1 x)` in T5.1.1, `wo(relu(wi x))` in 1.0."""

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "... emb"]) -> Float[Array, "... emb"]:
        cfg = self.config
        hidden = jnp.ones((), cfg.dtype)
        for number, activation in enumerate(cfg.mlp_activations):
            name = f"wi_{number}" if len(cfg.mlp_activations) > 1 else "wi"
            wi = Dense(cfg.mlp_dim, ("embed", "mlp"), cfg.dtype, name=name)
            hidden = hidden * ACTIVATIONS[activation](wi(x))
        hidden = Dropout(cfg.dropout_rate, name="dropout")(hidden)
        return Dense(cfg.emb_dim, ("mlp", "embed"), cfg.dtype, name="wo")(hidden)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each behind a norm and beside a residual path."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.pre_attention_layer_norm = RMSNorm(cfg.dtype)
        self.attention = Attention(cfg)
        self.pre_mlp_layer_norm = RMSNorm(cfg.dtype)
        self.mlp = Mlp(cfg)
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

    config: T5Config

    def setup(self):
        cfg = self.config
        self.pre_self_attention_layer_norm = RMSNorm(cfg.dtype)
        self.self_attention = Attention(cfg)
        self.pre_cross_attention_layer_norm = RMSNorm(cfg.dtype)
        self.encoder_decoder_attention = Attention(cfg)
        self.pre_mlp_layer_norm = RMSNorm(cfg.dtype)
        self.mlp = Mlp(cfg)
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


def _stack(layer: type[nn.Module], config: T5Config, *, length: int, inputs: int) -> Any:
    """Returns the layers of a stack: a list of them, or one that scans over their parameters.

    Args:
      layer: called as `layer(x, *inputs)`, it returns the new `x` and None.
      config: of every layer.
      length: number of layers.
      inputs: number of the arguments beside `x`, the same for all layers.
    """
    if config.remat:
        layer = nn.remat(layer, prevent_cse=not config.scan_layers)
    if not config.scan_layers:
        return [layer(config) for _ in range(length)]
    scanned = partitioning.scan_with_axes(
        layer,
        variable_axes={"params": LAYER_AXIS},
        split_rngs={"params": True, "dropout": True},
        in_axes=(nn.broadcast,) * inputs,
        length=length,
        axis_name="layers",
    )
    return scanned(config)


class Encoder(nn.Module):
    """The stack that reads the query."""

    config: T5Config

    def setup(self):
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
        bias = jnp.where(mask[:, None, None, :], bias, MASKED)  # [batch, head, query, key]
        x = self.dropout(embedded)
        for layer in [self.encoder] if self.config.scan_layers else self.layers:
            x, _ = layer(x, bias)
        return self.dropout(self.encoder_norm(x))


class Decoder(nn.Module):
    """The stack that writes the SID: all levels at once, or one after the other."""

    config: T5Config
    embedding: Embedding

    def setup(self):
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
    ) -> tuple[Float[Array, "batch hypothesis code"], ...]:
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
            raise ValueError("scanned layers cannot decode step by step; see `unstacked`")
        layers = tuple(layer.read(encoded[:, None]) for layer in self.layers)
        return EncodedQueries(layers, mask)

    def step(
        self,
        tokens: Int[Array, "batch hypothesis new"],
        queries: EncodedQueries,
        past: tuple[KeysValues, ...] | None,
    ) -> tuple[tuple[Float[Array, "batch hypothesis code"], ...], tuple[KeysValues, ...]]:
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
        return self.dropout(self.embedding(tokens)), jnp.where(causal, bias, MASKED)

    def _logits(
        self, x: Float[Array, "batch hypothesis new emb"], *, start: int
    ) -> tuple[Float[Array, "batch hypothesis code"], ...]:
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
    return jnp.where(mask[:, None, None, None, :], 0.0, MASKED)


class Transformer(nn.Module):
    """The encoder-decoder.

    `encode` once per query, then `decode` any number of hypotheses, all positions at once
    (training, scoring) or one after the other with the cache of the positions before (search).
    """

    config: T5Config

    def setup(self):
        self.token_embedder = Embedding(self.config)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config, self.token_embedder)

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
    ) -> tuple[tuple[Float[Array, "batch hypothesis code"], ...], tuple[KeysValues, ...]]:
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
    ) -> tuple[Float[Array, "batch hypothesis code"], ...]:
        """Returns the logits of every level, teacher-forced."""
        encoded = self.states(encoder_input_tokens)
        return self.decoder(decoder_input_tokens, encoded, encoder_input_tokens != PAD)


def decoder_inputs(sids: Int[Array, "... level"], *, config: T5Config) -> Int[Array, "... level"]:
    """Returns the teacher-forcing inputs of SIDs: their tokens, shifted right behind `START`."""
    tokens = codes.to_tokens(sids, sizes=config.sid_sizes, text_vocab_size=config.text_vocab_size)
    return jnp.concatenate([jnp.full_like(tokens[..., :1], START), tokens[..., :-1]], axis=-1)


def _variables(config: T5Config, key: jax.Array) -> dict:
    text = jnp.ones((1, 1), jnp.int32)
    sids = jnp.full((1, 1, config.num_levels), START, jnp.int32)
    return Transformer(config).init(key, text, sids)


@functools.partial(jax.jit, static_argnames="config")
def _init(config: T5Config, key: jax.Array) -> dict:
    return _variables(config, key)["params"]


def init_params(config: T5Config, *, seed: int) -> dict:
    """Returns freshly initialised parameters, float32, as T5X initialises them."""
    return _init(config, jax.random.key(seed))


def param_axes(config: T5Config) -> dict:
    """Returns the names of each parameter's logical axes, in a tree like that of the parameters."""
    shapes = jax.eval_shape(functools.partial(_variables, config), jax.random.key(0))
    return unfreeze(partitioning.get_axis_names(shapes["params_axes"]))


def unstacked(params: dict, *, config: T5Config) -> tuple[dict, T5Config]:
    """Returns parameters and configuration with layers one by one, whether or not they were so."""
    if not config.scan_layers:
        return params, config
    new = dict(params)
    for name, length in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        stack = dict(params[name])
        layers = stack.pop(name)
        for index in range(length):
            stack[f"layers_{index}"] = jax.tree.map(
                lambda array, index=index: array.take(index, axis=LAYER_AXIS), layers
            )
        new[name] = stack
    return new, dataclasses.replace(config, scan_layers=False)


def stacked(params: dict, *, config: T5Config) -> dict:
    """Returns the parameters that `config`, with `scan_layers`, wants; undoes `unstacked`."""
    new = dict(params)
    for name, length in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        stack = dict(params[name])
        layers = [stack.pop(f"layers_{index}") for index in range(length)]
        new[name] = stack | {
            name: jax.tree.map(lambda *arrays: np.stack(arrays, axis=LAYER_AXIS), *layers)
        }
    return new
