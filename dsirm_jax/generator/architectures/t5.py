"""The generator as a T5 encoder-decoder.

Parameter tree and logical axis names are those of T5X's `t5x.examples.t5.network` (with
`scan_layers` of its `scalable_t5`), so that its checkpoints and partitioning rules apply.

Sources: Raffel et al. 2020, arXiv 1910.10683; T5 1.1 in its repository, google-research/
text-to-text-transfer-transformer.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import unfreeze
from flax.linen import partitioning
from jaxtyping import Array, Int

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.generator.architectures.architecture import (
    Architecture,
    Logits,
    check_sizes,
    check_target,
    is_share,
)
from dsirm_jax.generator.architectures.layers import PRODUCTS, UNROLLED, KeysValues
from dsirm_jax.generator.architectures.t5_layers import FEED_FORWARD
from dsirm_jax.generator.architectures.t5_stacks import (
    LAYER_AXIS,
    START,
    EncodedQueries,
    Transformer,
)
from dsirm_jax.generator.architectures.t5_text import with_sid_rows
from dsirm_jax.io.errors import InputError
from dsirm_jax.sids import codes as sid_codes

VOCAB_MULTIPLE = 128
COMPUTED_IN = ("float32", "bfloat16")
FLAGS = {"logits_via_embedding": (), "remat": (PRODUCTS,), "scan_layers": (UNROLLED,)}
"""Fields that are True, False or one of these."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config(Architecture):
    """A T5 of version 1.0 or 1.1; its parameters are those of T5X.

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
      remat: activations of a layer are computed again in the backward pass and not kept; with
        "products" all but the products with parameters, which are nearly all of the arithmetic.
      scan_layers: training loops over layers whose parameters are stacked, and compiles one of
        them; "unrolled" compiles each, for minutes, and no longer copies what a loop keeps for the
        backward pass. The parameters are the same; `unscanned` decodes step by step.
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
    remat: bool | str = False
    scan_layers: bool | str = False
    text_vocab_size: int = 0
    sid_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, "emb_dim", "num_heads", "head_dim", "mlp_dim")
        check_sizes(self, "num_encoder_layers", "num_decoder_layers")
        check_target(self)
        self._check(
            isinstance(self.mlp_activations, tuple)
            and len(self.mlp_activations) > 0
            and all(
                isinstance(each, str) and each in FEED_FORWARD for each in self.mlp_activations
            ),
            name="mlp_activations",
            remedy=f"a tuple of some of {', '.join(map(repr, FEED_FORWARD))}",
        )
        self._check(
            is_share(self.dropout_rate),
            name="dropout_rate",
            remedy="a number of at least 0 and below 1",
        )
        self._check(
            self.dtype in COMPUTED_IN,
            name="dtype",
            remedy=f"one of {', '.join(map(repr, COMPUTED_IN))}"
            + (" (T5's activations exceed float16)" if self.dtype == "float16" else ""),
        )
        for name, others in FLAGS.items():
            self._check(
                isinstance(value := getattr(self, name), bool) or value in others,
                name=name,
                remedy=" or ".join(map(repr, (True, False, *others))),
            )

    def _check(self, holds: bool, *, name: str, remedy: str) -> None:
        if not holds:
            value = getattr(self, name)
            raise InputError(f"gin binding T5Config.{name} is {value!r}; bind {remedy}")

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding: text and SID tokens, padded so that a mesh can split them."""
        tokens = self.text_vocab_size + sum(self.sid_sizes)
        return math.ceil(tokens / VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def stacks(self) -> tuple[tuple[str, int], ...]:
        """Name in the tree of parameters, and number of layers, of encoder and decoder."""
        return ("encoder", self.num_encoder_layers), ("decoder", self.num_decoder_layers)

    def init(self, key: jax.Array) -> dict:
        return _variables(self, key)["params"]

    def logical_axes(self) -> dict:
        shapes = jax.eval_shape(functools.partial(_variables, self), jax.random.key(0))
        return unfreeze(partitioning.get_axis_names(shapes["params_axes"]))

    def encode(self, params: dict, tokens: Int[Array, "batch length"]) -> EncodedQueries:
        return _applied(self, params, tokens, method=Transformer.encode)

    def decode(
        self,
        params: dict,
        state: EncodedQueries,
        codes: Int[Array, "batch hypothesis prefix"],
        past: tuple[KeysValues, ...] | None = None,
    ) -> tuple[Logits, tuple[KeysValues, ...]]:
        first = past[0].keys.shape[-3] - 1 if past else 0  # level of the first of the codes
        offsets = sid_codes.level_offsets(self.sid_sizes)[first : first + codes.shape[-1]]
        tokens = (codes + (self.text_vocab_size + offsets)).astype(jnp.int32)
        if past is None:
            start = jnp.full((*codes.shape[:-1], 1), START, jnp.int32)
            tokens = jnp.concatenate([start, tokens], axis=-1)
        return _applied(self, params, state, tokens, past, method=Transformer.decode)

    def teacher_forced(
        self,
        params: dict,
        tokens: Int[Array, "batch length"],
        sids: Int[Array, "batch hypothesis level"],
        *,
        key: jax.Array | None = None,
    ) -> Logits:
        rngs = {} if key is None else {"dropout": key}
        inputs = decoder_inputs(sids, config=self)
        return _applied(self, params, tokens, inputs, rngs=rngs)

    def unscanned(self) -> T5Config:
        return dataclasses.replace(self, scan_layers=False)

    def unstacked(self, params: dict) -> dict:
        if not self.scan_layers:
            return params
        new = dict(params)
        for name, length in self.stacks:
            stack = dict(params[name])
            layers = stack.pop(name)
            for index in range(length):
                stack[f"layers_{index}"] = jax.tree.map(
                    lambda array, index=index: array.take(index, axis=LAYER_AXIS), layers
                )
            new[name] = stack
        return new

    def stacked(self, params: dict) -> dict:
        """Returns the parameters that `scan_layers` needs; undoes `unstacked`."""
        new = dict(params)
        for name, length in self.stacks:
            stack = dict(params[name])
            layers = [stack.pop(f"layers_{index}") for index in range(length)]
            new[name] = stack | {
                name: jax.tree.map(lambda *arrays: np.stack(arrays, axis=LAYER_AXIS), *layers)
            }
        return new

    def pretrained(self, path: Path, *, seed: int, vocabulary: Vocabulary | None = None) -> dict:
        params = with_sid_rows(path, config=self, seed=seed, vocabulary=vocabulary)
        return self.stacked(params) if self.scan_layers else params


def decoder_inputs(sids: Int[Array, "... level"], *, config: T5Config) -> Int[Array, "... level"]:
    """Returns the teacher-forcing inputs of SIDs: their tokens, shifted right behind `START`."""
    tokens = sid_codes.to_tokens(
        sids, sizes=config.sid_sizes, text_vocab_size=config.text_vocab_size
    )
    return jnp.concatenate([jnp.full_like(tokens[..., :1], START), tokens[..., :-1]], axis=-1)


def _applied(config: T5Config, params: dict, *arguments: Any, **keywords: Any) -> Any:
    """Returns what a method of the model returns, alone: `apply` lets it change no variables."""
    return Transformer(config).apply({"params": params}, *arguments, **keywords)


def _variables(config: T5Config, key: jax.Array) -> Mapping[str, Any]:
    text = jnp.ones((1, 1), jnp.int32)
    sids = jnp.full((1, 1, len(config.sid_sizes)), START, jnp.int32)
    return Transformer(config).init(key, text, sids)
