"""A fitted quantizer and its file: what assignment applies and further training starts from."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from dsirm_jax.data.title_types import TitleTypes
from dsirm_jax.io.artefacts import Artefact, version_of
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.kinds import class_name, class_named
from dsirm_jax.quantizer.config import QuantizerConfig
from dsirm_jax.quantizer.kinds.kind import Kind
from dsirm_jax.quantizer.model import Codebooks, LevelCodebook
from dsirm_jax.quantizer.scaling import Scaling

ARTEFACT = Artefact(kind="quantizer", stage="quantize")
HOME = "dsirm_jax.quantizer.kinds"
SCALING = "scaling"
SPREAD = ("kind", "latent_dim", "hidden_dim")
"""Of a configuration in older files: the kind by its old name, and what only the RQ-VAE has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FittedQuantizer:
    """A quantizer of any kind after training.

    Attributes:
      config: its kind and shape.
      dim: width of the dense vectors.
      params: of the encoder and decoder.
      codebooks: one per level.
      names: category of each pinned first code; empty when the first level is not pinned.
      types: how titles become such categories, of which names are; None where categories are of
        the catalogue, or by the first rules, which know `config.title_language` alone.
      scaling: what vectors are centred and scaled by before they are encoded; None: they are not.
    """

    config: QuantizerConfig
    dim: int
    params: Any
    codebooks: Codebooks
    names: tuple[str, ...] = ()
    types: TitleTypes | None = None
    scaling: Scaling | None = None

    @property
    def model(self) -> nn.Module:
        """The Flax module that `params` belong to, with the methods `encode` and `decode`."""
        return self.config.kind.module(dim=self.dim)

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
            "\n".join([str(self.config.beams), *self.names, *_type_lines(self.types)]),
            [
                *jax.tree.leaves(self.params),
                *_identity(self.codebooks),
                *_scaling_arrays(self.scaling).values(),
            ],
        )

    @property
    def title_types(self) -> TitleTypes:
        """How the title of a further item becomes the category that pins its first code."""
        return self.types or TitleTypes(language=self.config.title_language)

    def scaled(self, vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
        """Returns what of vectors is encoded: the same, or centred and scaled."""
        return vectors if self.scaling is None else self.scaling.apply(vectors)


def _type_lines(types: TitleTypes | None) -> list[str]:
    """Returns what of product types decides codes, of a quantizer that has any by later rules."""
    return [] if types is None else [f"types {types.language}", *types.noise]


def _scaling_arrays(scaling: Scaling | None) -> dict[str, np.ndarray]:
    """Returns the arrays of a scaling by name; none of a quantizer without."""
    return {} if scaling is None else {"centre": scaling.centre, "spread": scaling.spread}


def _identity(codebooks: Codebooks) -> list[Any]:
    return [array for book in codebooks for array in book.identity()]


def save(path: str | os.PathLike[str], fitted: FittedQuantizer) -> None:
    """Writes a quantizer as one `safetensors` file, its configuration in the header.

    Args:
      path: where to.
      fitted: the quantizer.
    """
    books = {str(level): _arrays(book) for level, book in enumerate(fitted.codebooks)}
    kind = fitted.config.kind
    settings = dataclasses.asdict(kind) | {"class": class_name(kind, home=HOME)}
    description = {
        "config": dataclasses.asdict(fitted.config) | {"kind": settings},
        "dim": fitted.dim,
        "names": fitted.names,
        **({} if fitted.types is None else {"types": dataclasses.asdict(fitted.types)}),
    }
    tree = {"codebooks": books, **fitted.params}
    if fitted.scaling is not None:
        tree[SCALING] = _scaling_arrays(fitted.scaling)
    ARTEFACT.save(path, tree, description=description, version=fitted.version)


def load(path: str | os.PathLike[str]) -> FittedQuantizer:
    """Reads what `save` wrote, in this version or an earlier one.

    Args:
      path: the file.

    Raises:
      InputError: there is no such file, it holds no quantizer, or not the one it was, or nothing
        has imported the quantizer's kind.
    """
    tree, header = ARTEFACT.load(path)
    try:
        config = _config(header["config"])
    except (TypeError, KeyError, InputError) as error:
        raise InputError(f"{path}: {error}") from error
    books, scaling = tree.pop("codebooks"), tree.pop(SCALING, None)
    fitted = FittedQuantizer(
        config=config,
        dim=header["dim"],
        params=tree,
        codebooks=tuple(
            config.kind.codebook(books[str(level)], level=level, size=size)
            for level, size in enumerate(config.codebook_sizes)
        ),
        names=tuple(header["names"]),
        types=TitleTypes(**_tuples(header["types"])) if "types" in header else None,
        scaling=None if scaling is None else Scaling(**scaling),
    )
    ARTEFACT.check(path, written=header["version"], read=fitted.version)
    return fitted


def _config(fields: Mapping[str, Any]) -> QuantizerConfig:
    if isinstance(fields["kind"], str):  # an older file
        name = "".join(map(str.capitalize, fields["kind"].split("_")))
        settings = {key: fields[key] for key in SPREAD[1:]} if name == "RqVae" else {}
    else:
        settings = dict(fields["kind"])
        name = settings.pop("class")
    kind = class_named(name, home=HOME)
    if not isinstance(kind, Kind):
        raise InputError(f"{name} is no kind of quantizer")
    others = {key: value for key, value in fields.items() if key not in SPREAD}
    return QuantizerConfig(kind=kind(**_tuples(settings)), **_tuples(others))


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }


def _arrays(book: LevelCodebook) -> dict[str, Any]:
    return {
        field.name: getattr(book, field.name)
        for field in dataclasses.fields(book)
        if field.metadata.get("pytree_node", True)
    }
