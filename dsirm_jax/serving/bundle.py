"""The bundle: a folder that can be copied anywhere, and the manifest that says what is in it.

    manifest.json     the commit point: what is not named there does not count
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
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dsirm_jax
from dsirm_jax.errors import InputError
from dsirm_jax.files import write_text

if TYPE_CHECKING:
    from dsirm_jax.serving.catalogue import Catalogue
    from dsirm_jax.serving.models import Models

FORMAT = 1
MANIFEST = "manifest.json"
MODEL = "model"
FULL, DENSE_ONLY = "full", "dense_only"
"""Names of the heads: that of the full model, and one that knows nothing of SIDs."""
PACKAGES = ("jax", "flax", "numpy", "orbax-checkpoint", "lmdb", "tensorflow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """What the manifest knows of a file.

    Attributes:
      bytes: its size.
      sha256: of its contents, hexadecimal.
    """

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """A column that a head reads.

    Attributes:
      name: of the column.
      group: that it belongs to.
      about: what it is, in one line.
    """

    name: str
    group: str
    about: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """How texts become vectors.

    Attributes:
      kind: `models.TOWERS`, `models.BERT`, or `models.NONE`: vectors came from tables of the
        user's own, and a text that is not among the cached queries has none.
      dim: width of the vectors.
      module: arguments of the Flax module.
      max_query_pieces: pieces read of a query.
      max_item_pieces: pieces read of an item's text.
      query_prefix: precedes every query.
      item_prefix: precedes every item's text.
    """

    kind: str
    dim: int
    module: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_query_pieces: int = 0
    max_item_pieces: int = 0
    query_prefix: str = ""
    item_prefix: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the models were fitted with and serving has to repeat.

    Attributes:
      encoder: see `Encoder`.
      generator: fields of `generator.model.T5Config`.
      max_pieces: tokens that the generator reads of a query.
      beams: SIDs that it writes for a query.
      language: of titles and queries, ISO 639-1, or None.
      groups: feature groups of each head.
      extras: the user's own columns of items, and their Arrow types.
      numbers: those of them that hold numbers, features of the group `numeric`.
      types_from_titles: pinned categories are product types of titles, for the run's items had no
        categories.
      trie: form of each level, `trie.BITMAP` or `trie.RANGES`, which the exported search expects.
    """

    encoder: Encoder
    generator: Mapping[str, Any]
    max_pieces: int
    beams: int
    language: str | None
    groups: Mapping[str, tuple[str, ...]]
    extras: Mapping[str, str]
    numbers: tuple[str, ...]
    types_from_titles: bool
    trie: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
      format: of the bundle, `FORMAT`.
      packages: version of each package that wrote it.
      sid_version: of all SIDs in it, see `sids.codes.SidTable`.
      stages: fingerprint of each stage that it was made from.
      settings: see `Settings`.
      features: of each head, in the order in which it reads them.
      catalogue: number of the catalogue in force.
      items: in that catalogue.
      queries: cached in that catalogue.
      files: all files of the bundle by path, the manifest itself left out.
    """

    format: int = FORMAT
    packages: Mapping[str, str]
    sid_version: str
    stages: Mapping[str, str]
    settings: Settings
    features: Mapping[str, tuple[Feature, ...]]
    catalogue: int
    items: int
    queries: int
    files: Mapping[str, File]

    @property
    def catalogue_folder(self) -> str:
        return f"catalogue-{self.catalogue:04d}"

    @property
    def saved_model_folder(self) -> str:
        """TF Serving takes the folder of the greatest number."""
        return f"saved_model/{self.catalogue}"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(self.settings.generator["sid_sizes"])


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
    def catalogue(self) -> Catalogue:
        """Items and queries, mapped into memory."""
        from dsirm_jax.serving.catalogue import Catalogue

        return Catalogue.open(self.path / self.manifest.catalogue_folder)

    @functools.cached_property
    def models(self) -> Models:
        """Encoder, generator, heads and vocabulary, in memory."""
        from dsirm_jax.serving.models import read_models

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
    faults = damage(path, manifest.files, contents=verify)
    if faults:
        more = f" (and {len(faults) - 1} more files)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{more}; copy the bundle again, or export it anew")
    return Bundle(path=path, manifest=manifest)


def damage(path: Path, files: Mapping[str, File], *, contents: bool) -> list[str]:
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
        for name, found in described(path, files).items():
            if found != files[name]:
                faults.append(f"{path / name} is not what was written")
    return faults


def described(path: Path, names: Iterable[str]) -> dict[str, File]:
    """Returns size and checksum of files, given by their paths below `path`."""
    names = sorted(names)
    with ThreadPoolExecutor() as threads:
        return dict(zip(names, threads.map(_describe, (path / name for name in names))))


def files_below(path: Path, *folders: str) -> list[str]:
    """Returns the paths, below `path`, of all files in some of its folders."""
    found = (file for folder in folders for file in (path / folder).rglob("*"))
    return sorted(file.relative_to(path).as_posix() for file in found if file.is_file())


def seal(path: Path, manifest: Manifest) -> None:
    """Writes a bundle's manifest with the checksums of all its files.

    Args:
      path: of the bundle.
      manifest: what it says; the files that it names already are not read again.
    """
    folders = (MODEL, manifest.saved_model_folder, manifest.catalogue_folder)
    names = files_below(path, *folders)
    new = described(path, (name for name in names if name not in manifest.files))
    files = {name: new.get(name) or manifest.files[name] for name in names}
    write_manifest(path / MANIFEST, dataclasses.replace(manifest, files=files))


def package_versions() -> dict[str, str]:
    """Returns the versions of this package and of `PACKAGES`."""
    ours = {"dsirm-jax": dsirm_jax.__version__}
    return ours | {name: importlib.metadata.version(name) for name in PACKAGES}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest, whole or not at all, with a checksum of its own."""
    content = dataclasses.asdict(manifest)
    sealed = {"checksum": _checksum(content)} | content
    write_text(path, json.dumps(sealed, indent=2) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Reads what `write_manifest` wrote.

    Raises:
      InputError: there is no such file, it is not what was written, or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seal = content.pop("checksum")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; name the folder of a bundle") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is not what was written; export the bundle anew") from error
    if seal != _checksum(content):
        raise InputError(f"{path} is not what was written; export the bundle anew")
    if content["format"] != FORMAT:
        raise InputError(
            f"{path}: the bundle has format {content['format']}, this version of dsirm reads "
            f"{FORMAT}; export it anew"
        )
    settings = content["settings"]
    return Manifest(
        **content
        | {
            "settings": Settings(
                **settings
                | {
                    "encoder": Encoder(**settings["encoder"]),
                    "groups": {head: tuple(of) for head, of in settings["groups"].items()},
                    "numbers": tuple(settings["numbers"]),
                    "trie": tuple(settings["trie"]),
                }
            ),
            "features": {
                head: tuple(Feature(**feature) for feature in of)
                for head, of in content["features"].items()
            },
            "files": {name: File(**known) for name, known in content["files"].items()},
        }
    )


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _describe(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return File(bytes=file.tell(), sha256=digest)
