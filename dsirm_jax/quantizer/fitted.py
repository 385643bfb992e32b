"""A fitted quantizer and its file: what assignment applies and further training starts from."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from dsirm_jax.io.sealed import Artefact, version_of
from dsirm_jax.quantizer.model import (
    Autoencoder,
    Branches,
    Codebook,
    Codebooks,
    Identity,
    QuantizerConfig,
    autoencoder,
)

ARTEFACT = Artefact(kind="quantizer", stage="quantize")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedQuantizer:
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
        return version_of(
            "\n".join([str(self.config.beams), *self.names]),
            [*jax.tree.leaves(self.params), *_identity(self.codebooks)],
        )


def _identity(codebooks: Codebooks) -> list[Any]:
    return [array for book in codebooks for array in book.identity()]


def save(path: Path, fitted: FittedQuantizer) -> None:
    """Writes a quantizer as one `safetensors` file, its configuration in the header.

    Args:
      path: where to.
      fitted: the quantizer.
    """
    books = {str(level): _arrays(book) for level, book in enumerate(fitted.codebooks)}
    description = {
        "config": dataclasses.asdict(fitted.config),
        "dim": fitted.dim,
        "names": fitted.names,
    }
    tree = {"codebooks": books, **fitted.params}
    ARTEFACT.save(path, tree, description=description, version=fitted.version)


def load(path: Path) -> FittedQuantizer:
    """Reads what `save` wrote.

    Raises:
      InputError: there is no such file, or it holds no quantizer, or not the one it was.
    """
    tree, header = ARTEFACT.load(path)
    shape = {k: tuple(v) if isinstance(v, list) else v for k, v in header["config"].items()}
    config = QuantizerConfig(**shape)
    books = tree.pop("codebooks")
    fitted = FittedQuantizer(
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
    ARTEFACT.check(path, written=header["version"], read=fitted.version)
    return fitted


def _arrays(book: Codebook | Branches) -> dict[str, Any]:
    return {
        field.name: getattr(book, field.name)
        for field in dataclasses.fields(book)
        if field.metadata.get("pytree_node", True)
    }
