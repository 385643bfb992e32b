"""Layers of decoder-only language models, as functions of their parameters.

Sources: Su et al. 2021, arXiv 2104.09864 (rotary positions); Ainslie et al. 2023, arXiv 2305.13245
(grouped-query attention); Shazeer 2020, arXiv 2002.05202 (gated MLP); Zhang & Sennrich 2019, arXiv
1910.07467 (RMS norm); Gemma 3's report, arXiv 2503.19786 (windows, norms behind sublayers).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.generator.architectures.layers import (
    DOWN,
    NOT_ATTENDED,
    UP,
    KeysValues,
    linear,
    low_rank,
)

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}
"""Of the gated MLP, by name."""
GLOBAL, LOCAL = 0, 1
"""Kinds of layers: those that attend to everything before, and those that do to a window of it."""


class DecoderShape(Protocol):
    """What layers look at of a `DecoderConfig`, where the fields are described."""

    @property
    def emb_dim(self) -> int: ...

    @property
    def num_heads(self) -> int: ...

    @property
    def num_kv_heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def mlp_dim(self) -> int: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def mlp_activation(self) -> str: ...

    @property
    def norm_epsilon(self) -> float: ...

    @property
    def qkv_bias(self) -> bool: ...

    @property
    def qk_norm(self) -> bool: ...

    @property
    def post_norm(self) -> bool: ...

    @property
    def query_scale(self) -> float | None: ...

    @property
    def rope_theta(self) -> float: ...

    @property
    def rope_factor(self) -> float: ...

    @property
    def rope_bands(self) -> tuple[float, ...]: ...

    @property
    def local_layers(self) -> tuple[int, ...]: ...

    @property
    def local_window(self) -> int: ...

    @property
    def local_rope_theta(self) -> float: ...


class Parameter(NamedTuple):
    """An array of a layer.

    Attributes:
      shape: without the axis of layers.
      axes: names of its axes, those of `meshes.MESH_AXES`; None for one that is never split.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]


def layer_parameters(config: DecoderShape) -> dict[str, Parameter]:
    """Returns the parameters of one layer by their paths: kernels, biases and scales of norms."""
    emb, mlp = config.emb_dim, config.mlp_dim
    queries, keys = (heads * config.head_dim for heads in (config.num_heads, config.num_kv_heads))
    norm = Parameter((emb,), ("embed",))
    found = {
        "attention/query/kernel": Parameter((emb, queries), ("embed", "joined_kv")),
        "attention/key/kernel": Parameter((emb, keys), ("embed", "joined_kv")),
        "attention/value/kernel": Parameter((emb, keys), ("embed", "joined_kv")),
        "attention/out/kernel": Parameter((queries, emb), ("joined_kv", "embed")),
        "mlp/gate/kernel": Parameter((emb, mlp), ("embed", "mlp")),
        "mlp/up/kernel": Parameter((emb, mlp), ("embed", "mlp")),
        "mlp/down/kernel": Parameter((mlp, emb), ("mlp", "embed")),
        "pre_attention_norm/scale": norm,
        "pre_mlp_norm/scale": norm,
    }
    if config.qkv_bias:
        for name, width in (("query", queries), ("key", keys), ("value", keys)):
            found[f"attention/{name}/bias"] = Parameter((width,), ("joined_kv",))
    if config.qk_norm:
        for name in ("query_norm", "key_norm"):
            found[f"attention/{name}/scale"] = Parameter((config.head_dim,), (None,))
    if config.post_norm:
        found |= {"post_attention_norm/scale": norm, "post_mlp_norm/scale": norm}
    return found


class Sight(NamedTuple):
    """Where tokens stand and what they see; the first axis is the kind of layer.

    Attributes:
      cos: of the angles that queries and keys are turned by.
      sin: likewise.
      masks: true at what is seen, one array for each of what a layer attends to: what came before,
        and the tokens themselves.
    """

    cos: Float[Array, "*kind batch 1 new half"]
    sin: Float[Array, "*kind batch 1 new half"]
    masks: tuple[Bool[Array, "*kind _batch new _key"], ...]

    def of(self, kind: Any) -> Sight:
        """Returns what layers of a kind, a number or a traced one, are given."""
        return jax.tree.map(lambda array: array[kind], self)


def frequencies(config: DecoderShape) -> Float[np.ndarray, "kind half"]:
    """Returns the radians that one position turns each pair of dimensions by.

    Global layers may be stretched: all frequencies are divided by `rope_factor`, or, with
    `rope_bands`, the low ones are and the high ones are not (Llama 3.1: arXiv 2407.21783).
    """
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    whole = config.rope_theta**-exponents
    kept = np.zeros_like(whole)
    if config.rope_bands:
        low, high, length = config.rope_bands
        kept = np.clip((length * whole / (2 * math.pi) - low) / (high - low), 0, 1)
    kinds = [whole * (kept + (1 - kept) / config.rope_factor)]
    if config.local_layers:
        kinds.append(config.local_rope_theta**-exponents)
    return np.stack(kinds).astype(np.float32)


def sight(
    config: DecoderShape,
    positions: Int[Array, "batch new"],
    seen: Sequence[tuple[Int[Array, "_batch _key"], Bool[Array, "_batch _key"]]],
) -> Sight:
    """Returns where new tokens stand and what they see.

    Args:
      config: of the layers.
      positions: of the new tokens, counted by real tokens.
      seen: positions of what each source of keys has, and whether these are real tokens.
    """
    turn = jnp.asarray(frequencies(config))[:, None, None, None, :]
    angles = positions[None, :, None, :, None] * turn
    masks = []
    for places, is_token in seen:
        back = positions[:, :, None] - places[:, None, :]
        everything = is_token[:, None, :] & (back >= 0)
        kinds = [everything]
        if config.local_layers:
            kinds.append(everything & (back < config.local_window))
        masks.append(jnp.stack(kinds))
    return Sight(jnp.cos(angles), jnp.sin(angles), tuple(masks))


def apply_layer(
    config: DecoderShape,
    params: Any,
    x: Float[Array, "batch hypothesis new emb"],
    before: Sequence[KeysValues],
    view: Sight,
) -> tuple[Float[Array, "batch hypothesis new emb"], KeysValues]:
    """Returns the states behind a layer, and the keys and values of the new tokens.

    Args:
      config: of the layer.
      params: its parameters.
      x: states of the new tokens.
      before: what they attend to beside themselves; an axis of hypotheses of size 1 stands for all.
      view: from `Sight.of`, masks of all of `before`, then of the new tokens.
    """
    norm = functools.partial(rms_norm, epsilon=config.norm_epsilon)
    y = norm(x, params["pre_attention_norm"]["scale"])
    y, own = _attention(config, params["attention"], y, before, view)
    x = x + (norm(y, params["post_attention_norm"]["scale"]) if config.post_norm else y)
    y = norm(x, params["pre_mlp_norm"]["scale"])
    gate, up = (_dense(params["mlp"][name], y) for name in ("gate", "up"))
    y = _dense(params["mlp"]["down"], ACTIVATIONS[config.mlp_activation](gate) * up)
    return x + (norm(y, params["post_mlp_norm"]["scale"]) if config.post_norm else y), own


def rms_norm(
    x: Float[Array, "... feature"], scale: Float[Array, " feature"], *, epsilon: float
) -> Float[Array, "... feature"]:
    """Returns `x` over its root mean square, times a scale; computed in float32."""
    exact = x.astype(jnp.float32)
    mean = jnp.mean(exact**2, axis=-1, keepdims=True)
    return (exact * jax.lax.rsqrt(mean + epsilon) * scale).astype(x.dtype)


def _dense(params: Any, x: Float[Array, "... in"]) -> Float[Array, "... out"]:
    y = linear(x, params["kernel"].astype(x.dtype))
    if DOWN in params:
        y = y + low_rank(x, params[DOWN], params[UP])
    return y + params["bias"].astype(x.dtype) if "bias" in params else y


def _attention(
    config: DecoderShape,
    params: Any,
    x: Float[Array, "batch hypothesis new emb"],
    before: Sequence[KeysValues],
    view: Sight,
) -> tuple[Float[Array, "batch hypothesis new emb"], KeysValues]:
    queries, keys, values = (
        (y := _dense(params[name], x)).reshape(*y.shape[:-1], -1, config.head_dim)
        for name in ("query", "key", "value")
    )
    if config.qk_norm:
        norm = functools.partial(rms_norm, epsilon=config.norm_epsilon)
        queries = norm(queries, params["query_norm"]["scale"])
        keys = norm(keys, params["key_norm"]["scale"])
    own = KeysValues(_turned(keys, view), values)
    scale = config.head_dim**-0.5 if config.query_scale is None else config.query_scale
    # A group of query heads shares a head of keys and values.
    grouped = (*queries.shape[:-2], config.num_kv_heads, -1, config.head_dim)
    queries = _turned(queries, view, scale=scale).reshape(grouped)
    sources = (*before, own)
    logits = jnp.concatenate(
        [
            jnp.where(
                mask[:, None, None, None],
                jnp.einsum("...qkgd,...lkd->...kgql", queries, source.keys).astype(jnp.float32),
                NOT_ATTENDED,
            )
            for source, mask in zip(sources, view.masks, strict=True)
        ],
        axis=-1,
    )
    weights = jax.nn.softmax(logits).astype(x.dtype)
    ends = np.cumsum([source.keys.shape[-3] for source in sources])[:-1]
    read = sum(
        jnp.einsum("...kgql,...lkd->...qkgd", part, source.values)
        for part, source in zip(jnp.split(weights, ends, axis=-1), sources, strict=True)
    )
    return _dense(params["out"], jnp.asarray(read).reshape(*x.shape[:-1], -1)), own


def _turned(
    x: Float[Array, "batch hypothesis new head dim"], view: Sight, *, scale: float = 1.0
) -> Float[Array, "batch hypothesis new head dim"]:
    """Returns queries or keys turned by their positions, and scaled; computed in float32."""
    first, second = jnp.split(x.astype(jnp.float32) * scale, 2, axis=-1)
    cos, sin = view.cos[..., None, :], view.sin[..., None, :]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
