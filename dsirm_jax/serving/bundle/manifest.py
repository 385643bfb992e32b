"""The manifest of a bundle: what is in it, and what serving has to repeat of training."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import dsirm_jax
from dsirm_jax.data.identity import QueryIdentity
from dsirm_jax.data.item_text import TITLE, ItemText
from dsirm_jax.data.vocabularies.prompt import QUERY, check_prompt
from dsirm_jax.io.checksums import Checksum, sealed, unsealed
from dsirm_jax.io.errors import InputError
from dsirm_jax.io.files import write_json
from dsirm_jax.io.records import from_json
from dsirm_jax.serving.limits import whole

MODEL = "model"
CARD = "README.md"
"""The model card, beside the folders; bundles of earlier versions have none."""
FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1, which JAX 0.10 wrote, does not say how its programs are written."""
FULL, DENSE_ONLY = "full", "dense_only"
"""Names of the heads: that of the full model, and one that knows nothing of SIDs."""
MOST_FILES = 100_000
REMEDY = "copy the bundle again, or export it anew"
NOT_WRITTEN = f"is not what was written; {REMEDY}"
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

    Raises:
      InputError: a number is too small.
    """

    kind: str
    dim: int
    module: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_query_pieces: int = 0
    max_item_pieces: int = 0
    query_prefix: str = ""
    item_prefix: str = ""

    def __post_init__(self) -> None:
        whole("EncoderSettings.dim", self.dim, least=1)
        for name in ("max_query_pieces", "max_item_pieces"):
            whole(f"EncoderSettings.{name}", getattr(self, name), least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleSettings:
    """What the models were fitted with and serving has to repeat.

    Attributes:
      encoder: see `EncoderSettings`.
      generator: see `generator.architectures.description`.
      max_pieces: tokens that the generator reads of a query.
      beams: SIDs that it writes for a query.
      language: of titles and queries, with the rules of their types, see `product_type`; or None.
      groups: feature groups of each head.
      extras: the user's own columns of items, and their Arrow types.
      numbers: those of them that hold numbers, features of the group `numeric`.
      types_from_titles: pinned categories are product types of titles, for the run's items had no
        categories.
      trie: form of each level, `trie.BITMAP` or `trie.RANGES`, which the exported search expects.
      shows_queries: whether anybody may see cached queries, which come from a log, as examples.
      identity: which spellings are one query, by which they are cached; None: of version 0.2, which
        cached every spelling by itself.
      prompt: the text around every query that the generator reads, see `vocabularies.prompt`.
      item_text: what encoder and generator read of an item.
      own_vocabulary: whether the generator has a vocabulary of its own, in `model/vocabulary/`.

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
    shows_queries: bool = False
    identity: QueryIdentity | None = None
    prompt: str = QUERY
    own_vocabulary: bool = False
    item_text: ItemText = TITLE

    def __post_init__(self) -> None:
        for name in ("max_pieces", "beams"):
            whole(f"BundleSettings.{name}", getattr(self, name), least=1)
        check_prompt("BundleSettings.prompt", self.prompt)
        if FULL not in self.groups:
            raise InputError(f"BundleSettings.groups has no {FULL!r}, the head that is served")
        if lacking := sorted(set(self.numbers) - set(self.extras)):
            raise InputError(
                f"BundleSettings.numbers has {lacking[0]!r}, which is no column of "
                f"BundleSettings.extras"
            )
        sizes = self.generator.get("sid_sizes")
        if not (isinstance(sizes, list | tuple) and sizes):
            raise InputError("BundleSettings.generator['sid_sizes'] is no list of sizes")
        for size in sizes:
            whole("BundleSettings.generator['sid_sizes']", size, least=1)
        levels = len(sizes)
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

    Raises:
      InputError: the version of StableHLO is none.
    """

    jax: str
    stablehlo: str
    calling_convention: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9}){0,9}", self.stablehlo, re.ASCII):
            raise InputError(f"Programs.stablehlo is {self.stablehlo!r}, which is no version")


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

    Raises:
      InputError: a number is too small.
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

    def __post_init__(self) -> None:
        for name, least in (("catalogue", 1), ("items", 1), ("queries", 0)):
            whole(f"Manifest.{name}", getattr(self, name), least=least)

    @property
    def catalogue_folder(self) -> str:
        return f"catalogue-{self.catalogue:04d}"

    @property
    def saved_model_folder(self) -> str:
        """TF Serving takes the folder of the greatest number."""
        return f"saved_model/{self.catalogue}"

    @property
    def folders(self) -> tuple[str, ...]:
        """Those that all of the bundle's files are in, but for its `CARD`."""
        return MODEL, self.saved_model_folder, self.catalogue_folder

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes per level."""
        return tuple(self.settings.generator["sid_sizes"])


def _check_inside(names: Collection[str], folders: Sequence[str]) -> None:
    """Raises InputError where one of too many paths, or one that leads out of folders, is given."""
    if len(names) > MOST_FILES:
        raise InputError(f"Manifest.files has {len(names):,}, more than any bundle")
    for name in names:
        parts = name.split("/")
        is_plain = name.isprintable() and "\\" not in name and not {"", ".", ".."} & {*parts}
        is_inside = name == CARD or any(name.startswith(f"{folder}/") for folder in folders)
        if not (is_plain and is_inside):
            raise InputError(
                f"Manifest.files has {ascii(name)[:300]}, which is no file of a bundle"
            )


def package_versions() -> dict[str, str]:
    """Returns the versions of this package and of `PACKAGES`."""
    ours = {"dsirm-jax": dsirm_jax.__version__}
    return ours | {name: importlib.metadata.version(name) for name in PACKAGES}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest with a checksum of its own; the disk has it, or the one before."""
    write_json(path, sealed(dataclasses.asdict(manifest)))


def read_manifest(path: Path) -> Manifest:
    """Reads what `write_manifest` wrote.

    Raises:
      InputError: there is no such file, it is not what was written, of another format, a field is
        not of its type, a path is neither `CARD` nor leads into one of `Manifest.folders`, or JAX
        is too old or too new here for the programs.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the folder of a bundle")
    content = unsealed(path, otherwise=NOT_WRITTEN)
    version = content.get("format")
    if type(version) is not int or not READABLE[0] <= version <= FORMAT:
        raise InputError(
            f"{path}: the bundle has format {version!r}, this version of dsirm reads "
            f"{READABLE[0]} to {FORMAT}; upgrade dsirm here, or export the bundle anew with it"
        )
    try:
        manifest = from_json(Manifest, content, name="the manifest")
        _check_inside(manifest.files, manifest.folders)
    except InputError as error:
        raise InputError(f"{path}: {error}; {REMEDY}") from error
    if manifest.programs is not None:
        check_readable(manifest.programs, where=path)
    return manifest


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
