"""Keys and values of cached queries in a shared store.

A key is `dsirm:VERSION:` and the query's identity, see `store.key`. A value, little-endian:

| bytes | |
| --- | --- |
| 8 | `LAYOUT` |
| 16 | version |
| 4 | CRC-32 of all other bytes |
| 4 | bytes of the record |
| | the record, see `cached.record_type` |
| | the text, UTF-8 |

The version hashes all that a record is made of or refers to, so that what was written for other
models or another catalogue has other keys, and is no value under these.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from pathlib import Path

import numpy as np

from dsirm_jax.data.identity import PLAIN, QueryIdentity
from dsirm_jax.relevance.nearest.lists import lists_file
from dsirm_jax.relevance.nearest.search import ITEMS, VOTERS
from dsirm_jax.serving.bundle import catalogue as files
from dsirm_jax.serving.bundle import store
from dsirm_jax.serving.bundle.cached import NO_KEY, Cached, unpacked
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.manifest import MODEL
from dsirm_jax.serving.queries.table import CachedRow

LAYOUT = b"dsirmQ\x00\x01"
PREFIX = b"dsirm:"
VERSION_BYTES = 16
HEAD, LENGTH = struct.Struct(f"<{len(LAYOUT)}s{VERSION_BYTES}sI"), struct.Struct("<I")
REFERRED = (files.VECTORS, files.SIDS, files.TRIE, files.VOTERS)
"""Files of a catalogue whose rows and SIDs records are made of."""
LISTS = tuple(lists_file(Path(), name).name for name in (ITEMS, VOTERS))
"""Further ones, which decide which items and training queries are found near."""
SETTINGS = ("encoder", "generator", "max_pieces", "beams", "prompt", "own_vocabulary")
"""Those of the manifest that decide what models make of a query."""
NOT_ASKED = (f"{MODEL}/head-", ".stablehlo")
"""Where the names of files of models begin or end that no record is made of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Values:
    """How the cached queries of a bundle are written and read.

    Attributes:
      version: see the module.
      record: type of a record.
      identity: of queries.
      catalogue: what records refer to.
    """

    version: bytes
    record: np.dtype
    identity: QueryIdentity
    catalogue: BundleCatalogue

    @classmethod
    def of(cls, bundle: Bundle) -> Values:
        """Returns those of a bundle as it is open."""
        catalogue = bundle.catalogue
        return cls(
            version=version_of(bundle),
            record=catalogue.record,
            identity=catalogue.identity or PLAIN,
            catalogue=catalogue,
        )

    @property
    def prefix(self) -> bytes:
        """What all keys begin with."""
        return PREFIX + self.version.hex().encode() + b":"

    def key(self, query: str) -> bytes:
        """Returns the key of a query, which has been cleaned, by any of its spellings."""
        return self.prefix + store.key(self.identity.of(query))

    def value(self, text: str, record: np.void) -> bytes:
        """Returns the value of a query, by the spelling under which it is cached."""
        row = record.tobytes()
        rest = LENGTH.pack(len(row)) + row + text.encode()
        return HEAD.pack(LAYOUT, self.version, _checksum(self.version, rest)) + rest

    def row(self, query: str, value: bytes) -> CachedRow | None:
        """Returns what a value says of a query; None where it is not what was written for it."""
        if len(value) < HEAD.size + LENGTH.size:
            return None
        layout, version, checksum = HEAD.unpack_from(value)
        (length,) = LENGTH.unpack_from(value, HEAD.size)
        start = HEAD.size + LENGTH.size
        if (layout, version, length) != (LAYOUT, self.version, self.record.itemsize):
            return None
        if checksum != _checksum(version, value[HEAD.size :]) or len(value) <= start + length:
            return None
        try:
            text = value[start + length :].decode()
        except UnicodeDecodeError:
            return None
        cached = unpacked(np.frombuffer(value, self.record, count=1, offset=start))
        is_whole = _is_finite(cached) and self.catalogue.has_all_of(cached)
        return CachedRow(text, cached) if is_whole and self.key(text) == self.key(query) else None


def version_of(bundle: Bundle) -> bytes:
    """Returns what names all that the cached queries of a bundle are made of, `VERSION_BYTES`."""
    manifest = bundle.manifest
    folder = manifest.catalogue_folder
    referred = [*REFERRED, *(name for name in LISTS if f"{folder}/{name}" in manifest.files)]
    made_of = {
        name: checksum.sha256
        for name, checksum in manifest.files.items()
        if name.startswith(f"{MODEL}/")
        and not (name.startswith(NOT_ASKED[0]) or name.endswith(NOT_ASKED[1]))
    } | {name: manifest.files[f"{folder}/{name}"].sha256 for name in referred}
    settings = {name: getattr(manifest.settings, name) for name in SETTINGS}
    described = {
        "layout": LAYOUT.hex(),
        "record": bundle.catalogue.record.descr,
        "sid_version": manifest.sid_version,
        "identity": dataclasses.asdict(bundle.catalogue.identity or PLAIN),
        "settings": settings | {"encoder": dataclasses.asdict(manifest.settings.encoder)},
        "files": made_of,
    }
    canonical = json.dumps(described, sort_keys=True, default=dict)
    return hashlib.sha256(canonical.encode()).digest()[:VERSION_BYTES]


def _checksum(version: bytes, rest: bytes) -> int:
    return zlib.crc32(rest, zlib.crc32(LAYOUT + version))


def _is_finite(cached: Cached) -> bool:
    """Returns whether features are made of numbers; neighbours that are too few have −inf."""
    known = cached.known.log_probs[cached.known.keys != NO_KEY]
    cosines = np.concatenate([cached.items.cosine, cached.queries.cosine], axis=1)
    numbers = (cached.vectors, known, np.maximum(cosines, -1))
    return all(bool(np.isfinite(part).all()) for part in numbers)
