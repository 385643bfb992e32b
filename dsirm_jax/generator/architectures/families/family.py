"""What a family of pretrained language models is, and which there are."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from dsirm_jax.generator.architectures import families
from dsirm_jax.generator.architectures.architecture import Architecture
from dsirm_jax.generator.architectures.tensors import Weights
from dsirm_jax.io.errors import InputError


class Model(Protocol):
    """A pretrained model whose settings and tensors have been looked at, and not read yet."""

    @property
    def config(self) -> Architecture:
        """Its architecture, with as many text tokens as its embedding has rows."""
        ...

    @property
    def decisive(self) -> tuple[str, ...]:
        """Fields of the architecture that the weights decide."""
        ...

    @property
    def weights(self) -> Weights:
        """Its files."""
        ...

    @property
    def bytes_per_token(self) -> int:
        """What a token's rows take in the files that `write` makes."""
        ...

    def write(self, folder: Path, *, kept: Int[np.ndarray, " kept"]) -> str:
        """Writes what `Architecture.pretrained` reads.

        Args:
          folder: where to.
          kept: the tokens whose rows are written, in their order.

        Returns:
          What to name as `generate.run.start`, below the folder; "" for the folder itself.

        Raises:
          InputError: a tensor cannot be read, or has a number that is not finite.
        """
        ...


class Family(Protocol):
    """A family, which is a constant `FAMILY` in a file of this folder.

    Attributes:
      title: what people call it.
      model_types: that `config.json` calls it.
      marked: whether texts begin and end with a mark, where its own files do not say.
      shares_vocabulary: whether a SentencePiece model of it can be that of all of a run.
    """

    @property
    def title(self) -> str: ...

    @property
    def model_types(self) -> tuple[str, ...]: ...

    @property
    def marked(self) -> tuple[bool, bool]: ...

    @property
    def shares_vocabulary(self) -> bool: ...

    def model(self, weights: Weights) -> Model:
        """Looks at the settings and tensors of a model.

        Raises:
          InputError: an entry or a tensor is missing, unknown, or not as the family has it.
        """
        ...


@functools.cache
def known_families() -> Mapping[str, Family]:
    """Returns the families by the model types of `config.json`."""
    modules = [
        importlib.import_module(f"{families.__name__}.{module.name}")
        for module in pkgutil.iter_modules(families.__path__)
    ]
    found = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return MappingProxyType({name: family for family in found for name in family.model_types})


def family_named(model_type: Any, *, file: Path) -> Family:
    """Returns a family by what `config.json` calls it.

    Args:
      model_type: the name.
      file: that says so, for messages.

    Raises:
      InputError: none is called so.
    """
    known = known_families()
    if model_type not in known:
        raise InputError(
            f"{file}: model_type is {model_type!r}; give a model of one of {', '.join(known)}"
        )
    return known[model_type]
