"""A fitted quantizer and its file: what assignment applies and further training starts from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from dsirm_jax.io import arrays as files
from dsirm_jax.io.errors import InputError
from dsirm_jax.quantizer.model import (
    Autoencoder,
    Branches,
    Codebook,
    Codebooks,
    Identity,
    QuantizerConfig,
    autoencoder,
)

KIND = "quantizer"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A quantizer of any kind after training.

    Attributes:
      config: its kind and shape.
      dim: width of the dense vectors.
      params: of the encoder and decoder.
      codebooks: one per level.
      names: category of each pinned first code; empty when the first level is not pinned.
    """

    config: QuantizerConfig
    dim: int
    params: Any
    codebooks: Codebooks
    names: tuple[str, ...] = ()

    @property
    def model(self) -> Autoencoder | Identity:
        """The Flax module that `params` belong to."""
        return autoencoder(self.config, dim=self.dim)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(book.size for book in self.codebooks)

    @functools.cached_property
    def version(self) -> str:
        """What identifies its SIDs: a hash of all that decides a new item's codes.

        Codes of two versions must never be joined: the same numbers mean different things.
        """
        digest = hashlib.sha256("\n".join([str(self.config.beams), *self.names]).encode())
        for array in (*jax.tree.leaves(self.params), *_identity(self.codebooks)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def _identity(codebooks: Codebooks) -> list[Any]:
    return [array for book in codebooks for array in book.identity()]


def save(path: Path, fitted: Fitted) -> None:
    """Writes a quantizer as one `safetensors` file, its configuration in the header.

    Args:
      path: where to.
      fitted: the quantizer.
    """
    arrays = {
        f"codebooks/{level}/{name}": array
        for level, book in enumerate(fitted.codebooks)
        for name, array in _arrays(book).items()
    }
    if fitted.params:
        arrays |= traverse_util.flatten_dict(fitted.params, sep="/")
    header = {
        "config": dataclasses.asdict(fitted.config),
        "dim": fitted.dim,
        "names": fitted.names,
        "version": fitted.version,
    }
    files.save(path, arrays, kind=KIND, description=header)


def load(path: Path) -> Fitted:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds no quantizer, or not the one it was.
    """
    arrays, header = files.load(
        path,
        kind=KIND,
        otherwise="not a quantizer's file; name the quantizer.safetensors of a finished "
        "`dsirm quantize`",
    )
    shape = {k: tuple(v) if isinstance(v, list) else v for k, v in header["config"].items()}
    config = QuantizerConfig(**shape)
    tree = traverse_util.unflatten_dict(arrays, sep="/")
    books = tree.pop("codebooks")
    fitted = Fitted(
        config=config,
        dim=header["dim"],
        params=tree,
        codebooks=tuple(
            Branches(**books[str(level)], size=size)
            if "first" in books[str(level)]
            else Codebook(**books[str(level)])
            for level, size in enumerate(config.codebook_sizes)
        ),
        names=tuple(header["names"]),
    )
    if fitted.version != header["version"]:
        raise InputError(f"{path}: its contents are not what was written; run `dsirm quantize`")
    return fitted


def _arrays(book: Codebook | Branches) -> dict[str, Any]:
    return {
        field.name: getattr(book, field.name)
        for field in dataclasses.fields(book)
        if field.metadata.get("pytree_node", True)
    }
