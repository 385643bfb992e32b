"""What a generator's network is to training, search, scoring and serving.

An architecture is a frozen dataclass of settings, which programs are compiled for: its functions
take parameters and arrays, and nothing outside its own file knows of layers or caches. A new one is
a file in this folder, or in a module of the user's own, and `generate.run.config` in gin.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import jax
from jaxtyping import Array, Float, Int

from dsirm_jax.data.vocabularies.protocol import Vocabulary
from dsirm_jax.io.errors import InputError

GeneratorParams = Any
"""Nested dictionaries of float32 arrays."""
State = Any
"""A tree of arrays `[batch, ...]`: an encoder's output, or a prompt's keys and values."""
Past = Any
"""A tree of arrays `[batch, hypothesis, ...]`: what each hypothesis has decoded so far."""
Logits = tuple[Float[Array, "batch hypothesis _code"], ...]
"""Float32, one array a level, over the codes of that level alone: `_code` differs between them."""


@runtime_checkable
class Architecture(Protocol):
    """Text in, one code per SID level out.

    A dataclass that names it as its base needs `init`, `logical_axes`, `encode` and `decode`; the
    rest has defaults. All functions of arrays can be traced, with any size of batch.

    Attributes:
      text_vocab_size: text tokens, of which `vocabulary.PAD` fills up rows. 0 until `fitted_to`.
      sid_sizes: codes per SID level. Empty until `fitted_to`.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    text_vocab_size: int
    sid_sizes: tuple[int, ...]

    def fitted_to(self, *, text_vocab_size: int, sid_sizes: Sequence[int]) -> Self:
        """Returns the architecture for a vocabulary and SIDs, which are known in a run alone."""
        sizes = tuple(map(int, sid_sizes))
        return dataclasses.replace(self, text_vocab_size=int(text_vocab_size), sid_sizes=sizes)

    @abc.abstractmethod
    def init(self, key: jax.Array) -> GeneratorParams:
        """Returns freshly drawn parameters."""
        ...

    @abc.abstractmethod
    def logical_axes(self) -> Any:
        """Returns the names of each parameter's axes, those of `meshes.MESH_AXES`.

        A tree like that of the parameters, a `PartitionSpec` in place of each array.
        """
        ...

    @abc.abstractmethod
    def encode(self, params: GeneratorParams, tokens: Int[Array, "batch length"]) -> State:
        """Reads queries, once for all hypotheses.

        Args:
          params: see `init`.
          tokens: text tokens, padded.
        """
        ...

    @abc.abstractmethod
    def decode(
        self,
        params: GeneratorParams,
        state: State,
        codes: Int[Array, "batch hypothesis prefix"],
        past: Past | None = None,
    ) -> tuple[Logits, Past]:
        """Goes on from the codes of every hypothesis.

        Args:
          params: see `init`.
          state: from `encode`.
          codes: those that follow what `past` has: one for a step of a search, all but the last of
            whole SIDs to score them at once.
          past: from the call before; None to begin, and `codes` may then be `[batch, hypothesis,
            0]`.

        Returns:
          The logits of the level after each of the codes, those of the first level before them
          where there is no `past`; and the past of all codes so far.
        """
        ...

    def teacher_forced(
        self,
        params: GeneratorParams,
        tokens: Int[Array, "batch length"],
        sids: Int[Array, "batch hypothesis level"],
        *,
        key: jax.Array | None = None,
    ) -> Logits:
        """Returns the logits of all levels of given SIDs, as training wants them.

        Args:
          params: see `init`.
          tokens: text tokens, padded.
          sids: codes.
          key: of dropout; none of it when not given.
        """
        del key
        return self.decode(params, self.encode(params, tokens), sids[..., :-1])[0]

    def unscanned(self) -> Architecture:
        """Returns the architecture that decodes step by step, where training stacks layers."""
        return self

    def unstacked(self, params: GeneratorParams) -> GeneratorParams:
        """Returns the parameters of `unscanned`, made of those of training."""
        return params

    def pretrained(
        self, path: Path, *, seed: int, vocabulary: Vocabulary | None = None
    ) -> GeneratorParams:
        """Returns parameters to start training from, made of weights from elsewhere.

        Args:
          path: of the weights.
          seed: of what they lack, such as rows for SIDs.
          vocabulary: of the texts, which says what rows of weights its pieces have where it is
            trimmed, see `trimming.text_rows`; one that is not when not given.

        Raises:
          InputError: they do not fit this architecture, or it starts from none.
        """
        del seed, vocabulary
        raise InputError(
            f"gin binding generate.run.start is {str(path)!r}, but {type(self).__name__} starts "
            f"from no weights; bind None"
        )


@functools.partial(jax.jit, static_argnames="config")
def _init(config: Architecture, key: jax.Array) -> GeneratorParams:
    return config.init(key)


def init_params(config: Architecture, *, seed: int) -> GeneratorParams:
    """Returns the freshly drawn parameters of a seed."""
    return _init(config, jax.random.key(seed))


def param_shapes(config: Architecture) -> Any:
    """Returns a tree like that of the parameters, of `jax.ShapeDtypeStruct`."""
    return jax.eval_shape(config.init, jax.random.key(0))


def check_architecture(value: object) -> Architecture:
    """Returns what is bound to `generate.run.config`.

    Raises:
      InputError: it is no architecture.
    """
    if not isinstance(value, Architecture):
        raise InputError(
            f"gin binding generate.run.config is {value!r}; bind an architecture, such as "
            f"@t5.T5Config() with `from {__package__} import t5`"
        )
    return value


def check_sizes(config: object, *names: str, least: int = 1) -> None:
    """Raises InputError where a setting is no integer of at least `least`."""
    for name in names:
        if not is_size(value := getattr(config, name), least=least):
            raise InputError(
                f"gin binding {type(config).__name__}.{name} is {value!r}; bind an integer of at "
                f"least {least}"
            )


def is_size(value: object, *, least: int) -> bool:
    """Returns whether a value is an integer of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_share(value: object) -> bool:
    """Returns whether a value is a number of at least 0 and below 1; NaN is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def check_target(config: Architecture) -> None:
    """Raises InputError where the vocabulary or the SIDs of an architecture cannot be."""
    check_sizes(config, "text_vocab_size", least=0)
    sizes = config.sid_sizes
    if not isinstance(sizes, tuple) or not all(is_size(size, least=1) for size in sizes):
        raise InputError(
            f"gin binding {type(config).__name__}.sid_sizes is {sizes!r}; leave it to the run, "
            f"which has a tuple of positive integers, one a level"
        )
