"""Low-rank adapters of another architecture, whose own weights stay as they are.

A kernel `W` acts as `W + (alpha / rank) A B`: `A`, `[in, rank]`, is drawn and `B`, `[rank, out]`,
is zero, so that training starts from the network itself. Learnt are the adapters, and what codes
are read and written by; the optimizer keeps moments of these alone, and no gradient of a frozen
kernel is computed. After training it is the plain network, the products added to its kernels.

Source: Hu et al. 2021, arXiv 2106.09685; in all linear layers: Dettmers et al. 2023, arXiv
2305.14314.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.generator.architectures.architecture import (
    Architecture,
    CodeArrays,
    GeneratorParams,
    Logits,
    Past,
    State,
    check_sizes,
    param_shapes,
)
from dsirm_jax.generator.architectures.layers import DOWN, UP
from dsirm_jax.io.checks import check_holds, check_number
from dsirm_jax.io.errors import InputError

TEXT, CODES, ADAPTERS = "text", "codes", "adapters"
"""Parts of the parameters: the network's for texts, its for codes, and what is added to kernels."""
KERNEL, LAYERS = "kernel", "layers"
"""The name of kernels, and that of an axis of layers stacked in one."""

_Entry = TypeVar("_Entry")


class Kernel(NamedTuple):
    """A kernel of the network.

    Attributes:
      shape: `[in, out]`, with an axis of layers in any place but the last.
      axes: names of these axes.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]

    @property
    def layer_axis(self) -> int | None:
        """Where the axis of layers is; None where there is none."""
        return self.axes.index(LAYERS) if LAYERS in self.axes else None

    def factors(
        self, entries: tuple[_Entry, ...], rank: _Entry
    ) -> tuple[tuple[_Entry, ...], tuple[_Entry, ...]]:
        """Returns what belongs to the axes of both factors, of what belongs to the kernel's.

        Args:
          entries: an entry for each axis of the kernel.
          rank: what stands for the axis that the factors share.
        """
        inward = 1 if self.layer_axis == 0 else 0
        return (*entries[:-1], rank), (*entries[:inward], rank, *entries[inward + 1 :])

    def product(self, down: np.ndarray, up: np.ndarray) -> Float[np.ndarray, "..."]:
        """Returns the product of two factors, of the kernel's shape."""
        axis = self.layer_axis
        if axis is None:
            return down @ up
        return np.moveaxis(np.moveaxis(down, axis, 0) @ np.moveaxis(up, axis, 0), 0, axis)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora(Architecture):
    """An architecture of which training changes low-rank updates of kernels, and codes, alone.

    Its linear layers have to add what stands beside a kernel, see `layers.low_rank`.

    Attributes:
      config: the network, such as a `T5Config` or a `DecoderConfig`.
      rank: of the update of a kernel.
      alpha: updates are multiplied by `alpha / rank`.
      targets: names, anywhere in the paths of kernels, of those that are updated.
      text_vocab_size: of the network.
      sid_sizes: of the network.
    """

    config: Architecture
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "key", "value", "out", "mlp")
    text_vocab_size: int = dataclasses.field(init=False)
    sid_sizes: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        check_holds(
            isinstance(self.config, Architecture) and not isinstance(self.config, Lora),
            binding="Lora.config",
            value=self.config,
            remedy="another architecture, such as @decoder_only.DecoderConfig()",
        )
        check_sizes(self, "rank")
        check_number("Lora.alpha", self.alpha, above=0, below=math.inf)
        check_holds(
            isinstance(self.targets, tuple)
            and len(self.targets) > 0
            and all(isinstance(name, str) for name in self.targets),
            binding="Lora.targets",
            value=self.targets,
            remedy="a tuple of names of layers, such as ('query', 'value')",
        )
        for name in ("text_vocab_size", "sid_sizes"):
            object.__setattr__(self, name, getattr(self.config, name))

    def fitted_to(self, *, text_vocab_size: int, sid_sizes: Sequence[int]) -> Lora:
        config = self.config.fitted_to(text_vocab_size=text_vocab_size, sid_sizes=sid_sizes)
        return dataclasses.replace(self, config=config)

    def init(self, key: jax.Array) -> dict:
        return self._around(self.config.init(key), key=key)

    def logical_axes(self) -> dict:
        adapters: dict[str, PartitionSpec] = {}
        for path, kernel in self.kernels().items():
            down, up = kernel.factors(kernel.axes, None)
            adapters |= {f"{path}/{DOWN}": PartitionSpec(*down), f"{path}/{UP}": PartitionSpec(*up)}
        of_text, of_codes = jax.eval_shape(self.config.parted, param_shapes(self.config))
        names = _flat(self.config.logical_axes())
        return {
            TEXT: _nested({path: names[path] for path in _flat(of_text)}),
            CODES: jax.tree.map(lambda array: PartitionSpec(*[None] * array.ndim), of_codes),
            ADAPTERS: _nested(adapters),
        }

    def encode(self, params: dict, tokens: Int[Array, "batch length"]) -> State:
        return self.config.encode(self._adapted(params), tokens)

    def decode(
        self,
        params: dict,
        state: State,
        codes: Int[Array, "batch hypothesis prefix"],
        past: Past | None = None,
    ) -> tuple[Logits, Past]:
        return self.config.decode(self._adapted(params), state, codes, past)

    def teacher_forced(
        self,
        params: dict,
        tokens: Int[Array, "batch length"],
        sids: Int[Array, "batch hypothesis level"],
        *,
        key: jax.Array | None = None,
    ) -> Logits:
        return self.config.teacher_forced(self._adapted(params), tokens, sids, key=key)

    def unscanned(self) -> Architecture:
        """Returns the network that decodes step by step; it has no adapters."""
        return self.config.unscanned()

    def unstacked(self, params: dict) -> GeneratorParams:
        """Returns the parameters of `unscanned`: the products are added to their kernels."""
        params = jax.tree.map(np.asarray, params)
        of_text, adapters = _flat(params[TEXT]), _flat(params[ADAPTERS])
        for path, kernel in self.kernels().items():
            update = kernel.product(adapters[f"{path}/{DOWN}"], adapters[f"{path}/{UP}"])
            of_text[f"{path}/{KERNEL}"] = of_text[f"{path}/{KERNEL}"] + self._scale * update
        merged = self.config.joined(_nested(of_text), params[CODES])
        return jax.tree.map(np.asarray, self.config.unstacked(merged))

    def trainable(self, params: dict) -> Any:
        return {
            part: jax.tree.map(lambda _, part=part: part != TEXT, tree)
            for part, tree in params.items()
        }

    def parted(self, params: dict) -> tuple[dict, CodeArrays]:
        return {part: params[part] for part in (TEXT, ADAPTERS)}, params[CODES]

    def joined(self, of_text: dict, of_codes: CodeArrays) -> dict:
        return of_text | {CODES: of_codes}

    def text_embedding(self, params: dict) -> Float[Array, "token emb"]:
        return self.config.text_embedding(self.config.joined(params[TEXT], params[CODES]))

    def pretrained(self, path: Path, *, seed: int, vocabulary: Vocabulary | None = None) -> dict:
        params = self.config.pretrained(path, seed=seed, vocabulary=vocabulary)
        return jax.tree.map(np.asarray, self._around(params, key=jax.random.key(seed)))

    def kernels(self) -> dict[str, Kernel]:
        """Returns the kernels that are updated, by the paths of their layers.

        Raises:
          InputError: a target is in no kernel's path.
        """
        shapes, axes = _flat(param_shapes(self.config)), _flat(self.config.logical_axes())
        layers = [path.removesuffix(f"/{KERNEL}") for path in shapes if path.endswith(f"/{KERNEL}")]
        known = {name for path in layers for name in path.split("/") if not name.isdecimal()}
        if unknown := sorted({*self.targets} - known):
            raise InputError(
                f"gin binding Lora.targets has {unknown[0]!r}, but kernels of "
                f"{type(self.config).__name__} are in {', '.join(sorted(known))}; bind some of them"
            )
        return {
            path: Kernel(shapes[f"{path}/{KERNEL}"].shape, tuple(axes[f"{path}/{KERNEL}"]))
            for path in layers
            if {*path.split("/")} & {*self.targets}
        }

    @property
    def _scale(self) -> np.float32:
        return np.float32(self.alpha / self.rank)

    def _around(self, params: GeneratorParams, *, key: jax.Array) -> dict:
        """Returns the parameters with adapters around those of the network."""
        of_text, of_codes = self.config.parted(params)
        key = jax.random.fold_in(key, 2**31)  # none of those that the network draws by
        adapters = {}
        for number, (path, kernel) in enumerate(sorted(self.kernels().items())):
            down, up = kernel.factors(kernel.shape, self.rank)
            drawn = jax.random.normal(jax.random.fold_in(key, number), down)
            inward = kernel.shape[1 if kernel.layer_axis == 0 else 0]
            adapters[f"{path}/{DOWN}"] = drawn * inward**-0.5
            adapters[f"{path}/{UP}"] = jnp.zeros(up)
        return {TEXT: of_text, CODES: of_codes, ADAPTERS: _nested(adapters)}

    def _adapted(self, params: dict) -> GeneratorParams:
        """Returns the network's parameters, the factors beside the kernels that they belong to."""
        flat = _flat(jax.lax.stop_gradient(params[TEXT]))
        for path, factor in _flat(params[ADAPTERS]).items():
            flat[path] = factor * self._scale if path.endswith(UP) else factor
        return self.config.joined(_nested(flat), params[CODES])


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    return traverse_util.unflatten_dict(flat, sep="/")
