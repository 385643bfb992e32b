"""Whether the files of a catalogue go together, whatever their checksums say.

What an array refers to has to exist, or the first request that comes by would fail, or read what it
must not. All is read but vectors, texts and terms: a few bytes an item.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.rows import Ragged
from dsirm_jax.serving.bundle import catalogue as files
from dsirm_jax.serving.bundle.cached import record_type
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.manifest import REMEDY, Manifest
from dsirm_jax.sids import trie as tries


def check_catalogue(catalogue: BundleCatalogue, manifest: Manifest) -> None:
    """Checks that a catalogue is the one that a manifest describes.

    Raises:
      InputError: a file of it does not go together with the manifest or another file.
    """
    items, levels, dim = manifest.items, len(manifest.sizes), manifest.settings.encoder.dim
    columns = len(manifest.settings.numbers)
    _check_arrays(
        catalogue.folder,
        {
            files.VECTORS: (catalogue.vectors, np.float32, (items, dim)),
            files.NUMBERS: (catalogue.numbers, np.float64, (items, columns)),
            files.LOG_SHARES: (catalogue.log_shares, np.float32, (items, levels)),
            files.CATEGORIES: (catalogue.categories, np.int32, (items,)),
        },
    )
    _check_rows(catalogue, manifest)
    _check_sids(catalogue, manifest)
    _check_digests(catalogue)
    _check_voters(catalogue, dim=dim)
    holds = catalogue.record == _records_like(catalogue.record, manifest)
    _check(catalogue.folder / files.RECORD, holds)


def _records_like(record: np.dtype, manifest: Manifest) -> np.dtype | None:
    """Returns the type of records with as many neighbours and SIDs as a given one."""
    try:
        near, voters, known = (record[name].shape[0] for name in ("near", "voters", "keys"))
    except (KeyError, IndexError):
        return None
    return record_type(
        dim=manifest.settings.encoder.dim,
        beams=manifest.settings.beams,
        levels=len(manifest.sizes),
        near=near,
        voters=voters,
        known=known,
    )


def _check_arrays(folder: Path, arrays: dict[str, tuple[np.ndarray, Any, tuple[int, ...]]]) -> None:
    for name, (array, type_, shape) in arrays.items():
        _check(folder / name, array.dtype == type_ and array.shape == shape)


def _check_rows(catalogue: BundleCatalogue, manifest: Manifest) -> None:
    folder, items = catalogue.folder, manifest.items
    _check(folder / files.IDS, len(catalogue.ids) == items)
    _check(folder / files.ITEMS, len(catalogue.stored) == items)
    # Version 0.2 counted a query that is longer than a key and did not keep it.
    _check(folder / files.QUERIES, len(catalogue.queries) <= manifest.queries)
    _check(folder / files.CATEGORIES, _within(catalogue.categories, files.UNKNOWN, items))


def _check_sids(catalogue: BundleCatalogue, manifest: Manifest) -> None:
    folder, sids, sizes = catalogue.folder, catalogue.sids, manifest.sizes
    is_table = sids.dtype in (np.uint16, np.int32) and sids.shape == (manifest.items, len(sizes))
    holds = is_table and all(
        _within(codes, 0, size) for codes, size in zip(sids.T, sizes, strict=True)
    )
    _check(folder / files.SIDS, holds)
    trie = catalogue.trie
    forms = manifest.settings.trie
    _check(folder / files.TRIE, trie.sizes == sizes and tries.forms(trie) == forms)
    rows, starts = catalogue.postings.rows, catalogue.postings.starts
    leaves = int(trie.levels[-1].bounds()[-1])
    holds = len(rows) == manifest.items and len(starts) == leaves + 1
    holds = holds and _within(rows, 0, len(rows)) and _ascends(starts, to=len(rows))
    _check(folder / files.POSTINGS, holds)


def _check_digests(catalogue: BundleCatalogue) -> None:
    folder, items = catalogue.folder / files.DIGESTS, len(catalogue)
    (pieces, counts, lengths, folded), terms = catalogue.digests
    ragged: dict[str, Ragged] = {"pieces": pieces, "folded": folded, "terms": terms}
    for name, (starts, values) in ragged.items():
        holds = len(starts) == items + 1 and _ascends(starts, to=len(values))
        _check(folder / f"{name}_starts.bin", holds)
    _check(folder / "counts.bin", len(counts) == len(pieces.values))
    _check(folder / "lengths.bin", len(lengths) == items)
    documents, with_piece, mean_length = catalogue.statistics.pieces
    holds = with_piece.ndim == 1 and np.issubdtype(with_piece.dtype, np.integer)
    holds = holds and documents == items and mean_length > 0
    holds = holds and _within(with_piece, 0, documents + 1)
    _check(catalogue.folder / files.STATISTICS, holds)
    _check(folder / "pieces.bin", _within(pieces.values, 0, len(with_piece)))


def _check_voters(catalogue: BundleCatalogue, *, dim: int) -> None:
    vectors, (judged, verdicts) = catalogue.voters
    holds = vectors.dtype == verdicts.dtype == np.float32 and judged.dtype == np.int32
    holds = holds and vectors.ndim == judged.ndim == 2 and vectors.shape[1] == dim
    holds = holds and judged.shape == verdicts.shape and len(judged) == len(vectors) > 0
    _check(catalogue.folder / files.VOTERS, holds and _within(judged, 0, len(catalogue)))


def _within(values: np.ndarray, least: int, end: int) -> bool:
    """Returns whether whole numbers are at least `least` and below `end`."""
    return not values.size or (int(values.min()) >= least and int(values.max()) < end)


def _ascends(starts: np.ndarray, *, to: int) -> bool:
    """Returns whether numbers go from 0 up to one."""
    rises = starts.ndim == 1 and bool((starts[1:] >= starts[:-1]).all())
    return rises and int(starts[0]) == 0 and int(starts[-1]) == to


def _check(path: Path, holds: bool) -> None:
    if not holds:
        raise InputError(f"{path} does not fit the rest of the bundle; {REMEDY}")
