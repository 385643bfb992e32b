"""The generator as a decoder-only language model: Llama, Qwen 2.5, Qwen 3, Gemma 3.

The query is a prompt, read once; behind it come a learnt `start` and the codes of a SID, each level
with embeddings and an output layer of its own. All hypotheses attend to one copy of the prompt's
keys and values, and logits over the vocabulary of text are never computed.

Sources: see `decoder_layers.py`; Llama 3, arXiv 2407.21783; Qwen 2.5, arXiv 2412.15115; Qwen 3,
arXiv 2505.09388; Gemma 3, arXiv 2503.19786.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.data.vocabularies.trimming import text_rows
from dsirm_jax.data.vocabulary import PAD
from dsirm_jax.generator.architectures.architecture import (
    Architecture,
    Logits,
    check_sizes,
    check_target,
)
from dsirm_jax.generator.architectures.decoder_layers import (
    ACTIVATIONS,
    GLOBAL,
    LOCAL,
    Parameter,
    Sight,
    apply_layer,
    layer_parameters,
    rms_norm,
    sight,
)
from dsirm_jax.generator.architectures.decoder_settings import read_settings
from dsirm_jax.generator.architectures.decoder_weights import (
    EMBEDDING,
    LAYERS,
    NORM,
    read_text_model,
    with_sid_arrays,
)
from dsirm_jax.generator.architectures.layers import (
    PRODUCTS,
    UNROLLED,
    KeysValues,
    linear,
    rematerialisation,
)
from dsirm_jax.io.checks import check_choice, check_holds, check_number
from dsirm_jax.io.errors import InputError

VOCAB_MULTIPLE = 128
MOST_PADDING = 1024
"""Published embeddings have fewer rows than this beyond the tokens of their tokenizer."""
NOT_OF_WEIGHTS = ("dtype", "remat", "scan_layers", "text_vocab_size", "sid_sizes")
"""Settings that may differ from those of the weights; the vocabulary's size is looked at alone."""
CHOICES = {
    "mlp_activation": tuple(ACTIVATIONS),
    "dtype": ("float32", "bfloat16"),
    "remat": (True, False, PRODUCTS),
    "scan_layers": (True, False, UNROLLED),
    **dict.fromkeys(("qkv_bias", "qk_norm", "post_norm", "scales_embedding"), (True, False)),
}


class ReadPrompts(NamedTuple):
    """What decoding needs of the queries.

    Attributes:
      layers: keys and values of each layer, `[batch, 1, length, head, dim]`; the axis of size 1
        stands for all hypotheses of a query.
      positions: of the tokens, counted by real ones.
      is_token: false at padding.
    """

    layers: tuple[KeysValues, ...]
    positions: Int[Array, "batch length"]
    is_token: Bool[Array, "batch length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(Architecture):
    """A decoder-only language model that writes SIDs.

    Attributes:
      emb_dim: width of the residual stream.
      num_heads: attention heads of queries.
      num_kv_heads: heads of keys and values, each shared by as many heads of queries.
      head_dim: width of one head.
      mlp_dim: width of the gated hidden layer.
      num_layers: number of layers.
      mlp_activation: of the gate, "silu" or "gelu_tanh".
      norm_epsilon: added to the mean square that a norm divides by.
      qkv_bias: queries, keys and values have biases (Qwen 2.5).
      qk_norm: queries and keys are normalised, each head for itself (Qwen 3, Gemma 3).
      post_norm: norms behind attention and MLP too (Gemma 3).
      scales_embedding: embeddings are multiplied by the root of `emb_dim` (Gemma 3).
      query_scale: of the logits of attention; `head_dim ** -0.5` when not given.
      rope_theta: base of the wavelengths of positions.
      rope_factor: that positions of global layers are stretched by.
      rope_bands: that spare high frequencies of it: Llama 3.1's low and high frequency factors and
        original length; none when empty.
      local_layers: numbers, from 0 on, of the layers that see a window alone (Gemma 3).
      local_window: tokens that these see, their own with them.
      local_rope_theta: base of their wavelengths.
      dtype: of the computation, "float32" or "bfloat16"; parameters, norms, softmaxes and the
        logits of codes are float32.
      remat: activations of a layer are computed again in the backward pass and not kept; with
        "products" all but the products with parameters.
      scan_layers: training loops over layers whose parameters are stacked, and compiles one of
        them; "unrolled" compiles each. The parameters are the same; `unscanned` decodes.
      text_vocab_size: text tokens. Known once there is a vocabulary.
      sid_sizes: codes per SID level. Known once there are SIDs.
    """

    emb_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    num_layers: int
    mlp_activation: str = "silu"
    norm_epsilon: float = 1e-6
    qkv_bias: bool = False
    qk_norm: bool = False
    post_norm: bool = False
    scales_embedding: bool = False
    query_scale: float | None = None
    rope_theta: float = 10_000.0
    rope_factor: float = 1.0
    rope_bands: tuple[float, ...] = ()
    local_layers: tuple[int, ...] = ()
    local_window: int = 0
    local_rope_theta: float = 10_000.0
    dtype: str = "float32"
    remat: bool | str = False
    scan_layers: bool | str = True
    text_vocab_size: int = 0
    sid_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, "emb_dim", "num_heads", "num_kv_heads", "head_dim", "mlp_dim")
        check_sizes(self, "num_layers")
        check_sizes(self, "local_window", least=1 if self.local_layers else 0)
        check_target(self)
        for name, choices in CHOICES.items():
            check_choice(f"DecoderConfig.{name}", getattr(self, name), choices)
        positive = ("norm_epsilon", "rope_theta", "rope_factor", "local_rope_theta", "query_scale")
        for name in positive:
            if name != "query_scale" or self.query_scale is not None:
                value = getattr(self, name)
                check_number(f"DecoderConfig.{name}", value, above=0, below=math.inf)
        layers, bands = self.local_layers, self.rope_bands
        for name, holds, remedy in (
            ("head_dim", self.head_dim % 2 == 0, "an even number"),
            (
                "num_heads",
                self.num_heads % self.num_kv_heads == 0,
                f"a multiple of num_kv_heads, {self.num_kv_heads}",
            ),
            (
                "local_layers",
                isinstance(layers, tuple)
                and all(number in range(self.num_layers) for number in layers)
                and len({*layers}) == len(layers),
                f"a tuple of different numbers below num_layers, {self.num_layers}",
            ),
            (
                "rope_bands",
                bands == ()
                or (
                    isinstance(bands, tuple)
                    and len(bands) == 3
                    and 0 < bands[0] < bands[1] < math.inf
                    and 0 < bands[2] < math.inf
                ),
                "() or a low and a higher frequency factor and a length",
            ),
        ):
            value = getattr(self, name)
            check_holds(holds, binding=f"DecoderConfig.{name}", value=value, remedy=remedy)

    @classmethod
    def of_folder(cls, path: str | os.PathLike[str]) -> DecoderConfig:
        """Returns the settings of a Hugging Face folder, with as many tokens as its embedding has.

        Args:
          path: of a Llama, Qwen 2 or 2.5, Qwen 3 or a Gemma 3 of text, with `config.json`.

        Raises:
          InputError: it is none of these, or has a setting that is not known here.
        """
        return cls(**read_settings(Path(path)))

    @property
    def text_rows(self) -> int:
        """Rows of the embedding of text, padded so that a mesh can split them."""
        return math.ceil(self.text_vocab_size / VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @property
    def kinds(self) -> tuple[int, ...]:
        """Kind of each layer, `GLOBAL` or `LOCAL`."""
        local = {*self.local_layers}
        return tuple(LOCAL if number in local else GLOBAL for number in range(self.num_layers))

    def parameters(self) -> dict[str, Parameter]:
        """Returns shapes and axes of all parameters by their paths, layers stacked."""
        emb = self.emb_dim
        found = {
            EMBEDDING: Parameter((self.text_rows, emb), ("vocab", "embed")),
            NORM: Parameter((emb,), ("embed",)),
            "sid/start": Parameter((emb,), ("embed",)),
        }
        for level, size in enumerate(self.sid_sizes):
            if level + 1 < len(self.sid_sizes):  # nothing follows the last code
                found[f"sid/codes_{level}"] = Parameter((size, emb), (None, "embed"))
            found[f"sid/head_{level}"] = Parameter((emb, size), ("embed", None))
        for path, (shape, axes) in layer_parameters(self).items():
            found[f"{LAYERS}/{path}"] = Parameter((self.num_layers, *shape), ("layers", *axes))
        return found

    def init(self, key: jax.Array) -> dict:
        # Residual streams begin with a variance of 1.
        width = self.emb_dim**-0.5 if self.scales_embedding else 1.0
        flat = {}
        for number, (path, (shape, _)) in enumerate(sorted(self.parameters().items())):
            kind = path.rpartition("/")[2]
            if kind in ("scale", "bias"):
                flat[path] = jnp.full(shape, float(kind == "scale"))
            else:
                inward = kind == "kernel" or kind.startswith("head_")
                spread = shape[-2] ** -0.5 if inward else width
                flat[path] = spread * jax.random.normal(jax.random.fold_in(key, number), shape)
        params = traverse_util.unflatten_dict(flat, sep="/")
        return params if self.scan_layers else self._apart(params)

    def logical_axes(self) -> dict:
        flat = {path: PartitionSpec(*axes) for path, (_, axes) in self.parameters().items()}
        axes = traverse_util.unflatten_dict(flat, sep="/")
        if self.scan_layers:
            return axes
        one = jax.tree.map(lambda names: PartitionSpec(*names[1:]), axes[LAYERS])
        return axes | {LAYERS: {str(number): one for number in range(self.num_layers)}}

    def encode(self, params: dict, tokens: Int[Array, "batch length"]) -> ReadPrompts:
        return self._read(params, tokens)[1]

    def decode(
        self,
        params: dict,
        state: ReadPrompts,
        codes: Int[Array, "batch hypothesis prefix"],
        past: tuple[KeysValues, ...] | None = None,
    ) -> tuple[Logits, tuple[KeysValues, ...]]:
        level = past[0].keys.shape[2] if past else 0
        x = self._code_inputs(params, codes, level=level)
        views = self._view_of_codes(state, new=x.shape[2], level=level)
        cache = []
        for number, (layer, kind) in enumerate(self._layers(params)):
            before = [state.layers[number], *([past[number]] if past else [])]
            x, own = apply_layer(self, layer, x, before, views.of(kind))
            if past:
                own = jax.tree.map(
                    lambda old, new: jnp.concatenate([old, new], axis=2), past[number], own
                )
            cache.append(own)
        return self._logits(params, x, level=level), tuple(cache)

    def teacher_forced(
        self,
        params: dict,
        tokens: Int[Array, "batch length"],
        sids: Int[Array, "batch hypothesis level"],
        *,
        key: jax.Array | None = None,
    ) -> Logits:
        del key  # there is no dropout
        positions, is_token = _places(tokens)
        prompt = ReadPrompts((), positions, is_token)
        text_views = sight(self, positions, [(positions, is_token)])
        code_views = self._view_of_codes(prompt, new=sids.shape[-1], level=0)

        def both(carry: tuple[Array, Array], of_layer: tuple[Any, Any]) -> Any:
            (text, codes), (layer, kind) = carry, of_layer
            text, read = apply_layer(self, layer, text, (), text_views.of(kind))
            codes, _ = apply_layer(self, layer, codes, (read,), code_views.of(kind))
            return (text, codes), None

        if self.remat:
            settings = rematerialisation(remat=self.remat, scan_layers=self.scan_layers)
            both = jax.checkpoint(both, **settings)
        x = self._embedded(params["text"]["embedding"][tokens[:, None]])
        carry = (x, self._code_inputs(params, sids[..., :-1], level=0))
        if self.scan_layers:
            unroll = self.num_layers if self.scan_layers == UNROLLED else 1
            kinds = np.asarray(self.kinds)
            carry, _ = jax.lax.scan(both, carry, (params[LAYERS], kinds), unroll=unroll)
        else:
            for of_layer in self._layers(params):
                carry, _ = both(carry, of_layer)
        return self._logits(params, carry[1], level=0)

    def unscanned(self) -> DecoderConfig:
        return dataclasses.replace(self, scan_layers=False)

    def unstacked(self, params: dict) -> dict:
        return self._apart(params) if self.scan_layers else params

    def pretrained(self, path: Path, *, seed: int, vocabulary: Vocabulary | None = None) -> dict:
        weights = self.of_folder(path)
        for field in dataclasses.fields(self):
            value, bound = getattr(weights, field.name), getattr(self, field.name)
            if field.name not in NOT_OF_WEIGHTS and bound != value:
                raise InputError(
                    f"{path}: its {field.name} is {value!r}, but gin binding "
                    f"DecoderConfig.{field.name} is {bound!r}; bind that of the weights"
                )
        tokens, size = weights.text_vocab_size, self.text_vocab_size
        rows = text_rows(vocabulary, size=size, rows=tokens, most_padding=MOST_PADDING)
        if rows is None:
            raise InputError(
                f"{path}: {tokens} tokens, but the vocabulary has {size}; bind the vocabulary of "
                f"these weights to generate.run.vocabulary"
            )
        text = read_text_model(path, config=self, tokens=tokens)
        shapes = {path: shape for path, (shape, _) in self.parameters().items()}
        flat = with_sid_arrays(text, shapes=shapes, rows=rows, seed=seed)
        params = traverse_util.unflatten_dict(flat, sep="/")
        return params if self.scan_layers else self._apart(params)

    def _apart(self, params: dict) -> dict:
        """Returns stacked parameters layer by layer."""
        layers = {
            str(number): jax.tree.map(lambda array, number=number: array[number], params[LAYERS])
            for number in range(self.num_layers)
        }
        return params | {LAYERS: layers}

    def _layers(self, params: dict) -> list[tuple[dict, int]]:
        """Returns the parameters and the kind of each layer."""
        layers = self.unstacked(params)[LAYERS]
        return [(layers[str(number)], kind) for number, kind in enumerate(self.kinds)]

    def _embedded(self, rows: Float[Array, "... emb"]) -> Float[Array, "... emb"]:
        x = rows.astype(self.dtype)
        return x * jnp.asarray(math.sqrt(self.emb_dim), x.dtype) if self.scales_embedding else x

    def _read(
        self, params: dict, tokens: Int[Array, "batch length"]
    ) -> tuple[Float[Array, "batch 1 length emb"], ReadPrompts]:
        """Returns the states behind the last layer, and what decoding needs."""
        positions, is_token = _places(tokens)
        views = sight(self, positions, [(positions, is_token)])
        x = self._embedded(params["text"]["embedding"][tokens[:, None]])
        read = []
        for layer, kind in self._layers(params):
            x, own = apply_layer(self, layer, x, (), views.of(kind))
            read.append(own)
        return x, ReadPrompts(tuple(read), positions, is_token)

    def _code_inputs(
        self, params: dict, codes: Int[Array, "batch hypothesis prefix"], *, level: int
    ) -> Float[Array, "batch hypothesis new emb"]:
        """Returns what is read from `level` on: `start`, then a code for each level before."""
        of_sids = params["sid"]
        inputs = (
            []
            if level
            else [jnp.broadcast_to(of_sids["start"], (*codes.shape[:2], 1, self.emb_dim))]
        )
        first = level - 1 if level else 0
        for number in range(codes.shape[2]):
            inputs.append(of_sids[f"codes_{first + number}"][codes[..., number, None]])
        return self._embedded(jnp.concatenate(inputs, axis=2))

    def _view_of_codes(self, prompt: ReadPrompts, *, new: int, level: int) -> Sight:
        """Returns what the inputs from `level` on see: the prompt, those before, themselves."""
        length = jnp.sum(prompt.is_token, axis=1, dtype=jnp.int32)[:, None]
        places = length + np.arange(level + new, dtype=np.int32)
        parts = [places[:, :level], places[:, level:]] if level else [places]
        sources = [(part, jnp.ones_like(part, bool)) for part in parts]
        return sight(self, parts[-1], [(prompt.positions, prompt.is_token), *sources])

    def _logits(
        self, params: dict, x: Float[Array, "batch hypothesis new emb"], *, level: int
    ) -> Logits:
        normed = self._normed(params, x)
        return tuple(
            linear(normed[..., new, :], params["sid"][f"head_{level + new}"])
            for new in range(x.shape[2])
        )

    def _normed(self, params: dict, x: Float[Array, "... emb"]) -> Float[Array, "... emb"]:
        """Returns final states, float32."""
        scale = params["text"]["norm"]["scale"]
        return rms_norm(x.astype(jnp.float32), scale, epsilon=self.norm_epsilon)


def text_states(
    config: DecoderConfig, params: dict, tokens: Int[Array, "batch length"]
) -> Float[Array, "batch length emb"]:
    """Returns the final states of text, float32, which a language model's output layer multiplies.

    Args:
      config: of the model.
      params: its parameters.
      tokens: text tokens, padded.
    """
    return config._normed(params, config._read(params, tokens)[0])[:, 0]


def _places(
    tokens: Int[Array, "batch length"],
) -> tuple[Int[Array, "batch length"], Bool[Array, "batch length"]]:
    """Returns positions of tokens, counted by real ones, and which are real."""
    is_token = jnp.asarray(tokens) != PAD
    return jnp.cumsum(is_token, axis=1, dtype=jnp.int32) - 1, is_token
