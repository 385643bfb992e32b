"""The manifest of a bundle: what is in it, and what serving has to repeat of training."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dsirm_jax
from dsirm_jax.io.checksums import Checksum, sealed, unsealed
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import replacing, sync
from dsirm_jax.serving.limits import whole

MODEL = "model"
FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1, which JAX 0.10 wrote, does not say how its programs are written."""
FULL, DENSE_ONLY = "full", "dense_only"
"""Names of the heads: that of the full model, and one that knows nothing of SIDs."""
PACKAGES = ("jax", "flax", "numpy", "orbax-checkpoint", "lmdb", "tensorflow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureColumn:
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
class EncoderSettings:
    """How texts become vectors.

    Attributes:
      kind: see `models.encoder_kind`; or `models.NONE`: vectors came from tables of the user's own,
        and a text that is not among the cached queries has none.
      dim: width of the vectors.
      module: what the kind makes its Flax module of.
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
class BundleSettings:
    """What the models were fitted with and serving has to repeat.

    Attributes:
      encoder: see `EncoderSettings`.
      generator: see `generator.architectures.description`.
      max_pieces: tokens that the generator reads of a query.
      beams: SIDs that it writes for a query.
      language: of titles and queries, ISO 639-1, or None.
      groups: feature groups of each head.
      extras: the user's own columns of items, and their Arrow types.
      numbers: those of them that hold numbers, features of the group `numeric`.
      types_from_titles: pinned categories are product types of titles, for the run's items had no
        categories.
      trie: form of each level, `trie.BITMAP` or `trie.RANGES`, which the exported search expects.

    Raises:
      InputError: two of them contradict each other, or a number is too small.
    """

    encoder: EncoderSettings
    generator: Mapping[str, Any]
    max_pieces: int
    beams: int
    language: str | None
    groups: Mapping[str, tuple[str, ...]]
    extras: Mapping[str, str]
    numbers: tuple[str, ...]
    types_from_titles: bool
    trie: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("max_pieces", "beams"):
            whole(f"BundleSettings.{name}", getattr(self, name), least=1)
        if FULL not in self.groups:
            raise InputError(f"BundleSettings.groups has no {FULL!r}, the head that is served")
        if lacking := sorted(set(self.numbers) - set(self.extras)):
            raise InputError(
                f"BundleSettings.numbers has {lacking[0]!r}, which is no column of "
                f"BundleSettings.extras"
            )
        levels = len(self.generator["sid_sizes"])
        if len(self.trie) != levels:
            raise InputError(
                f"BundleSettings.trie has {len(self.trie)} forms; give one for each of the "
                f"{levels} levels of generator['sid_sizes']"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
    """How the programs of a bundle are written.

    Attributes:
      jax: version that wrote them.
      stablehlo: version of StableHLO.
      calling_convention: version of JAX's convention of arguments and results.
    """

    jax: str
    stablehlo: str
    calling_convention: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
      format: of the bundle, `FORMAT`.
      packages: version of each package that wrote it.
      programs: how its programs are written; None in format 1.
      sid_version: of all SIDs in it, see `sids.codes.SidTable`.
      stages: fingerprint of each stage that it was made from.
      settings: see `BundleSettings`.
      features: of each head, in the order in which it reads them.
      catalogue: number of the catalogue in force.
      items: in that catalogue.
      queries: cached in that catalogue.
      files: all files of the bundle by path, the manifest itself left out.
    """

    format: int = FORMAT
    packages: Mapping[str, str]
    programs: Programs | None = None
    sid_version: str
    stages: Mapping[str, str]
    settings: BundleSettings
    features: Mapping[str, tuple[FeatureColumn, ...]]
    catalogue: int
    items: int
    queries: int
    files: Mapping[str, Checksum]

    @property
    def catalogue_folder(self) -> str:
        return f"catalogue-{self.catalogue:04d}"

    @property
    def saved_model_folder(self) -> str:
        """TF Serving takes the folder of the greatest number."""
        return f"saved_model/{self.catalogue}"

    @property
    def folders(self) -> tuple[str, ...]:
        """Those that all of the bundle's files are in."""
        return MODEL, self.saved_model_folder, self.catalogue_folder

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(self.settings.generator["sid_sizes"])


def package_versions() -> dict[str, str]:
    """Returns the versions of this package and of `PACKAGES`."""
    ours = {"dsirm-jax": dsirm_jax.__version__}
    return ours | {name: importlib.metadata.version(name) for name in PACKAGES}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest with a checksum of its own; the disk has it, or the one before."""
    with replacing(path) as partial:
        content = json.dumps(sealed(dataclasses.asdict(manifest)), indent=2)
        partial.write_text(f"{content}\n", encoding="utf-8")
        sync(partial)
    sync(path.parent)


def read_manifest(path: Path) -> Manifest:
    """Reads what `write_manifest` wrote.

    Raises:
      InputError: there is no such file, it is not what was written, of another format, or JAX is
        too old or too new here for the programs.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the folder of a bundle")
    content = unsealed(path, otherwise="is not what was written; export the bundle anew")
    if content["format"] not in READABLE:
        raise InputError(
            f"{path}: the bundle has format {content['format']}, this version of dsirm reads "
            f"{READABLE[0]} to {FORMAT}; upgrade dsirm here, or export the bundle anew with it"
        )
    if programs := content.pop("programs", None):
        content["programs"] = Programs(**programs)
        check_readable(content["programs"], where=path)
    settings = content["settings"]
    return Manifest(
        **content
        | {
            "settings": BundleSettings(
                **settings
                | {
                    "encoder": EncoderSettings(**settings["encoder"]),
                    "groups": {head: tuple(names) for head, names in settings["groups"].items()},
                    "numbers": tuple(settings["numbers"]),
                    "trie": tuple(settings["trie"]),
                }
            ),
            "features": {
                head: tuple(FeatureColumn(**column) for column in columns)
                for head, columns in content["features"].items()
            },
            "files": {name: Checksum(**known) for name, known in content["files"].items()},
        }
    )


def check_readable(programs: Programs, *, where: str | Path) -> None:
    """Raises InputError where JAX cannot read programs here, and says which side to upgrade.

    Args:
      programs: how they are written.
      where: the file that says so.
    """
    import jax
    from jax import export
    from jax.extend.mlir.dialects import stablehlo

    written = (
        f"{where}: its programs, StableHLO {programs.stablehlo} with calling convention "
        f"{programs.calling_convention}, were written by jax {programs.jax}; jax "
        f"{jax.__version__} reads"
    )
    version = _numbers(programs.stablehlo)
    newest, oldest = stablehlo.get_current_version(), stablehlo.get_minimum_version()
    most = export.maximum_supported_calling_convention_version
    least = export.minimum_supported_calling_convention_version
    if version > _numbers(newest) or programs.calling_convention > most:
        raise InputError(f"{written} up to {newest} and {most}: upgrade jax here to {programs.jax}")
    if version < _numbers(oldest) or programs.calling_convention < least:
        raise InputError(f"{written} from {oldest} and {least} on: export the bundle anew with it")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
