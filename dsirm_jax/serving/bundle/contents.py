"""The bundle: a folder that can be copied anywhere.

    manifest.json     the commit point: what is not named there does not count, see `manifest`
    model/            parameters (Orbax), heads, quantizer, vocabulary, StableHLO; never changes
    saved_model/1/    the same for TensorFlow and TF Serving
    catalogue-0001/   items, queries and what is derived of them, see `catalogue`

`update` writes a new catalogue beside the old one and then replaces the manifest, so that whoever
has the old one open keeps it. docs/contract.md names all files.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dsirm_jax.io.errors import InputError
from dsirm_jax.serving.bundle.manifest import File, Manifest, read_manifest, write_manifest

if TYPE_CHECKING:
    from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
    from dsirm_jax.serving.bundle.models import Models

MANIFEST = "manifest.json"
MODEL = "model"


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

        return BundleCatalogue.open(self.path / self.manifest.catalogue_folder)

    @functools.cached_property
    def models(self) -> Models:
        """Encoder, generator, heads and vocabulary, in memory."""
        from dsirm_jax.serving.bundle.models import read_models

        return read_models(self.model, manifest=self.manifest)


def open_bundle(path: str | Path, *, verify: bool = False) -> Bundle:
    """Opens a bundle. Nothing but the manifest is read yet.

    Args:
      path: its folder.
      verify: also compare the contents of all files with the manifest, which reads them all; that
        all are there, with the right size, is looked at in any case.

    Raises:
      InputError: there is no bundle, or one of its files is missing or not what was written.
    """
    path = Path(path)
    manifest = read_manifest(path / MANIFEST)
    faults = damaged_files(path, manifest.files, contents=verify)
    if faults:
        more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{more}; copy the bundle again, or export it anew")
    return Bundle(path=path, manifest=manifest)


def damaged_files(path: Path, files: Mapping[str, File], *, contents: bool) -> list[str]:
    """Returns what is wrong with files, one line each that begins with the file's path.

    Args:
      path: of the bundle.
      files: as its manifest has them.
      contents: compare their contents too, and not only their sizes.
    """
    faults = []
    for name, known in files.items():
        file = path / name
        if not file.is_file():
            faults.append(f"{file} is missing")
        elif (size := file.stat().st_size) != known.bytes:
            faults.append(f"{file} has {size:,} bytes instead of {known.bytes:,}")
    if contents and not faults:
        for name, actual in checksums(path, files).items():
            if actual != files[name]:
                faults.append(f"{path / name} is not what was written")
    return faults


def checksums(path: Path, names: Iterable[str]) -> dict[str, File]:
    """Returns size and checksum of files, given by their paths below `path`."""
    names = sorted(names)
    with ThreadPoolExecutor() as threads:
        return dict(zip(names, threads.map(_describe, (path / name for name in names))))


def seal_bundle(path: Path, manifest: Manifest) -> None:
    """Writes a bundle's manifest with the checksums of all its files.

    Args:
      path: of the bundle.
      manifest: its contents; the files that it names already are not read again.
    """
    from dsirm_jax.io.storage import files_below

    folders = (MODEL, manifest.saved_model_folder, manifest.catalogue_folder)
    files = (file for folder in folders for file in files_below(str(path / folder)))
    names = sorted(Path(file).relative_to(path).as_posix() for file in files)
    new = checksums(path, (name for name in names if name not in manifest.files))
    sealed = {name: new.get(name) or manifest.files[name] for name in names}
    write_manifest(path / MANIFEST, dataclasses.replace(manifest, files=sealed))


def _describe(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(bytes=file.tell(), sha256=digest)
