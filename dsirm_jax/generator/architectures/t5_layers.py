"""Layers of T5, with the parameter names and logical axes of T5X's `t5x.examples.t5.layers`.

Sources: Raffel et al. 2020, arXiv 1910.10683; Shazeer 2020, arXiv 2002.05202 (gated GELU); Zhang &
Sennrich 2019, arXiv 1910.07467 (RMS norm).
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning
from jaxtyping import Array, Float, Int

from dsirm_jax.generator.architectures.layers import DOWN, UP, KeysValues, linear, low_rank

NUM_BUCKETS = 32
MAX_DISTANCE = 128
FEED_FORWARD = {"gelu": nn.gelu, "relu": nn.relu, "linear": lambda x: x}
"""Activations of the feed-forward block, by the names that T5X has for them."""


class T5Shape(Protocol):
    """What layers and stacks look at of a `T5Config`, where the fields are described."""

    @property
    def emb_dim(self) -> int: ...

    @property
    def num_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def mlp_dim(self) -> int: ...

    @property
    def num_encoder_layers(self) -> int: ...

    @property
    def num_decoder_layers(self) -> int: ...

    @property
    def mlp_activations(self) -> tuple[str, ...]: ...

    @property
    def logits_via_embedding(self) -> bool: ...

    @property
    def dropout_rate(self) -> float: ...

    @property
    def dtype(self) -> str: ...

    @property
    def remat(self) -> bool | str: ...

    @property
    def scan_layers(self) -> bool | str: ...

    @property
    def text_vocab_size(self) -> int: ...

    @property
    def sid_sizes(self) -> tuple[int, ...]: ...

    @property
    def vocab_size(self) -> int: ...


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
        x = x.astype(self.dtype)
        y = linear(x, kernel[:, columns].astype(self.dtype))
        if self.has_variable("params", DOWN):
            down: Array = self.get_variable("params", DOWN)
            up: Array = self.get_variable("params", UP)
            y = y + low_rank(x, down, up[:, columns])
        return y


class Dropout(nn.Dropout):
    """Dropout, the same at all positions as in T5, wherever there is a key for it."""

    broadcast_dims: tuple[int, ...] = (-2,)

    def __call__(
        self,
        inputs: Float[Array, "... position feature"],
        deterministic: bool | None = None,
        rng: jax.Array | None = None,
    ) -> Float[Array, "... position feature"]:
        if deterministic is None:
            deterministic = not self.has_rng("dropout")
        return super().__call__(inputs, deterministic=deterministic, rng=rng)


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

    config: T5Shape

    def setup(self) -> None:
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

    config: T5Shape
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

    config: T5Shape

    def setup(self) -> None:
        cfg, init = self.config, nn.initializers.variance_scaling(1.0, "fan_in", "normal")

        def scaled_init(*args: Any) -> jax.Array:  # stands in for the scaling of the logits
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


class FeedForward(nn.Module):
    """The feed-forward block: `wo(gelu(wi_0 x) * wi_1 x)` in T5.1.1, `wo(relu(wi x))` in 1.0."""

    config: T5Shape

    @nn.compact
    def __call__(self, x: Float[Array, "... emb"]) -> Float[Array, "... emb"]:
        cfg = self.config
        hidden = jnp.ones((), cfg.dtype)
        for number, activation in enumerate(cfg.mlp_activations):
            name = f"wi_{number}" if len(cfg.mlp_activations) > 1 else "wi"
            wi = Dense(cfg.mlp_dim, ("embed", "mlp"), cfg.dtype, name=name)
            hidden = hidden * FEED_FORWARD[activation](wi(x))
        hidden = Dropout(cfg.dropout_rate, name="dropout")(hidden)
        return Dense(cfg.emb_dim, ("mlp", "embed"), cfg.dtype, name="wo")(hidden)
