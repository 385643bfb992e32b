"""Changes to the items and queries of a bundle that is being read.

A new catalogue is written beside the old one, and the manifest is replaced last: until then the
bundle is the old one, and who has that open keeps it. Nothing is trained and no program exported:
items get vectors and SIDs from the bundle's own encoder and quantizer.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from dsirm_jax.data.identity import PLAIN
from dsirm_jax.data.schema import RAW_ITEMS
from dsirm_jax.ingestion.query_files import check_given, read_query_file
from dsirm_jax.io import lock
from dsirm_jax.io.errors import InputError
from dsirm_jax.relevance.nearest.build import QUERIES, told, updated, without
from dsirm_jax.relevance.nearest.exact import Exact
from dsirm_jax.relevance.nearest.lists import Listed, lists_file, save
from dsirm_jax.relevance.nearest.search import ITEMS, VOTERS, Search
from dsirm_jax.serving import caching, changed_items
from dsirm_jax.serving.bundle import catalogue as catalogues
from dsirm_jax.serving.bundle import contents as bundles
from dsirm_jax.serving.bundle.cached import NO_KEY, Cached, unpacked
from dsirm_jax.serving.bundle.catalogue import BundleCatalogue
from dsirm_jax.serving.bundle.contents import Bundle
from dsirm_jax.serving.bundle.known import QuerySidPairs, of_beams, of_near
from dsirm_jax.serving.bundle.manifest import Manifest, package_versions
from dsirm_jax.serving.changes import Changes, in_blocks, read_changes
from dsirm_jax.serving.formats import saved_model
from dsirm_jax.sids import codes
from dsirm_jax.sids import trie as tries

log = logging.getLogger(__name__)
LOCK = "update.lock"
"""File of a bundle, none of those that are sealed, that says who updates it or did last."""


def update(
    path: Path,
    *,
    items: str | None = None,
    removed: str | None = None,
    queries: str | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    category_separator: str | None = None,
    category_list_separator: str | None = None,
) -> None:
    """Adds, changes and removes items of a bundle, and adds cached queries.

    An item whose id is there already becomes what its row says, with a vector and SID of its own;
    of rows that share an id the last one counts, as in `prepare`. Cached queries stay, with the
    SIDs and neighbours that they have now. Where all is as it was nothing is written.

    Args:
      path: of the bundle.
      items: a table of items, Parquet, CSV, TSV or JSON lines, under the names of
        `schema.RAW_ITEMS` and of the run's own columns; where the bundle has no encoder Parquet
        with a column `vector`.
      removed: a table with a column `item_id` of the items that go, and perhaps others.
      queries: a table with a column `query`, and `vector` likewise.
      columns: our column name to that of the files, where they differ.
      category_separator: between the levels of a category path, see `categories.paths_of`.
      category_list_separator: between several paths of one item, likewise.

    Raises:
      InputError: a file of the bundle is not what was written; a file cannot be read or has rows
        that are no items or queries; an item is to be changed and to go, or all are to go; or
        another update of the bundle is under way.
    """
    if not (items or removed or queries):
        raise InputError("nothing to do: give --items=FILE, --remove=FILE or --queries=FILE")
    check_given(columns, wanted=("query", *RAW_ITEMS.names))
    if not (path / bundles.MANIFEST).is_file():  # where there is no bundle nothing is written
        raise InputError(f"{path / bundles.MANIFEST}: no such file; name the folder of a bundle")
    with lock.held(path / LOCK, what=f"bundle {path}"):
        # What is read or taken over is what was written, for it gets new checksums.
        bundle = bundles.open_bundle(path)
        _remove_leftovers(path, bundle.manifest)
        changes = read_changes(
            bundle,
            items=items,
            removed=removed,
            columns={ours: users for ours, users in columns.items() if ours != "query"},
            separators={"separator": category_separator, "several": category_list_separator},
        )
        texts, query_vectors = _read_new_queries(bundle, queries, column=columns.get("query"))
        if changes.are_none and not texts:
            log.info("%s: all is there already, and nothing is written", path)
            return
        manifest = dataclasses.replace(
            bundle.manifest,
            catalogue=bundle.manifest.catalogue + 1,
            items=int(changes.kept.sum()) + len(changes.new.sids),
            settings=dataclasses.replace(
                bundle.manifest.settings,
                identity=bundle.manifest.settings.identity or PLAIN,
            ),
            packages=package_versions(),
        )
        manifest = dataclasses.replace(
            manifest,
            queries=_write_catalogue(
                bundle, manifest, changes=changes, texts=texts, query_vectors=query_vectors
            ),
        )
        changed = Bundle(path=path, manifest=manifest)
        # TF Serving takes what has a number for a name as soon as it is there.
        partial = path / "saved_model" / f"partial-{manifest.catalogue}"
        saved_model.with_catalogue(
            path / bundle.manifest.saved_model_folder, changed.catalogue, into=partial
        )
        partial.rename(path / manifest.saved_model_folder)
        bundles.seal_bundle(path, manifest)
        log.info("%s: %s items, %s cached queries", path, manifest.items, manifest.queries)
        _remove_leftovers(path, manifest)


def _remove_leftovers(path: Path, manifest: Manifest) -> None:
    """Removes what an update that was killed left, and catalogues before the previous one."""
    previous = dataclasses.replace(manifest, catalogue=max(manifest.catalogue - 1, 1))
    folders = [(m.catalogue_folder, m.saved_model_folder) for m in (manifest, previous)]
    names = set(itertools.chain.from_iterable(folders))
    for folder in (*path.glob("catalogue-*"), *path.glob("saved_model/*")):
        if folder.relative_to(path).as_posix() not in names:
            shutil.rmtree(folder)
    for partial in path.glob(f"{bundles.MANIFEST}.partial-*"):
        partial.unlink()


def _read_new_queries(
    bundle: Bundle, file: str | None, *, column: str | None
) -> tuple[list[str], Float[np.ndarray, "query dim"]]:
    """Returns texts and vectors of the queries that are not cached."""
    nothing = np.empty((0, bundle.manifest.settings.encoder.dim), np.float32)
    if not file:
        return [], nothing
    columns = {"query": column} if column else {}
    rows = itertools.chain.from_iterable(read_query_file(file, columns=columns))
    texts = caching.not_cached(bundle, rows)
    if not texts:
        return [], nothing
    return texts, caching.vectors_of(bundle, texts, file=file, column=column or "query")


def _write_catalogue(
    bundle: Bundle,
    manifest: Manifest,
    *,
    changes: Changes,
    texts: Sequence[str],
    query_vectors: Float[np.ndarray, "query dim"],
) -> int:
    """Writes the catalogue of a bundle's items and queries and of new ones.

    Returns:
      The number of cached queries.
    """
    old, folder = bundle.catalogue, bundle.path / manifest.catalogue_folder
    identity = manifest.settings.identity or PLAIN
    sids, trie = changes.sids(old), old.trie
    if not changes.are_none:
        trie = tries.build(sids, sizes=manifest.sizes, kind=manifest.settings.trie)

    def queries() -> Iterator[tuple[list[str], Cached]]:
        search = old.item_search if changes.are_none else _item_search(old, changes, folder)
        yield from _known(bundle, changes=changes, search=search, sids=sids, trie=trie)
        yield from caching.fresh(bundle, texts, query_vectors, search=search, sids=sids, trie=trie)

    if changes.are_none:
        catalogues.copy_items(old.folder, folder)
        catalogues.write_queries(folder, queries(), identity=identity)
        return len(BundleCatalogue.open(folder).queries)
    catalogues.write_catalogue(
        folder,
        items=changed_items.parts(
            old,
            changes,
            numbers=manifest.settings.numbers,
            processor=bundle.models.vocabulary,
            language=manifest.settings.language,
        ),
        vectors=changes.vectors(old),
        sids=sids,
        trie=trie,
        voters=old.voters._replace(judged=changes.judged(old.voters.judged)),
        queries=queries(),
        identity=identity,
    )
    if isinstance(old.voter_search, Listed):
        save(lists_file(folder, VOTERS), old.voter_search.lists)
    return len(BundleCatalogue.open(folder).queries)


def _item_search(old: BundleCatalogue, changes: Changes, folder: Path) -> Search:
    """Returns the search of the items of a catalogue whose queries are not there yet.

    Where the old one has lists it writes those of what there is now.
    """
    vectors = catalogues.item_vectors(folder)
    if not isinstance(old.item_search, Listed):
        return Exact(vectors)
    step = max(len(old.queries) // QUERIES, 1)
    records = (record for _, record in itertools.islice(old.cached_queries(), 0, None, step))
    queries = unpacked(np.frombuffer(b"".join(records), old.record)).vectors
    lists = updated(without(old.item_search.lists, changes.kept), vectors, queries=queries)
    save(lists_file(folder, ITEMS), lists)
    told(ITEMS, lists)
    return Listed(vectors, lists)


def _known(
    bundle: Bundle,
    *,
    changes: Changes,
    search: Search,
    sids: Int[np.ndarray, "item level"],
    trie: tries.Trie,
) -> Iterator[tuple[list[str], Cached]]:
    """Yields the cached queries, with what they have in the changed catalogue."""
    old = bundle.catalogue
    gone = np.asarray(old.sids, np.int32)[~changes.kept]
    is_same = tries.contains(old.trie, changes.new.sids).all() and tries.contains(trie, gone).all()
    for block in in_blocks(old.cached_queries(), rows=caching.QUERIES_PER_BLOCK):
        texts = [text for text, _ in block]
        cached = unpacked(np.frombuffer(b"".join(record for _, record in block), old.record))
        if changes.are_none:
            yield texts, cached
            continue
        beams = cached.beams if is_same else caching.searched(bundle, texts, trie)
        near = caching.nearest(
            cached.vectors,
            changes.near(cached.items),
            search=search,
            new_vectors=changes.new.vectors,
            stayed=int(changes.kept.sum()),
        )
        query, place = np.nonzero(cached.known.keys != NO_KEY)
        before = codes.unpack(cached.known.keys[query, place], sizes=trie.sizes)
        # What is new comes first, for of what was known there may be as much as has room.
        pairs = [of_beams(beams), of_near(near, sids), QuerySidPairs(query, before)]
        known = caching.known_of(bundle, texts, pairs)
        yield texts, cached._replace(beams=beams, items=near, known=known)
