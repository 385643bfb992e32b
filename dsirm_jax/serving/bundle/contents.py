"""The bundle: a folder that can be copied anywhere.

    manifest.json     the commit point: what is not named there does not count, see `manifest`
    README.md         the model card; never changes
    model/            parameters (Orbax), heads, quantizer, vocabulary, StableHLO; never changes
    saved_model/1/    the same for TensorFlow and TF Serving
    catalogue-0001/   items, queries and what is derived of them, see `catalogue`

`update` writes a new catalogue beside the old one and then replaces the manifest, so that whoever
has the old one open keeps it. docs/contract.md names all files.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from dsirm_jax.io.checksums import checksums, faults, summary
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import sync
from dsirm_jax.serving.bundle.manifest import (
    CARD,
    MODEL,
    REMEDY,
    Manifest,
    read_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
    from dsirm_jax.serving.bundle.models import Models

MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """An open bundle.

    Attributes:
      path: its folder.
      manifest: as it was when the bundle was opened.
    """

    path: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        """The folder of the models."""
        return self.path / MODEL

    @functools.cached_property
    def catalogue(self) -> BundleCatalogue:
        """Items and queries, mapped into memory."""
        from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
        from dsirm_jax.serving.bundle.consistency import check_catalogue

        catalogue = BundleCatalogue.open(
            self.path / self.manifest.catalogue_folder, identity=self.manifest.settings.identity
        )
        check_catalogue(catalogue, self.manifest)
        return catalogue

    @functools.cached_property
    def models(self) -> Models:
        """Encoder, generator, heads and vocabulary, in memory."""
        from dsirm_jax.serving.bundle.models import read_models

        return read_models(self.model, manifest=self.manifest)


def open_bundle(path: str | Path, *, trust: bool = False) -> Bundle:
    """Opens a bundle, of which nothing but checksums has been computed then.

    Args:
      path: its folder.
      trust: takes the contents of files for what was written; that all are there, with the right
        size, and no others, is looked at in any case. Otherwise all are read once and compared
        with the manifest.

    Raises:
      InputError: there is no bundle; one of its files is missing, not what was written or none of
        those that were written; or it or its folder is a symbolic link.
    """
    path = Path(path)
    if (path / MANIFEST).is_symlink():
        raise _linked(path / MANIFEST)
    manifest = read_manifest(path / MANIFEST)
    present = sealed_files(path, manifest)
    if wrong := faults(path, manifest.files, present=present, contents=not trust):
        raise InputError(f"{summary(wrong)}; {REMEDY}")
    return Bundle(path=path, manifest=manifest)


def sealed_files(path: Path, manifest: Manifest) -> list[str]:
    """Returns the files of a bundle that its manifest names or has to, by their paths below it.

    A README that it does not name is somebody else's, as in a bundle of an earlier version.

    Args:
      path: of the bundle.
      manifest: its contents.

    Raises:
      InputError: see `files_in`.
    """
    card = [CARD] if CARD in manifest.files else []
    if card and (path / CARD).is_symlink():
        raise _linked(path / CARD)
    return [*card, *files_in(path, manifest.folders)]


def files_in(path: Path, folders: Sequence[str]) -> list[str]:
    """Returns the files in some folders of a bundle, by their paths below it.

    Args:
      path: of the bundle.
      folders: by their paths below it.

    Raises:
      InputError: one of them, or what is in it, is a symbolic link, which leads out of the bundle
        or will when it is copied.
    """
    names = []
    for folder in folders:
        places = {folder, *map(str, PurePosixPath(folder).parents)} - {"."}
        for current, below, files in os.walk(path / folder):
            here = PurePosixPath(Path(current).relative_to(path).as_posix())
            places.update(str(here / name) for name in (*below, *files))
            names += [str(here / name) for name in files]
        for place in sorted(places):
            if (path / place).is_symlink():
                raise _linked(path / place)
    return sorted(names)


def _linked(place: Path) -> InputError:
    return InputError(f"{place} is a symbolic link; copy the bundle so that it has files in place")


def seal_bundle(path: Path, manifest: Manifest) -> None:
    """Writes a bundle's manifest with the checksums of all its files, once the disk has these.

    Args:
      path: of the bundle.
      manifest: its contents; the files that it names already are not read again.
    """
    names = sealed_files(path, manifest)
    new = [name for name in names if name not in manifest.files]
    places = {place for name in new for place in (path / name, *(path / name).parents)}
    for place in places - {*path.parents}:
        sync(place)
    known = dict(manifest.files) | checksums(path, new)
    files_sealed = {name: known[name] for name in names}
    write_manifest(path / MANIFEST, dataclasses.replace(manifest, files=files_sealed))
